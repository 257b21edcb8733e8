//! Python's `int()`, `float()` and `round()`.

use super::fault::{Result, fail};
use super::text::{is_space, with_ascii_digits};
use super::value::Value;

/// The integer of a text in `base`, or by its prefix if that is 0; `None` if it has none.
pub(super) fn parse_int(text: &str, base: u32) -> Option<i128> {
    let text = with_ascii_digits(text.trim_matches(is_space));
    let (is_negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, &*text),
    };
    let prefix = |base| match base {
        2 => ["0b", "0B"],
        8 => ["0o", "0O"],
        16 => ["0x", "0X"],
        _ => ["", ""],
    };
    let strip = |base| {
        let prefixes: [&str; 2] = prefix(base);
        prefixes.into_iter().filter(|of| !of.is_empty()).find_map(|of| digits.strip_prefix(of))
    };
    let (base, digits, has_prefix) = match base {
        0 => match [2, 8, 16].into_iter().find_map(|base| Some((base, strip(base)?))) {
            Some((base, digits)) => (base, digits, true),
            None if digits.starts_with('0')
                && digits.bytes().any(|b| !matches!(b, b'0' | b'_')) =>
            {
                return None;
            }
            None => (10, digits, false),
        },
        2 | 8 | 16 => match strip(base) {
            Some(digits) => (base, digits, true),
            None => (base, digits, false),
        },
        3..=36 => (base, digits, false),
        _ => return None,
    };
    let digits = if has_prefix { digits.strip_prefix('_').unwrap_or(digits) } else { digits };
    let digits = without_underscores(digits)?;
    // `from_str_radix` takes a sign.
    if !digits.starts_with(|c: char| c.is_digit(36)) {
        return None;
    }
    let whole = i128::from_str_radix(&digits, base).ok()?;
    Some(if is_negative { -whole } else { whole })
}

/// Digits without the single underscores between them.
fn without_underscores(digits: &str) -> Option<String> {
    let is_misplaced = digits.starts_with('_') || digits.ends_with('_') || digits.contains("__");
    (!is_misplaced).then(|| digits.replace('_', ""))
}

/// The float of a text; `None` if it has none.
pub(super) fn parse_float(text: &str) -> Option<f64> {
    let text = with_ascii_digits(text.trim_matches(is_space));
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(&text);
    let is_number = unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    if !is_number {
        let name = unsigned.to_ascii_lowercase();
        let is_name = matches!(&*name, "inf" | "infinity" | "nan");
        return is_name.then(|| text.parse().ok()).flatten();
    }
    let mut previous = ' ';
    for c in unsigned.chars().chain([' ']) {
        let is_digit = |c: char| c.is_ascii_digit();
        if (c == '_' && !is_digit(previous)) || (previous == '_' && !is_digit(c)) {
            return None;
        }
        previous = c;
    }
    text.replace('_', "").parse().ok()
}

/// The integer of a float without its fraction.
pub(super) fn truncated(value: f64) -> Result<i128> {
    if value.is_nan() {
        return fail("cannot convert NaN to an integer");
    }
    if value.is_infinite() {
        return fail("cannot convert infinity to an integer");
    }
    if value.abs() >= 2f64.powi(127) {
        return fail("integers of more than 128 bits are not supported");
    }
    Ok(value as i128)
}

/// Python's `float()` of a number.
pub(super) fn as_float(value: &Value) -> Option<f64> {
    match value {
        Value::Float(value) => Some(*value),
        other => other.as_int().map(|whole| whole as f64),
    }
}

/// Python's `round()` with a number of digits.
pub(super) fn round(value: &Value, digits: i128) -> Result<Value> {
    if let Some(whole) = value.as_int() {
        if digits >= 0 {
            return Ok(Value::Int(whole));
        }
        let exponent = u32::try_from(digits.saturating_neg()).unwrap_or(u32::MAX);
        let Some(unit) = 10_i128.checked_pow(exponent) else { return Ok(Value::Int(0)) };
        let (floor, rest) = (whole.div_euclid(unit), whole.rem_euclid(unit));
        let up = rest > unit - rest || (rest == unit - rest && floor % 2 != 0);
        return Ok(Value::Int((floor + i128::from(up)) * unit));
    }
    let Value::Float(value) = value else {
        return fail(format!("a `{}` cannot be rounded", value.class()));
    };
    if !value.is_finite() || digits > 350 {
        return Ok(Value::Float(*value));
    }
    if digits >= 0 {
        let text = format!("{value:.*}", usize::try_from(digits).unwrap_or_default());
        return Ok(Value::Float(text.parse().unwrap_or(*value)));
    }
    if digits < -308 {
        return Ok(Value::Float(0.0 * value));
    }
    // A float above 2^53 is an integer, and one below is rounded as its digits.
    let text = format!("{:e}", value.abs());
    let exponent: i128 =
        text.split_once('e').and_then(|(_, of)| of.parse().ok()).unwrap_or_default();
    let kept = exponent + digits;
    let rounded = match usize::try_from(kept) {
        Ok(kept) => format!("{value:.kept$e}").parse().unwrap_or(*value),
        Err(_) => {
            let unit = 10f64.powi(i32::try_from(-digits).unwrap_or_default());
            if value.abs() > unit / 2.0 { unit.copysign(*value) } else { 0.0f64.copysign(*value) }
        }
    };
    Ok(Value::Float(rounded))
}
