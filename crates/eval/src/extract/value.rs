//! Values of JSON and of Python's literals, as far as readers of points look at them.

use crate::extract::python;

/// Python refuses decimal integers with more digits.
const MAX_INTEGER_DIGITS: usize = 4300;

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    /// A number or a boolean.
    Number(f64),
    /// A text.
    Text(String),
    /// Bytes, a character for each; what lies beyond ASCII does not matter.
    Bytes(String),
    /// A list.
    List(Vec<Value>),
    /// A tuple.
    Tuple(Vec<Value>),
    /// A dictionary in its written order; of equal keys the last one counts.
    Dictionary(Vec<(Value, Value)>),
    /// Anything else: `None`, sets, complex numbers, integers beyond any float.
    Other {
        /// Whether it counts as true.
        is_true: bool,
        /// Whether it can be a key.
        is_hashable: bool,
    },
}

impl Value {
    /// `None`, or `null`.
    pub(crate) const NONE: Self = Self::Other { is_true: false, is_hashable: true };

    /// The number that was written as decimal digits with an optional minus sign. `None` if Python refuses its length.
    pub(crate) fn integer(text: &str) -> Option<Self> {
        if text.trim_start_matches('-').len() > MAX_INTEGER_DIGITS {
            return None;
        }
        text.parse().ok().map(Self::from_integer)
    }

    /// An integer's value as a float. One that overflows is no number: `float` fails on it.
    pub(crate) fn from_integer(value: f64) -> Self {
        match value.is_finite() {
            true => Self::Number(value),
            false => Self::Other { is_true: true, is_hashable: true },
        }
    }

    /// A dictionary's value for a text key.
    pub(crate) fn get(&self, name: &str) -> Option<&Self> {
        let Self::Dictionary(fields) = self else { return None };
        let has_name = |key: &Self| matches!(key, Self::Text(text) if text == name);
        fields.iter().rev().find(|(key, _)| has_name(key)).map(|(_, value)| value)
    }

    /// The items of a list or a tuple.
    pub(crate) fn items(&self) -> Option<&[Self]> {
        match self {
            Self::List(items) | Self::Tuple(items) => Some(items),
            _ => None,
        }
    }

    /// The two items of a list or a tuple of two.
    pub(crate) fn pair(&self) -> Option<(&Self, &Self)> {
        match self.items()? {
            [first, second] => Some((first, second)),
            _ => None,
        }
    }

    /// `float(value)`, which reads texts and bytes too.
    pub(crate) fn float(&self) -> Option<f64> {
        match self {
            Self::Number(value) => Some(*value),
            Self::Text(text) | Self::Bytes(text) => python::float(text),
            _ => None,
        }
    }

    /// `str(value)`, as far as its numbers go.
    pub(crate) fn text(&self) -> String {
        let joined = |items: &[Self]| items.iter().map(Self::text).collect::<Vec<_>>().join(", ");
        match self {
            Self::Number(value) => value.to_string(),
            Self::Text(text) | Self::Bytes(text) => text.clone(),
            Self::List(items) => format!("[{}]", joined(items)),
            Self::Tuple(items) => format!("({})", joined(items)),
            Self::Dictionary(fields) => {
                let fields =
                    fields.iter().map(|(key, value)| format!("{}: {}", key.text(), value.text()));
                format!("{{{}}}", fields.collect::<Vec<_>>().join(", "))
            }
            Self::Other { .. } => String::new(),
        }
    }

    /// `bool(value)`.
    pub(crate) fn is_true(&self) -> bool {
        match self {
            Self::Number(value) => *value != 0.0,
            Self::Text(text) | Self::Bytes(text) => !text.is_empty(),
            Self::List(items) | Self::Tuple(items) => !items.is_empty(),
            Self::Dictionary(fields) => !fields.is_empty(),
            Self::Other { is_true, .. } => *is_true,
        }
    }

    /// Whether Python takes it as a key.
    pub(crate) fn is_hashable(&self) -> bool {
        match self {
            Self::Number(_) | Self::Text(_) | Self::Bytes(_) => true,
            Self::List(_) | Self::Dictionary(_) => false,
            Self::Tuple(items) => items.iter().all(Self::is_hashable),
            Self::Other { is_hashable, .. } => *is_hashable,
        }
    }
}
