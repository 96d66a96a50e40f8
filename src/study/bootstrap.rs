//! How sure a difference between two methods is: a paired bootstrap over users.

use rand::Rng;

use crate::report::quantile;

/// Resamples of the users. Unit: draws.
pub const DRAWS: u32 = 2_000;

/// Shares of the draws below the ends of a 95 % percentile interval.
const INTERVAL: (f64, f64) = (0.025, 0.975);

/// What one user got from a method and from the baseline; the mean over seeds, where there are several.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Paired {
    /// From the method.
    pub method: f64,
    /// From the baseline.
    pub baseline: f64,
}

/// Gain of a method's mean over the baseline's, with a 95 % interval. Unit: share of the baseline.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gain {
    /// mean(method) / mean(baseline) - 1 over all users.
    pub relative: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
}

/// The gain over all users, and where it lies in 95 % of [`DRAWS`] resamples of as many users.
///
/// A draw takes the same users for method and baseline: users differ far more than methods do, and what
/// is common to both falls out. Draws in which the baseline serves nobody have no ratio and are left out.
/// `None` without a user, or where the baseline serves nobody at all.
pub fn relative_gain(users: &[Paired], rng: &mut impl Rng) -> Option<Gain> {
    let relative = ratio_of_sums(users.iter())?;
    let mut draws = Vec::with_capacity(DRAWS as usize);
    for _ in 0..DRAWS {
        let drawn = (0..users.len()).map(|_| &users[rng.random_range(0..users.len())]);
        draws.extend(ratio_of_sums(drawn));
    }
    draws.sort_by(f64::total_cmp);
    if draws.is_empty() {
        return None;
    }
    let (low, high) = INTERVAL;
    Some(Gain { relative, low: quantile(&draws, low), high: quantile(&draws, high) })
}

fn ratio_of_sums<'a>(users: impl Iterator<Item = &'a Paired>) -> Option<f64> {
    let add = |(method, baseline), user: &Paired| (method + user.method, baseline + user.baseline);
    let (method, baseline) = users.fold((0.0, 0.0), add);
    (baseline > 0.0).then(|| method / baseline - 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed;

    fn gain(users: &[Paired]) -> Option<Gain> {
        relative_gain(users, &mut seed::rng(1, "test", &[]))
    }

    /// Paired: users differ a hundredfold, the ratio is the same for each, and nothing is uncertain.
    #[test]
    fn what_is_common_to_both_is_no_uncertainty() {
        let user = |value| Paired { method: 1.5 * value, baseline: value };
        let users: Vec<Paired> = (1..=100).map(|value| user(f64::from(value))).collect();
        let gain = gain(&users).expect("users");
        for value in [gain.relative, gain.low, gain.high] {
            assert!((value - 0.5).abs() < 1e-12, "{gain:?}");
        }
    }

    /// A baseline of 1 for everybody; the method gives half the users 2 and half 0. The mean of n users
    /// has the standard deviation 1 / sqrt(n), so the interval is 0 ± 1.96 / sqrt(n).
    #[test]
    fn the_interval_of_a_coin_is_the_known_one() {
        let users: Vec<Paired> = (0..400)
            .map(|user| Paired { method: f64::from(user % 2 * 2), baseline: 1.0 })
            .collect();
        let gain = gain(&users).expect("users");
        assert_eq!(gain.relative, 0.0);
        let expected = 1.96 / 20.0;
        assert!((gain.low + expected).abs() < 0.1 * expected, "{gain:?}");
        assert!((gain.high - expected).abs() < 0.1 * expected, "{gain:?}");
        assert_eq!(Some(gain), super::tests::gain(&users), "seeded");
    }

    #[test]
    fn nobody_and_nothing_have_no_gain() {
        assert_eq!(gain(&[]), None);
        assert_eq!(gain(&[Paired { method: 1.0, baseline: 0.0 }]), None);
    }
}
