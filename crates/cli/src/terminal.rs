//! The terminal: its properties, and text that cannot control it.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::IsTerminal;

use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{Writer, debug_fn};

/// Whether text to `stream` is colored: it is a terminal, and `NO_COLOR` is not set (<https://no-color.org>).
pub(crate) fn has_colors(stream: &impl IsTerminal) -> bool {
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    stream.is_terminal() && !no_color
}

/// Columns of the terminal on standard output; `None` if it is none.
pub(crate) fn width() -> Option<usize> {
    let stdout = std::io::stdout();
    if !stdout.is_terminal() {
        return None;
    }
    let size = rustix::termios::tcgetwinsize(&stdout).ok()?;
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

/// `text` with characters that control a terminal as `\u001b`: those of C0 and C1 but for line feed and tab, DEL, and
/// those that reorder text (bidirectional embeddings, overrides and isolates).
///
/// Captions, completions, file names, ids and server messages may hold any of them. The escapes are those of JSON, so
/// that JSON stays the same data.
pub(crate) fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(is_control) {
        return text.into();
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match is_control(character) {
            // All of them are in the basic multilingual plane. Writing to a string does not fail.
            true => _ = write!(safe, "\\u{:04x}", u32::from(character)),
            false => safe.push(character),
        }
    }
    safe.into()
}

fn is_control(character: char) -> bool {
    match character {
        '\n' | '\t' => false,
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => true,
        other => other.is_control(),
    }
}

/// The fields of a log line, [`escaped`]. All text of a log line that is not the program's own is in fields.
pub(crate) fn log_fields() -> impl for<'writer> FormatFields<'writer> {
    let field =
        |writer: &mut Writer<'_>, field: &tracing::field::Field, value: &dyn std::fmt::Debug| {
            let value = format!("{value:?}");
            match field.name() {
                "message" => write!(writer, "{}", escaped(&value)),
                name => write!(writer, "{name}={}", escaped(&value)),
            }
        };
    debug_fn(field).delimited(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped_and_other_text_is_unchanged() {
        for (text, expected) in [
            ("a\n\tü 机 🦀", "a\n\tü 机 🦀"),
            ("\u{1b}[2J\u{7}\r\u{8}\0", "\\u001b[2J\\u0007\\u000d\\u0008\\u0000"),
            ("\u{7f}\u{9b}31m\u{9d}", "\\u007f\\u009b31m\\u009d"),
            ("\u{202e}gpj.\u{2066}", "\\u202egpj.\\u2066"),
        ] {
            assert_eq!(escaped(text), expected);
        }
    }

    #[test]
    fn escaped_json_is_the_same_data() {
        let value = serde_json::json!({ "caption": "\u{1b}]0;x\u{7} \u{9b}2J \u{7f} \u{202e}" });
        let text = escaped(&value.to_string()).into_owned();
        assert!(!text.contains(is_control), "{text}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
    }
}
