//! Weights of the rewards that change in the course of training.
//!
//! A settings file gives them as a list of tables:
//!
//! ```toml
//! [[stage]]
//! epochs = 2
//! weights = { format = 0.7, accuracy = 0.3, consistency = 0.0 }
//! ```
//!
//! A stage may set `restart_schedule` (learning rate and moments begin anew) and
//! `reset_reference` (the frozen reference becomes the policy of that moment), as a run that
//! launches every stage anew does. A reward that `weights` leaves out weighs 0.

mod from_toml;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::registry;

/// A span of the training with weights of its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// How long it lasts, in passes over the training set.
    pub epochs: f64,
    /// The weight of each reward by name; a reward that is not there weighs 0.
    pub weights: BTreeMap<String, f64>,
    /// Learning-rate schedule and optimiser moments begin anew with this stage.
    #[serde(default)]
    pub restart_schedule: bool,
    /// The policy at the begin of this stage becomes the frozen reference.
    #[serde(default)]
    pub reset_reference: bool,
}

impl Stage {
    /// The weight of the reward called `name`.
    pub fn weight(&self, name: &str) -> f64 {
        self.weights.get(name).copied().unwrap_or(0.0)
    }

    /// The weighted sum of raw scores by name; absent scores add nothing.
    pub fn total<'a>(&self, scores: impl IntoIterator<Item = (&'a str, Option<f64>)>) -> f64 {
        scores.into_iter().map(|(name, score)| self.weight(name) * score.unwrap_or(0.0)).sum()
    }
}

/// The stages of a run, one after the other; never empty.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Schedule {
    stages: Vec<Stage>,
}

/// All that is wrong with the stages of a settings file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct Faults(pub Vec<String>);

impl Schedule {
    /// Checks `stages` and takes them.
    ///
    /// # Errors
    /// All faults at once, each with its place, such as `stage[1].weights.format`.
    pub fn new(stages: Vec<Stage>) -> Result<Self, Faults> {
        let mut faults = Vec::new();
        if stages.is_empty() {
            faults.push(NO_STAGE.to_owned());
        }
        for (index, stage) in stages.iter().enumerate() {
            let place = format!("stage[{index}]");
            faults.extend(epochs_fault(&place, stage.epochs));
            faults.extend(weight_faults(&place, &stage.weights));
        }
        if faults.is_empty() { Ok(Self { stages }) } else { Err(Faults(faults)) }
    }

    /// Reads the value of the key `stage` of a settings file, a list of tables.
    ///
    /// # Errors
    /// All faults at once: wrong types, unknown and missing fields, unknown rewards, values out of
    /// range, each with its place. Places count from 0.
    pub fn from_toml(value: &toml::Value) -> Result<Self, Faults> {
        let mut faults = Vec::new();
        let stages = from_toml::stages(value, &mut faults);
        if faults.is_empty() { Ok(Self { stages }) } else { Err(Faults(faults)) }
    }

    /// The stages in order.
    pub fn stages(&self) -> &[Stage] {
        &self.stages
    }

    /// The sum of the stages' epochs.
    pub fn epochs(&self) -> f64 {
        self.stages.iter().map(|stage| stage.epochs).sum()
    }

    /// The number, from 0, of the stage that is active at `epoch`, counted from the begin of the
    /// run. A stage begins exactly where the one before ends; past the end the last one stays.
    pub fn index_at(&self, epoch: f64) -> usize {
        let mut end = 0.0;
        for (index, stage) in self.stages.iter().enumerate() {
            end += stage.epochs;
            if epoch < end {
                return index;
            }
        }
        self.stages.len() - 1
    }

    /// The stage that is active at `epoch`; see [`Schedule::index_at`].
    pub fn stage_at(&self, epoch: f64) -> &Stage {
        &self.stages[self.index_at(epoch)]
    }

    /// Names of the rewards that weigh more than 0 in some stage, in the registry's order.
    pub fn rewards(&self) -> Vec<&'static str> {
        let used = |name: &&str| self.stages.iter().any(|stage| stage.weight(name) > 0.0);
        registry::NAMES.into_iter().filter(used).collect()
    }
}

impl Default for Schedule {
    /// The three stages of Embodied-R: format first, then accuracy, then consistency with it.
    fn default() -> Self {
        let stage = |epochs, format, accuracy, consistency| Stage {
            epochs,
            weights: [("format", format), ("accuracy", accuracy), ("consistency", consistency)]
                .map(|(name, weight)| (name.to_owned(), weight))
                .into(),
            restart_schedule: false,
            reset_reference: false,
        };
        Self {
            stages: vec![
                stage(2.0, 0.7, 0.3, 0.0),
                stage(2.0, 0.3, 0.7, 0.0),
                stage(8.0, 0.1, 0.7, 0.2),
            ],
        }
    }
}

const NO_STAGE: &str = "`stage`: there must be at least one";

fn epochs_fault(place: &str, epochs: f64) -> Option<String> {
    let good = epochs.is_finite() && epochs > 0.0;
    (!good).then(|| format!("`{place}.epochs`: must be more than 0, not {epochs}"))
}

fn weight_faults(place: &str, weights: &BTreeMap<String, f64>) -> Vec<String> {
    let mut faults = Vec::new();
    for (name, &weight) in weights {
        if !registry::NAMES.contains(&name.as_str()) {
            faults.push(unknown(&format!("{place}.weights"), name, "reward", &registry::NAMES));
        } else if !(weight.is_finite() && weight >= 0.0) {
            faults.push(format!("`{place}.weights.{name}`: must be 0 or more, not {weight}"));
        }
    }
    if !weights.values().any(|&weight| weight > 0.0) {
        faults.push(format!("`{place}.weights`: some reward must weigh more than 0"));
    }
    faults
}

/// A message about a name that is none of `known`, with the nearest one if it is near.
fn unknown(place: &str, name: &str, what: &str, known: &[&str]) -> String {
    let near = known
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .min()
        .filter(|&(distance, candidate)| distance <= candidate.len() / 3);
    let advice = match near {
        Some((_, candidate)) => format!("did you mean `{candidate}`?"),
        None => format!("known are {}", known.join(", ")),
    };
    format!("`{place}.{name}`: there is no such {what}; {advice}")
}

#[cfg(test)]
mod tests;
