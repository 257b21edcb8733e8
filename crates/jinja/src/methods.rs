//! Python's methods of strings, lists, maps and numbers.

mod strings;

pub(super) use strings::{joined, replaced};

use super::arguments::{Given, integer, required};
use super::compare::{equal, identical};
use super::fault::{Result, fail};
use super::functions::from_keys;
use super::rendering::Rendering;
use super::value::{Items, Key, Value, View};

/// `receiver.name(…)`.
pub(super) fn call_method(
    rendering: &Rendering,
    receiver: &Value,
    name: &str,
    given: Given,
) -> Result<Value> {
    let meter = &rendering.meter;
    match receiver {
        Value::Str(_) | Value::Markup(_) => strings::call(rendering, receiver, name, given),
        Value::List(items) | Value::Tuple(items) => match name {
            "copy" => {
                given.in_order::<0>(name, 0)?;
                Value::list(meter, items.values.clone())
            }
            _ => search(rendering, &items.values, name, given),
        },
        Value::Range(_) => search(rendering, &receiver.items(meter)?, name, given),
        Value::Dict(dict) => match name {
            "get" => {
                let [key, default] = given.in_order(name, 1)?;
                let key = required(key, name, "key")?;
                let key = Key::new(meter, key)?;
                let found = dict.entries.get(&key).cloned();
                Ok(found.or(default).unwrap_or(Value::None))
            }
            "fromkeys" => from_keys(rendering, given),
            "copy" => given.in_order::<0>(name, 0).map(|_| receiver.clone()),
            _ => {
                given.in_order::<0>(name, 0)?;
                let kind = match name {
                    "keys" => View::Keys,
                    "values" => View::Values,
                    _ => View::Items,
                };
                Ok(Value::View(kind, dict.clone()))
            }
        },
        Value::Bool(_) | Value::Int(_) => number(rendering, receiver, name, given),
        Value::Float(value) => match name {
            "is_integer" => {
                given.in_order::<0>(name, 0)?;
                Ok(Value::Bool(value.is_finite() && value.fract() == 0.0))
            }
            "conjugate" => given.in_order::<0>(name, 0).map(|_| Value::Float(*value)),
            _ => unsupported(receiver, name),
        },
        Value::Loop(of) if name == "cycle" => {
            let values = given.positional;
            match values.len() {
                0 => fail("`loop.cycle` needs items"),
                count => Ok(values[of.index.get() % count].clone()),
            }
        }
        Value::Loop(of) => {
            let values = given.positional;
            let mut last = of.changed.borrow_mut();
            let is_same = |(a, b): (&Value, &Value)| identical(a, b) || equal(a, b);
            let is_unchanged = last.as_ref().is_some_and(|last| {
                last.len() == values.len() && last.iter().zip(&values).all(is_same)
            });
            if !is_unchanged {
                *last = Some(values);
            }
            Ok(Value::Bool(!is_unchanged))
        }
        Value::Cycler(of) => {
            given.in_order::<0>(name, 0)?;
            let at = of.position.get();
            if name == "reset" {
                of.position.set(0);
                return Ok(Value::None);
            }
            of.position.set((at + 1) % of.items.values.len().max(1));
            Ok(of.items.values.get(at).cloned().unwrap_or(Value::None))
        }
        Value::Callable(_) => from_keys(rendering, given),
        _ => unsupported(receiver, name),
    }
}

fn unsupported<T>(receiver: &Value, name: &str) -> Result<T> {
    fail(format!("the method `{name}` of `{}` is not supported", receiver.class()))
}

/// `count` or `index`.
fn search(rendering: &Rendering, items: &[Value], name: &str, given: Given) -> Result<Value> {
    rendering.meter.steps(items.len())?;
    let [wanted, start, stop] = given.in_order(name, 1)?;
    let wanted = required(wanted, name, "value")?;
    if name == "count" && start.is_some() {
        return fail("`count` of a list takes one argument");
    }
    let is_wanted = |item: &Value| identical(item, &wanted) || equal(item, &wanted);
    if name == "count" {
        return Ok(Value::Int(items.iter().filter(|item| is_wanted(item)).count() as i128));
    }
    let bound = |value: Option<Value>, default: usize| match value {
        None => Ok(default),
        Some(value) => {
            let bound = integer(&value, name)?;
            let from_end =
                if bound < 0 { bound.saturating_add(items.len() as i128) } else { bound };
            Ok(super::arguments::size(from_end).min(items.len()))
        }
    };
    let (start, stop) = (bound(start, 0)?, bound(stop, items.len())?);
    let within = items.get(start..stop).unwrap_or_default();
    match within.iter().position(is_wanted) {
        Some(at) => Ok(Value::Int((start + at) as i128)),
        None => fail("`index` found no such value"),
    }
}

fn number(rendering: &Rendering, receiver: &Value, name: &str, given: Given) -> Result<Value> {
    let whole = receiver.as_int().unwrap_or_default();
    match name {
        "bit_length" => {
            given.in_order::<0>(name, 0)?;
            Ok(Value::Int((128 - whole.unsigned_abs().leading_zeros()).into()))
        }
        "bit_count" => {
            given.in_order::<0>(name, 0)?;
            Ok(Value::Int(whole.unsigned_abs().count_ones().into()))
        }
        "conjugate" => given.in_order::<0>(name, 0).map(|_| Value::Int(whole)),
        "as_integer_ratio" => {
            given.in_order::<0>(name, 0)?;
            let pair = vec![Value::Int(whole), Value::Int(1)];
            Ok(Value::Tuple(Items::new(&rendering.meter, pair)?))
        }
        _ => unsupported(receiver, name),
    }
}
