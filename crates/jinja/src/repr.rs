//! Values as text: Python's `str()` and `repr()`.

use std::fmt::Write as _;

use super::fault::{Result, fail};
use super::limits::Meter;
use super::rendering::Rendering;
use super::text::is_printable;
use super::value::{Callable, Key, Value, View};

/// A text that is being made, within the limits.
pub(super) struct Out<'m> {
    pub(super) text: String,
    meter: &'m Meter,
}

impl<'m> Out<'m> {
    pub(super) fn new(meter: &'m Meter) -> Self {
        Self { text: String::new(), meter }
    }

    pub(super) fn push(&mut self, text: &str) -> Result<()> {
        self.meter.take(text.len())?;
        self.text.push_str(text);
        Ok(())
    }
}

/// Python's `str()`.
pub(super) fn to_text(rendering: &Rendering, value: &Value) -> Result<String> {
    let mut out = Out::new(&rendering.meter);
    print(rendering, &mut out, value)?;
    Ok(out.text)
}

/// Python's `repr()`.
pub(super) fn to_repr(rendering: &Rendering, value: &Value) -> Result<String> {
    let mut out = Out::new(&rendering.meter);
    print_repr(rendering, &mut out, value)?;
    Ok(out.text)
}

/// Prints `str(value)`.
pub(super) fn print(rendering: &Rendering, out: &mut Out<'_>, value: &Value) -> Result<()> {
    match value {
        Value::Undefined(_) => Ok(()),
        Value::Str(text) | Value::Markup(text) => out.push(text),
        other => print_repr(rendering, out, other),
    }
}

fn print_repr(rendering: &Rendering, out: &mut Out<'_>, value: &Value) -> Result<()> {
    rendering.meter.deeper(|| repr_of(rendering, out, value))
}

fn repr_of(rendering: &Rendering, out: &mut Out<'_>, value: &Value) -> Result<()> {
    match value {
        Value::Undefined(_) => out.push("Undefined"),
        Value::None => out.push("None"),
        Value::Bool(true) => out.push("True"),
        Value::Bool(false) => out.push("False"),
        Value::Int(whole) => out.push(&whole.to_string()),
        Value::Float(value) => out.push(&float(*value)),
        Value::Str(text) => out.push(&quoted(text)),
        Value::Markup(text) => out.push(&format!("Markup({})", quoted(text))),
        Value::List(items) => {
            out.push("[")?;
            print_all(rendering, out, items.values.iter())?;
            out.push("]")
        }
        Value::Tuple(items) => {
            out.push("(")?;
            print_all(rendering, out, items.values.iter())?;
            out.push(if items.values.len() == 1 { ",)" } else { ")" })
        }
        Value::Dict(dict) => print_entries(rendering, out, dict.entries.iter()),
        Value::View(kind, dict) => {
            out.push(value.class())?;
            out.push("([")?;
            match kind {
                View::Keys => print_all(rendering, out, dict.entries.keys().map(Key::value))?,
                View::Values => print_all(rendering, out, dict.entries.values())?,
                View::Items => {
                    for (index, (key, value)) in dict.entries.iter().enumerate() {
                        out.push(if index > 0 { ", (" } else { "(" })?;
                        print_all(rendering, out, [key.value(), value].into_iter())?;
                        out.push(")")?;
                    }
                }
            }
            out.push("])")
        }
        Value::Range(range) if range.step == 1 => {
            out.push(&format!("range({}, {})", range.start, range.stop))
        }
        Value::Range(range) => {
            out.push(&format!("range({}, {}, {})", range.start, range.stop, range.step))
        }
        Value::Namespace(index) => {
            let entries = rendering.namespaces.borrow().get(*index).cloned().unwrap_or_default();
            out.push("<Namespace ")?;
            print_entries(rendering, out, entries.iter())?;
            out.push(">")
        }
        Value::Loop(of) => {
            out.push(&format!("<LoopContext {}/{}>", of.index.get() + 1, of.items.values.len()))
        }
        Value::Callable(callable) => match &**callable {
            Callable::Macro(of) => match &of.code.name {
                Some(name) => out.push(&format!("<Macro {}>", quoted(name))),
                None => out.push("<Macro anonymous>"),
            },
            Callable::Template => out.push("<TemplateReference None>"),
            Callable::Method(..) | Callable::Function(_) | Callable::Block(_) => unprintable(value),
        },
        Value::Iterator(_) | Value::Cycler(_) | Value::Joiner(_) => unprintable(value),
    }
}

fn unprintable(value: &Value) -> Result<()> {
    fail(format!("a `{}` has no text, its address in Python is not supported", value.class()))
}

fn print_all<'v>(
    rendering: &Rendering,
    out: &mut Out<'_>,
    values: impl Iterator<Item = &'v Value>,
) -> Result<()> {
    for (index, value) in values.enumerate() {
        if index > 0 {
            out.push(", ")?;
        }
        print_repr(rendering, out, value)?;
    }
    Ok(())
}

fn print_entries<'v>(
    rendering: &Rendering,
    out: &mut Out<'_>,
    entries: impl Iterator<Item = (&'v Key, &'v Value)>,
) -> Result<()> {
    out.push("{")?;
    for (index, (key, value)) in entries.enumerate() {
        if index > 0 {
            out.push(", ")?;
        }
        print_repr(rendering, out, key.value())?;
        out.push(": ")?;
        print_repr(rendering, out, value)?;
    }
    out.push("}")
}

/// A float as Python prints it: the shortest digits that give it, with an exponent below 1e-4 and from 1e16.
pub(super) fn float(value: f64) -> String {
    if value.is_nan() {
        return "nan".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if (-4..16).contains(&exponent) {
        let text = value.to_string();
        return if text.contains('.') { text } else { text + ".0" };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

/// A string literal of Python.
pub(super) fn quoted(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut literal = String::with_capacity(text.len() + 2);
    literal.push(quote);
    for c in text.chars() {
        let code = u32::from(c);
        match c {
            '\n' => literal.push_str("\\n"),
            '\r' => literal.push_str("\\r"),
            '\t' => literal.push_str("\\t"),
            '\\' => literal.push_str("\\\\"),
            _ if c == quote => {
                literal.push('\\');
                literal.push(c);
            }
            _ if is_printable(c) => literal.push(c),
            _ => escaped(&mut literal, code),
        }
    }
    literal.push(quote);
    literal
}

/// A string literal of Python in ASCII, as `ascii()` gives it.
pub(super) fn ascii(literal: &str) -> String {
    let mut text = String::with_capacity(literal.len());
    for c in literal.chars() {
        if c.is_ascii() { text.push(c) } else { escaped(&mut text, u32::from(c)) }
    }
    text
}

fn escaped(text: &mut String, code: u32) {
    let _ = match code {
        0..=0xff => write!(text, "\\x{code:02x}"),
        0x100..=0xffff => write!(text, "\\u{code:04x}"),
        _ => write!(text, "\\U{code:08x}"),
    };
}
