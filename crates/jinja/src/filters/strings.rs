//! Filters of strings.

use super::super::arguments::{Given, integer, optional_integer, required, size, string};
use super::super::conversions::{as_float, parse_float, truncated};
use super::super::escapes::{quote_url, striptags};
use super::super::fault::{Result, fail};
use super::super::format::{escape, float_digits};
use super::super::methods::{joined, replaced};
use super::super::printf::printf;
use super::super::rendering::Rendering;
use super::super::repr::Out;
use super::super::text;
use super::super::value::{Key, Value};
use super::sequences::each_attribute;
use super::wrapping::{Wrapping, wrapped};

pub(super) fn filter(
    rendering: &Rendering,
    name: &str,
    value: Value,
    given: Given,
    autoescape: bool,
) -> Result<Value> {
    let meter = &rendering.meter;
    match name {
        "format" => {
            let values = match (given.positional.is_empty(), given.keywords.is_empty()) {
                (false, false) => return fail("`format` takes either values or names"),
                (_, true) => Value::tuple(meter, given.positional)?,
                (true, false) => {
                    let entries = given.keywords.into_iter();
                    let entries = entries.map(|(name, value)| (Key::text(name), value));
                    Value::dict(meter, entries.collect())?
                }
            };
            printf(rendering, &rendering.soft(value)?, &values)
        }
        "replace" => {
            let [old, new, count] = given.bind(name, ["old", "new", "count"])?;
            let (old, new) = (required(old, name, "old")?, required(new, name, "new")?);
            let count = optional_integer(count, name)?.unwrap_or(-1);
            let is_markup = |value: &Value| matches!(value, Value::Markup(_));
            if autoescape && (is_markup(&value) || is_markup(&old) || is_markup(&new)) {
                let text = escape(rendering, &value)?;
                let new = escape(rendering, &new)?;
                let replaced = replaced(rendering, &text, &rendering.str(&old)?, &new, count)?;
                return Ok(Value::Markup(replaced.into()));
            }
            let (text, old, new) =
                (rendering.str(&value)?, rendering.str(&old)?, rendering.str(&new)?);
            meter.text(replaced(rendering, &text, &old, &new, count)?)
        }
        "join" => {
            let [separator, attribute] = given.bind(name, ["d", "attribute"])?;
            let separator = separator.unwrap_or_else(|| Value::text(""));
            let items = value.items(meter)?;
            let items = match attribute {
                None | Some(Value::None) => items,
                Some(attribute) => each_attribute(rendering, items, &attribute)?,
            };
            let is_markup = |value: &Value| matches!(value, Value::Markup(_));
            if autoescape && (is_markup(&separator) || items.iter().any(is_markup)) {
                let separator = Value::Markup(escape(rendering, &separator)?.into());
                return joined(rendering, &separator, &items);
            }
            let separator = rendering.str(&separator)?;
            let mut out = Out::new(meter);
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(&separator)?;
                }
                super::super::repr::print(rendering, &mut out, item)?;
            }
            Ok(Value::Str(out.text.into()))
        }
        "indent" => indent(rendering, &value, given),
        "striptags" => {
            given.in_order::<0>(name, 0)?;
            meter.text(striptags(&rendering.str(&value)?)?)
        }
        "title" => {
            given.in_order::<0>(name, 0)?;
            let content = rendering.str(&value)?;
            meter.text(title(&content))
        }
        "truncate" => truncate(rendering, value, given),
        "wordcount" => {
            given.in_order::<0>(name, 0)?;
            let content = rendering.str(&value)?;
            let words = content.split(|c| !text::is_word(c)).filter(|word| !word.is_empty());
            Ok(Value::Int(words.count() as i128))
        }
        "wordwrap" => {
            let names = ["width", "break_long_words", "wrapstring", "break_on_hyphens"];
            let [width, long_words, end, hyphens] = given.bind(name, names)?;
            let content = string(&value, name)?;
            let width = width.map_or(Ok(79), |width| integer(&width, name))?;
            if width <= 0 {
                return fail(format!("the width {width} of `wordwrap` is not positive"));
            }
            let is_set = |value: Option<Value>| value.is_none_or(|value| value.is_true());
            let end = match end {
                None | Some(Value::None) => "\n".into(),
                Some(end) => string(&end, name)?,
            };
            let wrapping = Wrapping {
                width: size(width),
                break_long_words: is_set(long_words),
                break_on_hyphens: is_set(hyphens),
            };
            let mut out = Out::new(meter);
            for (index, line) in text::lines(&content, false).into_iter().enumerate() {
                if index > 0 {
                    out.push(&end)?;
                }
                for (index, part) in wrapped(meter, line, &wrapping)?.iter().enumerate() {
                    if index > 0 {
                        out.push(&end)?;
                    }
                    out.push(part)?;
                }
            }
            Ok(Value::Str(out.text.into()))
        }
        "urlencode" => {
            given.in_order::<0>(name, 0)?;
            let pairs = match &value {
                Value::Dict(dict) => Value::View(super::super::value::View::Items, dict.clone()),
                other => other.clone(),
            };
            if value.as_str().is_none()
                && let Some(pairs) = pairs.items_if_any(meter)?
            {
                let mut parts = Vec::new();
                for pair in pairs {
                    let pair = pair.items(meter)?;
                    let [key, value] = &pair[..] else { return fail("`urlencode` needs pairs") };
                    let quote = |value| Ok(quote_url(&rendering.str(value)?, true));
                    parts.push(format!("{}={}", quote(key)?, quote(value)?));
                }
                return meter.text(parts.join("&"));
            }
            meter.text(quote_url(&rendering.str(&value)?, false))
        }
        "xmlattr" => {
            let [autospace] = given.bind(name, ["autospace"])?;
            let Value::Dict(dict) = &value else {
                return fail(format!("`xmlattr` needs a map, not `{}`", value.class()));
            };
            let mut text = String::new();
            for (key, value) in &dict.entries {
                if matches!(value, Value::None | Value::Undefined(_)) {
                    continue;
                }
                let name = string(key.value(), name)?;
                if name.contains(|c: char| {
                    c.is_ascii_whitespace() || matches!(c, '\x0b' | '/' | '>' | '=')
                }) {
                    return fail(format!(
                        "invalid character in the name of the attribute `{name}`"
                    ));
                }
                let key = escape(rendering, key.value())?;
                let space = if text.is_empty() { "" } else { " " };
                text += &format!("{space}{key}=\"{}\"", escape(rendering, value)?);
            }
            if !text.is_empty() && autospace.is_none_or(|of| of.is_true()) {
                text.insert(0, ' ');
            }
            Ok(if autoescape { Value::Markup(text.into()) } else { meter.text(text)? })
        }
        _ => file_size(rendering, &value, given),
    }
}

fn indent(rendering: &Rendering, value: &Value, given: Given) -> Result<Value> {
    let [width, first, blank] = given.bind("indent", ["width", "first", "blank"])?;
    let content = string(value, "indent")?;
    let is_set = |value: Option<Value>| value.is_some_and(|value| value.is_true());
    let (first, blank) = (is_set(first), is_set(blank));
    let indentation = match width {
        Some(Value::Str(text) | Value::Markup(text)) => text.to_string(),
        Some(width) => {
            let width = rendering.meter.width(size(integer(&width, "indent")?))?;
            " ".repeat(width)
        }
        None => " ".repeat(4),
    };
    let content = format!("{content}\n");
    let mut out = Out::new(&rendering.meter);
    for (index, line) in text::lines(&content, false).into_iter().enumerate() {
        if index > 0 {
            out.push("\n")?;
        }
        let is_indented = match index {
            0 => first,
            _ => blank || !line.is_empty(),
        };
        if is_indented {
            out.push(&indentation)?;
        }
        out.push(line)?;
    }
    let text = out.text.into();
    Ok(if matches!(value, Value::Markup(_)) { Value::Markup(text) } else { Value::Str(text) })
}

/// Words that start after a space, hyphen or bracket, with a capital and small letters.
fn title(content: &str) -> String {
    let is_separator = |c: char| text::is_space(c) || matches!(c, '-' | '(' | '{' | '[' | '<');
    let mut titled = String::with_capacity(content.len());
    for run in content.split_inclusive(is_separator) {
        let word = run.trim_end_matches(is_separator);
        let mut chars = word.chars();
        titled.extend(chars.next().into_iter().flat_map(char::to_uppercase));
        titled.push_str(&text::lower(chars.as_str()));
        titled.push_str(&run[word.len()..]);
    }
    titled
}

fn truncate(rendering: &Rendering, value: Value, given: Given) -> Result<Value> {
    let name = "truncate";
    let [length, killwords, end, leeway] =
        given.bind(name, ["length", "killwords", "end", "leeway"])?;
    let length = length.map_or(Ok(255), |length| integer(&length, name))?;
    let end = end.map_or(Ok("...".into()), |end| string(&end, name))?;
    let leeway = optional_integer(leeway, name)?.unwrap_or(5);
    let end_length = end.chars().count() as i128;
    if length < end_length || leeway < 0 {
        return fail(format!(
            "`truncate` needs a length of at least {end_length} and a leeway of at least 0"
        ));
    }
    let is_short = |count: usize| count as i128 <= length.saturating_add(leeway);
    if value.len().is_some_and(is_short) {
        return Ok(value);
    }
    let content = string(&value, name)?;
    let kept = &content[..text::offset(&content, size(length - end_length))];
    let kept = match killwords.is_some_and(|of| of.is_true()) {
        true => kept,
        false => kept.rsplit_once(' ').map_or(kept, |(kept, _)| kept),
    };
    match value {
        Value::Markup(_) => {
            let end = escape(rendering, &Value::Str(end))?;
            Ok(Value::Markup(format!("{kept}{end}").into()))
        }
        _ => rendering.meter.text(format!("{kept}{end}")),
    }
}

fn file_size(rendering: &Rendering, value: &Value, given: Given) -> Result<Value> {
    let [binary] = given.bind("filesizeformat", ["binary"])?;
    let is_binary = binary.is_some_and(|of| of.is_true());
    let bytes = match value.as_str() {
        Some(text) => parse_float(text),
        None => as_float(value),
    };
    let Some(bytes) = bytes else {
        return fail(format!("`filesizeformat` needs a number, not `{}`", value.class()));
    };
    let (base, suffix): (f64, _) = if is_binary { (1024.0, "iB") } else { (1000.0, "B") };
    if bytes == 1.0 {
        return Ok(Value::text("1 Byte"));
    }
    if bytes < base {
        return rendering.meter.text(format!("{} Bytes", truncated(bytes)?));
    }
    let prefixes = if is_binary { "KMGTPEZY" } else { "kMGTPEZY" };
    let mut text = String::new();
    for (index, prefix) in (2..).zip(prefixes.chars()) {
        let unit = base.powi(index);
        let number = float_digits(base * bytes / unit, 'f', 1, false);
        text = format!("{number} {prefix}{suffix}");
        if bytes < unit {
            break;
        }
    }
    rendering.meter.text(text)
}
