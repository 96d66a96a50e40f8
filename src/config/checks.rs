//! Ranges that many keys share, and the list of what was broken.

use std::fmt::Display;

use super::{ConfigError, Violation};

/// Largest batch that is taken for meant: above it a typing error is likelier than a machine that holds it.
const LARGEST_BATCH: u32 = 65_536;

/// Collects violations, so that a user mends all of them in one go.
#[derive(Default)]
pub(super) struct Checks {
    violations: Vec<Violation>,
}

impl Checks {
    pub fn require(
        &mut self,
        holds: bool,
        key: &str,
        value: impl Display,
        rule: impl Into<String>,
    ) {
        if !holds {
            let (key, value, rule) = (key.to_owned(), value.to_string(), rule.into());
            self.violations.push(Violation { key, value, rule, origin: None });
        }
    }

    pub fn at_least_one(&mut self, key: &str, value: i64) {
        self.require(value >= 1, key, value, "must be at least 1");
    }

    pub fn at_least(&mut self, key: &str, value: f64, least: f64) {
        let rule = format!("must be a finite number of at least {least}");
        self.require(value.is_finite() && value >= least, key, value, rule);
    }

    pub fn positive(&mut self, key: &str, value: f64) {
        self.require(
            value.is_finite() && value > 0.0,
            key,
            value,
            "must be a finite number above 0",
        );
    }

    /// Below 1, because a dropout of 1 keeps nothing and a moment's decay of 1 never learns.
    pub fn probability(&mut self, key: &str, value: f64) {
        self.require((0.0..1.0).contains(&value), key, value, "must be at least 0 and below 1");
    }

    /// Bounds what one step may be asked to hold.
    pub fn batch(&mut self, key: &str, size: u32) {
        let rule = format!("must not exceed {LARGEST_BATCH}");
        self.require(size <= LARGEST_BATCH, key, size, rule);
    }

    pub fn finish(self) -> Result<(), ConfigError> {
        if self.violations.is_empty() {
            return Ok(());
        }
        Err(ConfigError::Invalid { violations: self.violations })
    }
}
