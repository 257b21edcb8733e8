//! Python's `'…' % values`.

use super::conversions::{as_float, truncated};
use super::fault::{Result, fail};
use super::format::{Number, Spec, escape, float_digits, radix_digits};
use super::rendering::Rendering;
use super::repr::{Out, ascii, to_repr, to_text};
use super::value::Value;

/// The values of a format, which are taken in order or by name.
struct Values<'v> {
    all: &'v Value,
    /// The values of a tuple, or the single one.
    list: &'v [Value],
    next: usize,
}

impl<'v> Values<'v> {
    fn next(&mut self) -> Result<&'v Value> {
        let Some(value) = self.list.get(self.next) else {
            return fail("the format has more specifiers than values");
        };
        self.next += 1;
        Ok(value)
    }

    fn named(&self, name: &str) -> Result<&'v Value> {
        let Value::Dict(dict) = self.all else {
            return fail(format!("the format needs a map for `%({name})`"));
        };
        match dict.get(name) {
            Some(value) => Ok(value),
            None => fail(format!("the format has no value for `%({name})`")),
        }
    }
}

/// `format % values`.
pub(super) fn printf(rendering: &Rendering, format: &Value, values: &Value) -> Result<Value> {
    let text = format.as_str().unwrap_or_default();
    let is_markup = matches!(format, Value::Markup(_));
    let single = std::slice::from_ref(values);
    let list = match values {
        Value::Tuple(items) => &items.values,
        _ => single,
    };
    let mut values = Values { all: values, list, next: 0 };
    let mut out = Out::new(&rendering.meter);
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        out.push(before)?;
        rest = specifier(rendering, after, &mut values, is_markup, &mut out)?;
    }
    out.push(rest)?;
    // Values that may have names or items are not all used.
    let is_named = matches!(
        values.all,
        Value::Dict(_) | Value::List(_) | Value::Range(_) | Value::Undefined(_) | Value::Loop(_)
    );
    if values.next < values.list.len() && !is_named {
        return fail("not all values are used by the format");
    }
    let text = out.text.into();
    Ok(if is_markup { Value::Markup(text) } else { Value::Str(text) })
}

/// Prints the value of the specifier at the start of `rest`; gives what follows it.
fn specifier<'f>(
    rendering: &Rendering,
    mut rest: &'f str,
    values: &mut Values<'_>,
    is_markup: bool,
    out: &mut Out<'_>,
) -> Result<&'f str> {
    if let Some(after) = rest.strip_prefix('%') {
        out.push("%")?;
        return Ok(after);
    }
    let mut named = None;
    if let Some(after) = rest.strip_prefix('(') {
        let mut depth = 1;
        let end = after.find(|c| {
            depth += i32::from(c == '(') - i32::from(c == ')');
            depth == 0
        });
        let Some(end) = end else { return fail("a name in the format has no `)`") };
        named = Some(values.named(&after[..end])?);
        rest = &after[end + 1..];
    }
    let mut spec = Spec { align: Some('>'), ..Spec::default() };
    let mut is_zero = false;
    while let Some(flag) = rest.chars().next().filter(|c| "#0- +".contains(*c)) {
        match flag {
            '#' => spec.alternate = true,
            '0' => is_zero = true,
            '-' => spec.align = Some('<'),
            '+' => spec.sign = '+',
            _ if spec.sign != '+' => spec.sign = ' ',
            _ => {}
        }
        rest = &rest[1..];
    }
    let (width, after) = amount(rest, values)?;
    rest = after;
    if width.is_some_and(|width| width < 0) {
        spec.align = Some('<');
    }
    spec.width = checked(rendering, width.unwrap_or_default())?;
    if let Some(after) = rest.strip_prefix('.') {
        let (precision, after) = amount(after, values)?;
        rest = after;
        spec.precision = Some(checked(rendering, precision.unwrap_or_default().max(0))?);
    }
    rest = rest.strip_prefix(['h', 'l', 'L']).unwrap_or(rest);
    let Some(kind) = rest.chars().next() else { return fail("the format ends within a specifier") };
    rest = &rest[kind.len_utf8()..];
    if !"sradiuoxXeEfFgGc".contains(kind) {
        return fail(format!("the format character `{kind}` is not supported"));
    }
    let value = match named {
        Some(value) => value,
        None => values.next()?,
    };
    if matches!(kind, 's' | 'r' | 'a' | 'c') {
        let text = match kind {
            's' if is_markup => escape(rendering, value)?,
            's' => to_text(rendering, value)?,
            'c' => character(value)?,
            'r' => to_repr(rendering, value)?,
            _ => ascii(&to_repr(rendering, value)?),
        };
        let text = if is_markup && matches!(kind, 'r' | 'a') {
            super::text::escape_html(&text)
        } else {
            text
        };
        spec.precision = spec.precision.filter(|_| kind != 'c');
        out.push(&spec.text(&text))?;
        return Ok(rest);
    }
    if is_zero && spec.align == Some('>') {
        spec.fill = '0';
        spec.align = Some('=');
    }
    let number = number(kind, value, &spec)?;
    out.push(&spec.number(number))?;
    Ok(rest)
}

/// A width or precision, also from the values.
fn amount<'f>(rest: &'f str, values: &mut Values<'_>) -> Result<(Option<i128>, &'f str)> {
    if let Some(after) = rest.strip_prefix('*') {
        let value = values.next()?;
        return match value.as_int() {
            Some(amount) => Ok((Some(amount), after)),
            None => fail("`*` in a format needs an integer"),
        };
    }
    let length = rest.bytes().take_while(u8::is_ascii_digit).count();
    let amount = (length > 0).then(|| rest[..length].parse().unwrap_or(i128::MAX));
    Ok((amount, &rest[length..]))
}

fn checked(rendering: &Rendering, amount: i128) -> Result<usize> {
    rendering.meter.width(usize::try_from(amount.unsigned_abs()).unwrap_or(usize::MAX))
}

fn character(value: &Value) -> Result<String> {
    if let Some(text) = value.as_str().filter(|text| text.chars().count() == 1) {
        return Ok(text.to_owned());
    }
    let code = value.as_int().and_then(|code| u32::try_from(code).ok());
    match code.and_then(char::from_u32) {
        Some(character) => Ok(character.to_string()),
        None => fail("`%c` needs a character"),
    }
}

fn number(kind: char, value: &Value, spec: &Spec) -> Result<Number> {
    if let Value::Undefined(why) = value {
        return fail(why.to_string());
    }
    let needs = |what| fail(format!("`%{kind}` needs {what}, not `{}`", value.class()));
    if matches!(kind, 'e' | 'E' | 'f' | 'F' | 'g' | 'G') {
        let Some(float) = as_float(value) else { return needs("a number") };
        let precision = spec.precision.unwrap_or(6);
        let digits = float_digits(float.abs(), kind, precision, spec.alternate);
        let is_negative = float.is_sign_negative() && !float.is_nan();
        return Ok(Number { is_negative, prefix: "", digits });
    }
    let whole = match value {
        Value::Float(float) if matches!(kind, 'd' | 'i' | 'u') => truncated(*float)?,
        other => match other.as_int() {
            Some(whole) => whole,
            None if matches!(kind, 'd' | 'i' | 'u') => return needs("a number"),
            None => return needs("an integer"),
        },
    };
    let digits = radix_digits(whole.unsigned_abs(), kind);
    let precision = spec.precision.unwrap_or_default();
    let digits = format!("{digits:0>precision$}");
    let prefix = match kind {
        'o' if spec.alternate => "0o",
        'x' if spec.alternate => "0x",
        'X' if spec.alternate => "0X",
        _ => "",
    };
    Ok(Number { is_negative: whole < 0, prefix, digits })
}
