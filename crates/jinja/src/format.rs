//! Python's `str.format` and its format specifications.

use super::conversions::as_float;
use super::fault::{Result, fail};
use super::lookup::{attribute, item};
use super::rendering::Rendering;
use super::repr::{Out, ascii, float, to_repr, to_text};
use super::text::escape_html;
use super::value::Value;

/// A value as HTML: markup as it is, others as escaped text.
pub(super) fn escape(rendering: &Rendering, value: &Value) -> Result<String> {
    match value {
        Value::Markup(text) => {
            rendering.meter.take(text.len())?;
            Ok(text.to_string())
        }
        other => {
            let escaped = escape_html(&to_text(rendering, other)?);
            rendering.meter.take(escaped.len())?;
            Ok(escaped)
        }
    }
}

/// A format specification: `[[fill]align][sign][#][0][width][grouping][.precision][type]`.
#[derive(Clone)]
pub(super) struct Spec {
    pub(super) fill: char,
    pub(super) align: Option<char>,
    pub(super) sign: char,
    pub(super) alternate: bool,
    pub(super) width: usize,
    pub(super) grouping: Option<char>,
    pub(super) precision: Option<usize>,
    pub(super) kind: Option<char>,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            fill: ' ',
            align: None,
            sign: '-',
            alternate: false,
            width: 0,
            grouping: None,
            precision: None,
            kind: None,
        }
    }
}

/// A number as digits.
pub(super) struct Number {
    pub(super) is_negative: bool,
    pub(super) prefix: &'static str,
    pub(super) digits: String,
}

impl Spec {
    fn parse(rendering: &Rendering, text: &str) -> Result<Self> {
        let mut spec = Self::default();
        let mut rest = text;
        let take = |rest: &mut &str, of: &str| {
            let found = rest.chars().next().filter(|c| of.contains(*c));
            if let Some(c) = found {
                *rest = &rest[c.len_utf8()..];
            }
            found
        };
        let mut has_fill = false;
        let mut chars = rest.chars();
        if let (Some(fill), Some(align)) = (chars.next(), chars.next())
            && "<>^=".contains(align)
        {
            (spec.fill, spec.align, has_fill) = (fill, Some(align), true);
            rest = chars.as_str();
        } else {
            spec.align = take(&mut rest, "<>^=");
        }
        spec.sign = take(&mut rest, "+- ").unwrap_or('-');
        spec.alternate = take(&mut rest, "#").is_some();
        if rest.starts_with('0') {
            rest = &rest[1..];
            if !has_fill {
                spec.fill = '0';
            }
            spec.align = spec.align.or(Some('='));
        }
        let number = |rest: &mut &str| -> Result<Option<usize>> {
            let length = rest.bytes().take_while(u8::is_ascii_digit).count();
            let digits = &rest[..length];
            *rest = &rest[length..];
            match digits {
                "" => Ok(None),
                _ => rendering.meter.width(digits.parse().unwrap_or(usize::MAX)).map(Some),
            }
        };
        spec.width = number(&mut rest)?.unwrap_or_default();
        spec.grouping = take(&mut rest, ",_");
        if take(&mut rest, ".").is_some() {
            spec.precision = number(&mut rest)?;
            if spec.precision.is_none() {
                return fail(format!(
                    "the format specifier `{text}` has no precision after its dot"
                ));
            }
        }
        spec.kind = take(&mut rest, "sbcdoxXneEfFgG%");
        match rest {
            "" => Ok(spec),
            _ => fail(format!("the format specifier `{text}` is not supported")),
        }
    }

    /// A text with its width, cut to the precision.
    pub(super) fn text(&self, text: &str) -> String {
        let cut = match self.precision {
            Some(precision) => &text[..super::text::offset(text, precision)],
            None => text,
        };
        self.padded("", cut, '<')
    }

    /// A number with its sign, grouping and width.
    pub(super) fn number(&self, number: Number) -> String {
        let sign = match (number.is_negative, self.sign) {
            (true, _) => "-",
            (false, '+') => "+",
            (false, ' ') => " ",
            _ => "",
        };
        let head = format!("{sign}{}", number.prefix);
        let digits = match self.grouping {
            Some(separator) => {
                let by = if matches!(self.kind, Some('b' | 'o' | 'x' | 'X')) { 4 } else { 3 };
                // Zeros that fill the width are grouped too.
                let is_filled = self.fill == '0' && self.align == Some('=');
                let width = if is_filled { self.width.saturating_sub(head.len()) } else { 0 };
                grouped(&number.digits, separator, by, width)
            }
            None => number.digits,
        };
        self.padded(&head, &digits, '>')
    }

    fn padded(&self, head: &str, text: &str, align: char) -> String {
        let length = head.chars().count() + text.chars().count();
        let missing = self.width.saturating_sub(length);
        let fill = |count| self.fill.to_string().repeat(count);
        match self.align.unwrap_or(align) {
            '<' => format!("{head}{text}{}", fill(missing)),
            '^' => format!("{}{head}{text}{}", fill(missing / 2), fill(missing - missing / 2)),
            '=' => format!("{head}{}{text}", fill(missing)),
            _ => format!("{}{head}{text}", fill(missing)),
        }
    }
}

/// The whole part of a number with separators, and zeros up to a width.
fn grouped(digits: &str, separator: char, by: usize, width: usize) -> String {
    let whole = digits.find(|c: char| !c.is_ascii_hexdigit() || (by == 3 && c == 'e'));
    let (whole, rest) = digits.split_at(whole.unwrap_or(digits.len()));
    if whole.is_empty() {
        return digits.to_owned();
    }
    let mut whole = whole.to_owned();
    let length = |digits: usize| digits + (digits - 1) / by + rest.len();
    while length(whole.len()) < width {
        whole.insert(0, '0');
    }
    let mut text = String::new();
    for (index, c) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index) % by == 0 {
            text.push(separator);
        }
        text.push(c);
    }
    text + rest
}

/// Python's `format(value, spec)`.
fn formatted(rendering: &Rendering, value: &Value, text: &str) -> Result<String> {
    if text.is_empty() {
        return to_text(rendering, value);
    }
    let spec = Spec::parse(rendering, text)?;
    let unsupported =
        || fail(format!("the format specifier `{text}` is not supported for `{}`", value.class()));
    if let Some(content) = value.as_str() {
        let is_text = matches!(spec.kind, None | Some('s')) && spec.align != Some('=');
        let is_plain = spec.sign == '-' && !spec.alternate && spec.grouping.is_none();
        // A zero before the width fills a string on its right.
        let filled = Spec { align: Some('<'), ..spec.clone() };
        return match (is_text && is_plain, spec.align, spec.fill) {
            (true, ..) => Ok(spec.text(content)),
            (false, Some('='), '0') if is_plain && matches!(spec.kind, None | Some('s')) => {
                Ok(filled.text(content))
            }
            _ => unsupported(),
        };
    }
    if matches!(value, Value::Bool(_)) && spec.kind.is_none() {
        // Without a type, other options than the width are those of an integer.
        return match value.as_int() {
            Some(whole) => Ok(spec.number(integer(whole, 'd', &spec))),
            None => unsupported(),
        };
    }
    match (value.as_int(), spec.kind) {
        (Some(code), Some('c')) => {
            let character = u32::try_from(code).ok().and_then(char::from_u32);
            character.map_or_else(unsupported, |c| Ok(spec.padded("", &c.to_string(), '<')))
        }
        (Some(whole), None | Some('b' | 'd' | 'n' | 'o' | 'x' | 'X')) => match spec.precision {
            None => Ok(spec.number(integer(whole, spec.kind.unwrap_or('d'), &spec))),
            Some(_) => fail("a precision is not supported in the format of an integer"),
        },
        (_, None | Some('e' | 'E' | 'f' | 'F' | 'g' | 'G' | 'n' | '%')) => {
            let Some(number) = as_float(value) else { return unsupported() };
            let digits = match (spec.kind, spec.precision) {
                (None, None) => float(number.abs()),
                (None, Some(precision)) => short_digits(number.abs(), precision, spec.alternate),
                (Some('%'), precision) => {
                    let number = (number * 100.0).abs();
                    float_digits(number, 'f', precision.unwrap_or(6), spec.alternate) + "%"
                }
                (Some('n'), precision) => {
                    float_digits(number.abs(), 'g', precision.unwrap_or(6), spec.alternate)
                }
                (Some(kind), precision) => {
                    float_digits(number.abs(), kind, precision.unwrap_or(6), spec.alternate)
                }
            };
            let is_negative = number.is_sign_negative() && !number.is_nan();
            Ok(spec.number(Number { is_negative, prefix: "", digits }))
        }
        _ => unsupported(),
    }
}

fn integer(whole: i128, kind: char, spec: &Spec) -> Number {
    let prefix = match kind {
        'b' if spec.alternate => "0b",
        'o' if spec.alternate => "0o",
        'x' if spec.alternate => "0x",
        'X' if spec.alternate => "0X",
        _ => "",
    };
    let digits = radix_digits(whole.unsigned_abs(), kind);
    Number { is_negative: whole < 0, prefix, digits }
}

/// The digits of an integer in the radix of a type.
pub(super) fn radix_digits(whole: u128, kind: char) -> String {
    match kind {
        'b' => format!("{whole:b}"),
        'o' => format!("{whole:o}"),
        'x' => format!("{whole:x}"),
        'X' => format!("{whole:X}"),
        _ => whole.to_string(),
    }
}

/// The digits of a float that is not negative, by type.
pub(super) fn float_digits(value: f64, kind: char, precision: usize, alternate: bool) -> String {
    if !value.is_finite() {
        let name = if value.is_nan() { "nan" } else { "inf" };
        return if kind.is_ascii_uppercase() { name.to_uppercase() } else { name.to_owned() };
    }
    let text = match kind.to_ascii_lowercase() {
        'f' => {
            let dot = if alternate && precision == 0 { "." } else { "" };
            format!("{value:.precision$}{dot}")
        }
        'e' => exponential(value, precision, alternate),
        _ => {
            let precision = precision.max(1);
            let text = exponential(value, precision - 1, false);
            let exponent: i64 =
                text.split_once('e').and_then(|(_, of)| of.parse().ok()).unwrap_or_default();
            let is_fixed = (-4..precision as i64).contains(&exponent);
            let text = match is_fixed {
                true => {
                    let decimals =
                        usize::try_from(precision as i64 - 1 - exponent).unwrap_or_default();
                    format!("{value:.decimals$}")
                }
                false => text,
            };
            if alternate { text } else { without_zeros(&text) }
        }
    };
    if kind.is_ascii_uppercase() { text.to_uppercase() } else { text }
}

/// The digits of a float with a precision and no type: as `g`, with a digit after the dot.
fn short_digits(value: f64, precision: usize, alternate: bool) -> String {
    let precision = precision.max(1);
    if value.is_finite() {
        let text = exponential(value, precision - 1, false);
        let exponent: i64 =
            text.split_once('e').and_then(|(_, of)| of.parse().ok()).unwrap_or_default();
        // One digit of the precision is for the fraction.
        if exponent >= precision as i64 - 1 && exponent >= -4 {
            return if alternate { text } else { without_zeros(&text) };
        }
    }
    let digits = float_digits(value, 'g', precision, alternate);
    match digits.contains(['.', 'e', 'n']) {
        true => digits,
        false => digits + ".0",
    }
}

fn exponential(value: f64, precision: usize, alternate: bool) -> String {
    let text = format!("{value:.precision$e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    let sign = if exponent < 0 { '-' } else { '+' };
    let dot = if alternate && precision == 0 { "." } else { "" };
    format!("{digits}{dot}e{sign}{:02}", exponent.abs())
}

/// Digits without the zeros that end their fraction.
fn without_zeros(digits: &str) -> String {
    let (digits, exponent) = digits.split_at(digits.find('e').unwrap_or(digits.len()));
    match digits.contains('.') {
        true => digits.trim_end_matches('0').trim_end_matches('.').to_owned() + exponent,
        false => digits.to_owned() + exponent,
    }
}

/// What the fields of `str.format` refer to.
pub(super) struct Fields<'a> {
    pub(super) positional: &'a [Value],
    /// The value of a name.
    pub(super) named: &'a dyn Fn(&str) -> Result<Option<Value>>,
}

/// The next automatic index of a field, or that fields have indices.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Index {
    Next(usize),
    Manual,
}

/// Python's `text.format(…)`.
pub(super) fn str_format(
    rendering: &Rendering,
    text: &Value,
    fields: &Fields<'_>,
) -> Result<Value> {
    let is_markup = matches!(text, Value::Markup(_));
    let mut index = Index::Next(0);
    let text = text.as_str().unwrap_or_default();
    let text = fill(rendering, text, fields, &mut index, is_markup, 2)?;
    Ok(if is_markup { Value::Markup(text.into()) } else { Value::Str(text.into()) })
}

fn fill(
    rendering: &Rendering,
    text: &str,
    fields: &Fields<'_>,
    index: &mut Index,
    is_markup: bool,
    depth: usize,
) -> Result<String> {
    if depth == 0 {
        return fail("the format nests more than one level deep");
    }
    let mut out = Out::new(&rendering.meter);
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        out.push(&rest[..at])?;
        let brace = &rest[at..=at];
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix(brace) {
            out.push(brace)?;
            rest = after;
            continue;
        }
        if brace == "}" {
            return fail("a single `}` in a format");
        }
        let (field, after) = field(rest)?;
        rest = after;
        let value = field_value(rendering, field.name, fields, index)?;
        let value = match field.conversion {
            None => value,
            Some("r") => Value::Str(to_repr(rendering, &value)?.into()),
            Some("s") => Value::Str(to_text(rendering, &value)?.into()),
            Some("a") => Value::Str(ascii(&to_repr(rendering, &value)?).into()),
            Some(other) => return fail(format!("the conversion `!{other}` is not supported")),
        };
        let spec = fill(rendering, field.spec, fields, index, false, depth - 1);
        let spec = if field.spec.is_empty() { String::new() } else { spec? };
        let text = match (&value, is_markup) {
            (Value::Markup(_), true) if !spec.is_empty() => {
                return fail("markup has no format specifiers");
            }
            (Value::Markup(text), true) => text.to_string(),
            (_, true) => escape_html(&formatted(rendering, &value, &spec)?),
            (_, false) => formatted(rendering, &value, &spec)?,
        };
        out.push(&text)?;
    }
    out.push(rest)?;
    Ok(out.text)
}

struct Field<'f> {
    name: &'f str,
    conversion: Option<&'f str>,
    spec: &'f str,
}

/// The field at the start of `rest`, after its brace, and what follows it.
fn field(rest: &str) -> Result<(Field<'_>, &str)> {
    let (mut depth, mut in_brackets) = (1, false);
    let (mut name_end, mut end) = (None, None);
    for (at, c) in rest.char_indices() {
        match c {
            '[' if name_end.is_none() => in_brackets = true,
            ']' if in_brackets => in_brackets = false,
            _ if in_brackets => {}
            '{' if name_end.is_none() => return fail("unexpected `{` in the name of a field"),
            '{' => depth += 1,
            '}' => depth -= 1,
            '!' | ':' if name_end.is_none() => name_end = Some(at),
            _ => {}
        }
        if depth == 0 {
            end = Some(at);
            break;
        }
    }
    let Some(end) = end else { return fail("a field of a format has no `}`") };
    let name_end = name_end.unwrap_or(end);
    let (name, options) = (&rest[..name_end], &rest[name_end..end]);
    let (conversion, spec) = match options.strip_prefix('!') {
        Some(options) => match options.split_once(':') {
            Some((conversion, spec)) => (Some(conversion), spec),
            None => (Some(options), ""),
        },
        None => (None, options.strip_prefix(':').unwrap_or_default()),
    };
    Ok((Field { name, conversion, spec }, &rest[end + 1..]))
}

fn field_value(
    rendering: &Rendering,
    name: &str,
    fields: &Fields<'_>,
    index: &mut Index,
) -> Result<Value> {
    let (first, mut rest) = name.split_at(name.find(['.', '[']).unwrap_or(name.len()));
    let position = match first {
        "" => match *index {
            Index::Next(next) => {
                *index = Index::Next(next + 1);
                Some(next)
            }
            Index::Manual => return fail("a format has fields with and without indices"),
        },
        _ if first.bytes().all(|b| b.is_ascii_digit()) => {
            if matches!(index, Index::Next(1..)) {
                return fail("a format has fields with and without indices");
            }
            *index = Index::Manual;
            Some(first.parse().unwrap_or(usize::MAX))
        }
        _ => None,
    };
    let found = match position {
        Some(position) => fields.positional.get(position).cloned(),
        None => (fields.named)(first)?,
    };
    let Some(mut value) = found else {
        return fail(format!("the format has no value for the field `{{{name}}}`"));
    };
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('.') {
            let (name, after) = after.split_at(after.find(['.', '[']).unwrap_or(after.len()));
            value = attribute(rendering, &value, name)?;
            rest = after;
            continue;
        }
        let key = rest.strip_prefix('[').and_then(|key| key.split_once(']'));
        let Some((key, after)) = key else {
            return fail(format!("the field `{{{name}}}` of a format has no `]`"));
        };
        let key = match key.parse() {
            Ok(index) if key.bytes().all(|b| b.is_ascii_digit()) => Value::Int(index),
            _ => Value::text(key),
        };
        value = item(rendering, &value, &key)?;
        rest = after;
    }
    Ok(value)
}
