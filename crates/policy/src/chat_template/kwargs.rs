//! Variables of a chat template beside the messages.

use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

/// Names that the renderer itself gives a template.
const RESERVED: [&str; 7] = [
    "messages",
    "tools",
    "documents",
    "chat_template",
    "tokenize",
    "continue_final_message",
    "add_generation_prompt",
];

/// `chat_template_kwargs` as `transformers`, TRL and vLLM have them: variables that a chat template reads, such as
/// `enable_thinking` of Qwen3.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct ChatTemplateKwargs(Map<String, Value>);

/// Why variables are refused.
#[derive(Debug, thiserror::Error)]
pub enum KwargsFault {
    /// They are not a JSON object.
    #[error("must be a JSON object such as `{{\"enable_thinking\": false}}`, not `{found}`")]
    NoObject {
        /// What is given.
        found: String,
    },
    /// A name is the renderer's own.
    #[error("cannot set `{name}`, which rendering sets itself")]
    Reserved {
        /// The name.
        name: &'static str,
    },
}

impl ChatTemplateKwargs {
    /// These variables.
    ///
    /// # Errors
    /// A name is the renderer's own.
    pub fn new(variables: Map<String, Value>) -> Result<Self, KwargsFault> {
        match RESERVED.into_iter().find(|name| variables.contains_key(*name)) {
            Some(name) => Err(KwargsFault::Reserved { name }),
            None => Ok(Self(variables)),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The variables by name.
    pub fn variables(&self) -> &Map<String, Value> {
        &self.0
    }
}

impl FromStr for ChatTemplateKwargs {
    type Err = KwargsFault;

    fn from_str(text: &str) -> Result<Self, KwargsFault> {
        match serde_json::from_str(text) {
            Ok(Value::Object(variables)) => Self::new(variables),
            _ => Err(KwargsFault::NoObject { found: text.to_owned() }),
        }
    }
}

impl<'de> Deserialize<'de> for ChatTemplateKwargs {
    /// A table, or its JSON as a text.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let read = match Value::deserialize(deserializer)? {
            Value::Object(variables) => Self::new(variables),
            Value::String(text) => text.parse(),
            other => Err(KwargsFault::NoObject { found: other.to_string() }),
        };
        read.map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_and_json_text_give_the_same_variables() {
        let table: ChatTemplateKwargs =
            serde_json::from_str(r#"{"enable_thinking": false}"#).unwrap();
        let text: ChatTemplateKwargs =
            serde_json::from_str(r#""{\"enable_thinking\": false}""#).unwrap();
        assert_eq!(table, text);
        assert_eq!(table.variables()["enable_thinking"], false);
        assert_eq!(r#"{"enable_thinking": false}"#.parse::<ChatTemplateKwargs>().unwrap(), table);
    }

    #[test]
    fn other_values_and_reserved_names_are_refused() {
        let message = |text: &str| text.parse::<ChatTemplateKwargs>().unwrap_err().to_string();
        assert!(message("7").contains("not `7`"));
        assert!(message("enable_thinking=false").contains("must be a JSON object such as"));
        assert!(message(r#"{"messages": []}"#).contains("cannot set `messages`"));
        assert!(serde_json::from_str::<ChatTemplateKwargs>("[1]").is_err());
    }
}
