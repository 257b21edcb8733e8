//! Arithmetic and comparisons.

use std::cmp::Ordering;

use super::ast::{Comparison, Math};
use super::compare::{equal, order};
use super::conversions::as_float;
use super::fault::{Result, fail};
use super::format::escape;
use super::limits::Meter;
use super::printf::printf;
use super::rendering::Rendering;
use super::value::{Items, Key, Value};

impl Math {
    fn symbol(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::FloorDivide => "//",
            Self::Modulo => "%",
            Self::Power => "**",
        }
    }
}

/// `a op b`.
pub(super) fn math(rendering: &Rendering, op: Math, a: &Value, b: &Value) -> Result<Value> {
    let meter = &rendering.meter;
    if op == Math::Modulo && a.as_str().is_some() {
        return printf(rendering, a, b);
    }
    for value in [a, b] {
        if let Value::Undefined(why) = value {
            return fail(why.to_string());
        }
    }
    match op {
        Math::Add => {
            if let Some(sum) = concatenated(rendering, a, b)? {
                return Ok(sum);
            }
        }
        Math::Multiply => {
            for (repeated, count) in [(a, b), (b, a)] {
                if let Some(count) = count.as_int()
                    && let Some(product) = repeat(meter, repeated, count)?
                {
                    return Ok(product);
                }
            }
        }
        _ => {}
    }
    let result = match (a.as_int(), b.as_int()) {
        (Some(a), Some(b)) => whole(op, a, b)?,
        _ => match (as_float(a), as_float(b)) {
            (Some(a), Some(b)) => Some(float(op, a, b)?),
            _ => None,
        },
    };
    let unsupported = || {
        fail(format!(
            "`{}` is not supported between `{}` and `{}`",
            op.symbol(),
            a.class(),
            b.class()
        ))
    };
    result.map_or_else(unsupported, Ok)
}

/// `a + b` of strings, lists or tuples.
fn concatenated(rendering: &Rendering, a: &Value, b: &Value) -> Result<Option<Value>> {
    let meter = &rendering.meter;
    let joined = |a: &[Value], b: &[Value]| Items::new(meter, [a, b].concat());
    Ok(Some(match (a, b) {
        (Value::Str(a), Value::Str(b)) => {
            meter.allow(a.len().checked_add(b.len()))?;
            meter.text([&**a, &**b].concat())?
        }
        (Value::Str(_) | Value::Markup(_), Value::Str(_) | Value::Markup(_)) => {
            let text = escape(rendering, a)? + &escape(rendering, b)?;
            Value::Markup(text.into())
        }
        (Value::List(a), Value::List(b)) => Value::List(joined(&a.values, &b.values)?),
        (Value::Tuple(a), Value::Tuple(b)) => Value::Tuple(joined(&a.values, &b.values)?),
        _ => return Ok(None),
    }))
}

/// `repeated * count` of a string, list or tuple.
fn repeat(meter: &Meter, repeated: &Value, count: i128) -> Result<Option<Value>> {
    if !matches!(repeated, Value::Str(_) | Value::Markup(_) | Value::List(_) | Value::Tuple(_)) {
        return Ok(None);
    }
    let count = usize::try_from(count.max(0)).unwrap_or(usize::MAX);
    let is_empty = repeated.len() == Some(0);
    let bytes = repeated.as_str().map_or_else(|| repeated.bytes(), str::len);
    meter.allow(if is_empty { Some(0) } else { bytes.checked_mul(count) })?;
    let count = if is_empty { 0 } else { count };
    let all = |items: &Items| {
        let values = std::iter::repeat_n(&items.values, count).flatten().cloned();
        Items::new(meter, values.collect())
    };
    Ok(Some(match repeated {
        Value::Str(text) => meter.text(text.repeat(count))?,
        Value::Markup(text) => {
            meter.take(text.len() * count)?;
            Value::Markup(text.repeat(count).into())
        }
        Value::List(items) => Value::List(all(items)?),
        Value::Tuple(items) => Value::Tuple(all(items)?),
        _ => return Ok(None),
    }))
}

/// Arithmetic of integers.
fn whole(op: Math, a: i128, b: i128) -> Result<Option<Value>> {
    if b == 0 && matches!(op, Math::Divide | Math::FloorDivide | Math::Modulo) {
        return fail("division by zero");
    }
    let result = match op {
        Math::Add => a.checked_add(b),
        Math::Subtract => a.checked_sub(b),
        Math::Multiply => a.checked_mul(b),
        Math::Divide => return Ok(Some(Value::Float(quotient(a, b)))),
        Math::FloorDivide => {
            let quotient = a.checked_div(b);
            quotient.map(|of| of - i128::from(a % b != 0 && (a < 0) != (b < 0)))
        }
        Math::Modulo => {
            let rest = a.checked_rem(b);
            rest.map(|of| if of != 0 && (of < 0) != (b < 0) { of + b } else { of })
        }
        Math::Power if b < 0 => return float(op, a as f64, b as f64).map(Some),
        Math::Power => match (a, u32::try_from(b)) {
            (0 | 1, _) => Some(if b == 0 { 1 } else { a }),
            (-1, _) => Some(if b % 2 == 0 { 1 } else { -1 }),
            (_, Ok(exponent)) => a.checked_pow(exponent),
            (_, Err(_)) => None,
        },
    };
    match result {
        Some(result) => Ok(Some(Value::Int(result))),
        None => fail("integers of more than 128 bits are not supported"),
    }
}

/// `a / b`, rounded once.
fn quotient(a: i128, b: i128) -> f64 {
    const EXACT: u128 = 1 << 53;
    if a.unsigned_abs() <= EXACT && b.unsigned_abs() <= EXACT {
        return a as f64 / b as f64;
    }
    // The whole quotient, or one scaled to 64 significant bits with the rest in the last.
    let (x, y) = (a.unsigned_abs(), b.unsigned_abs());
    let bits = |of: u128| 128 - of.leading_zeros() as i32;
    let shift = 64 - (bits(x) - bits(y));
    let (x, y) = match shift {
        0.. => (x.checked_shl(shift as u32).filter(|of| of >> shift == x), Some(y)),
        _ => (Some(x), y.checked_shl(-shift as u32).filter(|of| of >> -shift == y)),
    };
    let (Some(x), Some(y)) = (x, y) else { return a as f64 / b as f64 };
    let scaled = (x / y) << 1 | u128::from(x % y != 0);
    let size = scaled as f64 / 2.0 * 2f64.powi(-shift);
    if (a < 0) == (b < 0) { size } else { -size }
}

/// Arithmetic of floats.
fn float(op: Math, a: f64, b: f64) -> Result<Value> {
    if b == 0.0 && matches!(op, Math::Divide | Math::FloorDivide | Math::Modulo) {
        return fail("division by zero");
    }
    let modulo = || {
        let rest = a % b;
        if rest != 0.0 && (rest < 0.0) != (b < 0.0) {
            rest + b
        } else if rest == 0.0 {
            0.0f64.copysign(b)
        } else {
            rest
        }
    };
    Ok(Value::Float(match op {
        Math::Add => a + b,
        Math::Subtract => a - b,
        Math::Multiply => a * b,
        Math::Divide => a / b,
        Math::Modulo => modulo(),
        Math::FloorDivide => {
            let quotient = (a - modulo()) / b;
            let floor = quotient.floor();
            if quotient == 0.0 {
                0.0f64.copysign(a / b)
            } else if quotient - floor > 0.5 {
                floor + 1.0
            } else {
                floor
            }
        }
        Math::Power => {
            if a == 0.0 && b < 0.0 {
                return fail("0 cannot be raised to a negative power");
            }
            if a < 0.0 && a.is_finite() && b.is_finite() && b.fract() != 0.0 {
                return fail("complex numbers are not supported");
            }
            let power = a.powf(b);
            if power.is_infinite() && a.is_finite() && b.is_finite() {
                return fail("the result of `**` is too large");
            }
            power
        }
    }))
}

/// `-a`, or `+a`.
pub(super) fn signed(value: &Value, is_negative: bool) -> Result<Value> {
    let symbol = if is_negative { "-" } else { "+" };
    match value {
        Value::Undefined(why) => fail(why.to_string()),
        Value::Float(value) => Ok(Value::Float(if is_negative { -value } else { *value })),
        other => match other.as_int() {
            Some(whole) => Ok(Value::Int(if is_negative { whole.saturating_neg() } else { whole })),
            None => fail(format!("unary `{symbol}` is not supported of `{}`", other.class())),
        },
    }
}

/// `a op b` of a comparison.
pub(super) fn compare(rendering: &Rendering, op: Comparison, a: &Value, b: &Value) -> Result<bool> {
    let meter = &rendering.meter;
    let ordered =
        |symbol, holds: fn(Ordering) -> bool| Ok(order(meter, a, b, symbol)?.is_some_and(holds));
    match op {
        Comparison::Equal | Comparison::NotEqual => {
            meter.scan(a.bytes().min(b.bytes()))?;
            Ok(equal(a, b) == (op == Comparison::Equal))
        }
        Comparison::Less => ordered("<", Ordering::is_lt),
        Comparison::LessOrEqual => ordered("<=", Ordering::is_le),
        Comparison::Greater => ordered(">", Ordering::is_gt),
        Comparison::GreaterOrEqual => ordered(">=", Ordering::is_ge),
        Comparison::In => contains(meter, b, a),
        Comparison::NotIn => Ok(!contains(meter, b, a)?),
    }
}

/// Python's `item in container`.
pub(super) fn contains(meter: &Meter, container: &Value, item: &Value) -> Result<bool> {
    meter.scan(container.bytes())?;
    let is_item = |other: &Value| super::compare::identical(other, item) || equal(other, item);
    Ok(match container {
        Value::Str(text) | Value::Markup(text) => match item.as_str() {
            Some(part) => text.contains(part),
            None => {
                return fail(format!("`in` a string needs a string, not `{}`", item.class()));
            }
        },
        Value::List(items) | Value::Tuple(items) => items.values.iter().any(is_item),
        Value::Dict(dict) | Value::View(super::value::View::Keys, dict) => {
            dict.entries.contains_key(&Key::new(meter, item.clone())?)
        }
        Value::Iterator(stream) => {
            while let Some(other) = stream.next()? {
                if is_item(&other) {
                    return Ok(true);
                }
            }
            false
        }
        other => match other.items_if_any(meter)? {
            Some(items) => items.iter().any(is_item),
            None => return fail(format!("`in` is not supported of `{}`", other.class())),
        },
    })
}
