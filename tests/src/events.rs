use std::fs;
use std::path::Path;

use serde_json::Value;

/// The events of one kind in a run's `events.jsonl`, in order.
///
/// # Panics
/// The file is missing or malformed.
pub fn events(run: &Path, kind: &str) -> Vec<Value> {
    let text = fs::read_to_string(run.join("events.jsonl")).expect("a run's events");
    let events = text.lines().map(|line| serde_json::from_str(line).expect("a JSON object"));
    events.filter(|event: &Value| event["event"] == kind).collect()
}
