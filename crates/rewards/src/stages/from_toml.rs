//! Reads stages out of a settings file, going on after each fault so that all are named.

use toml::{Table, Value};

use super::table::{BOTH_LENGTHS, BOTH_MARKS, NO_LENGTH, NO_MARK};
use super::{
    Length, Mark, NO_STAGE, Place, Stage, Until, Weights, blend_faults, length_fault, unknown,
    weight_faults,
};
use crate::registry::Names;

const FIELDS: [&str; 7] =
    ["epochs", "steps", "weights", "until", "blend_steps", "restart_schedule", "reset_reference"];
const UNTIL_FIELDS: [&str; 4] = ["metric", "above", "below", "window"];

/// The stages in `value`; those with faults are left out.
pub(super) fn stages(value: &Value, names: &Names, faults: &mut Vec<String>) -> Vec<Stage> {
    let Some(list) = value.as_array() else {
        faults.push("`stage`: must be a list of tables, `[[stage]]`".to_owned());
        return Vec::new();
    };
    if list.is_empty() {
        faults.push(NO_STAGE.to_owned());
    }
    list.iter()
        .enumerate()
        .filter_map(|(index, value)| stage(&Place::new(index, list.len()), value, names, faults))
        .collect()
}

fn stage(place: &Place, value: &Value, names: &Names, faults: &mut Vec<String>) -> Option<Stage> {
    let text = &place.text;
    let Some(table) = value.as_table() else {
        faults.push(format!("`{text}`: must be a table, not {}", value.type_str()));
        return None;
    };
    for name in table.keys().filter(|name| !FIELDS.contains(&name.as_str())) {
        faults.push(unknown(text, name, "field", &FIELDS));
    }
    // Each field is read before any is missed, so that every fault is named.
    let length = length(place, table, faults);
    let weights = weights(place, table, names, faults);
    let until = match table.get("until") {
        None => Some(None),
        Some(value) => until(place, value, (length, weights.as_ref(), names), faults).map(Some),
    };
    let blend_steps = match table.get("blend_steps") {
        None => Some(0),
        Some(value) => count(&format!("{text}.blend_steps"), value, faults),
    };
    if let Some(steps) = blend_steps {
        faults.extend(blend_faults(place, steps, length));
    }
    let restart_schedule = switch(text, table, "restart_schedule", faults);
    let reset_reference = switch(text, table, "reset_reference", faults);
    Some(Stage {
        length: length?,
        weights: weights?,
        until: until?,
        blend_steps: blend_steps?,
        restart_schedule: restart_schedule?,
        reset_reference: reset_reference?,
    })
}

fn length(place: &Place, table: &Table, faults: &mut Vec<String>) -> Option<Length> {
    let text = &place.text;
    let length = match (table.get("epochs"), table.get("steps")) {
        (Some(epochs), None) => Length::Epochs(number(&format!("{text}.epochs"), epochs, faults)?),
        (None, Some(steps)) => Length::Steps(count(&format!("{text}.steps"), steps, faults)?),
        (given, _) => {
            let what = if given.is_some() { BOTH_LENGTHS } else { NO_LENGTH };
            faults.push(format!("`{text}`: {what}"));
            return None;
        }
    };
    match length_fault(place, length) {
        None => Some(length),
        Some(fault) => {
            faults.push(fault);
            None
        }
    }
}

fn weights(
    place: &Place,
    table: &Table,
    names: &Names,
    faults: &mut Vec<String>,
) -> Option<Weights> {
    let place_of = format!("{}.weights", place.text);
    let Some(value) = table.get("weights") else {
        faults.push(format!("`{place_of}`: is missing"));
        return None;
    };
    let Some(entries) = value.as_table() else {
        faults.push(format!("`{place_of}`: must be a table, not {}", value.type_str()));
        return None;
    };
    let weights: Weights = entries
        .iter()
        .filter_map(|(name, value)| {
            Some((name.clone(), number(&format!("{place_of}.{name}"), value, faults)?))
        })
        .collect();
    faults.extend(weight_faults(place, &weights, names));
    Some(weights)
}

fn until(
    place: &Place,
    value: &Value,
    (length, weights, names): (Option<Length>, Option<&Weights>, &Names),
    faults: &mut Vec<String>,
) -> Option<Until> {
    let place_of = format!("{}.until", place.text);
    let Some(table) = value.as_table() else {
        faults.push(format!("`{place_of}`: must be a table, not {}", value.type_str()));
        return None;
    };
    for name in table.keys().filter(|name| !UNTIL_FIELDS.contains(&name.as_str())) {
        faults.push(unknown(&place_of, name, "field", &UNTIL_FIELDS));
    }
    let metric = match table.get("metric").map(|value| (value.as_str(), value.type_str())) {
        Some((Some(metric), _)) => Some(metric.to_owned()),
        Some((None, found)) => {
            faults.push(format!("`{place_of}.metric`: must be text, not {found}"));
            None
        }
        None => {
            faults.push(format!("`{place_of}.metric`: is missing"));
            None
        }
    };
    let mark = mark(&place_of, table, faults);
    let window = match table.get("window") {
        Some(value) => count(&format!("{place_of}.window"), value, faults),
        None => {
            faults.push(format!("`{place_of}.window`: is missing"));
            None
        }
    };
    // What is there is checked with something good in the place of what is not.
    let whole = metric.is_some() && mark.is_some() && window.is_some();
    let until = Until {
        metric: metric.unwrap_or_else(|| "reward".to_owned()),
        mark: mark.unwrap_or(Mark::Above(0.0)),
        window: window.unwrap_or(1),
    };
    faults.extend(until.faults(place, length));
    faults.extend(until.metric_fault(place, weights, names));
    whole.then_some(until)
}

fn mark(place: &str, table: &Table, faults: &mut Vec<String>) -> Option<Mark> {
    match (table.get("above"), table.get("below")) {
        (Some(above), None) => number(&format!("{place}.above"), above, faults).map(Mark::Above),
        (None, Some(below)) => number(&format!("{place}.below"), below, faults).map(Mark::Below),
        (given, _) => {
            let what = if given.is_some() { BOTH_MARKS } else { NO_MARK };
            faults.push(format!("`{place}`: {what}"));
            None
        }
    }
}

fn switch(place: &str, table: &Table, name: &str, faults: &mut Vec<String>) -> Option<bool> {
    let Some(value) = table.get(name) else {
        return Some(false);
    };
    if value.as_bool().is_none() {
        let found = value.type_str();
        faults.push(format!("`{place}.{name}`: must be true or false, not {found}"));
    }
    value.as_bool()
}

fn number(place: &str, value: &Value, faults: &mut Vec<String>) -> Option<f64> {
    match value {
        Value::Float(number) => Some(*number),
        // Settings of this size are exact as floating-point numbers.
        Value::Integer(number) => Some(*number as f64),
        other => {
            faults.push(format!("`{place}`: must be a number, not {}", other.type_str()));
            None
        }
    }
}

fn count(place: &str, value: &Value, faults: &mut Vec<String>) -> Option<u64> {
    let count = value.as_integer().and_then(|number| u64::try_from(number).ok());
    if count.is_none() {
        let found = match value {
            Value::Integer(number) => number.to_string(),
            other => other.type_str().to_owned(),
        };
        faults.push(format!("`{place}`: must be a whole number, 0 or more, not {found}"));
    }
    count
}
