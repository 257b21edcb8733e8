//! The filters of jinja2, and the `tojson` of `transformers`.

mod sequences;
mod strings;
mod wrapping;

use std::sync::Arc;

use super::arguments::{Given, optional_integer, required, string};
use super::ast::Math;
use super::conversions::{as_float, parse_float, parse_int, round, truncated};
use super::fault::{Result, TemplateFault, fail};
use super::format::escape;
use super::json::{Options, dumps};
use super::lookup::attribute_only;
use super::methods::call_method;
use super::operators::math;
use super::rendering::Rendering;
use super::value::Value;

const FILTERS: [&str; 54] = [
    "abs",
    "attr",
    "batch",
    "capitalize",
    "center",
    "count",
    "d",
    "default",
    "dictsort",
    "e",
    "escape",
    "filesizeformat",
    "first",
    "float",
    "forceescape",
    "format",
    "groupby",
    "indent",
    "int",
    "join",
    "last",
    "length",
    "list",
    "lower",
    "items",
    "map",
    "min",
    "max",
    "pprint",
    "random",
    "reject",
    "rejectattr",
    "replace",
    "reverse",
    "round",
    "safe",
    "select",
    "selectattr",
    "slice",
    "sort",
    "string",
    "striptags",
    "sum",
    "title",
    "trim",
    "truncate",
    "unique",
    "upper",
    "urlencode",
    "urlize",
    "wordcount",
    "wordwrap",
    "xmlattr",
    "tojson",
];

/// Whether a filter exists.
pub(super) fn is_filter(name: &str) -> bool {
    FILTERS.contains(&name)
}

pub(super) fn unknown_filter(name: &str) -> TemplateFault {
    TemplateFault::new(format!("the filter `{name}` does not exist"))
}

impl Rendering {
    /// `value | name(…)`.
    pub(super) fn filter(
        &self,
        name: &str,
        value: Value,
        given: Given,
        autoescape: bool,
    ) -> Result<Value> {
        self.meter.steps(1)?;
        match name {
            "capitalize" | "lower" | "upper" => {
                given.in_order::<0>(name, 0)?;
                call_method(self, &self.soft(value)?, name, Given::default())
            }
            "trim" => {
                let [chars] = given.bind(name, ["chars"])?;
                let given = Given::positional(chars.into_iter().collect());
                call_method(self, &self.soft(value)?, "strip", given)
            }
            "center" => {
                let [width] = given.bind(name, ["width"])?;
                let width = width.unwrap_or(Value::Int(80));
                call_method(self, &self.soft(value)?, "center", Given::positional(vec![width]))
            }
            "string" => given.in_order::<0>(name, 0).and_then(|_| self.soft(value)),
            "default" | "d" => {
                let [default, boolean] = given.bind(name, ["default_value", "boolean"])?;
                let is_missing = value.is_undefined()
                    || (boolean.is_some_and(|of| of.is_true()) && !value.is_true());
                Ok(if is_missing { default.unwrap_or_else(|| Value::text("")) } else { value })
            }
            "attr" => {
                let [attribute] = given.bind(name, ["name"])?;
                let attribute = string(&required(attribute, name, "name")?, name)?;
                match &value {
                    Value::Undefined(why) => fail(why.to_string()),
                    other => attribute_only(self, other, &attribute),
                }
            }
            "length" | "count" => {
                given.in_order::<0>(name, 0)?;
                match value.len() {
                    Some(length) => Ok(Value::Int(length as i128)),
                    None => fail(format!("a `{}` has no length", value.class())),
                }
            }
            "escape" | "e" => {
                given.in_order::<0>(name, 0)?;
                Ok(Value::Markup(escape(self, &value)?.into()))
            }
            "forceescape" => {
                given.in_order::<0>(name, 0)?;
                let text = Value::Str(self.str(&value)?.into());
                Ok(Value::Markup(escape(self, &text)?.into()))
            }
            "safe" => {
                given.in_order::<0>(name, 0)?;
                match value {
                    Value::Str(text) | Value::Markup(text) => Ok(Value::Markup(text)),
                    other => Ok(Value::Markup(self.str(&other)?.into())),
                }
            }
            "abs" => {
                given.in_order::<0>(name, 0)?;
                match (&value, value.as_int()) {
                    (_, Some(whole)) => Ok(Value::Int(whole.saturating_abs())),
                    (Value::Float(float), None) => Ok(Value::Float(float.abs())),
                    _ => fail(format!("`abs` needs a number, not `{}`", value.class())),
                }
            }
            "int" => self.int(&value, given),
            "float" => {
                let [default] = given.bind(name, ["default"])?;
                let number = match &value {
                    Value::Undefined(why) => return fail(why.to_string()),
                    Value::Str(text) | Value::Markup(text) => parse_float(text),
                    other => as_float(other),
                };
                Ok(number.map_or_else(|| default.unwrap_or(Value::Float(0.0)), Value::Float))
            }
            "round" => self.round(&value, given),
            "tojson" => self.tojson(&value, given),
            "format" | "indent" | "replace" | "join" | "striptags" | "title" | "truncate"
            | "wordcount" | "wordwrap" | "urlencode" | "xmlattr" | "filesizeformat" => {
                strings::filter(self, name, value, given, autoescape)
            }
            "pprint" | "random" | "urlize" => fail(format!("the filter `{name}` is not supported")),
            _ if is_filter(name) => sequences::filter(self, name, &value, given, autoescape),
            _ => Err(unknown_filter(name)),
        }
    }

    /// A value as a string; markup stays markup.
    fn soft(&self, value: Value) -> Result<Value> {
        match value {
            Value::Str(_) | Value::Markup(_) => Ok(value),
            other => Ok(Value::Str(self.str(&other)?.into())),
        }
    }

    fn int(&self, value: &Value, given: Given) -> Result<Value> {
        let [default, base] = given.bind("int", ["default", "base"])?;
        // A base that is none is that of no integer.
        let base = base.map_or(Some(10), |base| base.as_int()).unwrap_or(-1);
        let whole = match value {
            Value::Undefined(why) => return fail(why.to_string()),
            Value::Str(text) | Value::Markup(text) => {
                let whole = parse_int(text, u32::try_from(base).unwrap_or(u32::MAX));
                let is_too_large = || {
                    text.trim().trim_start_matches(['+', '-']).bytes().all(|b| b.is_ascii_digit())
                };
                match (whole, parse_float(text)) {
                    (Some(whole), _) => Some(whole),
                    (None, Some(float)) if float.is_finite() => {
                        if float.abs() >= 2f64.powi(126) || (base == 10 && is_too_large()) {
                            return fail("integers of more than 128 bits are not supported");
                        }
                        Some(truncated(float)?)
                    }
                    _ => None,
                }
            }
            Value::Float(float) if float.is_nan() => None,
            Value::Float(float) => Some(truncated(*float)?),
            other => other.as_int(),
        };
        Ok(whole.map_or_else(|| default.unwrap_or(Value::Int(0)), Value::Int))
    }

    fn round(&self, value: &Value, given: Given) -> Result<Value> {
        let [precision, method] = given.bind("round", ["precision", "method"])?;
        let is_whole = matches!(precision, Some(Value::None));
        let precision = optional_integer(precision, "round")?.unwrap_or(0);
        if let Value::Undefined(why) = value {
            return fail(why.to_string());
        }
        let method = method.map_or(Ok("common".into()), |method| string(&method, "round"))?;
        let to_whole: fn(f64) -> f64 = match &*method {
            "common" => {
                return match round(value, precision)? {
                    Value::Float(rounded) if is_whole => Ok(Value::Int(truncated(rounded)?)),
                    rounded => Ok(rounded),
                };
            }
            "ceil" => f64::ceil,
            "floor" => f64::floor,
            _ => return fail("the method of `round` is `common`, `ceil` or `floor`"),
        };
        let unit = math(self, Math::Power, &Value::Int(10), &Value::Int(precision))?;
        let whole = match math(self, Math::Multiply, value, &unit)? {
            Value::Float(scaled) => Value::Int(truncated(to_whole(scaled))?),
            other => other,
        };
        math(self, Math::Divide, &whole, &unit)
    }

    fn tojson(&self, value: &Value, given: Given) -> Result<Value> {
        let names = ["ensure_ascii", "indent", "separators", "sort_keys"];
        let [ascii, indent, separators, sort_keys] = given.bind("tojson", names)?;
        let is_set = |value: Option<Value>| value.is_some_and(|value| value.is_true());
        let indent = match indent {
            None | Some(Value::None) => None,
            Some(Value::Str(text) | Value::Markup(text)) => Some(text.to_string()),
            Some(other) => {
                let spaces = optional_integer(Some(other), "tojson")?.unwrap_or_default();
                let spaces = self.meter.width(super::arguments::size(spaces))?;
                Some(" ".repeat(spaces))
            }
        };
        let separators = match separators {
            None | Some(Value::None) => {
                let between = if indent.is_some() { "," } else { ", " };
                (between.to_owned(), ": ".to_owned())
            }
            Some(pair) => {
                let pair = pair.items(&self.meter)?;
                let pair = pair.iter().map(|text| string(text, "tojson"));
                match &pair.collect::<Result<Vec<Arc<str>>>>()?[..] {
                    [item, key] => (item.to_string(), key.to_string()),
                    _ => return fail("`separators` of `tojson` are two strings"),
                }
            }
        };
        let options = Options {
            ensure_ascii: is_set(ascii),
            indent,
            separators,
            sort_keys: is_set(sort_keys),
        };
        dumps(self, value, &options)
    }
}
