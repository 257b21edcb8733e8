//! Warnings about a run, derived from the metrics of its steps.
//!
//! A warning is repeated every hundred steps while its condition holds; the explanation of a loss near 0 is not.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Event, Metrics};
use crate::advantages::AdvantageEstimator;

/// Steps before a warning is repeated.
const REPEAT: u64 = 100;

/// Consecutive steps before a warning is raised.
const PATIENCE: u64 = 10;

/// Fraction of truncated completions above which to warn.
const MOST_CLIPPED: f64 = 0.2;

/// Number of initial steps whose mean KL is the baseline.
const EARLY: u64 = 20;

/// Factor over the baseline above which to warn, and the KL below which never to warn.
const KL_RISE: f64 = 10.0;
const KL_LEAST: f64 = 0.1;

/// Losses below this count as near 0.
const NO_LOSS: f64 = 1e-3;

/// Fraction of a step's completions from which on a reason counts as the likely cause.
const LIKELY: f64 = 0.5;

/// The kind of a warning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum WarningKind {
    /// All rewards have been 0 for a while.
    NoReward,
    /// All groups have had zero reward variance for a while.
    #[serde(rename = "no_spread")]
    ZeroVariance,
    /// No completion has had the expected format for a while.
    NoFormat,
    /// The loss is near 0, as expected.
    LossNearZero,
    /// Many completions are truncated.
    Truncation,
    /// The KL to the reference rises.
    KlRising,
    /// The training data differ from those of the run so far.
    OtherData,
    /// A step has several optimizer steps.
    SeveralIterations,
}

impl Event {
    /// The warning that a run resumes at step `step` with other training data.
    pub(crate) fn other_data(step: u64) -> Self {
        let message = "the training data changed since the checkpoint; the run no longer reproduces the original";
        Self::Warning { step, concern: WarningKind::OtherData, message: message.into() }
    }

    /// The warning at step `step` that intervals count other steps than TRL's, as a step has several `optimizer_steps`.
    pub(crate) fn several_iterations(step: u64, optimizer_steps: usize) -> Self {
        let message = format!(
            "a step has {optimizer_steps} optimizer steps (`num_iterations` × `num_mini_batches`); `max_steps`, `save_steps`, \
             `eval_steps` and `ref_model_sync_steps` count steps, where TRL counts optimizer steps: divide TRL's values by \
             {optimizer_steps}"
        );
        Self::Warning { step, concern: WarningKind::SeveralIterations, message }
    }
}

/// Counts of the format errors in a step's completions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FormatFailures {
    completions: usize,
    counts: BTreeMap<String, usize>,
}

impl FormatFailures {
    /// Counts the reasons of all completions; `None` for a valid format.
    pub fn count<'a>(reasons: impl Iterator<Item = Option<&'a str>>) -> Self {
        let mut counted = Self::default();
        for reason in reasons {
            counted.completions += 1;
            if let Some(reason) = reason {
                *counted.counts.entry(reason.to_owned()).or_default() += 1;
            }
        }
        counted
    }

    /// The most frequent reason and its fraction of the completions.
    fn first(&self) -> Option<(&str, f64)> {
        // Ties are broken by name, so that a resumed run reports the same.
        let first = self.counts.iter().rev().max_by_key(|(_, count)| **count)?;
        Some((first.0, *first.1 as f64 / self.completions.max(1) as f64))
    }
}

/// The inputs of the warnings after a step.
#[derive(Debug, Clone, Copy)]
pub struct StepObservation<'a> {
    /// The step, from 1.
    pub step: u64,
    /// Its metrics.
    pub metrics: &'a Metrics,
    /// Optimizer steps on its batch.
    pub optimizer_steps: usize,
    /// Its format errors.
    pub format: &'a FormatFailures,
    /// The advantage estimator.
    pub estimator: AdvantageEstimator,
}

impl StepObservation<'_> {
    fn metric(&self, name: &str) -> Option<f64> {
        self.metrics.get(name).copied()
    }
}

/// State of the warnings; part of the run's state, so that a resumed run warns as an uninterrupted one.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WarningMonitor {
    /// Consecutive steps in which all rewards were 0.
    no_reward: u64,
    /// Consecutive steps in which all groups had zero variance.
    #[serde(rename = "no_spread")]
    zero_variance: u64,
    /// Consecutive steps without a completion in the expected format.
    no_format: u64,
    /// Fractions of truncated completions in the last steps.
    clipped: Vec<f64>,
    /// KL of the last steps.
    kl: Vec<f64>,
    /// Sum of the KL over the initial steps, and their number.
    early_kl: f64,
    early_steps: u64,
    /// Step of the last warning of each kind.
    #[serde(rename = "told")]
    last_warning: BTreeMap<WarningKind, u64>,
}

impl WarningMonitor {
    /// Updates the state with a step; returns the warnings that are due.
    pub fn observe(&mut self, observation: &StepObservation<'_>) -> Vec<Event> {
        self.note(observation);
        let concerns = [
            (WarningKind::NoReward, self.no_reward(observation)),
            (WarningKind::ZeroVariance, self.zero_variance()),
            (WarningKind::NoFormat, self.no_format(observation)),
            (WarningKind::LossNearZero, loss_near_zero(observation)),
            (WarningKind::Truncation, self.truncation()),
            (WarningKind::KlRising, self.kl_rising()),
        ];
        let warning = |(concern, message): (WarningKind, Option<String>)| {
            let message = message.filter(|_| self.is_due(concern, observation.step))?;
            self.last_warning.insert(concern, observation.step);
            Some(Event::Warning { step: observation.step, concern, message })
        };
        concerns.into_iter().filter_map(warning).collect()
    }

    /// Resets the KL baseline after the reference was replaced.
    pub fn reference_changed(&mut self) {
        self.kl.clear();
        (self.early_kl, self.early_steps) = (0.0, 0);
    }

    fn is_due(&self, concern: WarningKind, step: u64) -> bool {
        let Some(&last) = self.last_warning.get(&concern) else { return true };
        concern != WarningKind::LossNearZero && step >= last + REPEAT
    }

    fn note(&mut self, observation: &StepObservation<'_>) {
        let zero = |name: &str| observation.metric(name) == Some(0.0);
        run_of(&mut self.no_reward, zero("reward") && zero("reward_std"));
        // Without a comparison within groups, zero-variance groups have advantages unless all rewards are equal.
        let equal = observation.metric("frac_reward_zero_std") == Some(1.0);
        let within_groups = observation.estimator.compares_within_groups();
        run_of(&mut self.zero_variance, equal && (within_groups || zero("reward_std")));
        run_of(&mut self.no_format, zero("rewards/format/mean"));
        remember(&mut self.clipped, observation.metric("completions/clipped_ratio"));
        match observation.metric("kl") {
            Some(kl) if self.early_steps < EARLY => {
                self.early_kl += kl;
                self.early_steps += 1;
            }
            kl => remember(&mut self.kl, kl),
        }
    }

    fn no_reward(&self, observation: &StepObservation<'_>) -> Option<String> {
        (self.no_reward >= PATIENCE).then(|| {
            let scores = observation.metrics.iter().filter_map(|(name, mean)| {
                let reward = name.strip_prefix("rewards/")?.strip_suffix("/mean")?;
                Some(format!("{reward} {mean:.3}"))
            });
            format!(
                "all rewards have been 0 for {} steps (raw: {}), so nothing is learned; inspect the \
                 completions, use easier questions, or start with supervised fine-tuning (`sft`)",
                self.no_reward,
                scores.collect::<Vec<_>>().join(", ")
            )
        })
    }

    fn zero_variance(&self) -> Option<String> {
        // If all rewards are 0, that warning is more specific.
        let holds = self.zero_variance >= PATIENCE && self.no_reward < PATIENCE;
        holds.then(|| {
            format!(
                "all groups have had zero reward variance for {} steps, so all advantages are 0; raise \
                 `num_generations` or `temperature`, or use questions that the model sometimes \
                 answers correctly",
                self.zero_variance
            )
        })
    }

    fn no_format(&self, observation: &StepObservation<'_>) -> Option<String> {
        if self.no_format < PATIENCE {
            return None;
        }
        let warning =
            format!("no completion has had the expected format for {} steps", self.no_format);
        let Some((reason, share)) = observation.format.first() else { return Some(warning) };
        let cut = observation.metric("completions/clipped_ratio").unwrap_or(0.0);
        let cause = if cut >= LIKELY {
            format!("{} of them are truncated; raise `max_completion_length`", percent(cut))
        } else if reason.contains("empty") {
            "the model stops immediately; check its chat template and its stop tokens".into()
        } else {
            "the model does not know the format; check `system_prompt` and the chat template, or \
             start with supervised fine-tuning (`sft`)"
                .to_owned()
        };
        Some(format!(
            "{warning}: {reason} in {} of the last step's completions; {cause}",
            percent(share)
        ))
    }

    fn truncation(&self) -> Option<String> {
        let share = mean_of_last(&self.clipped)?;
        (share > MOST_CLIPPED).then(|| {
            format!(
                "{} of the completions of the last {PATIENCE} steps were truncated at \
                 `max_completion_length`; raise it, or mask them in the loss with \
                 `mask_truncated_completions`",
                percent(share)
            )
        })
    }

    fn kl_rising(&self) -> Option<String> {
        let now = mean_of_last(&self.kl)?;
        let early = self.early_kl / self.early_steps.max(1) as f64;
        (now > KL_LEAST && now > KL_RISE * early).then(|| {
            format!(
                "the KL to the reference has risen to {now:.3}, from {early:.5} in the \
                 first {EARLY} steps; lower `learning_rate` or raise `beta`"
            )
        })
    }
}

/// Explains a loss near 0: with one iteration every ratio is 1, and the advantages of a group sum to 0.
fn loss_near_zero(observation: &StepObservation<'_>) -> Option<String> {
    let near = observation.metric("loss").is_some_and(|loss| loss.abs() < NO_LOSS);
    let learns = observation.metric("grad_norm").is_some_and(|norm| norm > 0.0);
    (near && learns && observation.optimizer_steps == 1).then(|| {
        "the loss is near 0, as expected: with one iteration every ratio is 1, and the \
         advantages of a group sum to 0; monitor `reward` and a non-zero `grad_norm` instead"
            .to_owned()
    })
}

fn run_of(steps: &mut u64, holds: bool) {
    *steps = if holds { *steps + 1 } else { 0 };
}

/// Appends a value and keeps the last ones only.
fn remember(values: &mut Vec<f64>, value: Option<f64>) {
    values.extend(value);
    values.drain(..values.len().saturating_sub(PATIENCE as usize));
}

/// The mean of the last values, once there are enough.
fn mean_of_last(values: &[f64]) -> Option<f64> {
    let enough = values.len() as u64 >= PATIENCE;
    enough.then(|| values.iter().sum::<f64>() / values.len() as f64)
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

#[cfg(test)]
mod tests;
