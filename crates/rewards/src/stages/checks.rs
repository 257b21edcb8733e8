//! Checks the values of stages; each message has the path of its field, such as `stage[1].epochs`.

use super::exit_condition::{ExitCondition, STEP_METRICS};
use super::stage::{Stage, StageLength, Weights, weight};
use crate::names::RewardNames;
use crate::validation::{suggestion, unknown};

/// Rewards that are computed at every step, whatever their weight.
const ALWAYS_COMPUTED: [&str; 2] = ["accuracy", "format"];

pub(super) const NO_STAGE: &str = "`stage`: there must be at least one";

/// A stage's position in the list.
pub(super) struct StagePosition {
    /// Its path in messages, such as `stage[1]`.
    pub(super) path: String,
    first: bool,
    last: bool,
}

impl StagePosition {
    pub(super) fn new(index: usize, count: usize) -> Self {
        Self { path: format!("stage[{index}]"), first: index == 0, last: index + 1 == count }
    }
}

/// All errors of a well-typed stage.
pub(super) fn stage_errors(
    position: &StagePosition,
    stage: &Stage,
    names: &RewardNames,
) -> Vec<String> {
    let length = Some(stage.length);
    let mut errors = Vec::from_iter(length_error(position, stage.length));
    errors.extend(weight_errors(position, &stage.weights, names));
    if let Some(until) = &stage.until {
        errors.extend(until_errors(until, position, length));
        errors.extend(metric_error(until, position, Some(&stage.weights), names));
    }
    errors.extend(blend_errors(position, stage.blend_steps, length));
    errors
}

pub(super) fn length_error(
    StagePosition { path, .. }: &StagePosition,
    length: StageLength,
) -> Option<String> {
    match length {
        StageLength::Epochs(epochs) if epochs.is_finite() && epochs > 0.0 => None,
        StageLength::Epochs(epochs) => {
            Some(format!("`{path}.epochs`: must be more than 0, not {epochs}"))
        }
        StageLength::Steps(0) => Some(format!("`{path}.steps`: must be 1 or more, not 0")),
        StageLength::Steps(_) => None,
    }
}

pub(super) fn weight_errors(
    StagePosition { path, .. }: &StagePosition,
    weights: &Weights,
    names: &RewardNames,
) -> Vec<String> {
    let mut errors = Vec::new();
    for (name, &weight) in weights {
        if !names.contains(name) {
            let known: Vec<&str> = names.iter().collect();
            errors.push(unknown(&format!("{path}.weights"), name, "reward", &known));
        } else if !(weight.is_finite() && weight >= 0.0) {
            errors.push(format!("`{path}.weights.{name}`: must be 0 or more, not {weight}"));
        }
    }
    if !weights.values().any(|&weight| weight > 0.0) {
        errors.push(format!("`{path}.weights`: at least one weight must be positive"));
    }
    errors
}

pub(super) fn blend_errors(
    position: &StagePosition,
    blend_steps: u64,
    length: Option<StageLength>,
) -> Vec<String> {
    let path = &position.path;
    let mut errors = Vec::new();
    if blend_steps > 0 && position.first {
        errors.push(format!(
            "`{path}.blend_steps`: the first stage has no previous stage to blend from; remove it"
        ));
    }
    if let Some(StageLength::Steps(steps)) = length
        && blend_steps > steps
    {
        errors.push(format!(
            "`{path}.blend_steps`: is {blend_steps}, more than the {steps} steps of its stage"
        ));
    }
    errors
}

/// Errors of position, threshold and window in a stage of this length.
pub(super) fn until_errors(
    until: &ExitCondition,
    position: &StagePosition,
    length: Option<StageLength>,
) -> Vec<String> {
    let path = &position.path;
    let mut errors = Vec::new();
    if position.last {
        errors.push(format!("`{path}.until`: the last stage has no next stage; remove `until`"));
    }
    if !until.threshold.value().is_finite() {
        errors.push(format!("`{path}.until`: the threshold must be finite"));
    }
    if until.window == 0 {
        errors.push(format!("`{path}.until.window`: must be 1 or more, not 0"));
    }
    if let Some(StageLength::Steps(steps)) = length
        && until.window > steps
    {
        errors.push(format!(
            "`{path}.until.window`: is {}, more than the {steps} steps of its stage",
            until.window
        ));
    }
    errors
}

/// The error about the metric, if any, in a stage with these weights.
pub(super) fn metric_error(
    until: &ExitCondition,
    StagePosition { path, .. }: &StagePosition,
    weights: Option<&Weights>,
    names: &RewardNames,
) -> Option<String> {
    if STEP_METRICS.contains(&until.metric.as_str()) {
        return None;
    }
    match reward_of(&until.metric).filter(|name| names.contains(name)) {
        Some(name) if ALWAYS_COMPUTED.contains(&name) => None,
        // Weights that cannot be parsed are reported separately.
        Some(name) => weights.filter(|weights| weight(weights, name) <= 0.0).map(|_| {
            format!(
                "`{path}.until.metric`: needs the reward `{name}`, which has no weight in this \
                 stage and may not be computed; give it a weight"
            )
        }),
        None => {
            let of_rewards = names
                .iter()
                .flat_map(|name| ["mean", "std"].map(|kind| format!("rewards/{name}/{kind}")));
            let known: Vec<String> =
                STEP_METRICS.map(str::to_owned).into_iter().chain(of_rewards).collect();
            let known: Vec<&str> = known.iter().map(String::as_str).collect();
            Some(format!(
                "`{path}.until.metric`: `{}` is not a step metric; {}",
                until.metric,
                suggestion(&until.metric, &known)
            ))
        }
    }
}

/// NAME of a metric `rewards/NAME/mean` or `rewards/NAME/std`.
fn reward_of(metric: &str) -> Option<&str> {
    let (name, kind) = metric.strip_prefix("rewards/")?.rsplit_once('/')?;
    ["mean", "std"].contains(&kind).then_some(name)
}
