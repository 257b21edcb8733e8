//! Settings of the learning rate.

use serde::{Deserialize, Serialize};

use super::faults::Faults;
use crate::schedule::{LrSchedule, LrScheduler, WarmupSteps};

/// The learning rate over a run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LrSettings {
    /// Peak learning rate, after warmup. Default: 5e-7, of SFT 1e-5.
    pub learning_rate: f64,
    /// Learning-rate schedule: `cosine`, `linear` or `constant_with_warmup` after warmup, or `constant` without any.
    /// Default: `cosine`.
    pub lr_scheduler_type: LrScheduler,
    /// Fraction of the optimizer steps spent on linear warmup. Default: 0.05.
    pub warmup_ratio: f64,
    /// Warmup steps, or below 1 a fraction of the optimizer steps; overrides `warmup_ratio`. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warmup_steps: Option<WarmupSteps>,
}

impl Default for LrSettings {
    fn default() -> Self {
        Self {
            learning_rate: 5e-7,
            lr_scheduler_type: LrScheduler::Cosine,
            warmup_ratio: 0.05,
            warmup_steps: None,
        }
    }
}

impl LrSettings {
    pub(super) fn add_faults(&self, faults: &mut Faults) {
        faults.positive("learning_rate", self.learning_rate);
        faults.fraction("warmup_ratio", self.warmup_ratio);
        let constant = self.lr_scheduler_type == LrScheduler::Constant;
        let ignored = constant && self.warmup_steps.is_some_and(|steps| steps.of(u64::MAX) > 0);
        faults.unless(!ignored, "warmup_steps", || {
            "has no effect with `lr_scheduler_type = \"constant\"`; use \"constant_with_warmup\""
                .to_owned()
        });
        if let Some(WarmupSteps::Fraction(value)) = self.warmup_steps {
            let is_valid = (0.0..1.0).contains(&value) || value >= 1.0 && value.fract() == 0.0;
            faults.unless(is_valid, "warmup_steps", || {
                format!("must be a number of steps, or a fraction below 1, not {value}")
            });
        }
    }

    /// The schedule over `total_steps` optimizer steps.
    pub fn schedule(&self, total_steps: u64) -> LrSchedule {
        let kind = self.lr_scheduler_type;
        let warmup_steps = kind.warmup_steps(self.warmup_steps, self.warmup_ratio, total_steps);
        LrSchedule { kind, peak: self.learning_rate, warmup_steps, total_steps }
    }
}
