//! Equality, order and hashes of values, as Python has them.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};
use std::rc::Rc;
use std::sync::Arc;

use super::fault::{Result, fail};
use super::limits::Meter;
use super::value::{Dict, Key, Range, Value, View};

/// Python's `==`.
pub(super) fn equal(a: &Value, b: &Value) -> bool {
    if let (Some(a), Some(b)) = (a.as_str(), b.as_str()) {
        return a == b;
    }
    if let Some(ordering) = numbers(a, b) {
        return ordering == Some(Ordering::Equal);
    }
    match (a, b) {
        (Value::Undefined(_), Value::Undefined(_)) | (Value::None, Value::None) => true,
        (Value::List(a), Value::List(b)) | (Value::Tuple(a), Value::Tuple(b)) => {
            Rc::ptr_eq(a, b)
                || (a.values.len() == b.values.len()
                    && a.values.iter().zip(&b.values).all(|(a, b)| equal(a, b)))
        }
        (Value::Dict(a), Value::Dict(b)) => {
            Rc::ptr_eq(a, b)
                || (a.entries.len() == b.entries.len()
                    && a.entries.iter().all(|(key, value)| {
                        b.entries.get(key).is_some_and(|other| equal(value, other))
                    }))
        }
        (Value::View(kind, a), Value::View(other, b)) => {
            let has = |(key, value): (&Key, &Value)| {
                let found = b.entries.get(key);
                found.is_some_and(|found| *kind == View::Keys || equal(value, found))
            };
            kind == other
                && *kind != View::Values
                && a.entries.len() == b.entries.len()
                && a.entries.iter().all(has)
        }
        (Value::Range(a), Value::Range(b)) => equal_ranges(*a, *b),
        _ => same_object(a, b),
    }
}

fn equal_ranges(a: Range, b: Range) -> bool {
    let length = a.len();
    length == b.len() && (length == 0 || (a.start == b.start && (length == 1 || a.step == b.step)))
}

/// Whether both are the same object, for objects that are only equal to themselves.
fn same_object(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Iterator(a), Value::Iterator(b)) => Rc::ptr_eq(a, b),
        (Value::Namespace(a), Value::Namespace(b)) => a == b,
        (Value::Loop(a), Value::Loop(b)) => Rc::ptr_eq(a, b),
        (Value::Cycler(a), Value::Cycler(b)) => Rc::ptr_eq(a, b),
        (Value::Joiner(a), Value::Joiner(b)) => Rc::ptr_eq(a, b),
        (Value::Callable(a), Value::Callable(b)) => Rc::ptr_eq(a, b),
        _ => false,
    }
}

/// Python's `is`. Small integers and texts of the template are shared there.
pub(super) fn identical(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::None, Value::None) => true,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::Int(a), Value::Int(b)) => a == b && (-5..=256).contains(a),
        (Value::Undefined(a), Value::Undefined(b)) => Rc::ptr_eq(a, b),
        (Value::Str(a), Value::Str(b)) => Arc::ptr_eq(a, b) || (a == b && a.chars().count() <= 1),
        (Value::Markup(a), Value::Markup(b)) => Arc::ptr_eq(a, b),
        (Value::List(a), Value::List(b)) | (Value::Tuple(a), Value::Tuple(b)) => Rc::ptr_eq(a, b),
        (Value::Dict(a), Value::Dict(b)) => Rc::ptr_eq(a, b),
        _ => same_object(a, b),
    }
}

/// The order of two numbers, `None` within if one is no number, and `None` if they are not both numbers.
fn numbers(a: &Value, b: &Value) -> Option<Option<Ordering>> {
    Some(match (a, b) {
        (Value::Float(a), Value::Float(b)) => a.partial_cmp(b),
        (Value::Float(a), b) => b.as_int().map(|b| with_float(b, *a).map(Ordering::reverse))?,
        (a, Value::Float(b)) => a.as_int().map(|a| with_float(a, *b))?,
        (a, b) => Some(a.as_int()?.cmp(&b.as_int()?)),
    })
}

/// The exact order of an integer and a float.
fn with_float(whole: i128, float: f64) -> Option<Ordering> {
    if float.is_nan() {
        return None;
    }
    // All floats between are integers below 2^127.
    if float.abs() >= 2f64.powi(126) {
        return Some(if float > 0.0 { Ordering::Less } else { Ordering::Greater });
    }
    let floor = float.floor();
    let fraction = if float > floor { Ordering::Less } else { Ordering::Equal };
    Some(whole.cmp(&(floor as i128)).then(fraction))
}

/// Python's order, if `a < b` is supported; `None` within for NaN.
pub(super) fn order(
    meter: &Meter,
    a: &Value,
    b: &Value,
    operator: &str,
) -> Result<Option<Ordering>> {
    meter.scan(a.bytes().min(b.bytes()))?;
    if let Some(ordering) = numbers(a, b) {
        return Ok(ordering);
    }
    for value in [a, b] {
        if let Value::Undefined(why) = value {
            return fail(why.to_string());
        }
    }
    if let (Some(a), Some(b)) = (a.as_str(), b.as_str()) {
        return Ok(Some(a.cmp(b)));
    }
    match (a, b) {
        (Value::List(a), Value::List(b)) | (Value::Tuple(a), Value::Tuple(b)) => {
            for (a, b) in a.values.iter().zip(&b.values) {
                if !identical(a, b) && !equal(a, b) {
                    return order(meter, a, b, operator);
                }
            }
            Ok(Some(a.values.len().cmp(&b.values.len())))
        }
        _ => fail(format!(
            "`{operator}` is not supported between `{}` and `{}`",
            a.class(),
            b.class()
        )),
    }
}

/// Sorts as Python's `sorted`, by keys: equal items keep their order, also if it is reversed.
pub(super) fn sorted_by_keys<T>(
    meter: &Meter,
    mut items: Vec<(Value, T)>,
    is_reversed: bool,
) -> Result<Vec<(Value, T)>> {
    if items.len() < 2 {
        return Ok(items);
    }
    // Not of the standard library, which may panic at an order such as that of NaN.
    let count = items.len();
    let right = items.split_off(count / 2);
    let mut left = sorted_by_keys(meter, items, is_reversed)?.into_iter().peekable();
    let mut right = sorted_by_keys(meter, right, is_reversed)?.into_iter().peekable();
    let mut sorted = Vec::with_capacity(count);
    while let (Some((a, _)), Some((b, _))) = (left.peek(), right.peek()) {
        let ordering = order(meter, b, a, "<")?;
        let first = if is_reversed { Ordering::Greater } else { Ordering::Less };
        sorted.extend(if ordering == Some(first) { right.next() } else { left.next() });
    }
    sorted.extend(left.chain(right));
    Ok(sorted)
}

impl Key {
    /// The value as a key.
    ///
    /// # Errors
    /// It is a list, a map, or has one.
    pub(super) fn new(meter: &Meter, value: Value) -> Result<Self> {
        meter.scan(value.bytes())?;
        match unhashable(&value) {
            Some(class) => fail(format!("unhashable type: `{class}`")),
            None => Ok(Self(value)),
        }
    }
}

/// The class of what is not hashable in a value.
pub(super) fn unhashable(value: &Value) -> Option<&'static str> {
    match value {
        Value::List(_) | Value::Dict(_) | Value::View(View::Keys | View::Items, _) => {
            Some(value.class())
        }
        Value::Tuple(items) => items.values.iter().find_map(unhashable),
        _ => None,
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        identical(&self.0, &other.0) || equal(&self.0, &other.0)
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        hash(&self.0, state);
    }
}

fn hash(value: &Value, state: &mut impl Hasher) {
    match value {
        Value::Str(text) | Value::Markup(text) => hash_text(text, state),
        Value::Float(float) if *float != float.trunc() || float.abs() >= 2f64.powi(126) => {
            state.write_u64(float.to_bits());
        }
        Value::Float(float) => state.write_i128(*float as i128),
        Value::Tuple(items) => items.values.iter().for_each(|item| hash(item, state)),
        Value::Namespace(index) => state.write_usize(*index),
        Value::Callable(callable) => state.write_usize(Rc::as_ptr(callable).addr()),
        // Others that are equal have the same class.
        other => match other.as_int() {
            Some(whole) => state.write_i128(whole),
            None => state.write(other.class().as_bytes()),
        },
    }
}

fn hash_text(text: &str, state: &mut impl Hasher) {
    state.write_u8(0);
    text.hash(state);
}

/// A text to find among keys.
pub(super) struct Name<'t>(pub(super) &'t str);

impl Hash for Name<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        hash_text(self.0, state);
    }
}

impl indexmap::Equivalent<Key> for Name<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        key.0.as_str() == Some(self.0)
    }
}

impl Dict {
    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.entries.get(&Name(key))
    }
}
