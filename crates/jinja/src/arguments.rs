//! Arguments of filters, methods and functions.

use std::sync::Arc;

use super::fault::{Result, fail};
use super::value::Value;

/// The arguments of a call.
#[derive(Clone, Default)]
pub(super) struct Given {
    pub(super) positional: Vec<Value>,
    pub(super) keywords: Vec<(Arc<str>, Value)>,
}

impl Given {
    pub(super) fn positional(positional: Vec<Value>) -> Self {
        Self { positional, keywords: Vec::new() }
    }

    /// The arguments by name, of which the first are also positional; `None` are not given.
    pub(super) fn bind<const N: usize>(
        self,
        callee: &str,
        names: [&str; N],
    ) -> Result<[Option<Value>; N]> {
        if self.positional.len() > N {
            return fail(format!("`{callee}` takes at most {N} arguments"));
        }
        let mut bound = [const { None }; N];
        for (place, value) in bound.iter_mut().zip(self.positional) {
            *place = Some(value);
        }
        for (name, value) in self.keywords {
            let Some(at) = names.iter().position(|known| **known == *name) else {
                return fail(format!("`{callee}` has no argument `{name}`"));
            };
            if bound[at].replace(value).is_some() {
                return fail(format!("`{callee}` has two values for its argument `{name}`"));
            }
        }
        Ok(bound)
    }

    /// Positional arguments, of which the first `required` must be given.
    pub(super) fn in_order<const N: usize>(
        self,
        callee: &str,
        required: usize,
    ) -> Result<[Option<Value>; N]> {
        if let Some((name, _)) = self.keywords.first() {
            return fail(format!("`{callee}` has no argument `{name}`"));
        }
        if self.positional.len() < required || self.positional.len() > N {
            let given = self.positional.len();
            return fail(format!("`{callee}` takes {required} to {N} arguments, not {given}"));
        }
        self.bind(callee, [""; N])
    }
}

/// An argument that must be given.
pub(super) fn required(value: Option<Value>, callee: &str, name: &str) -> Result<Value> {
    match value {
        Some(value) => Ok(value),
        None => fail(format!("`{callee}` needs the argument `{name}`")),
    }
}

/// An argument that is a string.
pub(super) fn string(value: &Value, callee: &str) -> Result<Arc<str>> {
    match value {
        Value::Str(text) | Value::Markup(text) => Ok(text.clone()),
        Value::Undefined(why) => fail(why.to_string()),
        other => fail(format!("`{callee}` needs a string, not `{}`", other.class())),
    }
}

/// An argument that is an integer.
pub(super) fn integer(value: &Value, callee: &str) -> Result<i128> {
    match (value.as_int(), value) {
        (Some(whole), _) => Ok(whole),
        (None, Value::Undefined(why)) => fail(why.to_string()),
        (None, other) => fail(format!("`{callee}` needs an integer, not `{}`", other.class())),
    }
}

/// An optional integer; `None` is as if it was not given.
pub(super) fn optional_integer(value: Option<Value>, callee: &str) -> Result<Option<i128>> {
    match value {
        None | Some(Value::None) => Ok(None),
        Some(value) => integer(&value, callee).map(Some),
    }
}

/// A width, count or index that is not negative.
pub(super) fn size(value: i128) -> usize {
    usize::try_from(value.max(0)).unwrap_or(usize::MAX)
}
