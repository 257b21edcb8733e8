//! `tojson`: Python's `json.dumps`.

use std::fmt::Write as _;

use super::compare::sorted_by_keys;
use super::fault::{Result, fail};
use super::rendering::Rendering;
use super::repr::{Out, float};
use super::value::Value;

/// The options of `json.dumps`.
pub(super) struct Options {
    pub(super) ensure_ascii: bool,
    /// What each level is indented by; `None` for a single line.
    pub(super) indent: Option<String>,
    /// Between items, and between a key and its value.
    pub(super) separators: (String, String),
    pub(super) sort_keys: bool,
}

/// Python's `json.dumps(value, …)`.
pub(super) fn dumps(rendering: &Rendering, value: &Value, options: &Options) -> Result<Value> {
    let mut out = Out::new(&rendering.meter);
    Writer { rendering, options, out: &mut out }.write(value, 0)?;
    Ok(Value::Str(out.text.into()))
}

struct Writer<'w, 'm> {
    rendering: &'w Rendering,
    options: &'w Options,
    out: &'w mut Out<'m>,
}

impl Writer<'_, '_> {
    fn write(&mut self, value: &Value, level: usize) -> Result<()> {
        self.rendering.meter.steps(1)?;
        if let Some(text) = value.as_str() {
            return self.string(text);
        }
        match value {
            Value::List(items) | Value::Tuple(items) => {
                self.out.push("[")?;
                for (index, item) in items.values.iter().enumerate() {
                    self.separate(index, level + 1)?;
                    self.write(item, level + 1)?;
                }
                self.end(items.values.len(), level, "]")
            }
            Value::Dict(dict) => {
                let entries = dict.entries.iter().map(|(key, value)| (key.value().clone(), value));
                let mut entries: Vec<_> = entries.collect();
                if self.options.sort_keys {
                    entries = sorted_by_keys(&self.rendering.meter, entries, false)?;
                }
                self.out.push("{")?;
                for (index, (key, value)) in entries.iter().enumerate() {
                    self.separate(index, level + 1)?;
                    match key.as_str() {
                        Some(text) => self.string(text)?,
                        None => match scalar(key) {
                            Some(text) => self.string(&text)?,
                            None => {
                                let class = key.class();
                                return fail(format!("a key of JSON cannot be a `{class}`"));
                            }
                        },
                    }
                    self.out.push(&self.options.separators.1)?;
                    self.write(value, level + 1)?;
                }
                self.end(entries.len(), level, "}")
            }
            other => match scalar(other) {
                Some(text) => self.out.push(&text),
                None => fail(format!("a `{}` cannot be written as JSON", other.class())),
            },
        }
    }

    /// What is before the item `index`.
    fn separate(&mut self, index: usize, level: usize) -> Result<()> {
        if index > 0 {
            self.out.push(&self.options.separators.0)?;
        }
        self.line(level)
    }

    fn end(&mut self, count: usize, level: usize, bracket: &str) -> Result<()> {
        if count > 0 {
            self.line(level)?;
        }
        self.out.push(bracket)
    }

    fn line(&mut self, level: usize) -> Result<()> {
        let Some(indent) = &self.options.indent else { return Ok(()) };
        self.out.push("\n")?;
        (0..level).try_for_each(|_| self.out.push(indent))
    }

    fn string(&mut self, text: &str) -> Result<()> {
        let mut quoted = String::with_capacity(text.len() + 2);
        quoted.push('"');
        for c in text.chars() {
            match c {
                '"' => quoted.push_str("\\\""),
                '\\' => quoted.push_str("\\\\"),
                '\n' => quoted.push_str("\\n"),
                '\r' => quoted.push_str("\\r"),
                '\t' => quoted.push_str("\\t"),
                '\x08' => quoted.push_str("\\b"),
                '\x0c' => quoted.push_str("\\f"),
                _ if c < ' ' || (self.options.ensure_ascii && (c == '\x7f' || !c.is_ascii())) => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        let _ = write!(quoted, "\\u{unit:04x}");
                    }
                }
                _ => quoted.push(c),
            }
        }
        quoted.push('"');
        self.out.push(&quoted)
    }
}

/// A number, a Boolean or null.
fn scalar(value: &Value) -> Option<String> {
    Some(match value {
        Value::None => "null".to_owned(),
        Value::Bool(true) => "true".to_owned(),
        Value::Bool(false) => "false".to_owned(),
        Value::Int(whole) => whole.to_string(),
        Value::Float(value) if value.is_nan() => "NaN".to_owned(),
        Value::Float(value) if value.is_infinite() => {
            if *value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned()
        }
        Value::Float(value) => float(*value),
        _ => return None,
    })
}
