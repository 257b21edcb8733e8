//! The fields of a body; each is taken once, and the rest is ignored or refused at the end.

use serde_json::{Map, Value};

use super::effect::{Effect, effect};
use crate::refusal::Refusal;

/// The number of ignored fields that a log line names.
const MAX_NAMED: usize = 8;
/// The length of a field's name in a log line, in characters.
const MAX_NAME: usize = 64;

/// A body's fields.
pub(super) struct Fields {
    map: Map<String, Value>,
    /// The prefix of field names in messages, such as `messages[0].`.
    within: String,
}

impl Fields {
    /// Reads a body.
    pub(super) fn parse(body: &[u8]) -> Result<Self, Refusal> {
        let map = serde_json::from_slice(body).map_err(Refusal::body)?;
        Ok(Self { map, within: String::new() })
    }

    /// The fields of an object within a body.
    pub(super) fn within(value: Value, name: &str) -> Result<Self, Refusal> {
        match value {
            Value::Object(map) => Ok(Self { map, within: format!("{name}.") }),
            other => Err(Refusal::field(name, &other, "an object")),
        }
    }

    /// A field's name in messages.
    pub(super) fn name(&self, field: &str) -> String {
        format!("{}{field}", self.within)
    }

    /// The field's value; `null` counts as missing.
    pub(super) fn take(&mut self, field: &str) -> Option<Value> {
        self.map.swap_remove(field).filter(|value| !value.is_null())
    }

    fn read<T>(
        &mut self,
        field: &str,
        want: &str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<Option<T>, Refusal> {
        let Some(value) = self.take(field) else { return Ok(None) };
        let wrong = || Refusal::field(&self.name(field), &value, want);
        read(&value).map(Some).ok_or_else(wrong)
    }

    pub(super) fn string(&mut self, field: &str) -> Result<Option<String>, Refusal> {
        self.read(field, "a string", |value| value.as_str().map(str::to_owned))
    }

    pub(super) fn boolean(&mut self, field: &str) -> Result<Option<bool>, Refusal> {
        self.read(field, "true or false", Value::as_bool)
    }

    pub(super) fn number(
        &mut self,
        field: &str,
        want: &str,
        allowed: impl Fn(f64) -> bool,
    ) -> Result<Option<f64>, Refusal> {
        self.read(field, want, |value| value.as_f64().filter(|number| allowed(*number)))
    }

    pub(super) fn integer(
        &mut self,
        field: &str,
        want: &str,
        allowed: impl Fn(i64) -> bool,
    ) -> Result<Option<i64>, Refusal> {
        self.read(field, want, |value| value.as_i64().filter(|number| allowed(*number)))
    }

    /// A count of `least` or more.
    pub(super) fn count(&mut self, field: &str, least: usize) -> Result<Option<usize>, Refusal> {
        let want = format!("an integer of {least} or more");
        let read = |value: &Value| usize::try_from(value.as_u64()?).ok();
        self.read(field, &want, |value| read(value).filter(|count| *count >= least))
    }

    /// A sequence of ids of a vocabulary of `vocabulary` tokens.
    pub(super) fn sequence(
        &mut self,
        field: &str,
        vocabulary: usize,
    ) -> Result<Option<Vec<u32>>, Refusal> {
        let want = format!("a list of token ids below {vocabulary}");
        self.read(field, &want, |value| token_ids(value, vocabulary))
    }

    /// A set of ids of a vocabulary of `vocabulary` tokens.
    pub(super) fn ids(
        &mut self,
        field: &str,
        vocabulary: usize,
    ) -> Result<Option<Vec<u32>>, Refusal> {
        let want = format!("a list of token ids below {vocabulary}, each once");
        // More ids than there are must repeat some, and every step would take as long as they are many.
        let is_set = |ids: &Vec<u32>| ids.len() <= vocabulary;
        self.read(field, &want, |value| token_ids(value, vocabulary).filter(is_set))
    }

    /// The field's value without taking it; `null` counts as missing.
    pub(super) fn get(&self, field: &str) -> Option<&Value> {
        self.map.get(field).filter(|value| !value.is_null())
    }

    /// The object in a field, with string keys as variables have them.
    pub(super) fn object(&mut self, field: &str) -> Result<Option<Map<String, Value>>, Refusal> {
        self.read(field, "an object", |value| value.as_object().cloned())
    }

    /// Refuses remaining fields that would change the response. Others are ignored; unknown ones are logged.
    pub(super) fn end(self) -> Result<(), Refusal> {
        let mut unknown = Vec::new();
        for (field, value) in &self.map {
            match effect(field, value) {
                Effect::None => {}
                Effect::Unknown => unknown.push(self.name(field)),
                Effect::Unsupported => return Err(Refusal::unsupported(&self.name(field))),
            }
        }
        if !unknown.is_empty() {
            let short = |name: &String| name.chars().take(MAX_NAME).collect::<String>();
            let named: Vec<String> = unknown.iter().take(MAX_NAMED).map(short).collect();
            tracing::warn!(fields = ?named, count = unknown.len(), "ignored unknown fields of a request");
        }
        Ok(())
    }
}

/// A list of ids of a vocabulary of `vocabulary` tokens.
pub(super) fn token_ids(value: &Value, vocabulary: usize) -> Option<Vec<u32>> {
    let id = |value: &Value| {
        let id = u32::try_from(value.as_u64()?).ok()?;
        ((id as usize) < vocabulary).then_some(id)
    };
    value.as_array()?.iter().map(id).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(body: &Value) -> Fields {
        Fields::parse(body.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn an_unsupported_field_is_refused_by_name() {
        let refusal = fields(&json!({"tools": [{"type": "function"}]})).end().unwrap_err();
        let error = &refusal.json()["error"];
        assert_eq!(error["param"], "tools");
        assert_eq!(error["code"], "unsupported_parameter");
    }

    #[test]
    fn fields_without_effect_are_accepted() {
        let body = json!({"tools": [], "tool_choice": "auto", "response_format": {"type": "text"},
            "user": "me", "metadata": {"a": "b"}, "audio": null, "store": true, "temprature": 7});
        assert_eq!(fields(&body).end(), Ok(()));
        assert!(fields(&json!({"response_format": {"type": "json_object"}})).end().is_err());
    }

    #[test]
    fn a_body_that_is_not_an_object_is_refused() {
        for body in ["", "{", "[]", "7"] {
            let error = Fields::parse(body.as_bytes()).err().unwrap().json();
            assert_eq!(error["error"]["code"], "invalid_json", "{body}");
        }
    }

    #[test]
    fn a_field_of_the_wrong_type_names_the_expected_one() {
        let message = |body: Value, read: fn(&mut Fields) -> Option<Refusal>| {
            read(&mut fields(&body)).unwrap().json()["error"]["message"].clone()
        };
        assert_eq!(
            message(json!({"n": 0}), |fields| fields.count("n", 1).err()),
            "`n` must be an integer of 1 or more, not 0"
        );
        assert_eq!(
            message(json!({"stream": "yes"}), |fields| fields.boolean("stream").err()),
            "`stream` must be true or false, not \"yes\""
        );
        assert_eq!(
            message(json!({"stop_token_ids": [3, 9]}), |fields| fields
                .ids("stop_token_ids", 9)
                .err()),
            "`stop_token_ids` must be a list of token ids below 9, each once, not [3,9]"
        );
        assert_eq!(
            message(json!({"stop_token_ids": [1, 1, 1]}), |fields| fields
                .ids("stop_token_ids", 2)
                .err()),
            "`stop_token_ids` must be a list of token ids below 2, each once, not [1,1,1]"
        );
    }
}
