//! Chat templates: render a conversation as the prompt format that a model was trained on.
//!
//! Templates are Jinja, rendered as in `transformers`: trimmed blocks, Python's string methods, loop controls, the
//! functions `raise_exception` and `strftime_now`, and the filter `tojson`.

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
    environment: Environment<'static>,
    /// `bos_token`, `eos_token` and others that templates may reference.
    special_tokens: BTreeMap<String, String>,
}

const NAME: &str = "chat template";

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
        let mut environment = environment().map_err(failed(&path))?;
        environment.add_template_owned(NAME, source).map_err(failed(&path))?;
        Ok(Self { path, environment, special_tokens: special_tokens(tokenizer_config) })
    }

    /// Renders a conversation.
    pub(crate) fn render(
        &self,
        messages: &[impl Serialize],
        generation: GenerationPrompt,
    ) -> Result<String> {
        let template = self.environment.get_template(NAME).map_err(failed(&self.path))?;
        let special = Jinja::from(Serde(&self.special_tokens));
        let conversation = context! {
            messages => Serde(messages),
            add_generation_prompt => generation == GenerationPrompt::Append,
            tools => (),
            documents => (),
        };
        template.render(context! { ..conversation, ..special }).map_err(failed(&self.path))
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

fn environment() -> Result<Environment<'static>, minijinja::Error> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", strftime_now);
    environment.add_filter("tojson", tojson);
    Ok(environment)
}

/// Lets a template reject a conversation.
fn raise_exception(message: String) -> Result<Jinja, minijinja::Error> {
    Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
}

/// The local date and time, for templates that include the current date.
fn strftime_now(format: String) -> Result<String, minijinja::Error> {
    let mut text = String::new();
    match write!(text, "{}", chrono::Local::now().format(&format)) {
        Ok(()) => Ok(text),
        Err(_) => {
            let message = format!("`{format}` is not a valid date format");
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
        }
    }
}

/// Python's `json.dumps` without HTML escapes: separators `", "` and `": "`, or lines indented by `indent` spaces.
fn tojson(value: Jinja, options: Kwargs) -> Result<String, minijinja::Error> {
    let indent: Option<usize> = options.get("indent")?;
    // The other options have no effect on the values of a conversation.
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
    let failed = |message: String| minijinja::Error::new(ErrorKind::BadSerialization, message);
    written.map_err(|error| failed(error.to_string()))?;
    String::from_utf8(text).map_err(|error| failed(error.to_string()))
}

/// JSON with a space after each comma and colon, as Python writes it.
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
