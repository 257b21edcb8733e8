//! Learning-rate schedules, with the formulas of Hugging Face's `optimization.py`.

pub mod training_plan;

use serde::{Deserialize, Serialize};

/// Shape of the learning rate after warmup (TRL's `lr_scheduler_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LrScheduler {
    /// Half-cosine decay to 0.
    #[default]
    Cosine,
    /// Linear decay to 0.
    Linear,
    /// Constant from the first step, without warmup.
    Constant,
    /// Constant after warmup.
    ConstantWithWarmup,
}

/// `warmup_steps`, as in TRL 1.16.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a number of steps, or a fraction of them below 1")]
pub enum WarmupSteps {
    /// A number of steps.
    Steps(u64),
    /// A fraction of all steps if it is below 1, else a number of steps.
    Fraction(f64),
}

impl WarmupSteps {
    /// The number of steps out of `total_steps`; a fraction is rounded up.
    pub fn of(self, total_steps: u64) -> u64 {
        match self {
            Self::Steps(steps) => steps,
            Self::Fraction(steps) if steps >= 1.0 => steps as u64,
            // 0.05 * 20 is 1.0000000000000002 in binary; the margin keeps that from counting as two steps.
            Self::Fraction(ratio) => (ratio * total_steps as f64 - 1e-9).ceil().max(0.0) as u64,
        }
    }
}

impl LrScheduler {
    /// What follows warmup, in a word.
    pub fn decay(self) -> &'static str {
        match self {
            Self::Cosine => "cosine",
            Self::Linear => "linear",
            Self::Constant | Self::ConstantWithWarmup => "constant",
        }
    }

    /// Warmup steps: none for [`Self::Constant`], else `warmup_steps` if given, else `warmup_ratio` of `total_steps`,
    /// rounded up.
    pub fn warmup_steps(
        self,
        warmup_steps: Option<WarmupSteps>,
        warmup_ratio: f64,
        total_steps: u64,
    ) -> u64 {
        match self {
            Self::Constant => 0,
            _ => warmup_steps.unwrap_or(WarmupSteps::Fraction(warmup_ratio)).of(total_steps),
        }
    }
}

/// Linear warmup from 0, then decay of `kind` over the rest of `total_steps`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LrSchedule {
    /// The decay.
    pub kind: LrScheduler,
    /// Peak learning rate, at the end of warmup.
    pub peak: f64,
    /// Warmup steps.
    pub warmup_steps: u64,
    /// Total steps, warmup included.
    pub total_steps: u64,
}

impl LrSchedule {
    /// The learning rate of optimizer step `step`, from 0.
    ///
    /// As in Hugging Face's schedules, the first warmup step has learning rate 0.
    pub fn at(&self, step: u64) -> f64 {
        if step < self.warmup_steps {
            return self.peak * step as f64 / self.warmup_steps as f64;
        }
        let rest = self.total_steps.saturating_sub(self.warmup_steps).max(1) as f64;
        let done = ((step - self.warmup_steps) as f64 / rest).min(1.0);
        match self.kind {
            LrScheduler::Constant | LrScheduler::ConstantWithWarmup => self.peak,
            LrScheduler::Linear => self.peak * (1.0 - done),
            LrScheduler::Cosine => self.peak * 0.5 * (1.0 + (std::f64::consts::PI * done).cos()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(kind: LrScheduler) -> LrSchedule {
        LrSchedule { kind, peak: 1.0, warmup_steps: 4, total_steps: 12 }
    }

    #[test]
    fn warmup_is_linear_from_zero_to_the_peak() {
        let s = schedule(LrScheduler::Cosine);
        assert_eq!([0, 1, 2, 4].map(|step| s.at(step)), [0.0, 0.25, 0.5, 1.0]);
    }

    #[test]
    fn a_cosine_is_at_half_its_peak_halfway_and_ends_at_zero() {
        let s = schedule(LrScheduler::Cosine);
        assert!((s.at(8) - 0.5).abs() < 1e-12);
        assert!((s.at(6) - 0.853_553_390_593).abs() < 1e-9);
        assert!(s.at(12).abs() < 1e-12);
    }

    #[test]
    fn linear_decay_ends_and_stays_at_zero() {
        let s = schedule(LrScheduler::Linear);
        assert_eq!([4, 6, 8, 12, 20].map(|step| s.at(step)), [1.0, 0.75, 0.5, 0.0, 0.0]);
    }

    #[test]
    fn a_constant_stays_at_its_peak() {
        assert_eq!(schedule(LrScheduler::Constant).at(100), 1.0);
    }

    #[test]
    fn without_warmup_the_first_step_has_the_peak_rate() {
        let s = LrSchedule { warmup_steps: 0, ..schedule(LrScheduler::Linear) };
        assert_eq!(s.at(0), 1.0);
    }

    #[test]
    fn warmup_steps_override_the_ratio_and_the_ratio_is_rounded_up() {
        for kind in [LrScheduler::Cosine, LrScheduler::Linear, LrScheduler::ConstantWithWarmup] {
            assert_eq!(kind.warmup_steps(Some(WarmupSteps::Steps(3)), 0.5, 100), 3);
            assert_eq!(kind.warmup_steps(Some(WarmupSteps::Fraction(0.05)), 0.5, 21), 2);
            assert_eq!(kind.warmup_steps(Some(WarmupSteps::Fraction(3.0)), 0.5, 21), 3);
            assert_eq!(kind.warmup_steps(None, 0.05, 20), 1);
            assert_eq!(kind.warmup_steps(None, 0.05, 21), 2);
            assert_eq!(kind.warmup_steps(None, 0.0, 21), 0);
        }
    }

    #[test]
    fn a_constant_has_warmup_only_by_name() {
        assert_eq!(LrScheduler::Constant.warmup_steps(None, 0.05, 100), 0);
        let named: LrScheduler = serde_json::from_str("\"constant_with_warmup\"").unwrap();
        assert_eq!(named.warmup_steps(None, 0.05, 100), 5);
        let warm = LrSchedule { warmup_steps: 5, ..schedule(named) };
        assert_eq!([0, 5, 100].map(|step| warm.at(step)), [0.0, 1.0, 1.0]);
    }
}
