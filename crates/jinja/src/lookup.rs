//! `value.name`, `value[key]` and `value[start:stop:step]` in the sandbox.

use std::rc::Rc;

use super::compare::unhashable;
use super::fault::{Result, fail};
use super::limits::Meter;
use super::rendering::Rendering;
use super::value::{Callable, Items, Key, Loop, Missing, Range, Value, View};

/// The methods of a string.
const STRING: [&str; 47] = [
    "capitalize",
    "casefold",
    "center",
    "count",
    "encode",
    "endswith",
    "expandtabs",
    "find",
    "format",
    "format_map",
    "index",
    "isalnum",
    "isalpha",
    "isascii",
    "isdecimal",
    "isdigit",
    "isidentifier",
    "islower",
    "isnumeric",
    "isprintable",
    "isspace",
    "istitle",
    "isupper",
    "join",
    "ljust",
    "lower",
    "lstrip",
    "maketrans",
    "partition",
    "removeprefix",
    "removesuffix",
    "replace",
    "rfind",
    "rindex",
    "rjust",
    "rpartition",
    "rsplit",
    "rstrip",
    "split",
    "splitlines",
    "startswith",
    "strip",
    "swapcase",
    "title",
    "translate",
    "upper",
    "zfill",
];

/// `value.name`: an attribute, or else an item.
pub(super) fn attribute(rendering: &Rendering, value: &Value, name: &str) -> Result<Value> {
    if let Value::Undefined(why) = value {
        return fail(why.to_string());
    }
    if let Some(found) = own_attribute(rendering, value, name)? {
        return Ok(found);
    }
    let found = own_item(rendering, value, &Value::text(name))?;
    Ok(found.unwrap_or_else(|| missing(value, name)))
}

/// `value[key]`: an item, or else an attribute.
pub(super) fn item(rendering: &Rendering, value: &Value, key: &Value) -> Result<Value> {
    if let Value::Undefined(why) = value {
        return fail(why.to_string());
    }
    if let Some(found) = own_item(rendering, value, key)? {
        return Ok(found);
    }
    let Some(name) = key.as_str() else {
        let name = match key.as_int() {
            Some(index) => index.to_string(),
            None => key.class().to_owned(),
        };
        return Ok(missing(value, &name));
    };
    let found = own_attribute(rendering, value, name)?;
    Ok(found.unwrap_or_else(|| missing(value, name)))
}

/// `value | attr(name)`: an attribute.
pub(super) fn attribute_only(rendering: &Rendering, value: &Value, name: &str) -> Result<Value> {
    let found = own_attribute(rendering, value, name)?;
    Ok(found.unwrap_or_else(|| missing(value, name)))
}

fn missing(value: &Value, name: &str) -> Value {
    Value::undefined(Missing::Attribute(value.class(), name.to_owned()))
}

/// What changes a list or map, which the sandbox hides.
fn is_mutation(value: &Value, name: &str) -> bool {
    match value {
        Value::List(_) => matches!(
            name,
            "append" | "clear" | "pop" | "reverse" | "insert" | "sort" | "extend" | "remove"
        ),
        Value::Dict(_) => matches!(name, "clear" | "pop" | "popitem" | "setdefault" | "update"),
        _ => false,
    }
}

/// An attribute of Python's object, without those that the sandbox hides.
fn own_attribute(rendering: &Rendering, value: &Value, name: &str) -> Result<Option<Value>> {
    if let Value::Namespace(index) = value {
        let namespaces = rendering.namespaces.borrow();
        let entries = namespaces.get(*index);
        return Ok(entries.and_then(|of| of.get(&super::compare::Name(name))).cloned());
    }
    if (name.starts_with("__") && name.ends_with("__")) || is_mutation(value, name) {
        let hidden = Missing::Unsafe(value.class(), name.to_owned());
        return Ok(Some(Value::undefined(hidden)));
    }
    let found = match (value, name) {
        (Value::Bool(_) | Value::Int(_), "real" | "numerator") => value.as_int().map(Value::Int),
        (Value::Bool(_) | Value::Int(_), "imag") => Some(Value::Int(0)),
        (Value::Bool(_) | Value::Int(_), "denominator") => Some(Value::Int(1)),
        (Value::Float(value), "real") => Some(Value::Float(*value)),
        (Value::Float(_), "imag") => Some(Value::Float(0.0)),
        (Value::Tuple(items), "grouper" | "list") if items.is_group => {
            items.values.get(usize::from(name == "list")).cloned()
        }
        (Value::Range(range), "start") => Some(Value::Int(range.start)),
        (Value::Range(range), "stop") => Some(Value::Int(range.stop)),
        (Value::Range(range), "step") => Some(Value::Int(range.step)),
        (Value::Loop(of), name) => loop_attribute(of, name),
        (Value::Cycler(of), "current") => of.items.values.get(of.position.get()).cloned(),
        (Value::Cycler(of), "items") => Some(Value::Tuple(of.items.clone())),
        (Value::Cycler(of), "pos") => Some(Value::Int(of.position.get() as i128)),
        (Value::Joiner(of), "sep") => Some(of.separator.clone()),
        (Value::Joiner(of), "used") => Some(Value::Bool(of.is_used.get())),
        (Value::Callable(callable), name) => match &**callable {
            Callable::Macro(of) => macro_attribute(rendering, of, name)?,
            Callable::Block(block) if name == "name" => Some(Value::Str(block.clone())),
            _ => None,
        },
        _ => None,
    };
    if found.is_some() {
        return Ok(found);
    }
    let method = has_method(value, name)
        .then(|| Value::Callable(Rc::new(Callable::Method(value.clone(), name.into()))));
    Ok(method)
}

/// Whether Python's object has the method.
fn has_method(value: &Value, name: &str) -> bool {
    match value {
        Value::Str(_) => STRING.contains(&name),
        Value::Markup(_) => {
            STRING.contains(&name) || matches!(name, "unescape" | "striptags" | "escape")
        }
        Value::List(_) => matches!(name, "copy" | "count" | "index"),
        Value::Tuple(_) | Value::Range(_) => matches!(name, "count" | "index"),
        Value::Dict(_) => matches!(name, "copy" | "fromkeys" | "get" | "items" | "keys" | "values"),
        Value::View(View::Values, _) => name == "mapping",
        Value::View(..) => matches!(name, "isdisjoint" | "mapping"),
        Value::Bool(_) | Value::Int(_) => matches!(
            name,
            "as_integer_ratio"
                | "bit_count"
                | "bit_length"
                | "conjugate"
                | "from_bytes"
                | "to_bytes"
        ),
        Value::Float(_) => {
            matches!(name, "as_integer_ratio" | "conjugate" | "fromhex" | "hex" | "is_integer")
        }
        Value::Loop(_) => matches!(name, "cycle" | "changed"),
        Value::Cycler(_) => matches!(name, "next" | "reset"),
        Value::Iterator(stream) => {
            stream.kind == "generator" && matches!(name, "send" | "throw" | "close")
        }
        Value::Callable(callable) => {
            matches!(**callable, Callable::Function("dict")) && name == "fromkeys"
        }
        _ => false,
    }
}

fn loop_attribute(of: &Loop, name: &str) -> Option<Value> {
    let (index, length) = (of.index.get(), of.items.values.len());
    let number = |number: usize| Some(Value::Int(number as i128));
    match name {
        "index" => number(index + 1),
        "index0" => number(index),
        "revindex" => number(length - index),
        "revindex0" => number(length - index - 1),
        "first" => Some(Value::Bool(index == 0)),
        "last" => Some(Value::Bool(index + 1 == length)),
        "length" => number(length),
        "depth" => number(of.level + 1),
        "depth0" => number(of.level),
        "previtem" => Some(match index.checked_sub(1).and_then(|at| of.items.values.get(at)) {
            Some(item) => item.clone(),
            None => Value::undefined(Missing::Text("there is no previous item")),
        }),
        "nextitem" => Some(match of.items.values.get(index + 1) {
            Some(item) => item.clone(),
            None => Value::undefined(Missing::Text("there is no next item")),
        }),
        _ => None,
    }
}

fn macro_attribute(
    rendering: &Rendering,
    of: &super::value::Macro,
    name: &str,
) -> Result<Option<Value>> {
    let code = &of.code;
    let has = |name: &str| code.parameters.iter().any(|(parameter, _)| **parameter == *name);
    Ok(Some(match name {
        "name" => code.name.clone().map_or(Value::None, Value::Str),
        "arguments" => {
            let names = code.parameters.iter().map(|(name, _)| Value::Str(name.clone()));
            Value::tuple(&rendering.meter, names.collect())?
        }
        "catch_kwargs" => Value::Bool(code.uses.kwargs && !has("kwargs")),
        "catch_varargs" => Value::Bool(code.uses.varargs && !has("varargs")),
        "caller" => Value::Bool(code.uses.caller && !has("caller")),
        "explicit_caller" => Value::Bool(has("caller")),
        _ => return Ok(None),
    }))
}

/// Python's `value[key]`; `None` for a `TypeError`, `IndexError` or `KeyError`.
fn own_item(rendering: &Rendering, value: &Value, key: &Value) -> Result<Option<Value>> {
    let meter = &rendering.meter;
    let position = |length: usize| {
        let index = key.as_int()?;
        let index = if index < 0 { index + length as i128 } else { index };
        usize::try_from(index).ok().filter(|index| *index < length)
    };
    Ok(match value {
        Value::Dict(dict) => match (key.as_str(), unhashable(key)) {
            (Some(name), _) => dict.get(name).cloned(),
            (None, None) => dict.entries.get(&Key::new(meter, key.clone())?).cloned(),
            (None, Some(_)) => None,
        },
        Value::Str(text) | Value::Markup(text) => {
            meter.scan(text.len())?;
            let length = if text.is_ascii() { text.len() } else { text.chars().count() };
            let character = position(length).and_then(|at| {
                let at = super::text::offset(text, at);
                text[at..].chars().next()
            });
            let of = |c: char| match value {
                Value::Markup(_) => Value::Markup(c.to_string().into()),
                _ => Value::text(c.encode_utf8(&mut [0; 4])),
            };
            character.map(of)
        }
        Value::List(items) | Value::Tuple(items) => {
            position(items.values.len()).and_then(|at| items.values.get(at)).cloned()
        }
        Value::Range(range) => position(usize::try_from(range.len()).unwrap_or(usize::MAX))
            .map(|at| range.get(at as i128)),
        Value::Callable(callable) => match (&**callable, key.as_str()) {
            (Callable::Template, Some(name)) => rendering
                .blocks
                .get(name)
                .map(|block| Value::Callable(Rc::new(Callable::Block(block.name.clone())))),
            _ => None,
        },
        _ => None,
    })
}

/// The indices of a slice of `length` items.
struct Slice {
    start: i128,
    step: i128,
    count: usize,
}

impl Slice {
    fn new(bounds: &[Value; 3], length: usize) -> Result<Self> {
        let bound = |value: &Value| match (value.as_int(), value) {
            (Some(bound), _) => Ok(Some(bound)),
            (None, Value::None) => Ok(None),
            (None, Value::Undefined(why)) => fail(why.to_string()),
            (None, other) => {
                fail(format!("the bounds of a slice are integers, not `{}`", other.class()))
            }
        };
        let step = bound(&bounds[2])?.unwrap_or(1).clamp(-(1 << 64), 1 << 64);
        if step == 0 {
            return fail("the step of a slice cannot be 0");
        }
        let length = length as i128;
        // With a negative step, -1 is before the first item.
        let (low, high) = if step < 0 { (-1, length - 1) } else { (0, length) };
        let clamp = |bound: i128| {
            (if bound < 0 { bound.saturating_add(length) } else { bound }).clamp(low, high)
        };
        let (first, last) = if step < 0 { (high, low) } else { (low, high) };
        let start = bound(&bounds[0])?.map_or(first, clamp);
        let stop = bound(&bounds[1])?.map_or(last, clamp);
        let count = Range { start, stop, step }.len();
        Ok(Self { start, step, count: usize::try_from(count).unwrap_or_default() })
    }

    fn indices(&self) -> impl Iterator<Item = usize> + '_ {
        let of =
            |index| usize::try_from(self.start + index as i128 * self.step).unwrap_or_default();
        (0..self.count).map(of)
    }
}

/// `value[start:stop:step]`.
pub(super) fn slice(meter: &Meter, value: &Value, bounds: &[Value; 3]) -> Result<Value> {
    let of_items = |items: &Items| {
        let slice = Slice::new(bounds, items.values.len())?;
        let values = slice.indices().filter_map(|index| items.values.get(index).cloned());
        Items::new(meter, values.collect())
    };
    match value {
        Value::Undefined(why) => fail(why.to_string()),
        Value::Str(text) => Ok(Value::Str(slice_text(meter, text, bounds)?.into())),
        Value::Markup(text) => Ok(Value::Markup(slice_text(meter, text, bounds)?.into())),
        Value::List(items) => Ok(Value::List(of_items(items)?)),
        Value::Tuple(items) => Ok(Value::Tuple(of_items(items)?)),
        Value::Range(range) => {
            let slice = Slice::new(bounds, usize::try_from(range.len()).unwrap_or(usize::MAX))?;
            let start = range.start + slice.start * range.step;
            let step = range.step.saturating_mul(slice.step);
            let stop = start.saturating_add(step.saturating_mul(slice.count as i128));
            Ok(Value::Range(Range { start, stop, step }))
        }
        other => fail(format!("a `{}` cannot be sliced", other.class())),
    }
}

fn slice_text(meter: &Meter, text: &str, bounds: &[Value; 3]) -> Result<String> {
    meter.scan(text.len())?;
    let length = if text.is_ascii() { text.len() } else { text.chars().count() };
    let slice = Slice::new(bounds, length)?;
    let part = if slice.step == 1 {
        let start = super::text::offset(text, usize::try_from(slice.start).unwrap_or_default());
        let end = start + super::text::offset(&text[start..], slice.count);
        text[start..end].to_owned()
    } else {
        let chars: Vec<char> = text.chars().collect();
        slice.indices().filter_map(|index| chars.get(index)).collect()
    };
    meter.take(part.len())?;
    Ok(part)
}
