//! What a user should look at before a run has used up its hours: found in the figures of the steps.
//!
//! Each warning is told once, and again only after a hundred steps if what it is about still holds.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Event, Metrics};

/// Steps after which a warning is told again.
const REPEAT: u64 = 100;

/// Steps in a row after which something is no accident.
const PATIENCE: u64 = 10;

/// Share of completions cut off at their longest that is too much.
const MOST_CLIPPED: f64 = 0.2;

/// Steps whose divergence is the early one, with which later ones are compared.
const EARLY: u64 = 20;

/// How many times the early divergence is too much, and the divergence below which nothing is.
const KL_RISE: f64 = 10.0;
const KL_LEAST: f64 = 0.1;

/// A loss below this is as good as 0.
const NO_LOSS: f64 = 1e-3;

/// Share of a step's completions from which on a reason is the likely cause.
const LIKELY: f64 = 0.5;

/// What a warning is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Concern {
    /// All rewards have been 0 for a while.
    NoReward,
    /// In every group all rewards have been equal for a while.
    NoSpread,
    /// No completion has had the right format for a while.
    NoFormat,
    /// The loss is near 0, as it should be.
    LossNearZero,
    /// Many completions are cut off.
    Truncation,
    /// The divergence from the reference rises.
    KlRising,
    /// The data are not those that the run has learnt from so far.
    OtherData,
}

impl Event {
    /// That a run which has done `step` steps goes on with other data.
    pub(crate) fn other_data(step: u64) -> Self {
        let message = "the data changed since the checkpoint; this is not the run that was begun";
        Self::Warning { step, concern: Concern::OtherData, message: message.into() }
    }
}

/// Why the completions of a step did not have the right format.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reasons {
    completions: usize,
    counts: BTreeMap<String, usize>,
}

impl Reasons {
    /// Counts the reasons of all completions; one in the right format has none.
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

    /// The most frequent reason and its share of the completions.
    fn first(&self) -> Option<(&str, f64)> {
        // Of equally frequent ones the first by name, so that a resumed run says the same.
        let first = self.counts.iter().rev().max_by_key(|(_, count)| **count)?;
        Some((first.0, *first.1 as f64 / self.completions.max(1) as f64))
    }
}

/// What is looked at after a step.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// The step, from 1.
    pub step: u64,
    /// Its figures.
    pub metrics: &'a Metrics,
    /// Optimiser steps on its batch.
    pub iterations: usize,
    /// Why its completions did not have the right format.
    pub format: &'a Reasons,
}

impl Seen<'_> {
    fn metric(&self, name: &str) -> Option<f64> {
        self.metrics.get(name).copied()
    }
}

/// What has been seen and told so far: part of a run's state, so that a resumed run warns as the one
/// that never stopped.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Watch {
    /// Steps in a row in which all rewards were 0.
    no_reward: u64,
    /// Steps in a row in which no group had two different rewards.
    no_spread: u64,
    /// Steps in a row in which no completion had the right format.
    no_format: u64,
    /// Shares of completions cut off in the last steps.
    clipped: Vec<f64>,
    /// Divergences of the last steps.
    kl: Vec<f64>,
    /// The sum of the early divergences, and how many they are.
    early_kl: f64,
    early_steps: u64,
    /// Step at which each warning was told last.
    told: BTreeMap<Concern, u64>,
}

impl Watch {
    /// Takes note of a step; gives the warnings that it is time for.
    pub fn look(&mut self, seen: &Seen<'_>) -> Vec<Event> {
        self.note(seen);
        let concerns = [
            (Concern::NoReward, self.no_reward(seen)),
            (Concern::NoSpread, self.no_spread()),
            (Concern::NoFormat, self.no_format(seen)),
            (Concern::LossNearZero, loss_near_zero(seen)),
            (Concern::Truncation, self.truncation()),
            (Concern::KlRising, self.kl_rising()),
        ];
        let told = |(concern, message): (Concern, Option<String>)| {
            let message = message.filter(|_| self.is_time(concern, seen.step))?;
            self.told.insert(concern, seen.step);
            Some(Event::Warning { step: seen.step, concern, message })
        };
        concerns.into_iter().filter_map(told).collect()
    }

    /// Begins to compare divergences anew: the reference is another one.
    pub fn reference_changed(&mut self) {
        self.kl.clear();
        (self.early_kl, self.early_steps) = (0.0, 0);
    }

    fn is_time(&self, concern: Concern, step: u64) -> bool {
        let Some(&told) = self.told.get(&concern) else { return true };
        concern != Concern::LossNearZero && step >= told + REPEAT
    }

    fn note(&mut self, seen: &Seen<'_>) {
        let zero = |name: &str| seen.metric(name) == Some(0.0);
        run_of(&mut self.no_reward, zero("reward") && zero("reward_std"));
        run_of(&mut self.no_spread, seen.metric("frac_reward_zero_std") == Some(1.0));
        run_of(&mut self.no_format, zero("rewards/format/mean"));
        remember(&mut self.clipped, seen.metric("completions/clipped_ratio"));
        match seen.metric("kl") {
            Some(kl) if self.early_steps < EARLY => {
                self.early_kl += kl;
                self.early_steps += 1;
            }
            kl => remember(&mut self.kl, kl),
        }
    }

    fn no_reward(&self, seen: &Seen<'_>) -> Option<String> {
        (self.no_reward >= PATIENCE).then(|| {
            let scores = seen.metrics.iter().filter_map(|(name, mean)| {
                let reward = name.strip_prefix("rewards/")?.strip_suffix("/mean")?;
                Some(format!("{reward} {mean:.3}"))
            });
            format!(
                "all rewards have been 0 for {} steps (raw: {}), so nothing is learnt; look at the \
                 completions, ask easier questions, or begin with a cold start (`sft`)",
                self.no_reward,
                scores.collect::<Vec<_>>().join(", ")
            )
        })
    }

    fn no_spread(&self) -> Option<String> {
        // Where all rewards are 0 that says more.
        let holds = self.no_spread >= PATIENCE && self.no_reward < PATIENCE;
        holds.then(|| {
            format!(
                "for {} steps the completions of each question have had the same reward, so all \
                 advantages are 0; raise `num_generations` or `temperature`, or take questions that \
                 the model gets right now and then",
                self.no_spread
            )
        })
    }

    fn no_format(&self, seen: &Seen<'_>) -> Option<String> {
        if self.no_format < PATIENCE {
            return None;
        }
        let said = format!("no completion has had the right format for {} steps", self.no_format);
        let Some((reason, share)) = seen.format.first() else { return Some(said) };
        let cut = seen.metric("completions/clipped_ratio").unwrap_or(0.0);
        let cause = if cut >= LIKELY {
            format!(
                "{} of them are cut off before they come to an end, raise `max_completion_length`",
                percent(cut)
            )
        } else if reason.contains("empty") {
            "the model ends its turn at once, look at its chat template and its stop tokens".into()
        } else {
            "the model does not know the form, look at `system_prompt` and the chat template, or \
             begin with a cold start (`sft`)"
                .to_owned()
        };
        Some(format!("{said}: in {} of the last ones {reason}; {cause}", percent(share)))
    }

    fn truncation(&self) -> Option<String> {
        let share = mean_of_last(&self.clipped)?;
        (share > MOST_CLIPPED).then(|| {
            format!(
                "{} of the completions of the last {PATIENCE} steps were cut off at \
                 `max_completion_length`; raise it, or leave them out of the loss with \
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
                "the divergence from the reference has risen to {now:.3}, from {early:.5} in the \
                 first {EARLY} steps; lower `learning_rate` or raise `beta`"
            )
        })
    }
}

/// That a loss near 0 is no fault: the ratio of an on-policy step is 1, and the advantages of a group
/// add up to 0.
fn loss_near_zero(seen: &Seen<'_>) -> Option<String> {
    let near = seen.metric("loss").is_some_and(|loss| loss.abs() < NO_LOSS);
    let learns = seen.metric("grad_norm").is_some_and(|norm| norm > 0.0);
    (near && learns && seen.iterations == 1).then(|| {
        "the loss is near 0, as it should be: with one iteration every ratio is 1, and the \
         advantages of a group add up to 0; what tells is `reward`, and that `grad_norm` is not 0"
            .to_owned()
    })
}

fn run_of(steps: &mut u64, holds: bool) {
    *steps = if holds { *steps + 1 } else { 0 };
}

/// Keeps the last values only.
fn remember(values: &mut Vec<f64>, value: Option<f64>) {
    values.extend(value);
    values.drain(..values.len().saturating_sub(PATIENCE as usize));
}

/// The mean of the last values, once there are enough of them.
fn mean_of_last(values: &[f64]) -> Option<f64> {
    let enough = values.len() as u64 >= PATIENCE;
    enough.then(|| values.iter().sum::<f64>() / values.len() as f64)
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

#[cfg(test)]
mod tests;
