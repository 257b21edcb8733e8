//! Faults of settings, and the checks that find them.

use std::ops::RangeInclusive;

/// The most steps of a run, and the most optimizer steps: beyond any run, and far from overflowing in products.
pub(crate) const MAX_STEPS: u64 = 1 << 40;

/// The most completions of a question, and iterations of a step.
pub(super) const MAX_PER_STEP: u64 = 1 << 16;

/// The most completions of a step, and tokens of a completion.
pub(super) const MAX_COUNT: u64 = 1 << 24;

/// One invalid setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The setting, such as `num_generations`.
    pub key: String,
    /// What is wrong and what to do, without the key.
    pub what: String,
}

impl Fault {
    /// A fault of `key`.
    pub fn new(key: impl Into<String>, what: impl Into<String>) -> Self {
        Self { key: key.into(), what: what.into() }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}`: {}", self.key, self.what)
    }
}

/// Collects the faults of one settings struct.
#[derive(Debug, Default)]
pub(crate) struct Faults(pub(crate) Vec<Fault>);

impl Faults {
    pub(crate) fn unless(&mut self, good: bool, key: &str, what: impl FnOnce() -> String) {
        if !good {
            self.0.push(Fault::new(key, what()));
        }
    }

    pub(crate) fn positive(&mut self, key: &str, value: f64) {
        self.unless(value > 0.0 && value.is_finite(), key, || {
            format!("must be greater than 0, not {value}")
        });
    }

    pub(crate) fn not_negative(&mut self, key: &str, value: f64) {
        self.unless(value >= 0.0 && value.is_finite(), key, || {
            format!("must be 0 or greater, not {value}")
        });
    }

    pub(crate) fn at_least(&mut self, key: &str, value: u64, least: u64) {
        self.unless(value >= least, key, || format!("must be at least {least}, not {value}"));
    }

    pub(crate) fn between(&mut self, key: &str, value: u64, range: RangeInclusive<u64>) {
        self.at_least(key, value, *range.start());
        let most = *range.end();
        self.unless(value <= most, key, || format!("must be at most {most}, not {value}"));
    }

    pub(crate) fn fraction(&mut self, key: &str, value: f64) {
        self.unless((0.0..1.0).contains(&value), key, || {
            format!("must be at least 0 and below 1, not {value}")
        });
    }
}
