//! Loss settings of a GRPO run.

use crate::advantages::{AdvantageEstimator, ScaleRewards};
use crate::loss::{ImportanceSamplingCorrection, LossOptions, LossType};
use crate::model::Precision;
use crate::settings::{Faults, GrpoSettings, LossSettings, MAX_PER_STEP};

impl GrpoSettings {
    pub(super) fn loss_faults(&self, faults: &mut Faults) {
        self.loss().add_faults(faults);
        faults.between("num_iterations", self.num_iterations as u64, 1..=MAX_PER_STEP);
        faults.at_least("ref_model_sync_steps", self.ref_model_sync_steps, 1);
        let alpha = self.ref_model_mixup_alpha;
        faults.unless(alpha > 0.0 && alpha <= 1.0, "ref_model_mixup_alpha", || {
            format!("must be greater than 0 and at most 1, not {alpha}")
        });
        faults.unless(!self.sync_ref_model || self.beta > 0.0, "sync_ref_model", || {
            "needs a reference model, which `beta = 0` does not load".into()
        });
        faults.unless(!(self.sync_ref_model && self.use_peft), "sync_ref_model", || {
            "is not supported with `use_peft`: the reference is the model without its adapter"
                .into()
        });
        let batch = self.scale_rewards == ScaleRewards::Group;
        let gdpo = self.advantage_estimator == AdvantageEstimator::Gdpo;
        faults.unless(!gdpo || batch, "scale_rewards", || {
            "must be `group` with `advantage_estimator = \"gdpo\"`, which does its own scaling"
                .into()
        });
        if let Some(delta) = self.delta {
            let least = 1.0 + self.options().epsilon_high;
            faults.unless(delta > least, "delta", || {
                format!("must be greater than 1 + `epsilon_high` = {least}, not {delta}")
            });
        }
        let cispo = self.loss_type == LossType::Cispo;
        faults.unless(!cispo || self.epsilon_high.is_some(), "epsilon_high", || {
            "is required by `loss_type = \"cispo\"`, where it is the upper bound of the ratio; try 5".into()
        });
    }

    /// The settings of the loss.
    pub fn loss(&self) -> LossSettings {
        LossSettings {
            loss_type: self.loss_type,
            importance_sampling_level: self.importance_sampling_level,
            epsilon: self.epsilon,
            epsilon_high: self.epsilon_high,
            delta: self.delta,
            beta: self.beta,
            use_bias_correction_kl: self.use_bias_correction_kl,
            temperature: self.temperature,
            max_completion_length: self.max_completion_length,
            mask_truncated_completions: self.mask_truncated_completions,
            top_entropy_quantile: self.top_entropy_quantile,
            sapo_temperature_pos: self.sapo_temperature_pos,
            sapo_temperature_neg: self.sapo_temperature_neg,
            off_policy_mask_threshold: self.off_policy_mask_threshold,
            importance_sampling_correction: self.importance_sampling_correction,
            importance_sampling_mode: self.importance_sampling_mode,
            importance_sampling_clip_min: self.importance_sampling_clip_min,
            importance_sampling_clip_max: self.importance_sampling_clip_max,
        }
    }

    /// The options of the loss.
    pub fn options(&self) -> LossOptions {
        self.loss().options()
    }

    /// Matmul precision of the rollout.
    pub fn rollout_precision(&self) -> Precision {
        self.rollout_precision.unwrap_or(self.precision)
    }

    /// Whether the update's first forward pass computes the same as the rollout, so that it can reuse its activations.
    pub fn can_reuse_rollout(&self) -> bool {
        self.rollout_precision() == self.precision && !self.trainable().has_dropout()
    }

    /// Importance correction for the rollout's precision, if it differs from the update's.
    pub fn correction(&self) -> Option<ImportanceSamplingCorrection> {
        self.options().correction.filter(|_| self.rollout_precision() != self.precision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(change: impl FnOnce(&mut GrpoSettings)) -> Vec<String> {
        let mut train = GrpoSettings::default();
        change(&mut train);
        train.faults().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_delta_within_the_clip_is_refused() {
        assert_eq!(
            faults(|train| train.delta = Some(1.1)),
            ["`delta`: must be greater than 1 + `epsilon_high` = 1.2, not 1.1"]
        );
    }

    #[test]
    fn syncing_needs_a_separate_reference_model() {
        let found = faults(|train| {
            train.sync_ref_model = true;
            train.beta = 0.0;
        });
        assert_eq!(
            found,
            ["`sync_ref_model`: needs a reference model, which `beta = 0` does not load"]
        );
        let found = faults(|train| {
            train.sync_ref_model = true;
            train.use_peft = true;
        });
        assert!(
            found[0].starts_with("`sync_ref_model`: is not supported with `use_peft`"),
            "{found:?}"
        );
    }

    #[test]
    fn the_correction_applies_if_the_rollout_precision_differs() {
        let train = GrpoSettings::default();
        assert_eq!((train.rollout_precision(), train.correction()), (Precision::F32, None));
        let train =
            GrpoSettings { rollout_precision: Some(Precision::Bf16), ..GrpoSettings::default() };
        assert_eq!(train.correction().and_then(|correction| correction.clip_max), Some(3.0));
        let train = GrpoSettings { importance_sampling_correction: false, ..train };
        assert_eq!(train.correction(), None);
    }
}
