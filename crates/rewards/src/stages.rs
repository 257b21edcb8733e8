//! Weights of the rewards that change in the course of training.
//!
//! A settings file gives them as a list of tables:
//!
//! ```toml
//! [[stage]]
//! epochs = 2
//! weights = { format = 0.7, accuracy = 0.3, consistency = 0.0 }
//! until = { metric = "rewards/format/mean", above = 0.95, window = 50 }
//!
//! [[stage]]
//! steps = 400
//! weights = { format = 0.3, accuracy = 0.7 }
//! blend_steps = 20
//! ```
//!
//! A stage lasts for its `epochs` or its `steps`; `until` ends it earlier, once the mean of a metric
//! over the last steps has passed a mark. `blend_steps` makes the weights go over from those of the
//! stage before in so many steps. A stage may set `restart_schedule` (learning rate and moments begin
//! anew) and `reset_reference` (the frozen reference becomes the policy of that moment), as a run
//! that launches every stage anew does. A reward that `weights` leaves out weighs 0.

mod from_toml;
mod table;
mod until;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::registry::Names;
pub use until::{METRICS, Mark, Until};

/// The weight of each reward by name; a reward that is not there weighs 0.
pub type Weights = BTreeMap<String, f64>;

/// How long a stage lasts at most.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Length {
    /// Passes over the training set.
    Epochs(f64),
    /// Steps of the run.
    Steps(u64),
}

/// A span of the training with weights of its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "table::Table", into = "table::Table")]
pub struct Stage {
    /// How long it lasts at most.
    pub length: Length,
    /// The weight of each reward by name; a reward that is not there weighs 0.
    pub weights: Weights,
    /// What ends it earlier.
    pub until: Option<Until>,
    /// Steps in which the weights go over from those of the stage before.
    pub blend_steps: u64,
    /// Learning-rate schedule and optimiser moments begin anew with this stage.
    pub restart_schedule: bool,
    /// The policy at the begin of this stage becomes the frozen reference.
    pub reset_reference: bool,
}

impl Stage {
    /// A stage of this length and these weights, without anything else.
    pub fn new(length: Length, weights: Weights) -> Self {
        Self {
            length,
            weights,
            until: None,
            blend_steps: 0,
            restart_schedule: false,
            reset_reference: false,
        }
    }

    /// The weight of the reward called `name`.
    pub fn weight(&self, name: &str) -> f64 {
        weight(&self.weights, name)
    }
}

/// The weight of the reward called `name`, 0 where it has none.
pub fn weight(weights: &Weights, name: &str) -> f64 {
    weights.get(name).copied().unwrap_or(0.0)
}

/// The weights at `share` of the way from `from` to `to`, reward by reward in a straight line.
pub fn blend(from: &Weights, to: &Weights, share: f64) -> Weights {
    let between = |name: &String| {
        let (from, to) = (weight(from, name), weight(to, name));
        (name.clone(), from + (to - from) * share)
    };
    from.keys().chain(to.keys()).map(between).collect()
}

/// The stages of a run, one after the other; never empty.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Schedule {
    stages: Vec<Stage>,
}

/// All that is wrong with a list of tables in a settings file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct Faults(pub Vec<String>);

impl Schedule {
    /// Checks `stages`, which may weigh the rewards called `names`, and takes them.
    ///
    /// # Errors
    /// All faults at once, each with its place, such as `stage[1].weights.format`.
    pub fn new(stages: Vec<Stage>, names: &Names) -> Result<Self, Faults> {
        let mut faults = Vec::new();
        if stages.is_empty() {
            faults.push(NO_STAGE.to_owned());
        }
        for (index, stage) in stages.iter().enumerate() {
            let place = Place::new(index, stages.len());
            faults.extend(length_fault(&place, stage.length));
            faults.extend(weight_faults(&place, &stage.weights, names));
            if let Some(until) = &stage.until {
                faults.extend(until.faults(&place, Some(stage.length)));
                faults.extend(until.metric_fault(&place, Some(&stage.weights), names));
            }
            faults.extend(blend_faults(&place, stage.blend_steps, Some(stage.length)));
        }
        if faults.is_empty() { Ok(Self { stages }) } else { Err(Faults(faults)) }
    }

    /// Reads the value of the key `stage` of a settings file, a list of tables, whose stages may
    /// weigh the rewards called `names`.
    ///
    /// # Errors
    /// All faults at once: wrong types, unknown and missing fields, unknown rewards, values out of
    /// range, each with its place. Places count from 0.
    pub fn from_toml(value: &toml::Value, names: &Names) -> Result<Self, Faults> {
        let mut faults = Vec::new();
        let stages = from_toml::stages(value, names, &mut faults);
        if faults.is_empty() { Ok(Self { stages }) } else { Err(Faults(faults)) }
    }

    /// The stages in order.
    pub fn stages(&self) -> &[Stage] {
        &self.stages
    }

    /// The names among `names` that weigh more than 0 in some stage, in their order.
    pub fn rewards<'a>(&self, names: &'a Names) -> Vec<&'a str> {
        let used = |name: &&str| self.stages.iter().any(|stage| stage.weight(name) > 0.0);
        names.iter().filter(used).collect()
    }
}

impl Default for Schedule {
    /// The three stages of Embodied-R: format first, then accuracy, then consistency with it.
    fn default() -> Self {
        let stage = |epochs, format, accuracy, consistency| {
            let weights =
                [("format", format), ("accuracy", accuracy), ("consistency", consistency)];
            let weights = weights.map(|(name, weight)| (name.to_owned(), weight));
            Stage::new(Length::Epochs(epochs), weights.into())
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

/// Where a stage stands among the others.
struct Place {
    /// As the user sees it, such as `stage[1]`.
    text: String,
    first: bool,
    last: bool,
}

impl Place {
    fn new(index: usize, count: usize) -> Self {
        Self { text: format!("stage[{index}]"), first: index == 0, last: index + 1 == count }
    }
}

fn length_fault(Place { text, .. }: &Place, length: Length) -> Option<String> {
    match length {
        Length::Epochs(epochs) if epochs.is_finite() && epochs > 0.0 => None,
        Length::Epochs(epochs) => {
            Some(format!("`{text}.epochs`: must be more than 0, not {epochs}"))
        }
        Length::Steps(0) => Some(format!("`{text}.steps`: must be 1 or more, not 0")),
        Length::Steps(_) => None,
    }
}

fn weight_faults(Place { text, .. }: &Place, weights: &Weights, names: &Names) -> Vec<String> {
    let mut faults = Vec::new();
    for (name, &weight) in weights {
        if !names.contains(name) {
            let known: Vec<&str> = names.iter().collect();
            faults.push(unknown(&format!("{text}.weights"), name, "reward", &known));
        } else if !(weight.is_finite() && weight >= 0.0) {
            faults.push(format!("`{text}.weights.{name}`: must be 0 or more, not {weight}"));
        }
    }
    if !weights.values().any(|&weight| weight > 0.0) {
        faults.push(format!("`{text}.weights`: some reward must weigh more than 0"));
    }
    faults
}

fn blend_faults(place: &Place, blend_steps: u64, length: Option<Length>) -> Vec<String> {
    let text = &place.text;
    let mut faults = Vec::new();
    if blend_steps > 0 && place.first {
        faults.push(format!(
            "`{text}.blend_steps`: there is no stage before the first to blend from; remove it"
        ));
    }
    if let Some(Length::Steps(steps)) = length
        && blend_steps > steps
    {
        faults.push(format!(
            "`{text}.blend_steps`: is {blend_steps}, more than the {steps} steps of its stage"
        ));
    }
    faults
}

/// A message about a name that is none of `known`, with the nearest one if it is near.
pub(crate) fn unknown(place: &str, name: &str, what: &str, known: &[&str]) -> String {
    format!("`{place}.{name}`: there is no such {what}; {}", advice(name, known))
}

/// The nearest of `known` if it is near to `name`, else all of them.
fn advice(name: &str, known: &[&str]) -> String {
    let near = known
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .min()
        .filter(|&(distance, candidate)| distance <= candidate.len() / 3);
    match near {
        Some((_, candidate)) => format!("did you mean `{candidate}`?"),
        None => format!("known are {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests;
