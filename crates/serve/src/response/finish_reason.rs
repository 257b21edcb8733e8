//! Why a choice ended, as JSON.

use serde_json::{Value, json};

use crate::choice::End;

/// `finish_reason` and `stop_reason` of a choice, null before its end.
pub(super) fn finish_reason(end: Option<&End>) -> (Value, Value) {
    match end {
        Some(end) => (json!(end.reason), end.matched.clone()),
        None => (Value::Null, Value::Null),
    }
}
