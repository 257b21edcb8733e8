//! Chat templates: a conversation to the text that a model was trained on.
//!
//! Templates are Jinja, rendered as `transformers` does: blocks trimmed, Python's string methods, loop controls, and
//! the functions `raise_exception`, `strftime_now` and the filter `tojson`.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, Value as Jinja};
use minijinja::{Environment, ErrorKind, context};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, Result};

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatMessage {
    /// Who speaks: `system`, `user` or `assistant`.
    pub role: String,
    /// What they say.
    pub content: String,
}

impl ChatMessage {
    /// A turn of `role`.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into() }
    }

    /// What frames the conversation.
    pub fn system(content: impl Into<String>) -> Self {
        Self::new("system", content)
    }

    /// A turn of the user.
    pub fn user(content: impl Into<String>) -> Self {
        Self::new("user", content)
    }

    /// A turn of the model.
    pub fn assistant(content: impl Into<String>) -> Self {
        Self::new("assistant", content)
    }
}

/// What a rendered conversation ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Generation {
    /// The opening of the model's next turn, for it to go on from.
    Prompt,
    /// The last message.
    None,
}

/// A model's template, compiled.
#[derive(Debug)]
pub(crate) struct ChatTemplate {
    path: PathBuf,
    environment: Environment<'static>,
    /// `bos_token` and its like, which templates may name.
    special_tokens: BTreeMap<String, String>,
}

const NAME: &str = "chat template";

impl ChatTemplate {
    /// Finds the template of the model in `dir`, in the order of `transformers`: `chat_template.jinja`, then the
    /// `chat_template` of `tokenizer_config.json`, then `chat_template.json`.
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

    /// The `chat_template` of a tokenizer's configuration, which `path` holds.
    pub(crate) fn in_config(path: &Path, tokenizer_config: &Value) -> Result<Option<Self>> {
        let source = chosen(path, tokenizer_config)?;
        let compile = |source| Self::compile(path.to_owned(), source, tokenizer_config);
        source.map(compile).transpose()
    }

    fn compile(path: PathBuf, source: String, tokenizer_config: &Value) -> Result<Self> {
        let mut environment = environment().map_err(failed(&path))?;
        environment.add_template_owned(NAME, source).map_err(failed(&path))?;
        Ok(Self { path, environment, special_tokens: special_tokens(tokenizer_config) })
    }

    /// The text of a conversation.
    pub(crate) fn render(
        &self,
        messages: &[impl Serialize],
        generation: Generation,
    ) -> Result<String> {
        let template = self.environment.get_template(NAME).map_err(failed(&self.path))?;
        let special = Jinja::from(Serde(&self.special_tokens));
        let conversation = context! {
            messages => Serde(messages),
            add_generation_prompt => generation == Generation::Prompt,
            tools => (),
            documents => (),
        };
        template.render(context! { ..conversation, ..special }).map_err(failed(&self.path))
    }
}

/// The `chat_template` of a file: a text, or a list of named ones of which `default` is meant.
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

/// Entries such as `"eos_token": "<|im_end|>"`, or with an object that has the text as `content`.
fn special_tokens(config: &Value) -> BTreeMap<String, String> {
    let entries = config.as_object().into_iter().flatten();
    let tokens = entries.filter(|(key, _)| key.ends_with("_token")).filter_map(|(key, value)| {
        let text = value.as_str().or_else(|| value["content"].as_str())?;
        Some((key.clone(), text.to_owned()))
    });
    tokens.collect()
}

fn environment() -> Result<Environment<'static>, minijinja::Error> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", strftime_now);
    environment.add_filter("tojson", tojson);
    Ok(environment)
}

/// How a template refuses a conversation.
fn raise_exception(message: String) -> Result<Jinja, minijinja::Error> {
    Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
}

/// The local date and time, for templates that tell the model what day it is.
fn strftime_now(format: String) -> Result<String, minijinja::Error> {
    let mut text = String::new();
    match write!(text, "{}", chrono::Local::now().format(&format)) {
        Ok(()) => Ok(text),
        Err(_) => {
            let told = format!("`{format}` is no format of a date");
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, told))
        }
    }
}

/// Python's `json.dumps` without escapes for HTML: `", "` and `": "` between entries, or lines of `indent` spaces.
fn tojson(value: Jinja, options: Kwargs) -> Result<String, minijinja::Error> {
    let indent: Option<usize> = options.get("indent")?;
    // Other options change nothing for what a conversation holds.
    for option in ["ensure_ascii", "separators", "sort_keys"] {
        let _: Option<Jinja> = options.get(option)?;
    }
    options.assert_all_used()?;
    let mut text = Vec::new();
    let spaces = " ".repeat(indent.unwrap_or_default());
    let written = match indent {
        Some(_) => {
            let pretty = serde_json::ser::PrettyFormatter::with_indent(spaces.as_bytes());
            value.serialize(&mut serde_json::Serializer::with_formatter(&mut text, pretty))
        }
        None => value.serialize(&mut serde_json::Serializer::with_formatter(&mut text, PythonJson)),
    };
    let failed = |told: String| minijinja::Error::new(ErrorKind::BadSerialization, told);
    written.map_err(|error| failed(error.to_string()))?;
    String::from_utf8(text).map_err(|error| failed(error.to_string()))
}

/// JSON with a space after each comma and colon.
struct PythonJson;

impl serde_json::ser::Formatter for PythonJson {
    fn begin_array_value<W: ?Sized + std::io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(
        &mut self,
        out: &mut W,
    ) -> std::io::Result<()> {
        out.write_all(b": ")
    }
}

fn failed(path: &Path) -> impl FnOnce(minijinja::Error) -> Error {
    move |source| Error::ChatTemplate { path: path.to_owned(), source }
}
