//! Settings of checkpoints and skipped steps, shared by all runs.

use super::train::BEST_METRIC;
use super::{Faults, GrpoSettings, SftSettings};
use crate::checkpoint::Milestones;

impl GrpoSettings {
    /// Steps whose checkpoints are kept permanently, given the `steps_per_epoch`.
    pub fn milestones(&self, steps_per_epoch: u64) -> Option<Milestones> {
        self.keep_every_epochs.map(|epochs| Milestones::new(epochs, steps_per_epoch))
    }

    pub(super) fn durability_faults(&self, faults: &mut Faults) {
        faults.at_least("save_steps", self.save_steps, 1);
        shared_faults(
            (self.save_total_limit, self.keep_every_epochs, self.max_skipped_steps),
            faults,
        );
        faults.at_least("eval_steps", self.eval_steps, 1);
        let evaluates = self.eval_data.is_some();
        let unless = |faults: &mut Faults, default: bool, key: &str| {
            faults.unless(evaluates || default, key, || "needs `eval_data`".into());
        };
        unless(faults, self.metric_for_best_model == BEST_METRIC, "metric_for_best_model");
        unless(faults, self.greater_is_better.is_none(), "greater_is_better");
    }
}

impl SftSettings {
    /// Steps whose checkpoints are kept permanently, given the `steps_per_epoch`.
    pub fn milestones(&self, steps_per_epoch: u64) -> Option<Milestones> {
        self.keep_every_epochs.map(|epochs| Milestones::new(epochs, steps_per_epoch))
    }

    pub(super) fn durability_faults(&self, faults: &mut Faults) {
        if let Some(steps) = self.save_steps {
            faults.at_least("save_steps", steps, 1);
        }
        shared_faults(
            (self.save_total_limit, self.keep_every_epochs, self.max_skipped_steps),
            faults,
        );
    }
}

fn shared_faults(
    (save_total_limit, keep_every_epochs, max_skipped_steps): (usize, Option<f64>, u64),
    faults: &mut Faults,
) {
    faults.at_least("save_total_limit", save_total_limit as u64, 1);
    if let Some(epochs) = keep_every_epochs {
        faults.positive("keep_every_epochs", epochs);
    }
    faults.at_least("max_skipped_steps", max_skipped_steps, 1);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(change: impl FnOnce(&mut GrpoSettings)) -> Vec<String> {
        let mut train = GrpoSettings::default();
        change(&mut train);
        train.faults().into_iter().map(|fault| fault.key).collect()
    }

    #[test]
    fn zero_retention_and_skip_limits_are_refused() {
        let found = keys(|train| {
            train.save_total_limit = 0;
            train.keep_every_epochs = Some(0.0);
            train.max_skipped_steps = 0;
        });
        assert_eq!(found, ["save_total_limit", "keep_every_epochs", "max_skipped_steps"]);
    }

    #[test]
    fn a_best_model_metric_without_eval_data_is_refused() {
        let metric = |train: &mut GrpoSettings| train.metric_for_best_model = "eval/format".into();
        assert_eq!(keys(metric), ["metric_for_best_model"]);
        assert_eq!(keys(|train| train.greater_is_better = Some(true)), ["greater_is_better"]);
        let evaluated = |train: &mut GrpoSettings| {
            metric(train);
            train.eval_data = Some("val.json".into());
        };
        assert_eq!(keys(evaluated), [""; 0]);
    }
}
