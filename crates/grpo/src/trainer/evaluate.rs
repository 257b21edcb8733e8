//! Evaluation during training, with greedy decoding.

use std::collections::BTreeMap;

use embodied_r_rewards::{Accuracy, Format, Reward, RewardInput};

use super::GrpoTrainer;
use super::sampling::merged;
use crate::checkpoint::BestMetric;
use crate::error::{Error, Result};
use crate::events::Metrics;
use crate::model::{FinishReason, Model, SamplingParams};
use crate::questions::TokenizedQuestion;
use crate::rollout;
use crate::settings::GrpoSettings;

/// Metrics of every evaluation; accuracies by category are added.
const METRICS: [&str; 5] = [
    "eval/accuracy",
    "eval/format",
    "eval/completions/mean_length",
    "eval/completions/clipped_ratio",
    "eval/n",
];

/// The criterion for the best checkpoint, given the evaluation `questions`.
///
/// # Errors
/// `metric_for_best_model` is not a metric of the evaluation.
pub(super) fn best_by(
    settings: &GrpoSettings,
    questions: &[TokenizedQuestion],
) -> Result<BestMetric> {
    let metric = settings.metric_for_best_model.as_str();
    let by = BestMetric::new(metric, settings.greater_is_better);
    let known = metric_names(questions);
    if questions.is_empty() || known.iter().any(|name| name == metric) {
        return Ok(by);
    }
    Err(Error::UnknownMetric { metric: metric.into(), known })
}

/// The names of all metrics of an evaluation on `questions`.
pub(super) fn metric_names(questions: &[TokenizedQuestion]) -> Vec<String> {
    let categories = questions.iter().map(|prompted| &prompted.question.question_category);
    let categories: std::collections::BTreeSet<&String> = categories.collect();
    let accuracies = categories.into_iter().map(|category| format!("eval/accuracy/{category}"));
    METRICS.iter().map(|name| (*name).to_owned()).chain(accuracies).collect()
}

impl<M: Model> GrpoTrainer<'_, M> {
    /// Answers all evaluation questions with greedy decoding and computes accuracy, overall and by category, and
    /// format.
    pub(super) fn evaluate(&self) -> Result<Metrics> {
        let costs: Vec<usize> = self.eval.iter().map(|prompted| prompted.prompt.len()).collect();
        let owners = self.process_group.assign(&costs);
        let is_own =
            |(index, _): &(usize, &TokenizedQuestion)| owners[*index] == self.process_group.rank();
        let questions: Vec<_> = self.eval.iter().enumerate().filter(is_own).collect();
        let sampling = SamplingParams {
            max_new_tokens: self.settings.max_completion_length,
            stop_ids: self.tokenizer.stop_ids().to_vec(),
            ..SamplingParams::greedy()
        };
        let (rollouts, _) = rollout::sample(
            (&self.policy, &self.process_group),
            self.tokenizer.as_ref(),
            &questions,
            1,
            &sampling,
            (None, None),
            (self.settings.seed, 0),
        )?;
        let rollouts = merged(&owners, self.process_group.all_gather(rollouts)?)?;
        let completions: Vec<_> = rollouts.iter().map(|rollout| &rollout.completions[0]).collect();
        let batch: Vec<RewardInput<'_>> = rollouts
            .iter()
            .zip(&completions)
            .map(|(rollout, completion)| RewardInput {
                question: &rollout.question,
                solution: &rollout.solution,
                completion: &completion.text,
                ..RewardInput::default()
            })
            .collect();
        let accuracy = values(&Accuracy, &batch)?;
        let format = values(&Format, &batch)?;

        let n = completions.len().max(1) as f64;
        let mut metrics = Metrics::new();
        metrics.insert("eval/accuracy".into(), accuracy.iter().sum::<f64>() / n);
        metrics.insert("eval/format".into(), format.iter().sum::<f64>() / n);
        let mut categories: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
        for (prompted, score) in self.eval.iter().zip(&accuracy) {
            let entry = categories.entry(&prompted.question.question_category).or_default();
            *entry = (entry.0 + score, entry.1 + 1.0);
        }
        for (category, (sum, n)) in categories {
            metrics.insert(format!("eval/accuracy/{category}"), sum / n);
        }
        let tokens = completions.iter().map(|completion| completion.ids.len()).sum::<usize>();
        let cut = completions.iter().filter(|c| c.finish == FinishReason::Length).count();
        metrics.insert("eval/completions/mean_length".into(), tokens as f64 / n);
        metrics.insert("eval/completions/clipped_ratio".into(), cut as f64 / n);
        metrics.insert("eval/n".into(), completions.len() as f64);
        Ok(metrics)
    }
}

fn values(reward: &dyn Reward, batch: &[RewardInput<'_>]) -> Result<Vec<f64>> {
    let scores = reward.score(batch)?;
    Ok(scores.into_iter().map(|score| score.value.unwrap_or(0.0)).collect())
}
