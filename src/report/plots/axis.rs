//! Ranges and tick labels of axes.

use std::ops::Range;

use super::is_drawable;

/// Spans below this share of the values' magnitude are rounding noise: ticks in them would collide.
const SMALLEST_SPAN: f64 = 1e-6;
/// Room beyond the outermost values, as a share of their span.
const MARGIN: f64 = 0.05;

/// A range of positive length that holds all drawable values with a margin; 0..1 if there are none.
pub fn padded_range(values: impl IntoIterator<Item = f64>) -> Range<f64> {
    let drawable = values.into_iter().filter(|value| is_drawable(*value));
    let (low, high) = drawable
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
    if low > high {
        return 0.0..1.0;
    }

    let magnitude = low.abs().max(high.abs());
    let span = high - low;
    let pad = if span > SMALLEST_SPAN * magnitude {
        MARGIN * span
    } else if magnitude > 0.0 {
        0.1 * magnitude
    } else {
        0.5
    };
    low - pad..high + pad
}

/// A number as a tick shows it: at most four digits behind the point, powers of ten where that is not enough.
pub fn tick(value: f64) -> String {
    let magnitude = value.abs();
    if magnitude < 1e-12 {
        return "0".to_owned();
    }
    if !(1e-3..1e5).contains(&magnitude) {
        return format!("{value:.2e}");
    }
    let digits = format!("{value:.4}");
    digits.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// The integer a tick stands at, if it stands at one.
pub fn whole(value: f64) -> Option<i64> {
    let nearest = value.round();
    ((value - nearest).abs() < 1e-6).then_some(nearest as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_range_has_room_around_its_values() {
        for values in
            [vec![], vec![0.0], vec![7.0], vec![-1e30, 1e30], vec![1e-300], vec![1.0, 1.0 + 1e-15]]
        {
            let range = padded_range(values.clone());
            assert!(range.start < range.end, "{values:?} gave {range:?}");
            for value in values {
                assert!(range.start < value && value < range.end, "{value} not inside {range:?}");
            }
        }
    }

    #[test]
    fn values_that_cannot_be_drawn_do_not_stretch_the_range() {
        assert_eq!(padded_range([f64::NAN, f64::INFINITY, 1e300]), 0.0..1.0);
        assert_eq!(padded_range([0.0, f64::NAN, 1.0]), padded_range([0.0, 1.0]));
    }

    #[test]
    fn ticks_are_short() {
        assert_eq!(tick(0.1 + 0.2), "0.3");
        assert_eq!(tick(-0.0), "0");
        assert_eq!(tick(12_000.0), "12000");
        assert_eq!(tick(2.5e7), "2.50e7");
    }
}
