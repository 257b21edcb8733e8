//! The tests of `is`.

use super::arguments::{Given, required};
use super::ast::{Comparison, Math};
use super::compare::identical;
use super::fault::{Result, TemplateFault};
use super::filters::is_filter;
use super::operators::{compare, contains, math};
use super::rendering::Rendering;
use super::value::{Callable, Key, Value};

const TESTS: [&str; 39] = [
    "odd",
    "even",
    "divisibleby",
    "defined",
    "undefined",
    "filter",
    "test",
    "none",
    "boolean",
    "false",
    "true",
    "integer",
    "float",
    "lower",
    "upper",
    "string",
    "mapping",
    "number",
    "sequence",
    "iterable",
    "callable",
    "sameas",
    "escaped",
    "in",
    "==",
    "eq",
    "equalto",
    "!=",
    "ne",
    ">",
    "gt",
    "greaterthan",
    "ge",
    ">=",
    "<",
    "lt",
    "lessthan",
    "<=",
    "le",
];

/// Whether a test exists.
pub(super) fn is_test(name: &str) -> bool {
    TESTS.contains(&name)
}

pub(super) fn unknown_test(name: &str) -> TemplateFault {
    TemplateFault::new(format!("the test `{name}` does not exist"))
}

fn comparison(name: &str) -> Option<Comparison> {
    Some(match name {
        "==" | "eq" | "equalto" => Comparison::Equal,
        "!=" | "ne" => Comparison::NotEqual,
        ">" | "gt" | "greaterthan" => Comparison::Greater,
        ">=" | "ge" => Comparison::GreaterOrEqual,
        "<" | "lt" | "lessthan" => Comparison::Less,
        "<=" | "le" => Comparison::LessOrEqual,
        _ => return None,
    })
}

impl Rendering {
    /// `value is name(…)`.
    pub(super) fn test(&self, name: &str, value: &Value, given: Given) -> Result<bool> {
        if let Some(op) = comparison(name) {
            let [other] = given.in_order(name, 1)?;
            return compare(self, op, value, &required(other, name, "b")?);
        }
        match name {
            "divisibleby" => {
                let [by] = given.bind(name, ["num"])?;
                let by = required(by, name, "num")?;
                let rest = math(self, Math::Modulo, value, &by)?;
                return compare(self, Comparison::Equal, &rest, &Value::Int(0));
            }
            "sameas" => {
                let [other] = given.bind(name, ["other"])?;
                return Ok(identical(value, &required(other, name, "other")?));
            }
            "in" => {
                let [seq] = given.bind(name, ["seq"])?;
                return contains(&self.meter, &required(seq, name, "seq")?, value);
            }
            _ => {}
        }
        given.in_order::<0>(name, 0)?;
        let characters = |method: &str| {
            let text = Value::Str(self.str(value)?.into());
            let found = super::methods::call_method(self, &text, method, Given::default())?;
            Ok(found.is_true())
        };
        Ok(match name {
            "odd" | "even" => {
                let rest = math(self, Math::Modulo, value, &Value::Int(2))?;
                let wanted = Value::Int(i128::from(name == "odd"));
                compare(self, Comparison::Equal, &rest, &wanted)?
            }
            "defined" => !value.is_undefined(),
            "undefined" => value.is_undefined(),
            "filter" | "test" => {
                let is_known = if name == "filter" { is_filter } else { is_test };
                Key::new(&self.meter, value.clone())?.value().as_str().is_some_and(is_known)
            }
            "none" => matches!(value, Value::None),
            "boolean" => matches!(value, Value::Bool(_)),
            "false" => matches!(value, Value::Bool(false)),
            "true" => matches!(value, Value::Bool(true)),
            "integer" => matches!(value, Value::Int(_)),
            "float" => matches!(value, Value::Float(_)),
            "lower" => characters("islower")?,
            "upper" => characters("isupper")?,
            "string" => value.as_str().is_some(),
            "mapping" => matches!(value, Value::Dict(_)),
            "number" => matches!(value, Value::Bool(_) | Value::Int(_) | Value::Float(_)),
            "sequence" => matches!(
                value,
                Value::Undefined(_)
                    | Value::Str(_)
                    | Value::Markup(_)
                    | Value::List(_)
                    | Value::Tuple(_)
                    | Value::Dict(_)
                    | Value::Range(_)
            ),
            "iterable" => is_iterable(value),
            "callable" => match value {
                Value::Callable(callable) => !matches!(**callable, Callable::Template),
                Value::Undefined(_) | Value::Loop(_) | Value::Joiner(_) => true,
                _ => false,
            },
            "escaped" => matches!(value, Value::Markup(_)),
            _ => return Err(unknown_test(name)),
        })
    }
}

fn is_iterable(value: &Value) -> bool {
    value.len().is_some() || matches!(value, Value::Iterator(_))
}
