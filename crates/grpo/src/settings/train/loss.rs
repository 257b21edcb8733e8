//! The loss of a run.

use crate::advantages::{AdvantageEstimator, ScaleRewards};
use crate::loss::{Correction, LossType, Options};
use crate::model::Precision;
use crate::settings::{Faults, LossSettings, Train};

impl Train {
    pub(super) fn loss_faults(&self, faults: &mut Faults) {
        self.loss().add_faults(faults);
        faults.at_least("num_iterations", self.num_iterations as u64, 1);
        faults.at_least("ref_model_sync_steps", self.ref_model_sync_steps, 1);
        let alpha = self.ref_model_mixup_alpha;
        faults.unless(alpha > 0.0 && alpha <= 1.0, "ref_model_mixup_alpha", || {
            format!("is {alpha}, must be greater than 0 and at most 1")
        });
        faults.unless(!self.sync_ref_model || self.beta > 0.0, "sync_ref_model", || {
            "has no reference to move where `beta` is 0".into()
        });
        faults.unless(!(self.sync_ref_model && self.use_peft), "sync_ref_model", || {
            "cannot be had with `use_peft`: the reference is the model without its adapter".into()
        });
        let batch = self.scale_rewards == ScaleRewards::Group;
        let gdpo = self.advantage_estimator == AdvantageEstimator::Gdpo;
        faults.unless(!gdpo || batch, "scale_rewards", || {
            "must be `group` with `advantage_estimator = \"gdpo\"`, which has a scale of its own".into()
        });
        if let Some(delta) = self.delta {
            let least = 1.0 + self.options().epsilon_high;
            faults.unless(delta > least, "delta", || {
                format!("is {delta}, must be greater than 1 + `epsilon_high` = {least}")
            });
        }
        let cispo = self.loss_type == LossType::Cispo;
        faults.unless(!cispo || self.epsilon_high.is_some(), "epsilon_high", || {
            "is needed by `loss_type = \"cispo\"`, where it bounds the ratio itself; take 5".into()
        });
    }

    /// What the loss is told.
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
    pub fn options(&self) -> Options {
        self.loss().options()
    }

    /// What products with weights are made of where completions are sampled.
    pub fn rollout_precision(&self) -> Precision {
        self.rollout_precision.unwrap_or(self.precision)
    }

    /// Whether the update's first forward computes what the rollout has computed.
    pub fn update_repeats_rollout(&self) -> bool {
        self.rollout_precision() == self.precision && !self.trainable().has_dropout()
    }

    /// How the loss makes up for the sampler's precision, where that is another than the update's.
    pub fn correction(&self) -> Option<Correction> {
        self.options().correction.filter(|_| self.rollout_precision() != self.precision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(change: impl FnOnce(&mut Train)) -> Vec<String> {
        let mut train = Train::default();
        change(&mut train);
        train.faults().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_delta_within_the_clip_is_refused() {
        assert_eq!(
            faults(|train| train.delta = Some(1.1)),
            ["`delta` is 1.1, must be greater than 1 + `epsilon_high` = 1.2"]
        );
    }

    #[test]
    fn a_reference_that_does_not_exist_cannot_be_moved() {
        let found = faults(|train| {
            train.sync_ref_model = true;
            train.beta = 0.0;
        });
        assert_eq!(found, ["`sync_ref_model` has no reference to move where `beta` is 0"]);
        let found = faults(|train| {
            train.sync_ref_model = true;
            train.use_peft = true;
        });
        assert!(
            found[0].starts_with("`sync_ref_model` cannot be had with `use_peft`"),
            "{found:?}"
        );
    }

    #[test]
    fn a_correction_is_due_where_the_sampler_has_another_precision() {
        let train = Train::default();
        assert_eq!((train.rollout_precision(), train.correction()), (Precision::F32, None));
        let train = Train { rollout_precision: Some(Precision::Bf16), ..Train::default() };
        assert_eq!(train.correction().and_then(|correction| correction.clip_max), Some(3.0));
        let train = Train { importance_sampling_correction: false, ..train };
        assert_eq!(train.correction(), None);
    }
}
