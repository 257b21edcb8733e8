//! The methods of `str`, and those that differ for markup.

use std::sync::Arc;

use indexmap::IndexMap;

use super::super::arguments::{Given, integer, optional_integer, required, size, string};
use super::super::escapes::{striptags, unescape_html};
use super::super::fault::{Result, fail};
use super::super::format::{Fields, escape, str_format};
use super::super::rendering::Rendering;
use super::super::text;
use super::super::value::{Key, Value};

/// A string and what its methods give: markup gives markup.
struct Receiver<'r> {
    rendering: &'r Rendering,
    value: &'r Value,
    text: &'r str,
    name: &'r str,
}

/// `receiver.name(…)`.
pub(super) fn call(
    rendering: &Rendering,
    value: &Value,
    name: &str,
    given: Given,
) -> Result<Value> {
    let content = value.as_str().unwrap_or_default();
    rendering.meter.scan(content.len())?;
    let this = Receiver { rendering, value, text: content, name };
    match name {
        "capitalize" | "casefold" | "lower" | "upper" | "swapcase" | "title" => {
            given.in_order::<0>(name, 0)?;
            this.text(match name {
                "capitalize" => text::capitalize(content),
                "casefold" => text::casefold(content),
                "lower" => text::lower(content),
                "upper" => content.to_uppercase(),
                "swapcase" => text::swapcase(content),
                _ => text::title(content),
            })
        }
        "center" | "ljust" | "rjust" | "zfill" => this.padded(given),
        "count" | "find" | "index" | "rfind" | "rindex" => this.found(given),
        "startswith" | "endswith" => this.starts_or_ends(given),
        "strip" | "lstrip" | "rstrip" => this.stripped(given),
        "split" | "rsplit" => this.split(given),
        "partition" | "rpartition" => this.partition(given),
        "splitlines" => {
            let [keepends] = given.bind(name, ["keepends"])?;
            let keepends = keepends.map_or(Ok(0), |of| integer(&of, name))?;
            let lines = text::lines(content, keepends != 0);
            this.texts(lines)
        }
        "removeprefix" | "removesuffix" => {
            let [affix] = given.in_order(name, 1)?;
            let affix = string(&required(affix, name, "affix")?, name)?;
            let rest = match name {
                "removeprefix" => content.strip_prefix(&*affix),
                _ => content.strip_suffix(&*affix),
            };
            this.text(rest.unwrap_or(content))
        }
        "replace" => {
            let [old, new, count] = given.in_order(name, 2)?;
            let old = string(&required(old, name, "old")?, name)?;
            let new = required(new, name, "new")?;
            let new = match value {
                Value::Markup(_) => escape(rendering, &new)?.into(),
                _ => string(&new, name)?,
            };
            let count = count.map_or(Ok(-1), |count| integer(&count, name))?;
            this.text(replaced(rendering, content, &old, &new, count)?)
        }
        "expandtabs" => {
            let [size] = given.bind(name, ["tabsize"])?;
            let size = size.map_or(Ok(8), |of| integer(&of, name))?;
            this.text(this.expanded(size)?)
        }
        "join" => {
            let [items] = given.in_order(name, 1)?;
            let items = required(items, name, "iterable")?.items(&rendering.meter)?;
            joined(rendering, value, &items)
        }
        "format" => {
            let named = |name: &str| {
                let found = given.keywords.iter().find(|(keyword, _)| **keyword == *name);
                Ok(found.map(|(_, value)| value.clone()))
            };
            let fields = Fields { positional: &given.positional, named: &named };
            str_format(rendering, value, &fields)
        }
        "format_map" => {
            let [map] = given.in_order(name, 1)?;
            let map = required(map, name, "mapping")?;
            let Value::Dict(dict) = &map else {
                return fail(format!("`{name}` needs a map, not `{}`", map.class()));
            };
            let named = |name: &str| Ok(dict.get(name).cloned());
            str_format(rendering, value, &Fields { positional: &[], named: &named })
        }
        "translate" => this.translated(given),
        "maketrans" => maketrans(rendering, given),
        "unescape" => {
            given.in_order::<0>(name, 0)?;
            rendering.meter.text(unescape_html(content)?)
        }
        "striptags" => {
            given.in_order::<0>(name, 0)?;
            rendering.meter.text(striptags(content)?)
        }
        "escape" => {
            let [other] = given.in_order(name, 1)?;
            let escaped = escape(rendering, &required(other, name, "s")?)?;
            Ok(Value::Markup(escaped.into()))
        }
        "encode" => fail("the method `encode` of `str` is not supported, there are no bytes"),
        _ => {
            given.in_order::<0>(name, 0)?;
            is(content, name).map(Value::Bool)
        }
    }
}

/// The methods that ask what characters a string has.
fn is(content: &str, name: &str) -> Result<bool> {
    let all = |is: fn(char) -> bool| !content.is_empty() && content.chars().all(is);
    let cased = |is: fn(char) -> bool, is_other: fn(char) -> bool| {
        content.chars().any(is) && !content.chars().any(is_other)
    };
    Ok(match name {
        "isalnum" => all(text::is_alphanumeric),
        "isalpha" => all(text::is_letter),
        "isascii" => content.is_ascii(),
        "isdecimal" => all(text::is_decimal),
        "isdigit" => all(text::is_digit),
        "isidentifier" => text::is_identifier(content),
        "isnumeric" => all(text::is_numeric),
        "isprintable" => content.chars().all(text::is_printable),
        "isspace" => all(text::is_space),
        "islower" => cased(char::is_lowercase, |c| c.is_uppercase() || text::is_titlecase(c)),
        "isupper" => cased(char::is_uppercase, |c| c.is_lowercase() || text::is_titlecase(c)),
        "istitle" => {
            let (mut after_cased, mut has_cased) = (false, false);
            for c in content.chars() {
                let starts = c.is_uppercase() || text::is_titlecase(c);
                let is_cased = starts || c.is_lowercase();
                if is_cased && starts == after_cased {
                    return Ok(false);
                }
                (after_cased, has_cased) = (is_cased, has_cased || is_cased);
            }
            has_cased
        }
        _ => return fail(format!("the method `{name}` of `str` is not supported")),
    })
}

impl Receiver<'_> {
    fn value_of(&self, content: impl Into<Arc<str>>) -> Value {
        match self.value {
            Value::Markup(_) => Value::Markup(content.into()),
            _ => Value::Str(content.into()),
        }
    }

    fn text(&self, content: impl Into<Arc<str>>) -> Result<Value> {
        let content = content.into();
        self.rendering.meter.take(content.len())?;
        Ok(self.value_of(content))
    }

    fn texts(&self, parts: Vec<&str>) -> Result<Value> {
        self.rendering.meter.take(self.text.len())?;
        let parts = parts.into_iter().map(|part| self.value_of(part));
        Value::list(&self.rendering.meter, parts.collect())
    }

    fn padded(&self, given: Given) -> Result<Value> {
        let name = self.name;
        let most = if name == "zfill" { 1 } else { 2 };
        if given.positional.len() > most {
            return fail(format!("`{name}` takes at most {most} arguments"));
        }
        let [width, fill] = given.in_order(name, 1)?;
        let width = integer(&required(width, name, "width")?, name)?;
        let length = self.text.chars().count();
        let width = size(width);
        let missing = width.saturating_sub(length);
        if missing > 0 {
            self.rendering.meter.width(width)?;
        }
        let fill = match (&fill, self.value) {
            (None, _) => " ".into(),
            (Some(fill), Value::Markup(_)) => escape(self.rendering, fill)?.into(),
            (Some(fill), _) => string(fill, name)?,
        };
        if fill.chars().count() != 1 {
            return fail(format!("`{name}` fills with one character"));
        }
        let fill = |count: usize| fill.repeat(count);
        self.text(match name {
            "ljust" => format!("{}{}", self.text, fill(missing)),
            "rjust" => format!("{}{}", fill(missing), self.text),
            "center" => {
                let left = missing / 2 + (missing & width & 1);
                format!("{}{}{}", fill(left), self.text, fill(missing - left))
            }
            _ => {
                let signed = usize::from(self.text.starts_with(['+', '-']));
                let (sign, digits) = self.text.split_at(signed);
                format!("{sign}{}{digits}", "0".repeat(missing))
            }
        })
    }

    /// The part of the text between two optional indices, and where it starts; `None` if it starts after the end.
    fn part(&self, start: Option<Value>, stop: Option<Value>) -> Result<Option<(&str, usize)>> {
        let length = self.text.chars().count();
        let bound = |value: Option<Value>, default: usize| {
            let bound = optional_integer(value, self.name)?;
            Ok(bound.map_or(default, |bound| {
                size(if bound < 0 { bound.saturating_add(length as i128) } else { bound })
            }))
        };
        let (start, stop) = (bound(start, 0)?, bound(stop, length)?.min(length));
        if start > stop {
            return Ok(None);
        }
        let from = text::offset(self.text, start);
        let to = from + text::offset(&self.text[from..], stop - start);
        Ok(Some((&self.text[from..to], start)))
    }

    fn found(&self, given: Given) -> Result<Value> {
        let [wanted, start, stop] = given.in_order(self.name, 1)?;
        let wanted = string(&required(wanted, self.name, "sub")?, self.name)?;
        let part = self.part(start, stop)?;
        if self.name == "count" {
            let count = part.map_or(0, |(part, _)| match wanted.is_empty() {
                true => part.chars().count() + 1,
                false => part.matches(&*wanted).count(),
            });
            return Ok(Value::Int(count as i128));
        }
        let position = part.and_then(|(part, start)| {
            let at = match self.name {
                "find" | "index" => part.find(&*wanted)?,
                _ => part.rfind(&*wanted)?,
            };
            Some(start + part[..at].chars().count())
        });
        match position {
            Some(at) => Ok(Value::Int(at as i128)),
            None if self.name.ends_with("find") => Ok(Value::Int(-1)),
            None => fail(format!("`{}` found no such part of the string", self.name)),
        }
    }

    fn starts_or_ends(&self, given: Given) -> Result<Value> {
        let [affix, start, stop] = given.in_order(self.name, 1)?;
        let affix = required(affix, self.name, "affix")?;
        let affixes = match &affix {
            Value::Tuple(items) => items.values.as_slice(),
            other => std::slice::from_ref(other),
        };
        let part = self.part(start, stop)?;
        for affix in affixes {
            let affix = string(affix, self.name)?;
            let has = |part: &str| match self.name {
                "startswith" => part.starts_with(&*affix),
                _ => part.ends_with(&*affix),
            };
            if part.is_some_and(|(part, _)| has(part)) {
                return Ok(Value::Bool(true));
            }
        }
        Ok(Value::Bool(false))
    }

    fn stripped(&self, given: Given) -> Result<Value> {
        let [chars] = given.in_order(self.name, 0)?;
        let chars = match chars {
            None | Some(Value::None) => None,
            Some(chars) => Some(string(&chars, self.name)?),
        };
        let is_removed = |c: char| match &chars {
            Some(chars) => chars.contains(c),
            None => text::is_space(c),
        };
        self.text(match self.name {
            "strip" => self.text.trim_matches(is_removed),
            "lstrip" => self.text.trim_start_matches(is_removed),
            _ => self.text.trim_end_matches(is_removed),
        })
    }

    fn split(&self, given: Given) -> Result<Value> {
        let [separator, most] = given.bind(self.name, ["sep", "maxsplit"])?;
        let most = most.map_or(Ok(-1), |most| integer(&most, self.name))?;
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let is_reversed = self.name == "rsplit";
        let mut parts: Vec<&str> = match separator {
            None | Some(Value::None) => words(self.text, most, is_reversed),
            Some(separator) => {
                let separator = string(&separator, self.name)?;
                if separator.is_empty() {
                    return fail(format!("`{}` needs a separator", self.name));
                }
                let count = most.saturating_add(1);
                match is_reversed {
                    false => self.text.splitn(count, &*separator).collect(),
                    true => self.text.rsplitn(count, &*separator).collect(),
                }
            }
        };
        if is_reversed {
            parts.reverse();
        }
        self.texts(parts)
    }

    fn partition(&self, given: Given) -> Result<Value> {
        let [separator] = given.in_order(self.name, 1)?;
        let separator = string(&required(separator, self.name, "sep")?, self.name)?;
        if separator.is_empty() {
            return fail(format!("`{}` needs a separator", self.name));
        }
        let is_first = self.name == "partition";
        let found = match is_first {
            true => self.text.split_once(&*separator),
            false => self.text.rsplit_once(&*separator),
        };
        let parts = match (found, is_first) {
            (Some((before, after)), _) => [before, &*separator, after],
            (None, true) => [self.text, "", ""],
            (None, false) => ["", "", self.text],
        };
        self.rendering.meter.take(self.text.len())?;
        let parts = parts.into_iter().map(|part| self.value_of(part));
        Value::tuple(&self.rendering.meter, parts.collect())
    }

    fn expanded(&self, tab: i128) -> Result<String> {
        let tab = size(tab);
        if self.text.contains('\t') {
            self.rendering.meter.width(tab)?;
        }
        let mut expanded = String::new();
        let mut column = 0;
        for c in self.text.chars() {
            match c {
                '\t' if tab > 0 => {
                    let spaces = tab - column % tab;
                    expanded.push_str(&" ".repeat(spaces));
                    column += spaces;
                    self.rendering.meter.allow(Some(expanded.len()))?;
                }
                '\t' => {}
                '\n' | '\r' => {
                    expanded.push(c);
                    column = 0;
                }
                _ => {
                    expanded.push(c);
                    column += 1;
                }
            }
        }
        Ok(expanded)
    }

    fn translated(&self, given: Given) -> Result<Value> {
        let [table] = given.in_order(self.name, 1)?;
        let table = required(table, self.name, "table")?;
        let Value::Dict(table) = &table else {
            return fail(format!("`translate` needs a map, not `{}`", table.class()));
        };
        let meter = &self.rendering.meter;
        meter.steps(self.text.len() / 8)?;
        let mut translated = super::super::repr::Out::new(meter);
        for c in self.text.chars() {
            let key = Key::new(meter, Value::Int(u32::from(c).into()))?;
            match table.entries.get(&key) {
                None => translated.push(c.encode_utf8(&mut [0; 4]))?,
                Some(Value::None) => {}
                Some(Value::Str(text) | Value::Markup(text)) => translated.push(text)?,
                Some(other) => {
                    let code = other.as_int().and_then(|code| u32::try_from(code).ok());
                    let Some(character) = code.and_then(char::from_u32) else {
                        return fail("the map of `translate` has what is no character");
                    };
                    translated.push(character.encode_utf8(&mut [0; 4]))?;
                }
            }
        }
        self.text(translated.text)
    }
}

/// Parts between whitespace, the last or first of which has the rest; in reverse order from the end.
fn words(content: &str, most: usize, is_reversed: bool) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = content;
    loop {
        rest = match is_reversed {
            false => rest.trim_start_matches(text::is_space),
            true => rest.trim_end_matches(text::is_space),
        };
        if rest.is_empty() {
            return parts;
        }
        let at = match is_reversed {
            _ if parts.len() >= most => None,
            false => rest.find(text::is_space).map(|at| (at, at)),
            true => rest
                .rfind(text::is_space)
                .map(|at| (at, at + rest[at..].chars().next().map_or(0, char::len_utf8))),
        };
        let Some((end, start)) = at else {
            parts.push(rest);
            return parts;
        };
        let (part, other) = match is_reversed {
            false => (&rest[..end], &rest[end..]),
            true => (&rest[start..], &rest[..end]),
        };
        parts.push(part);
        rest = other;
    }
}

/// `text.replace(old, new, count)`; a negative count is all.
pub(in super::super) fn replaced(
    rendering: &Rendering,
    content: &str,
    old: &str,
    new: &str,
    count: i128,
) -> Result<String> {
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let found = content.matches(old).take(count).count();
    let added = found.checked_mul(new.len());
    rendering.meter.allow(added.and_then(|added| added.checked_add(content.len())))?;
    Ok(content.replacen(old, new, count))
}

/// `separator.join(items)`: the items are strings; those that are not markup are escaped if the separator is.
pub(in super::super) fn joined(
    rendering: &Rendering,
    separator: &Value,
    items: &[Value],
) -> Result<Value> {
    let between = separator.as_str().unwrap_or_default();
    let is_markup = matches!(separator, Value::Markup(_));
    let mut out = super::super::repr::Out::new(&rendering.meter);
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(between)?;
        }
        match item {
            item if is_markup => out.push(&escape(rendering, item)?)?,
            Value::Str(text) | Value::Markup(text) => out.push(text)?,
            other => {
                return fail(format!(
                    "`join` needs strings, the item {index} is a `{}`",
                    other.class()
                ));
            }
        }
    }
    let text = out.text.into();
    Ok(if is_markup { Value::Markup(text) } else { Value::Str(text) })
}

/// Python's `str.maketrans`.
fn maketrans(rendering: &Rendering, given: Given) -> Result<Value> {
    let meter = &rendering.meter;
    let [from, to, removed] = given.in_order("maketrans", 1)?;
    let from = required(from, "maketrans", "x")?;
    let mut table = IndexMap::new();
    let code = |c: char| Key::new(meter, Value::Int(u32::from(c).into()));
    match (&from, to) {
        (Value::Dict(dict), None) => {
            for (key, value) in &dict.entries {
                let key = match key.value().as_str() {
                    None => key.clone(),
                    Some(text) => match (text.chars().next(), text.chars().count()) {
                        (Some(c), 1) => code(c)?,
                        _ => return fail("the keys of `maketrans` are single characters"),
                    },
                };
                table.insert(key, value.clone());
            }
        }
        (_, None) => return fail("`maketrans` needs a map"),
        (_, Some(to)) => {
            let (from, to) = (string(&from, "maketrans")?, string(&to, "maketrans")?);
            if from.chars().count() != to.chars().count() {
                return fail("`maketrans` needs strings of equal length");
            }
            for (from, to) in from.chars().zip(to.chars()) {
                table.insert(code(from)?, Value::Int(u32::from(to).into()));
            }
            if let Some(removed) = removed {
                for c in string(&removed, "maketrans")?.chars() {
                    table.insert(code(c)?, Value::None);
                }
            }
        }
    }
    Value::dict(meter, table)
}
