//! Reads stages out of a settings file, going on after each fault so that all are named.

use std::collections::BTreeMap;

use toml::{Table, Value};

use super::{NO_STAGE, Stage, epochs_fault, unknown, weight_faults};

const FIELDS: [&str; 4] = ["epochs", "weights", "restart_schedule", "reset_reference"];

/// The stages in `value`; those with faults are left out.
pub(super) fn stages(value: &Value, faults: &mut Vec<String>) -> Vec<Stage> {
    let Some(list) = value.as_array() else {
        faults.push("`stage`: must be a list of tables, `[[stage]]`".to_owned());
        return Vec::new();
    };
    if list.is_empty() {
        faults.push(NO_STAGE.to_owned());
    }
    list.iter()
        .enumerate()
        .filter_map(|(index, value)| stage(&format!("stage[{index}]"), value, faults))
        .collect()
}

fn stage(place: &str, value: &Value, faults: &mut Vec<String>) -> Option<Stage> {
    let Some(table) = value.as_table() else {
        faults.push(format!("`{place}`: must be a table, not {}", value.type_str()));
        return None;
    };
    for name in table.keys().filter(|name| !FIELDS.contains(&name.as_str())) {
        faults.push(unknown(place, name, "field", &FIELDS));
    }
    // Each field is read before any is missed, so that every fault is named.
    let epochs = epochs(place, table, faults);
    let weights = weights(place, table, faults);
    let restart_schedule = switch(place, table, "restart_schedule", faults);
    let reset_reference = switch(place, table, "reset_reference", faults);
    Some(Stage {
        epochs: epochs?,
        weights: weights?,
        restart_schedule: restart_schedule?,
        reset_reference: reset_reference?,
    })
}

fn epochs(place: &str, table: &Table, faults: &mut Vec<String>) -> Option<f64> {
    let Some(value) = table.get("epochs") else {
        faults.push(format!("`{place}.epochs`: is missing"));
        return None;
    };
    let epochs = number(&format!("{place}.epochs"), value, faults)?;
    faults.extend(epochs_fault(place, epochs));
    Some(epochs)
}

fn weights(place: &str, table: &Table, faults: &mut Vec<String>) -> Option<BTreeMap<String, f64>> {
    let place_of = format!("{place}.weights");
    let Some(value) = table.get("weights") else {
        faults.push(format!("`{place_of}`: is missing"));
        return None;
    };
    let Some(entries) = value.as_table() else {
        faults.push(format!("`{place_of}`: must be a table, not {}", value.type_str()));
        return None;
    };
    let weights: BTreeMap<String, f64> = entries
        .iter()
        .filter_map(|(name, value)| {
            Some((name.clone(), number(&format!("{place_of}.{name}"), value, faults)?))
        })
        .collect();
    faults.extend(weight_faults(place, &weights));
    Some(weights)
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
