//! Bounded reading of JSON metadata, with errors that name the field.

use std::io::{BufRead as _, Read as _};
use std::path::Path;

use embodied_r_files::open_text;
use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// The largest `info.json`: those of real data sets have some kilobytes.
const MAX_FILE: u64 = 16 << 20;

/// The longest line of a file of JSON lines.
const MAX_LINE: u64 = 1 << 20;

/// The most lines of such a file, as episodes of a data set.
pub(crate) const MAX_LINES: usize = 1_000_000;

/// The text of a small file.
///
/// # Errors
/// It cannot be read, or is larger than 16 MiB.
pub(crate) fn read_small(path: &Path) -> Result<String> {
    let failed = |error| Error::Io(embodied_r_files::Error::io("read", path)(error));
    let mut text = String::new();
    let read = open_text(path)?.take(MAX_FILE + 1).read_to_string(&mut text).map_err(failed)?;
    match read as u64 > MAX_FILE {
        true => Err(failed(std::io::Error::other("it is larger than 16 MiB"))),
        false => Ok(text),
    }
}

/// Calls `each` with the number and the object of each line that is not empty.
///
/// # Errors
/// Those of `each`; the file cannot be read, or a line is no JSON object or longer than 1 MiB.
pub(crate) fn for_each_line(
    path: &Path,
    mut each: impl FnMut(usize, &Map<String, Value>) -> Result<()>,
) -> Result<()> {
    let failed = |error| Error::Io(embodied_r_files::Error::io("read", path)(error));
    let mut file = open_text(path)?;
    let mut text = String::new();
    for line in 1.. {
        text.clear();
        let read = (&mut file).take(MAX_LINE + 1).read_line(&mut text).map_err(failed)?;
        if read == 0 {
            break;
        }
        if read as u64 > MAX_LINE || line > MAX_LINES {
            let what = format!("line {line} is longer than 1 MiB, or there are too many");
            return Err(failed(std::io::Error::other(what)));
        }
        if text.trim().is_empty() {
            continue;
        }
        let object: Map<String, Value> = serde_json::from_str(&text).map_err(|source| {
            let field = "the object".to_owned();
            Error::Line { path: path.into(), line, field, reason: format!("is invalid: {source}") }
        })?;
        each(line, &object)?;
    }
    Ok(())
}

/// A number that is a whole one, and not negative.
pub(crate) fn index(value: Option<&Value>) -> Result<usize, String> {
    let value = value.ok_or("is missing")?;
    value
        .as_u64()
        .or_else(|| {
            value.as_f64().filter(|n| n.fract() == 0.0 && (0.0..9e15).contains(n)).map(|n| n as u64)
        })
        .and_then(|number| usize::try_from(number).ok())
        .ok_or_else(|| format!("is {}, not a whole number", shortened(value)))
}

/// A value for an error message.
pub(crate) fn shortened(value: &Value) -> String {
    const MAX_CHARS: usize = 60;
    let text = value.to_string();
    match text.chars().count() > MAX_CHARS {
        true => format!("`{}…`", text.chars().take(MAX_CHARS).collect::<String>()),
        false => format!("`{text}`"),
    }
}
