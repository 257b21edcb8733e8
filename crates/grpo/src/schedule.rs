//! Learning-rate schedules, with the formulas of Hugging Face's `optimization.py`.

use serde::{Deserialize, Serialize};

/// How the learning rate goes on after the warm-up (TRL's `lr_scheduler_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LrScheduler {
    /// Half a cosine down to 0.
    #[default]
    Cosine,
    /// A straight line down to 0.
    Linear,
    /// No change.
    #[serde(alias = "constant_with_warmup")]
    Constant,
}

/// A warm-up from 0, then the decay of `kind` over the rest of `total_steps`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// The decay.
    pub kind: LrScheduler,
    /// Learning rate at the end of the warm-up.
    pub peak: f64,
    /// Steps of the warm-up.
    pub warmup_steps: u64,
    /// Steps of the whole schedule, warm-up included.
    pub total_steps: u64,
}

impl Schedule {
    /// The learning rate of optimiser step `step`, counted from 0.
    ///
    /// As with Hugging Face's schedules the first step of a warm-up has rate 0.
    pub fn at(&self, step: u64) -> f64 {
        if step < self.warmup_steps {
            return self.peak * step as f64 / self.warmup_steps as f64;
        }
        let rest = self.total_steps.saturating_sub(self.warmup_steps).max(1) as f64;
        let done = ((step - self.warmup_steps) as f64 / rest).min(1.0);
        match self.kind {
            LrScheduler::Constant => self.peak,
            LrScheduler::Linear => self.peak * (1.0 - done),
            LrScheduler::Cosine => self.peak * 0.5 * (1.0 + (std::f64::consts::PI * done).cos()),
        }
    }
}

/// Steps of the warm-up: `warmup_steps` if given, else the ratio of `total_steps`, rounded up.
pub fn warmup_steps(warmup_steps: Option<u64>, warmup_ratio: f64, total_steps: u64) -> u64 {
    // 0.05 * 20 is 1.0000000000000002 in binary; the margin keeps that from counting as two steps.
    warmup_steps
        .unwrap_or_else(|| (warmup_ratio * total_steps as f64 - 1e-9).ceil().max(0.0) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(kind: LrScheduler) -> Schedule {
        Schedule { kind, peak: 1.0, warmup_steps: 4, total_steps: 12 }
    }

    #[test]
    fn the_warm_up_rises_from_zero_to_the_peak() {
        let s = schedule(LrScheduler::Cosine);
        assert_eq!([0, 1, 2, 4].map(|step| s.at(step)), [0.0, 0.25, 0.5, 1.0]);
    }

    #[test]
    fn a_cosine_is_at_half_its_peak_half_way_and_at_zero_in_the_end() {
        let s = schedule(LrScheduler::Cosine);
        assert!((s.at(8) - 0.5).abs() < 1e-12);
        assert!((s.at(6) - 0.853_553_390_593).abs() < 1e-9);
        assert!(s.at(12).abs() < 1e-12);
    }

    #[test]
    fn a_line_falls_evenly_and_stays_at_zero() {
        let s = schedule(LrScheduler::Linear);
        assert_eq!([4, 6, 8, 12, 20].map(|step| s.at(step)), [1.0, 0.75, 0.5, 0.0, 0.0]);
    }

    #[test]
    fn a_constant_stays_at_its_peak() {
        assert_eq!(schedule(LrScheduler::Constant).at(100), 1.0);
    }

    #[test]
    fn without_a_warm_up_the_first_step_has_the_peak_rate() {
        let s = Schedule { warmup_steps: 0, ..schedule(LrScheduler::Linear) };
        assert_eq!(s.at(0), 1.0);
    }

    #[test]
    fn given_steps_win_over_the_ratio_and_the_ratio_is_rounded_up() {
        assert_eq!(warmup_steps(Some(3), 0.5, 100), 3);
        assert_eq!(warmup_steps(None, 0.05, 20), 1);
        assert_eq!(warmup_steps(None, 0.05, 21), 2);
        assert_eq!(warmup_steps(None, 0.0, 21), 0);
    }
}
