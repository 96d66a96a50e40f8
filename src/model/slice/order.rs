//! Order of checkpoint names: digit runs compare as numbers.

use std::cmp::Ordering;

/// Compares names so that `layers.9` comes before `layers.10`. Equal only for equal names.
pub fn natural_cmp(a: &str, b: &str) -> Ordering {
    let (mut rest_a, mut rest_b) = (a.as_bytes(), b.as_bytes());
    while let (Some(&first_a), Some(&first_b)) = (rest_a.first(), rest_b.first()) {
        let order = if first_a.is_ascii_digit() && first_b.is_ascii_digit() {
            let (digits_a, digits_b) = (take_digits(&mut rest_a), take_digits(&mut rest_b));
            // Without leading zeros the longer run is the larger number, whatever its length.
            digits_a.len().cmp(&digits_b.len()).then_with(|| digits_a.cmp(digits_b))
        } else {
            (rest_a, rest_b) = (&rest_a[1..], &rest_b[1..]);
            first_a.cmp(&first_b)
        };
        if order != Ordering::Equal {
            return order;
        }
    }
    // `layers.01` and `layers.1` tie as numbers; the plain text decides, so the order is total.
    rest_a.len().cmp(&rest_b.len()).then_with(|| a.cmp(b))
}

/// Splits the leading run of digits off `rest`; returns it without leading zeros.
fn take_digits<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let end = rest.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(rest.len());
    let (digits, tail) = rest.split_at(end);
    *rest = tail;
    let zeros = digits.iter().take_while(|&&byte| byte == b'0').count();
    &digits[zeros..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layer_ten_follows_layer_nine() {
        let mut names =
            ["layers.10.w", "layers.9.w", "embed", "layers.9.b", "layers.09.b", "layers"];
        names.sort_by(|a, b| natural_cmp(a, b));
        assert_eq!(
            names,
            ["embed", "layers", "layers.09.b", "layers.9.b", "layers.9.w", "layers.10.w"]
        );
    }
}
