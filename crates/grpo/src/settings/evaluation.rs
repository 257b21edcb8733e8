//! Settings of a GRPO run's checkpoints and evaluations.

use serde::{Deserialize, Serialize};

use super::faults::Faults;

/// Default of `metric_for_best_model`.
const BEST_METRIC: &str = "eval/accuracy";

/// When a run saves and evaluates, and what the best checkpoint is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EvaluationSettings {
    /// Checkpoint interval in steps. Default: 100.
    pub save_steps: u64,
    /// Evaluation interval in steps; the run also evaluates before the first and after the last step. Default: 100.
    pub eval_steps: u64,
    /// Evaluation metric that selects the best checkpoint. Default: `eval/accuracy`.
    pub metric_for_best_model: String,
    /// Whether a greater value of that metric is better. Default: true, unless its name ends in `loss`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub greater_is_better: Option<bool>,
}

impl Default for EvaluationSettings {
    fn default() -> Self {
        Self {
            save_steps: 100,
            eval_steps: 100,
            metric_for_best_model: BEST_METRIC.into(),
            greater_is_better: None,
        }
    }
}

impl EvaluationSettings {
    /// Checks the settings of a run that `evaluates` or does not.
    pub(super) fn add_faults(&self, evaluates: bool, faults: &mut Faults) {
        faults.at_least("save_steps", self.save_steps, 1);
        faults.at_least("eval_steps", self.eval_steps, 1);
        let unless = |faults: &mut Faults, default: bool, key: &str| {
            faults.unless(evaluates || default, key, || "needs `eval_data`".into());
        };
        unless(faults, self.metric_for_best_model == BEST_METRIC, "metric_for_best_model");
        unless(faults, self.greater_is_better.is_none(), "greater_is_better");
    }
}

#[cfg(test)]
mod tests {
    use super::super::GrpoSettings;

    fn keys(change: impl FnOnce(&mut GrpoSettings)) -> Vec<String> {
        GrpoSettings::default().with(change).faults().into_iter().map(|fault| fault.key).collect()
    }

    #[test]
    fn zero_retention_and_skip_limits_are_refused() {
        let found = keys(|train| {
            train.run.save_total_limit = 0;
            train.run.keep_every_epochs = Some(0.0);
            train.run.max_skipped_steps = 0;
        });
        assert_eq!(found, ["save_total_limit", "keep_every_epochs", "max_skipped_steps"]);
    }

    #[test]
    fn a_best_model_metric_without_eval_data_is_refused() {
        let metric = |train: &mut GrpoSettings| {
            train.evaluation.metric_for_best_model = "eval/format".into()
        };
        assert_eq!(keys(metric), ["metric_for_best_model"]);
        assert_eq!(
            keys(|train| train.evaluation.greater_is_better = Some(true)),
            ["greater_is_better"]
        );
        let evaluated = |train: &mut GrpoSettings| {
            metric(train);
            train.run.eval_data = Some("val.json".into());
        };
        assert_eq!(keys(evaluated), [""; 0]);
    }
}
