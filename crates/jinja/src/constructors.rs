//! Values that a rendering makes, whose bytes and depth its limits count.

use std::cell::RefCell;
use std::rc::Rc;

use indexmap::IndexMap;
use serde_json::Value as Json;

use super::fault::{Result, TemplateFault, fail};
use super::limits::{Meter, VALUE_BYTES};
use super::value::{Dict, Items, Key, Stream, Value};

/// Maximum depth of nested lists and maps.
const MAX_DEPTH: usize = 200;

impl Value {
    pub(super) fn list(meter: &Meter, values: Vec<Self>) -> Result<Self> {
        Ok(Self::List(Items::new(meter, values)?))
    }

    pub(super) fn tuple(meter: &Meter, values: Vec<Self>) -> Result<Self> {
        Ok(Self::Tuple(Items::new(meter, values)?))
    }

    pub(super) fn dict(meter: &Meter, entries: IndexMap<Key, Self>) -> Result<Self> {
        Ok(Self::Dict(Dict::new(meter, entries)?))
    }

    /// An iterator over values, which ends with `fault`.
    pub(super) fn iterator(
        meter: &Meter,
        kind: &'static str,
        values: Vec<Self>,
        fault: Option<TemplateFault>,
    ) -> Result<Self> {
        let (depth, bytes) = meter.measure(values.iter())?;
        let (items, fault) = (RefCell::new(values.into()), RefCell::new(fault));
        Ok(Self::Iterator(Rc::new(Stream { kind, items, fault, depth, bytes })))
    }

    /// The value of JSON.
    pub(super) fn from_json(meter: &Meter, json: &Json) -> Result<Self> {
        Ok(match json {
            Json::Null => Self::None,
            Json::Bool(value) => Self::Bool(*value),
            Json::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
                (Some(whole), ..) => Self::Int(whole.into()),
                (None, Some(whole), _) => Self::Int(whole.into()),
                (None, None, Some(float)) => Self::Float(float),
                _ => return fail(format!("the number {number} is not supported")),
            },
            Json::String(text) => Self::text(text),
            Json::Array(items) => {
                let items = items.iter().map(|item| Self::from_json(meter, item));
                Self::list(meter, items.collect::<Result<_>>()?)?
            }
            Json::Object(entries) => {
                let entries = entries.iter().map(|(key, value)| {
                    Ok((Key::text(key.as_str().into()), Self::from_json(meter, value)?))
                });
                Self::dict(meter, entries.collect::<Result<_>>()?)?
            }
        })
    }
}

impl Items {
    pub(super) fn new(meter: &Meter, values: Vec<Value>) -> Result<Rc<Self>> {
        let (depth, bytes) = meter.measure(values.iter())?;
        Ok(Rc::new(Self { values, depth, bytes, is_group: false }))
    }
}

impl Dict {
    pub(super) fn new(meter: &Meter, entries: IndexMap<Key, Value>) -> Result<Rc<Self>> {
        let all = entries.iter().flat_map(|(key, value)| [key.value(), value]);
        let (depth, bytes) = meter.measure(all)?;
        Ok(Rc::new(Self { entries, depth, bytes }))
    }
}

impl Meter {
    /// A string.
    pub(super) fn text(&self, text: impl Into<String>) -> Result<Value> {
        let text = text.into();
        self.take(text.len())?;
        Ok(Value::Str(text.into()))
    }

    /// The depth and the bytes of a container of these values.
    pub(super) fn measure<'v>(
        &self,
        values: impl Iterator<Item = &'v Value>,
    ) -> Result<(usize, usize)> {
        let (mut depth, mut bytes, mut count) = (0, VALUE_BYTES, 0_usize);
        for value in values {
            depth = depth.max(value.depth());
            bytes = bytes.saturating_add(value.bytes());
            count += 1;
        }
        self.allow(Some(bytes))?;
        self.take(count.saturating_mul(VALUE_BYTES))?;
        match depth < MAX_DEPTH {
            true => Ok((depth + 1, bytes)),
            false => fail(format!("a list nests more than {MAX_DEPTH} levels deep")),
        }
    }
}
