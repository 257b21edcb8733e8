//! Loss settings of a GRPO run.

use crate::loss::LossType;
use crate::model::Precision;
use crate::settings::faults::Faults;
use crate::settings::{GrpoSettings, LossSettings};

impl GrpoSettings {
    pub(super) fn loss_faults(&self, faults: &mut Faults) {
        self.loss.add_faults(faults);
        self.reference.add_faults(faults);
        let syncs = self.reference.sync_ref_model;
        faults.unless(!syncs || self.loss.beta > 0.0, "sync_ref_model", || {
            "needs a reference model, which `beta = 0` does not load".into()
        });
        faults.unless(!(syncs && self.trainable.use_peft), "sync_ref_model", || {
            "is not supported with `use_peft`: the reference is the model without its adapter"
                .into()
        });
        self.advantages.add_faults(faults);
        if let Some(delta) = self.loss.delta {
            let least = 1.0 + self.loss.epsilon_high();
            faults.unless(delta > least, "delta", || {
                format!("must be greater than 1 + `epsilon_high` = {least}, not {delta}")
            });
        }
        let cispo = self.loss.loss_type == LossType::Cispo;
        faults.unless(!cispo || self.loss.epsilon_high.is_some(), "epsilon_high", || {
            "is required by `loss_type = \"cispo\"`, where it is the upper bound of the ratio; try 5".into()
        });
    }

    /// Matmul precision of the rollout.
    pub fn rollout_precision(&self) -> Precision {
        self.rollout.rollout_precision.unwrap_or(self.run.precision)
    }

    /// Whether the update's first forward pass computes the same as the rollout, so that it can reuse its activations.
    pub fn can_reuse_rollout(&self) -> bool {
        self.rollout_precision() == self.run.precision
            && !self.trainable().has_dropout()
            && self.rollout.num_mini_batches == 1
    }

    /// Whether the loss corrects for the rollout's precision, which differs from the update's.
    pub fn corrects_rollout(&self) -> bool {
        self.loss.importance_sampling_correction && self.rollout_precision() != self.run.precision
    }

    /// The loss of the update.
    pub fn update_loss(&self) -> LossSettings {
        LossSettings { importance_sampling_correction: self.corrects_rollout(), ..self.loss }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::grpo::tests::faults;

    #[test]
    fn a_delta_within_the_clip_is_refused() {
        assert_eq!(
            faults(|train| train.loss.delta = Some(1.1)),
            ["`delta`: must be greater than 1 + `epsilon_high` = 1.2, not 1.1"]
        );
    }

    #[test]
    fn syncing_needs_a_separate_reference_model() {
        let found = faults(|train| {
            train.reference.sync_ref_model = true;
            train.loss.beta = 0.0;
        });
        assert_eq!(
            found,
            ["`sync_ref_model`: needs a reference model, which `beta = 0` does not load"]
        );
        let found = faults(|train| {
            train.reference.sync_ref_model = true;
            train.trainable.use_peft = true;
        });
        assert!(
            found[0].starts_with("`sync_ref_model`: is not supported with `use_peft`"),
            "{found:?}"
        );
    }

    #[test]
    fn the_correction_applies_if_the_rollout_precision_differs() {
        let train = GrpoSettings::default();
        assert_eq!(
            (train.rollout_precision(), train.update_loss().correction()),
            (Precision::F32, None)
        );
        let train =
            GrpoSettings::default().with(|s| s.rollout.rollout_precision = Some(Precision::Bf16));
        assert_eq!(
            train.update_loss().correction().and_then(|correction| correction.clip_max),
            Some(3.0)
        );
        let train = train.with(|s| s.loss.importance_sampling_correction = false);
        assert_eq!(train.update_loss().correction(), None);
    }
}
