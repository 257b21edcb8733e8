//! What a run is told: resolved settings under TRL's names, with the faults that concern several.
//!
//! The types hold no layers and no flags: whoever reads files and arguments fills them in.

mod loss;
mod recompute;
mod sft;
mod train;
mod trainable;

pub use loss::LossSettings;
pub use recompute::Recompute;
pub use sft::Sft;
pub use train::{JudgeKind, Train};
pub use trainable::{ALL_LINEAR, Texts};

/// One thing that is wrong with the settings.
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
        write!(f, "`{}` {}", self.key, self.what)
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
            format!("is {value}, must be greater than 0")
        });
    }

    pub(crate) fn not_negative(&mut self, key: &str, value: f64) {
        self.unless(value >= 0.0 && value.is_finite(), key, || {
            format!("is {value}, must be 0 or greater")
        });
    }

    pub(crate) fn at_least(&mut self, key: &str, value: u64, least: u64) {
        self.unless(value >= least, key, || format!("is {value}, must be at least {least}"));
    }

    pub(crate) fn share(&mut self, key: &str, value: f64) {
        self.unless((0.0..1.0).contains(&value), key, || {
            format!("is {value}, must be at least 0 and below 1")
        });
    }
}
