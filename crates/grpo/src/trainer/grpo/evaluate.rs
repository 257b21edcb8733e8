//! Evaluation during training, with greedy decoding.

use std::collections::BTreeMap;

use embodied_r_rewards::RewardSchedule as Stages;

use super::GrpoTrainer;
use super::metrics::accuracy_where_scored;
use super::sampling::merged;
use crate::advantages;
use crate::data::questions::TokenizedQuestion;
use crate::error::{Error, Result};
use crate::events::Metrics;
use crate::model::{FinishReason, GenerateOptions, Model, SamplingParams};
use crate::rewards::scoring::{JUDGED, RewardFunction, needs_judge};
use crate::rollout::{Rollout, SampleRequest, Sampler};
use crate::settings::GrpoSettings;

/// The rewards of an evaluation, in the order of their scores. The last one is computed only while training computes it.
const REWARDS: [&str; 3] = ["accuracy", "format", JUDGED];

/// Metrics of every evaluation; accuracies by category are added.
const METRICS: [&str; 5] = [
    "eval/accuracy",
    "eval/format",
    "eval/completions/mean_length",
    "eval/completions/clipped_ratio",
    "eval/n",
];

/// The mean consistency, as training computes it, of the questions that have one.
const CONSISTENCY: &str = "eval/consistency";
/// The accuracy of these questions.
const CONSISTENCY_ACCURACY: &str = "eval/consistency/accuracy";

/// Checks that `metric_for_best_model` is a metric of an evaluation on `questions` in a run over `stages`.
///
/// # Errors
/// [`Error::UnknownMetric`].
pub(super) fn check_best_metric(
    settings: &GrpoSettings,
    stages: &Stages,
    questions: &[TokenizedQuestion],
) -> Result<()> {
    let metric = settings.evaluation.metric_for_best_model.as_str();
    let known = metric_names(questions, needs_judge(settings, stages));
    if questions.is_empty() || known.iter().any(|name| name == metric) {
        return Ok(());
    }
    Err(Error::UnknownMetric { metric: metric.into(), known })
}

/// The names of all metrics of an evaluation on `questions`, in which a judge may be asked.
pub(super) fn metric_names(questions: &[TokenizedQuestion], is_judged: bool) -> Vec<String> {
    let judged = [CONSISTENCY, CONSISTENCY_ACCURACY].into_iter().filter(|_| is_judged);
    let categories = questions.iter().map(|prompted| prompted.question.category());
    let categories: std::collections::BTreeSet<&str> = categories.collect();
    let accuracies = categories.into_iter().map(|category| format!("eval/accuracy/{category}"));
    METRICS.into_iter().chain(judged).map(str::to_owned).chain(accuracies).collect()
}

impl<M: Model> GrpoTrainer<'_, M> {
    /// Answers all evaluation questions with greedy decoding and computes accuracy, overall and by category, format and,
    /// while training computes it, consistency. `None` if a stop was requested while a judge was waited for.
    pub(super) fn evaluate_greedily(&self) -> Result<Option<Metrics>> {
        let costs: Vec<usize> = self.eval.iter().map(|prompted| prompted.prompt.len()).collect();
        let owners = self.run.process_group.assign(&costs);
        let is_own = |(index, _): &(usize, &TokenizedQuestion)| {
            owners[*index] == self.run.process_group.rank()
        };
        let questions = self.eval.iter().enumerate().filter(is_own);
        let wanted: Vec<_> = questions
            .map(|(index, prompted)| SampleRequest { index, prompted, completions: 0..1 })
            .collect();
        let params = SamplingParams {
            max_new_tokens: self.settings.loss.max_completion_length,
            stop_ids: self.run.tokenizer.stop_ids().to_vec(),
            ..SamplingParams::greedy()
        };
        let sampler = Sampler {
            model: &self.run.model,
            process_group: &self.run.process_group,
            tokenizer: self.run.tokenizer.as_ref(),
            params,
            seed: self.settings.run.seed,
            step: 0,
        };
        let (mut rollouts, _) = sampler.sample(&wanted, GenerateOptions::default())?;
        let is_scored = self.score_evaluation(&mut rollouts)?;
        if self.run.process_group.any(!is_scored)? {
            return Ok(None);
        }
        let rollouts = merged(&owners, self.run.process_group.all_gather(rollouts)?)?;
        let completions: Vec<_> = rollouts.iter().map(|rollout| &rollout.completions[0]).collect();
        let scores = |column| {
            values(&rollouts, column).into_iter().map(|value| value.unwrap_or(0.0)).collect()
        };
        let (accuracy, format): (Vec<f64>, Vec<f64>) = (scores(0), scores(1));

        let n = completions.len().max(1) as f64;
        let mut metrics = Metrics::new();
        metrics.insert("eval/accuracy".into(), accuracy.iter().sum::<f64>() / n);
        metrics.insert("eval/format".into(), format.iter().sum::<f64>() / n);
        if let Some(of_judged) = accuracy_where_scored(&rollouts, 2) {
            let consistency = advantages::mean(&values(&rollouts, 2));
            metrics.insert(CONSISTENCY.into(), consistency);
            metrics.insert(CONSISTENCY_ACCURACY.into(), of_judged);
        }
        let mut categories: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
        for (prompted, score) in self.eval.iter().zip(&accuracy) {
            let entry = categories.entry(prompted.question.category()).or_default();
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
        Ok(Some(metrics))
    }

    /// Scores this rank's completions with the rewards of an evaluation; false if a stop was requested meanwhile.
    fn score_evaluation(&self, rollouts: &mut [Rollout]) -> Result<bool> {
        // A rank may have been assigned no questions.
        if rollouts.is_empty() {
            return Ok(true);
        }
        let weights = self.plan.weights(self.run.state.step.saturating_sub(1));
        let is_used = |function: &&RewardFunction| {
            REWARDS.contains(&function.reward.name()) && function.is_computed(&weights)
        };
        for function in self.rewards.iter().filter(is_used) {
            let scores =
                function.scores(rollouts, &self.eval, &self.run.process_group, self.run.stop)?;
            let Some(scores) = scores else { return Ok(false) };
            let completions = rollouts.iter_mut().flat_map(|rollout| &mut rollout.completions);
            completions.zip(scores).for_each(|(completion, score)| {
                completion.scores.push(Some(score));
            });
        }
        Ok(true)
    }
}

/// The score `column` of each question's completion.
fn values(rollouts: &[Rollout], column: usize) -> Vec<Option<f64>> {
    let value =
        |rollout: &Rollout| rollout.completions.first()?.scores.get(column)?.as_ref()?.value;
    rollouts.iter().map(value).collect()
}
