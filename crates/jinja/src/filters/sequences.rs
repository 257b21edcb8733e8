//! Filters of lists and maps.

use indexmap::IndexSet;

use super::super::arguments::{Given, integer, required, size, string};
use super::super::ast::Math;
use super::super::compare::{equal, sorted_by_keys};
use super::super::fault::{Result, TemplateFault, fail};
use super::super::lookup::item;
use super::super::operators::math;
use super::super::rendering::Rendering;
use super::super::text::lower;
use super::super::value::{Dict, Items, Key, Missing, Value};
use std::rc::Rc;

pub(super) fn filter(
    rendering: &Rendering,
    name: &str,
    value: &Value,
    given: Given,
    autoescape: bool,
) -> Result<Value> {
    let meter = &rendering.meter;
    match name {
        "list" => {
            given.in_order::<0>(name, 0)?;
            Value::list(meter, value.items(meter)?)
        }
        "first" => {
            given.in_order::<0>(name, 0)?;
            let first = match value {
                Value::Iterator(stream) => stream.next()?,
                other => other.items(meter)?.into_iter().next(),
            };
            Ok(first.unwrap_or_else(|| Value::undefined(Missing::Text("there is no first item"))))
        }
        "last" => {
            given.in_order::<0>(name, 0)?;
            let last = match value {
                Value::Iterator(_) => return fail("a generator has no last item"),
                other => other.items(meter)?.pop(),
            };
            Ok(last.unwrap_or_else(|| Value::undefined(Missing::Text("there is no last item"))))
        }
        "reverse" => {
            given.in_order::<0>(name, 0)?;
            let mut items = value.items(meter)?;
            items.reverse();
            match value {
                Value::Str(_) | Value::Markup(_) => {
                    let text = items.iter().filter_map(Value::as_str).collect::<String>();
                    let is_markup = matches!(value, Value::Markup(_));
                    Ok(if is_markup { Value::Markup(text.into()) } else { meter.text(text)? })
                }
                Value::Iterator(_) => Value::list(meter, items),
                Value::List(_) => Value::iterator(meter, "list_reverseiterator", items, None),
                _ => Value::iterator(meter, "reversed", items, None),
            }
        }
        "items" => {
            given.in_order::<0>(name, 0)?;
            let pairs = match value {
                Value::Undefined(_) => Vec::new(),
                Value::Dict(dict) => pairs(rendering, dict)?,
                other => {
                    let fault =
                        TemplateFault::new(format!("`items` needs a map, not `{}`", other.class()));
                    return Value::iterator(meter, "generator", Vec::new(), Some(fault));
                }
            };
            Value::iterator(meter, "generator", pairs, None)
        }
        "map" => map(rendering, value, given, autoescape),
        "select" | "reject" | "selectattr" | "rejectattr" => select(rendering, name, value, given),
        "unique" => unique(rendering, value, given),
        "sort" => {
            let names = ["reverse", "case_sensitive", "attribute"];
            let [reverse, case, attribute] = given.bind(name, names)?;
            let is_set = |value: Option<Value>| value.is_some_and(|value| value.is_true());
            let (reverse, case) = (is_reversed(reverse, name)?, is_set(case));
            let paths = match &attribute {
                Some(Value::Str(text) | Value::Markup(text)) => {
                    text.split(',').map(|path| Path::new(&Value::text(path))).collect()
                }
                attribute => vec![Path::new(attribute.as_ref().unwrap_or(&Value::None))],
            };
            let mut items = Vec::new();
            for item in value.items(meter)? {
                let keys = paths.iter().map(|path| {
                    let key = path.of(rendering, item.clone(), None)?;
                    Ok(if case { key } else { without_case(key) })
                });
                let key = Value::list(meter, keys.collect::<Result<_>>()?)?;
                items.push((key, item));
            }
            let sorted = sorted_by_keys(meter, items, reverse)?.into_iter();
            Value::list(meter, sorted.map(|(_, item)| item).collect())
        }
        "dictsort" => {
            let [case, by, reverse] = given.bind(name, ["case_sensitive", "by", "reverse"])?;
            let is_set = |value: Option<Value>| value.is_some_and(|value| value.is_true());
            let by = by.map_or(Ok("key".into()), |by| string(&by, name))?;
            let position = match &*by {
                "key" => 0,
                "value" => 1,
                _ => return fail("`dictsort` sorts by `key` or `value`"),
            };
            let dict = map_of(value, name)?;
            let (case, reverse) = (is_set(case), is_reversed(reverse, name)?);
            let keyed = pairs(rendering, dict)?.into_iter().map(|pair| {
                let key = pair.items(meter)?.swap_remove(position);
                Ok((if case { key } else { without_case(key) }, pair))
            });
            let sorted = sorted_by_keys(meter, keyed.collect::<Result<_>>()?, reverse)?;
            Value::list(meter, sorted.into_iter().map(|(_, pair)| pair).collect())
        }
        "groupby" => group(rendering, value, given),
        "min" | "max" => {
            let [case, attribute] = given.bind(name, ["case_sensitive", "attribute"])?;
            let case = case.is_some_and(|of| of.is_true());
            let path = Path::new(&attribute.unwrap_or(Value::None));
            let mut items = Vec::new();
            for item in value.items(meter)? {
                let key = path.of(rendering, item.clone(), None)?;
                items.push((if case { key } else { without_case(key) }, item));
            }
            let best = sorted_by_keys(meter, items, name == "max")?.into_iter().next();
            let none = || Value::undefined(Missing::Text("there are no items"));
            Ok(best.map_or_else(none, |(_, item)| item))
        }
        "sum" => {
            let [attribute, start] = given.bind(name, ["attribute", "start"])?;
            let items = value.items(meter)?;
            let items = match attribute {
                None | Some(Value::None) => items,
                Some(attribute) => each_attribute(rendering, items, &attribute)?,
            };
            let mut sum = start.unwrap_or(Value::Int(0));
            if sum.as_str().is_some() {
                return fail("`sum` does not add strings, use `join`");
            }
            for item in items {
                sum = math(rendering, Math::Add, &sum, &item)?;
            }
            Ok(sum)
        }
        "batch" => {
            let [count, fill] = given.bind(name, ["linecount", "fill_with"])?;
            let count = required(count, name, "linecount")?;
            let fill = fill.filter(|fill| !matches!(fill, Value::None));
            // Other counts than integers are those of no row.
            let count = match fill {
                None => count.as_int().map_or(usize::MAX, size),
                Some(_) => size(integer(&count, name)?),
            };
            let mut rows: Vec<Vec<Value>> = Vec::new();
            let mut row = Vec::new();
            for item in value.items(meter)? {
                if row.len() == count {
                    rows.push(std::mem::take(&mut row));
                }
                row.push(item);
            }
            if !row.is_empty() {
                if let Some(fill) = fill {
                    meter.take(count.saturating_sub(row.len()).saturating_mul(24))?;
                    row.resize(count.max(row.len()), fill);
                }
                rows.push(row);
            }
            let rows = rows.into_iter().map(|row| Value::list(meter, row));
            Value::iterator(meter, "generator", rows.collect::<Result<_>>()?, None)
        }
        "slice" => {
            let [slices, fill] = given.bind(name, ["slices", "fill_with"])?;
            let slices = integer(&required(slices, name, "slices")?, name)?;
            if slices == 0 {
                return fail("`slice` needs at least one slice");
            }
            let slices = size(slices);
            meter.steps(slices)?;
            let items = value.items(meter)?;
            let (each, extra) = (items.len() / slices.max(1), items.len() % slices.max(1));
            let mut rest = items.into_iter();
            let rows = (0..slices).map(|index| {
                let count = each + usize::from(index < extra);
                let mut row: Vec<Value> = rest.by_ref().take(count).collect();
                if let Some(fill) = fill.as_ref().filter(|fill| !matches!(fill, Value::None))
                    && index >= extra
                {
                    row.push(fill.clone());
                }
                Value::list(meter, row)
            });
            Value::iterator(meter, "generator", rows.collect::<Result<_>>()?, None)
        }
        _ => Err(super::unknown_filter(name)),
    }
}

/// The argument `reverse`, an integer.
fn is_reversed(value: Option<Value>, name: &str) -> Result<bool> {
    value.map_or(Ok(false), |value| Ok(integer(&value, name)? != 0))
}

fn map_of<'v>(value: &'v Value, name: &str) -> Result<&'v Dict> {
    match value {
        Value::Dict(dict) => Ok(dict),
        Value::Undefined(why) => fail(why.to_string()),
        other => fail(format!("`{name}` needs a map, not `{}`", other.class())),
    }
}

/// The pairs of keys and values.
fn pairs(rendering: &Rendering, dict: &Dict) -> Result<Vec<Value>> {
    let pairs = dict.entries.iter().map(|(key, value)| {
        Value::tuple(&rendering.meter, vec![key.value().clone(), value.clone()])
    });
    pairs.collect()
}

/// What `attribute=` names: attributes and indices with dots between them.
struct Path(Vec<Value>);

impl Path {
    fn new(attribute: &Value) -> Self {
        match attribute {
            Value::None => Self(Vec::new()),
            Value::Str(text) | Value::Markup(text) => {
                let part = |part: &str| match part.parse() {
                    Ok(index) if part.bytes().all(|b| b.is_ascii_digit()) => Value::Int(index),
                    _ => Value::text(part),
                };
                Self(text.split('.').map(part).collect())
            }
            other => Self(vec![other.clone()]),
        }
    }

    /// What the path leads to; `default` where something is undefined.
    fn of(
        &self,
        rendering: &Rendering,
        mut value: Value,
        default: Option<&Value>,
    ) -> Result<Value> {
        for part in &self.0 {
            value = item(rendering, &value, part)?;
            if let Some(default) = default.filter(|_| value.is_undefined()) {
                value = default.clone();
            }
        }
        Ok(value)
    }
}

/// The attribute of each item.
pub(super) fn each_attribute(
    rendering: &Rendering,
    items: Vec<Value>,
    attribute: &Value,
) -> Result<Vec<Value>> {
    let path = Path::new(attribute);
    items.into_iter().map(|item| path.of(rendering, item, None)).collect()
}

fn without_case(value: Value) -> Value {
    match &value {
        Value::Str(text) | Value::Markup(text) => Value::Str(lower(text).into()),
        _ => value,
    }
}

/// The results for each item as a generator, which ends with the first error.
fn generator(
    rendering: &Rendering,
    value: &Value,
    mut result: impl FnMut(Value) -> Result<Option<Value>>,
) -> Result<Value> {
    let meter = &rendering.meter;
    let (mut results, mut fault) = (Vec::new(), None);
    // Only a value that is true is read.
    let items = if value.is_true() { value.items(meter) } else { Ok(Vec::new()) };
    match items {
        Ok(items) => {
            for item in items {
                match meter.steps(1).and_then(|()| result(item)) {
                    Ok(item) => results.extend(item),
                    Err(found) => {
                        fault = Some(found);
                        break;
                    }
                }
            }
        }
        Err(found) => fault = Some(found),
    }
    Value::iterator(meter, "generator", results, fault)
}

fn map(rendering: &Rendering, value: &Value, given: Given, autoescape: bool) -> Result<Value> {
    let is_attribute = given.positional.is_empty()
        && given.keywords.iter().any(|(name, _)| &**name == "attribute");
    if is_attribute {
        let [attribute, default] = given.bind("map", ["attribute", "default"])?;
        let path = Path::new(&attribute.unwrap_or(Value::None));
        let default = default.filter(|default| !matches!(default, Value::None));
        return generator(rendering, value, |item| {
            path.of(rendering, item, default.as_ref()).map(Some)
        });
    }
    let mut given = given;
    if given.positional.is_empty() {
        let none = |_| fail("`map` needs a filter or an attribute");
        return generator(rendering, value, none);
    }
    let name = given.positional.remove(0);
    generator(rendering, value, |item| {
        let name = string(&name, "map")?;
        rendering.filter(&name, item, given.clone(), autoescape).map(Some)
    })
}

fn select(rendering: &Rendering, name: &str, value: &Value, given: Given) -> Result<Value> {
    let is_selected = name.starts_with("select");
    let mut given = given;
    let path = match name.ends_with("attr") {
        false => Some(Path(Vec::new())),
        true if given.positional.is_empty() => None,
        true => Some(Path::new(&given.positional.remove(0))),
    };
    let test = (!given.positional.is_empty()).then(|| given.positional.remove(0));
    generator(rendering, value, |item| {
        let Some(path) = &path else { return fail(format!("`{name}` needs an attribute")) };
        let tested = path.of(rendering, item.clone(), None)?;
        let holds = match &test {
            Some(test) => {
                let test = string(test, name)?;
                rendering.test(&test, &tested, given.clone())?
            }
            None => tested.is_true(),
        };
        Ok((holds == is_selected).then_some(item))
    })
}

fn unique(rendering: &Rendering, value: &Value, given: Given) -> Result<Value> {
    let [case, attribute] = given.bind("unique", ["case_sensitive", "attribute"])?;
    let case = case.is_some_and(|of| of.is_true());
    let path = Path::new(&attribute.unwrap_or(Value::None));
    let mut seen = IndexSet::new();
    let items = match value.items(&rendering.meter) {
        Ok(items) => Value::list(&rendering.meter, items)?,
        Err(fault) => {
            return Value::iterator(&rendering.meter, "generator", Vec::new(), Some(fault));
        }
    };
    generator(rendering, &items, |item| {
        let key = path.of(rendering, item.clone(), None)?;
        let key = if case { key } else { without_case(key) };
        Ok(seen.insert(Key::new(&rendering.meter, key)?).then_some(item))
    })
}

fn group(rendering: &Rendering, value: &Value, given: Given) -> Result<Value> {
    let meter = &rendering.meter;
    let names = ["attribute", "default", "case_sensitive"];
    let [attribute, default, case] = given.bind("groupby", names)?;
    let path = Path::new(&required(attribute, "groupby", "attribute")?);
    let default = default.filter(|default| !matches!(default, Value::None));
    let case = case.is_some_and(|of| of.is_true());
    let mut items = Vec::new();
    for item in value.items(meter)? {
        let key = path.of(rendering, item.clone(), default.as_ref())?;
        let shown = key.clone();
        items.push((if case { key } else { without_case(key) }, (shown, item)));
    }
    let mut groups: Vec<(Value, Value, Vec<Value>)> = Vec::new();
    for (key, (shown, item)) in sorted_by_keys(meter, items, false)? {
        match groups.last_mut() {
            Some((last, _, group)) if equal(last, &key) => group.push(item),
            _ => groups.push((key, shown, vec![item])),
        }
    }
    let groups = groups.into_iter().map(|(_, key, items)| {
        let values = vec![key, Value::list(meter, items)?];
        let (depth, bytes) = meter.measure(values.iter())?;
        Ok(Value::Tuple(Rc::new(Items { values, depth, bytes, is_group: true })))
    });
    Value::list(meter, groups.collect::<Result<_>>()?)
}
