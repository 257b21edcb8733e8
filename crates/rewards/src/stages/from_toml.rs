//! Parses stages from a settings file. It continues after each error to report all of them.

use toml::{Table, Value};

use super::checks::{
    NO_STAGE, StagePosition, blend_errors, length_error, metric_error, until_errors, weight_errors,
};
use super::exit_condition::{BOTH_THRESHOLDS, ExitCondition, NO_THRESHOLD, Threshold};
use super::stage::{BOTH_LENGTHS, NO_LENGTH, Stage, StageLength, Weights};
use crate::names::RewardNames;
use crate::validation::unknown;

const FIELDS: [&str; 7] =
    ["epochs", "steps", "weights", "until", "blend_steps", "restart_schedule", "reset_reference"];
const UNTIL_FIELDS: [&str; 4] = ["metric", "above", "below", "window"];

/// The valid stages in `value`; messages about the others go to `errors`.
pub(super) fn stages(value: &Value, names: &RewardNames, errors: &mut Vec<String>) -> Vec<Stage> {
    let Some(list) = value.as_array() else {
        errors.push("`stage`: must be a list of tables, `[[stage]]`".to_owned());
        return Vec::new();
    };
    if list.is_empty() {
        errors.push(NO_STAGE.to_owned());
    }
    list.iter()
        .enumerate()
        .filter_map(|(index, value)| {
            stage(&StagePosition::new(index, list.len()), value, names, errors)
        })
        .collect()
}

fn stage(
    position: &StagePosition,
    value: &Value,
    names: &RewardNames,
    errors: &mut Vec<String>,
) -> Option<Stage> {
    let path = &position.path;
    let Some(table) = value.as_table() else {
        errors.push(format!("`{path}`: must be a table, not {}", value.type_str()));
        return None;
    };
    for name in table.keys().filter(|name| !FIELDS.contains(&name.as_str())) {
        errors.push(unknown(path, name, "field", &FIELDS));
    }
    // All fields are parsed before the first early return, to report every error.
    let length = length(position, table, errors);
    let weights = weights(position, table, names, errors);
    let until = match table.get("until") {
        None => Some(None),
        Some(value) => {
            let stage = StageParts { length, weights: weights.as_ref(), names };
            until(position, value, &stage, errors).map(Some)
        }
    };
    let blend_steps = match table.get("blend_steps") {
        None => Some(0),
        Some(value) => count(&format!("{path}.blend_steps"), value, errors),
    };
    if let Some(steps) = blend_steps {
        errors.extend(blend_errors(position, steps, length));
    }
    let restart_schedule = boolean(path, table, "restart_schedule", errors);
    let reset_reference = boolean(path, table, "reset_reference", errors);
    Some(Stage {
        length: length?,
        weights: weights?,
        until: until?,
        blend_steps: blend_steps?,
        restart_schedule: restart_schedule?,
        reset_reference: reset_reference?,
    })
}

fn length(
    position: &StagePosition,
    table: &Table,
    errors: &mut Vec<String>,
) -> Option<StageLength> {
    let path = &position.path;
    let length = match (table.get("epochs"), table.get("steps")) {
        (Some(epochs), None) => {
            StageLength::Epochs(number(&format!("{path}.epochs"), epochs, errors)?)
        }
        (None, Some(steps)) => StageLength::Steps(count(&format!("{path}.steps"), steps, errors)?),
        (given, _) => {
            let what = if given.is_some() { BOTH_LENGTHS } else { NO_LENGTH };
            errors.push(format!("`{path}`: {what}"));
            return None;
        }
    };
    match length_error(position, length) {
        None => Some(length),
        Some(error) => {
            errors.push(error);
            None
        }
    }
}

fn weights(
    position: &StagePosition,
    table: &Table,
    names: &RewardNames,
    errors: &mut Vec<String>,
) -> Option<Weights> {
    let path = format!("{}.weights", position.path);
    let Some(value) = table.get("weights") else {
        errors.push(format!("`{path}`: is missing"));
        return None;
    };
    let Some(entries) = value.as_table() else {
        errors.push(format!("`{path}`: must be a table, not {}", value.type_str()));
        return None;
    };
    let weights: Weights = entries
        .iter()
        .filter_map(|(name, value)| {
            Some((name.clone(), number(&format!("{path}.{name}"), value, errors)?))
        })
        .collect();
    errors.extend(weight_errors(position, &weights, names));
    Some(weights)
}

/// What an exit condition is checked against; `None` where the stage's own value is faulty.
struct StageParts<'a> {
    length: Option<StageLength>,
    weights: Option<&'a Weights>,
    names: &'a RewardNames,
}

fn until(
    position: &StagePosition,
    value: &Value,
    stage: &StageParts<'_>,
    errors: &mut Vec<String>,
) -> Option<ExitCondition> {
    let path = format!("{}.until", position.path);
    let Some(table) = value.as_table() else {
        errors.push(format!("`{path}`: must be a table, not {}", value.type_str()));
        return None;
    };
    for name in table.keys().filter(|name| !UNTIL_FIELDS.contains(&name.as_str())) {
        errors.push(unknown(&path, name, "field", &UNTIL_FIELDS));
    }
    let metric = match table.get("metric").map(|value| (value.as_str(), value.type_str())) {
        Some((Some(metric), _)) => Some(metric.to_owned()),
        Some((None, found)) => {
            errors.push(format!("`{path}.metric`: must be a string, not {found}"));
            None
        }
        None => {
            errors.push(format!("`{path}.metric`: is missing"));
            None
        }
    };
    let threshold = threshold(&path, table, errors);
    let window = match table.get("window") {
        Some(value) => count(&format!("{path}.window"), value, errors),
        None => {
            errors.push(format!("`{path}.window`: is missing"));
            None
        }
    };
    // Valid placeholders stand in for missing fields, so that the present ones are still checked.
    let complete = metric.is_some() && threshold.is_some() && window.is_some();
    let until = ExitCondition {
        metric: metric.unwrap_or_else(|| "reward".to_owned()),
        threshold: threshold.unwrap_or(Threshold::Above(0.0)),
        window: window.unwrap_or(1),
    };
    errors.extend(until_errors(&until, position, stage.length));
    errors.extend(metric_error(&until, position, stage.weights, stage.names));
    complete.then_some(until)
}

fn threshold(path: &str, table: &Table, errors: &mut Vec<String>) -> Option<Threshold> {
    match (table.get("above"), table.get("below")) {
        (Some(above), None) => {
            number(&format!("{path}.above"), above, errors).map(Threshold::Above)
        }
        (None, Some(below)) => {
            number(&format!("{path}.below"), below, errors).map(Threshold::Below)
        }
        (given, _) => {
            let what = if given.is_some() { BOTH_THRESHOLDS } else { NO_THRESHOLD };
            errors.push(format!("`{path}`: {what}"));
            None
        }
    }
}

fn boolean(path: &str, table: &Table, name: &str, errors: &mut Vec<String>) -> Option<bool> {
    let Some(value) = table.get(name) else {
        return Some(false);
    };
    if value.as_bool().is_none() {
        let found = value.type_str();
        errors.push(format!("`{path}.{name}`: must be true or false, not {found}"));
    }
    value.as_bool()
}

fn number(path: &str, value: &Value, errors: &mut Vec<String>) -> Option<f64> {
    match value {
        Value::Float(number) => Some(*number),
        // Integers of a plausible size are exact in f64.
        Value::Integer(number) => Some(*number as f64),
        other => {
            errors.push(format!("`{path}`: must be a number, not {}", other.type_str()));
            None
        }
    }
}

fn count(path: &str, value: &Value, errors: &mut Vec<String>) -> Option<u64> {
    let count = value.as_integer().and_then(|number| u64::try_from(number).ok());
    if count.is_none() {
        let found = match value {
            Value::Integer(number) => number.to_string(),
            other => other.type_str().to_owned(),
        };
        errors.push(format!("`{path}`: must be a non-negative integer, not {found}"));
    }
    count
}
