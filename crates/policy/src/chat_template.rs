//! Chat templates: render a conversation as the prompt format that a model was trained on.
//!
//! Templates are Jinja, rendered as in `transformers`: trimmed blocks, Python's string methods, loop controls, the
//! functions `raise_exception` and `strftime_now`, and the filter `tojson`.

//!
//! A template comes with a model and is not trusted: [`limits`] bounds its steps, its memory and its depth.

mod functions;
mod guarded;
mod limits;
mod specifiers;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use minijinja::value::{Serde, Value as Jinja};
use minijinja::{Environment, context};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, Result};

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatMessage {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// The message's text.
    pub content: String,
}

impl ChatMessage {
    /// A message of `role`.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into() }
    }

    /// A system message.
    pub fn system(content: impl Into<String>) -> Self {
        Self::new("system", content)
    }

    /// A user message.
    pub fn user(content: impl Into<String>) -> Self {
        Self::new("user", content)
    }

    /// An assistant message.
    pub fn assistant(content: impl Into<String>) -> Self {
        Self::new("assistant", content)
    }
}

/// Whether a rendered conversation ends with a generation prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GenerationPrompt {
    /// The opening of the model's next turn (`add_generation_prompt=True`).
    Append,
    /// Nothing after the last message.
    None,
}

/// A model's compiled chat template.
#[derive(Debug)]
pub(crate) struct ChatTemplate {
    path: PathBuf,
    /// The template's Jinja as the model has it.
    source: String,
    /// The template with its limits.
    environment: Environment<'static>,
    /// `bos_token`, `eos_token` and others that templates may reference.
    special_tokens: BTreeMap<String, String>,
}

impl ChatTemplate {
    /// Finds the template of the model in `dir` with the precedence of `transformers`: `chat_template.jinja`, the
    /// `chat_template` of `tokenizer_config.json`, `chat_template.json`.
    pub(crate) fn find(dir: &Path, tokenizer_config: &Value) -> Result<Option<Self>> {
        let jinja = dir.join("chat_template.jinja");
        if jinja.is_file() {
            let source = std::fs::read_to_string(&jinja).map_err(Error::io("read", &jinja))?;
            return Self::compile(jinja, source, tokenizer_config).map(Some);
        }
        let in_config = dir.join("tokenizer_config.json");
        if let Some(template) = Self::in_config(&in_config, tokenizer_config)? {
            return Ok(Some(template));
        }
        let json = dir.join("chat_template.json");
        if json.is_file() {
            let text = std::fs::read(&json).map_err(Error::io("read", &json))?;
            let value: Value = serde_json::from_slice(&text).map_err(Error::json(&json))?;
            if let Some(source) = chosen(&json, &value)? {
                return Self::compile(json, source, tokenizer_config).map(Some);
            }
        }
        Ok(None)
    }

    /// The `chat_template` of the tokenizer configuration in `path`.
    pub(crate) fn in_config(path: &Path, tokenizer_config: &Value) -> Result<Option<Self>> {
        let source = chosen(path, tokenizer_config)?;
        let compile = |source| Self::compile(path.to_owned(), source, tokenizer_config);
        source.map(compile).transpose()
    }

    fn compile(path: PathBuf, source: String, tokenizer_config: &Value) -> Result<Self> {
        let environment = limits::compile(source.clone()).map_err(failed(&path))?;
        Ok(Self { path, source, environment, special_tokens: special_tokens(tokenizer_config) })
    }

    /// The template's Jinja.
    pub(crate) fn source(&self) -> &str {
        &self.source
    }

    /// Renders a conversation, with further variables for the template.
    pub(crate) fn render(
        &self,
        messages: &Value,
        generation: GenerationPrompt,
        variables: &Value,
    ) -> Result<String> {
        let special = Jinja::from(Serde(&self.special_tokens));
        let conversation = context! {
            messages => Serde(messages),
            add_generation_prompt => generation == GenerationPrompt::Append,
            tools => (),
            documents => (),
        };
        let variables = Jinja::from(Serde(variables));
        let context = context! { ..variables, ..conversation, ..special };
        let count = messages.as_array().map_or(0, Vec::len);
        limits::render(&self.environment, context, count).map_err(failed(&self.path))
    }
}

/// The `chat_template` of a file: a string, or the one named `default` in a list.
fn chosen(path: &Path, config: &Value) -> Result<Option<String>> {
    let unclear = |found: String| Error::TemplateChoice { path: path.to_owned(), found };
    match config.get("chat_template") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(source)) => Ok(Some(source.clone())),
        Some(Value::Array(list)) => {
            let name = |entry: &Value| entry["name"].as_str().unwrap_or_default().to_owned();
            let default = list.iter().find(|entry| name(entry) == "default");
            match default.and_then(|entry| entry["template"].as_str()) {
                Some(source) => Ok(Some(source.to_owned())),
                None => Err(unclear(list.iter().map(name).collect::<Vec<_>>().join(", "))),
            }
        }
        Some(other) => Err(unclear(other.to_string())),
    }
}

/// Entries such as `"eos_token": "<|im_end|>"`; the value may also be an object with the text in `content`.
fn special_tokens(config: &Value) -> BTreeMap<String, String> {
    let entries = config.as_object().into_iter().flatten();
    let tokens = entries.filter(|(key, _)| key.ends_with("_token")).filter_map(|(key, value)| {
        let text = value.as_str().or_else(|| value["content"].as_str())?;
        Some((key.clone(), text.to_owned()))
    });
    tokens.collect()
}

fn failed(path: &Path) -> impl FnOnce(minijinja::Error) -> Error {
    move |source| Error::ChatTemplate { path: path.to_owned(), source }
}
