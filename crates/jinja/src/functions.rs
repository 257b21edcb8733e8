//! The global functions of a template.

use std::cell::Cell;
use std::fmt::Write as _;
use std::rc::Rc;

use indexmap::IndexMap;

use super::arguments::{Given, integer, required, string};
use super::fault::{Result, fail};
use super::rendering::Rendering;
use super::repr::to_text;
use super::value::{Cycler, Items, Joiner, Key, Range, Value};

/// Maximum length of `range`, that of the sandbox.
const MAX_RANGE: i128 = 100_000;

/// The names of global functions.
pub(super) const FUNCTIONS: [&str; 8] =
    ["range", "dict", "namespace", "cycler", "joiner", "lipsum", "raise_exception", "strftime_now"];

/// `name(…)`.
pub(super) fn call_function(
    rendering: &Rendering,
    name: &'static str,
    given: Given,
) -> Result<Value> {
    let meter = &rendering.meter;
    match name {
        "range" => range(given),
        "dict" => Value::dict(meter, entries(rendering, given)?),
        "namespace" => {
            let entries = entries(rendering, given)?;
            for key in entries.keys() {
                check_name(key.value().as_str().unwrap_or_default())?;
            }
            meter.measure(entries.values())?;
            let mut namespaces = rendering.namespaces.borrow_mut();
            namespaces.push(entries);
            Ok(Value::Namespace(namespaces.len() - 1))
        }
        "cycler" => {
            let items = Items::new(meter, given.positional)?;
            if items.values.is_empty() {
                return fail("`cycler` needs items");
            }
            Ok(Value::Cycler(Rc::new(Cycler { items, position: Cell::new(0) })))
        }
        "joiner" => {
            let [separator] = given.bind(name, ["sep"])?;
            let separator = separator.unwrap_or_else(|| Value::text(", "));
            meter.measure(std::iter::once(&separator))?;
            Ok(Value::Joiner(Rc::new(Joiner { separator, is_used: Cell::new(false) })))
        }
        "raise_exception" => {
            let [message] = given.bind(name, ["message"])?;
            fail(to_text(rendering, &required(message, name, "message")?)?)
        }
        "strftime_now" => {
            let [format] = given.bind(name, ["format"])?;
            let format = string(&required(format, name, "format")?, name)?;
            meter.text(strftime_now(&format)?)
        }
        _ => fail(format!("the function `{name}` is not supported")),
    }
}

/// Namespaces have no private attributes.
pub(super) fn check_name(name: &str) -> Result<()> {
    match name.starts_with('_') {
        true => fail(format!("the attribute `{name}` of a namespace cannot start with `_`")),
        false => Ok(()),
    }
}

fn range(given: Given) -> Result<Value> {
    let bounds: [Option<Value>; 3] = given.in_order("range", 1)?;
    let bounds = bounds.iter().flatten().map(|bound| integer(bound, "range"));
    let range = match bounds.collect::<Result<Vec<_>>>()?[..] {
        [stop] => Range { start: 0, stop, step: 1 },
        [start, stop] => Range { start, stop, step: 1 },
        [_, _, 0] => return fail("the step of `range` cannot be 0"),
        [start, stop, step] => Range { start, stop, step },
        _ => return fail("`range` takes 1 to 3 arguments"),
    };
    match range.len() <= MAX_RANGE {
        true => Ok(Value::Range(range)),
        false => fail(format!("`range` has at most {MAX_RANGE} items")),
    }
}

/// The entries of Python's `dict(…)`.
fn entries(rendering: &Rendering, given: Given) -> Result<IndexMap<Key, Value>> {
    let meter = &rendering.meter;
    let [source] = Given::positional(given.positional).in_order("dict", 0)?;
    let mut entries = match source {
        None => IndexMap::new(),
        Some(Value::Dict(dict)) => {
            meter.scan(dict.bytes)?;
            dict.entries.clone()
        }
        Some(source) => {
            let mut entries = IndexMap::new();
            for pair in source.items(meter)? {
                let [key, value] = <[Value; 2]>::try_from(pair.items(meter)?)
                    .or_else(|_| fail("`dict` needs pairs of keys and values"))?;
                entries.insert(Key::new(meter, key)?, value);
            }
            entries
        }
    };
    for (name, value) in given.keywords {
        entries.insert(Key::text(name), value);
    }
    Ok(entries)
}

/// Python's `dict.fromkeys`.
pub(super) fn from_keys(rendering: &Rendering, given: Given) -> Result<Value> {
    let meter = &rendering.meter;
    let [keys, value] = given.in_order("fromkeys", 1)?;
    let value = value.unwrap_or(Value::None);
    let keys = required(keys, "fromkeys", "iterable")?.items(meter)?;
    let entries = keys.into_iter().map(|key| Ok((Key::new(meter, key)?, value.clone())));
    Value::dict(meter, entries.collect::<Result<_>>()?)
}

/// The local date and time as C's `strftime` writes it, for templates that include the current date.
fn strftime_now(format: &str) -> Result<String> {
    let now = chrono::Local::now().naive_local();
    let mut text = String::new();
    let mut rest = format;
    while let Some((before, after)) = rest.split_once('%') {
        text.push_str(before);
        let length = after
            .find(|c| !"-_0^#EO".contains(c))
            .map_or(after.len(), |at| at + after[at..].chars().next().map_or(0, char::len_utf8));
        let specifier = &after[..length];
        rest = &after[length..];
        let written = match specifier {
            "Z" | "z" => Ok(()),
            "f" => write!(text, "{}", now.format("%6f")),
            "c" => write!(text, "{}", now.format("%a %b %e %H:%M:%S %Y")),
            "x" | "D" => write!(text, "{}", now.format("%m/%d/%y")),
            "X" => write!(text, "{}", now.format("%H:%M:%S")),
            "s" => write!(text, "{}", chrono::Local::now().timestamp()),
            _ if is_known(specifier) => write!(text, "{}", now.format(&format!("%{specifier}"))),
            _ => Err(std::fmt::Error),
        };
        if written.is_err() {
            return fail(format!("`{format}` is not a valid date format: `%{specifier}`"));
        }
    }
    text.push_str(rest);
    Ok(text)
}

/// Specifiers that chrono writes as C does.
fn is_known(specifier: &str) -> bool {
    let padded = specifier.trim_start_matches(['-', '_', '0']);
    let is_number = matches!(
        padded,
        "d" | "e"
            | "H"
            | "I"
            | "j"
            | "k"
            | "l"
            | "m"
            | "M"
            | "S"
            | "y"
            | "Y"
            | "C"
            | "G"
            | "g"
            | "u"
            | "U"
            | "V"
            | "w"
            | "W"
    );
    let is_other = matches!(
        specifier,
        "a" | "A" | "b" | "B" | "h" | "p" | "P" | "F" | "R" | "r" | "T" | "n" | "t" | "%"
    );
    (is_number && specifier.len() - padded.len() <= 1) || is_other
}
