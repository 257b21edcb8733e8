//! The functions, filters and methods that chat templates use besides minijinja's own.

use std::fmt::Write as _;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Value as Jinja};
use minijinja::{Environment, ErrorKind};
use serde::Serialize as _;

/// Maximum indentation of `tojson`: every line of every level has it.
const MAX_INDENT: usize = 16;

/// The syntax of `transformers`: no blank lines where a block is alone on its line.
pub(super) fn syntax() -> Result<SyntaxConfig, minijinja::Error> {
    SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()
}

/// An environment with the functions and filters of `transformers`; [`super::limits`] adds Python's methods.
pub(super) fn environment() -> Result<Environment<'static>, minijinja::Error> {
    let mut environment = Environment::new();
    // Errors would end with the values of all variables.
    environment.set_debug(false);
    environment.set_syntax(syntax()?);
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
    if let Some(indent) = indent.filter(|indent| *indent > MAX_INDENT) {
        let message = format!("`indent` must be at most {MAX_INDENT}, not {indent}");
        return Err(minijinja::Error::new(ErrorKind::InvalidOperation, message));
    }
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
