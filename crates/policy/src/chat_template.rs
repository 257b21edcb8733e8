//! Chat templates: render a conversation as the prompt format that a model was trained on.
//!
//! Templates are Jinja, rendered as in `transformers` by [`embodied_r_jinja`]. A template is read with its model and parsed when it
//! is first used: a model whose template is invalid can still be trained, merged or evaluated on token ids.

mod kwargs;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::{Error, Result};
use embodied_r_jinja::Template;
pub use embodied_r_jinja::TemplateFault;
pub use kwargs::{ChatTemplateKwargs, KwargsFault};

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

/// A model's chat template.
#[derive(Debug)]
pub(crate) struct ChatTemplate {
    path: PathBuf,
    source: Source,
    /// The parsed template, since its first use.
    parsed: OnceLock<Template>,
    /// `bos_token`, `eos_token` and others that templates may reference.
    special_tokens: BTreeMap<String, String>,
}

/// A template as the model has it.
#[derive(Debug)]
enum Source {
    Jinja(String),
    /// Several templates without a default, or an invalid one.
    Unclear(String),
    /// The file cannot be read.
    Unreadable(String),
}

impl ChatTemplate {
    /// Finds the template of the model in `dir` with the precedence of `transformers`: `chat_template.jinja`, the
    /// `chat_template` of `tokenizer_config.json`, `chat_template.json`. Its faults are reported by
    /// [`Self::render`].
    pub(crate) fn find(dir: &Path, tokenizer_config: &Value) -> Option<Self> {
        let unreadable = |error: &dyn std::fmt::Display| Source::Unreadable(error.to_string());
        let jinja = dir.join("chat_template.jinja");
        if jinja.is_file() {
            let read = std::fs::read_to_string(&jinja);
            let source = read.map_or_else(|error| unreadable(&error), Source::Jinja);
            return Some(Self::new(jinja, source, tokenizer_config));
        }
        let in_config = dir.join("tokenizer_config.json");
        if let Some(template) = Self::in_config(&in_config, tokenizer_config) {
            return Some(template);
        }
        let json = dir.join("chat_template.json");
        if !json.is_file() {
            return None;
        }
        let source = match std::fs::read(&json) {
            Ok(text) => match serde_json::from_slice::<Value>(&text) {
                Ok(value) => chosen(&value),
                Err(error) => Some(unreadable(&error)),
            },
            Err(error) => Some(unreadable(&error)),
        };
        source.map(|source| Self::new(json, source, tokenizer_config))
    }

    /// The `chat_template` of the tokenizer configuration in `path`.
    pub(crate) fn in_config(path: &Path, tokenizer_config: &Value) -> Option<Self> {
        let source = chosen(tokenizer_config);
        source.map(|source| Self::new(path.to_owned(), source, tokenizer_config))
    }

    fn new(path: PathBuf, source: Source, tokenizer_config: &Value) -> Self {
        let special_tokens = special_tokens(tokenizer_config);
        Self { path, source, parsed: OnceLock::new(), special_tokens }
    }

    /// The template's Jinja; empty if there is none.
    pub(crate) fn source(&self) -> &str {
        match &self.source {
            Source::Jinja(source) => source,
            Source::Unclear(_) | Source::Unreadable(_) => "",
        }
    }

    /// The parsed template.
    fn parsed(&self) -> Result<&Template> {
        let source = match &self.source {
            Source::Jinja(source) => source,
            Source::Unclear(found) => {
                return Err(Error::TemplateChoice {
                    path: self.path.clone(),
                    found: found.clone(),
                });
            }
            Source::Unreadable(why) => {
                return Err(self.failed(TemplateFault::new(format!("cannot be read: {why}"))));
            }
        };
        if let Some(parsed) = self.parsed.get() {
            return Ok(parsed);
        }
        let parsed = Template::parse(source).map_err(|fault| self.failed(fault))?;
        Ok(self.parsed.get_or_init(|| parsed))
    }

    /// Renders a conversation, with further variables for the template.
    ///
    /// # Errors
    /// The template is invalid, or rejects the conversation.
    pub(crate) fn render(
        &self,
        messages: &Value,
        generation: GenerationPrompt,
        variables: &Value,
    ) -> Result<String> {
        let own = json!({
            "add_generation_prompt": generation == GenerationPrompt::Append,
            "tools": null,
            "documents": null,
        });
        let special = json!(self.special_tokens);
        let given = variables.as_object().into_iter().flatten();
        let given = given.map(|(name, value)| (name.as_str(), value));
        let others = [&own, &special].into_iter().filter_map(Value::as_object).flatten();
        let others = others.map(|(name, value)| (name.as_str(), value));
        let all: Vec<_> = given.chain([("messages", messages)]).chain(others).collect();
        let count = messages.as_array().map_or(0, Vec::len);
        self.parsed()?.render(&all, count).map_err(|fault| self.failed(fault))
    }

    fn failed(&self, source: TemplateFault) -> Error {
        Error::ChatTemplate { path: self.path.clone(), source }
    }
}

/// The `chat_template` of a file: a string, or the one named `default` in a list.
fn chosen(config: &Value) -> Option<Source> {
    match config.get("chat_template")? {
        Value::Null => None,
        Value::String(source) => Some(Source::Jinja(source.clone())),
        Value::Array(list) => {
            let name = |entry: &Value| entry["name"].as_str().unwrap_or_default().to_owned();
            let default = list.iter().find(|entry| name(entry) == "default");
            Some(match default.and_then(|entry| entry["template"].as_str()) {
                Some(source) => Source::Jinja(source.to_owned()),
                None => Source::Unclear(list.iter().map(name).collect::<Vec<_>>().join(", ")),
            })
        }
        other => Some(Source::Unclear(other.to_string())),
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
