//! The fields of a body; each is taken once, and unknown ones are refused at the end.

use serde_json::{Map, Value, json};

use crate::refusal::Refusal;

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

    /// Ids of a vocabulary of `vocabulary` tokens.
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

    /// Refuses remaining fields, except those without effect.
    pub(super) fn end(self) -> Result<(), Refusal> {
        let has_effect = |(field, value): &(&String, &Value)| !is_without_effect(field, value);
        match self.map.iter().find(has_effect) {
            Some((field, _)) => Err(Refusal::unsupported(&self.name(field))),
            None => Ok(()),
        }
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

/// Whether an unknown field has no effect: labels for the client's use, and values that equal this server's behavior.
fn is_without_effect(field: &str, value: &Value) -> bool {
    let is = |same: Value| *value == same;
    match field {
        _ if value.is_null() => true,
        "user" | "metadata" | "safety_identifier" | "prompt_cache_key" => true,
        "parallel_tool_calls" => value.is_boolean(),
        "tools" | "functions" | "documents" | "annotations" | "tool_calls" => is(json!([])),
        "tool_choice" | "function_call" => is(json!("none")) || is(json!("auto")),
        "response_format" => is(json!({"type": "text"})),
        "modalities" => is(json!(["text"])),
        "service_tier" => is(json!("auto")) || is(json!("default")),
        "suffix" | "refusal" | "reasoning_content" => is(json!("")),
        "chat_template_kwargs" | "vllm_xargs" => is(json!({})),
        "length_penalty" => value.as_f64() == Some(1.0),
        "priority" => value.as_f64() == Some(0.0),
        "add_generation_prompt" | "detokenize" | "spaces_between_special_tokens" => is(json!(true)),
        "store"
        | "echo"
        | "use_beam_search"
        | "include_stop_str_in_output"
        | "continue_final_message"
        | "continuous_usage_stats"
        | "include_obfuscation"
        | "add_special_tokens"
        | "return_token_ids"
        | "return_tokens_as_token_ids" => is(json!(false)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(body: &Value) -> Fields {
        Fields::parse(body.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn an_unknown_field_is_refused_by_name() {
        let refusal = fields(&json!({"tools": [{"type": "function"}]})).end().unwrap_err();
        let error = &refusal.json()["error"];
        assert_eq!(error["param"], "tools");
        assert_eq!(error["code"], "unsupported_parameter");
    }

    #[test]
    fn fields_without_effect_are_accepted() {
        let body = json!({"tools": [], "tool_choice": "auto", "response_format": {"type": "text"},
            "user": "me", "metadata": {"a": "b"}, "audio": null, "store": false});
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
