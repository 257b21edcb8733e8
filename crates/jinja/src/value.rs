//! The values of a template, which are Python's.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use indexmap::IndexMap;

use super::ast;
use super::fault::{Result, TemplateFault, fail};
use super::limits::{Meter, VALUE_BYTES};

#[derive(Clone)]
pub(super) enum Value {
    /// What a missing name, attribute or item gives.
    Undefined(Rc<Missing>),
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Str(Arc<str>),
    /// A string that `escape` leaves as it is.
    Markup(Arc<str>),
    List(Rc<Items>),
    Tuple(Rc<Items>),
    Dict(Rc<Dict>),
    View(View, Rc<Dict>),
    Range(Range),
    Iterator(Rc<Stream>),
    /// The index of a namespace of the rendering, so that they may refer to each other.
    Namespace(usize),
    Loop(Rc<Loop>),
    Cycler(Rc<Cycler>),
    Joiner(Rc<Joiner>),
    Callable(Rc<Callable>),
}

/// Why a value is undefined.
pub(super) enum Missing {
    Name(Arc<str>),
    Attribute(&'static str, String),
    Text(&'static str),
    /// An attribute that the sandbox hides.
    Unsafe(&'static str, String),
}

impl std::fmt::Display for Missing {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Name(name) => write!(out, "`{name}` is undefined"),
            Self::Attribute(of, name) => {
                write!(out, "`{of}` object has no attribute or item `{name}`")
            }
            Self::Text(text) => out.write_str(text),
            Self::Unsafe(of, name) => {
                write!(out, "access to attribute `{name}` of `{of}` object is unsafe")
            }
        }
    }
}

/// The items of a list or tuple.
pub(super) struct Items {
    pub(super) values: Vec<Value>,
    pub(super) depth: usize,
    pub(super) bytes: usize,
    /// Whether it is a pair of `groupby`, with the attributes `grouper` and `list`.
    pub(super) is_group: bool,
}

pub(super) struct Dict {
    pub(super) entries: IndexMap<Key, Value>,
    pub(super) depth: usize,
    pub(super) bytes: usize,
}

/// What `dict.keys()`, `dict.values()` and `dict.items()` give.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum View {
    Keys,
    Values,
    Items,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) start: i128,
    pub(super) stop: i128,
    pub(super) step: i128,
}

impl Range {
    pub(super) fn len(self) -> i128 {
        let (distance, step) = match self.step > 0 {
            true => (self.stop.saturating_sub(self.start), self.step),
            false => (self.start.saturating_sub(self.stop), self.step.saturating_neg()),
        };
        if distance <= 0 { 0 } else { (distance - 1) / step + 1 }
    }

    pub(super) fn get(self, index: i128) -> Value {
        Value::Int(self.start + index * self.step)
    }
}

/// A generator or iterator, which gives each item once, then its error if it has one.
pub(super) struct Stream {
    pub(super) kind: &'static str,
    pub(super) items: RefCell<VecDeque<Value>>,
    pub(super) fault: RefCell<Option<TemplateFault>>,
    pub(super) depth: usize,
    pub(super) bytes: usize,
}

impl Stream {
    pub(super) fn next(&self) -> Result<Option<Value>> {
        match self.items.borrow_mut().pop_front() {
            Some(item) => Ok(Some(item)),
            None => match self.fault.borrow_mut().take() {
                Some(fault) => Err(fault),
                None => Ok(None),
            },
        }
    }
}

/// The variable `loop`.
pub(super) struct Loop {
    pub(super) items: Rc<Items>,
    pub(super) index: Cell<usize>,
    /// Levels of recursive loops around it.
    pub(super) level: usize,
    pub(super) changed: RefCell<Option<Vec<Value>>>,
    /// A recursive loop can be called.
    pub(super) recursive: Option<(Arc<ast::For>, Rc<Scope>)>,
}

pub(super) struct Cycler {
    pub(super) items: Rc<Items>,
    pub(super) position: Cell<usize>,
}

pub(super) struct Joiner {
    pub(super) separator: Value,
    pub(super) is_used: Cell<bool>,
}

pub(super) enum Callable {
    /// A global function or class.
    Function(&'static str),
    /// A method of a value.
    Method(Value, Box<str>),
    Macro(Rc<Macro>),
    /// `self`, and `self.name`.
    Template,
    Block(Arc<str>),
}

pub(super) struct Macro {
    pub(super) code: Arc<ast::Macro>,
    pub(super) scope: Rc<Scope>,
}

/// The variables of a block; those of the blocks around it are visible.
#[derive(Default)]
pub(super) struct Scope {
    variables: RefCell<HashMap<Arc<str>, Value>>,
    parent: Option<Rc<Scope>>,
}

impl Scope {
    pub(super) fn within(parent: &Rc<Self>) -> Rc<Self> {
        Rc::new(Self { variables: RefCell::default(), parent: Some(parent.clone()) })
    }

    pub(super) fn set(&self, name: Arc<str>, value: Value) {
        self.variables.borrow_mut().insert(name, value);
    }

    pub(super) fn get(&self, name: &str) -> Option<Value> {
        let mut scope = self;
        loop {
            if let Some(value) = scope.variables.borrow().get(name) {
                return Some(value.clone());
            }
            scope = scope.parent.as_deref()?;
        }
    }

    /// Drops the variables, whose macros may refer to this scope.
    pub(super) fn clear(&self) {
        let variables = std::mem::take(&mut *self.variables.borrow_mut());
        drop(variables);
    }
}

/// A value that is hashable.
#[derive(Clone)]
pub(super) struct Key(pub(super) Value);

impl Key {
    pub(super) fn text(text: Arc<str>) -> Self {
        Self(Value::Str(text))
    }

    pub(super) fn value(&self) -> &Value {
        &self.0
    }
}

impl Value {
    pub(super) fn text(text: &str) -> Self {
        Self::Str(text.into())
    }

    pub(super) fn undefined(why: Missing) -> Self {
        Self::Undefined(Rc::new(why))
    }

    pub(super) fn as_str(&self) -> Option<&str> {
        match self {
            Self::Str(text) | Self::Markup(text) => Some(text),
            _ => None,
        }
    }

    /// A Boolean or an integer.
    pub(super) fn as_int(&self) -> Option<i128> {
        match self {
            Self::Bool(value) => Some(i128::from(*value)),
            Self::Int(value) => Some(*value),
            _ => None,
        }
    }

    pub(super) fn is_undefined(&self) -> bool {
        matches!(self, Self::Undefined(_))
    }

    /// Python's name of its class.
    pub(super) fn class(&self) -> &'static str {
        match self {
            Self::Undefined(_) => "Undefined",
            Self::None => "NoneType",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float",
            Self::Str(_) => "str",
            Self::Markup(_) => "Markup",
            Self::List(_) => "list",
            Self::Tuple(items) if items.is_group => "_GroupTuple",
            Self::Tuple(_) => "tuple",
            Self::Dict(_) => "dict",
            Self::View(View::Keys, _) => "dict_keys",
            Self::View(View::Values, _) => "dict_values",
            Self::View(View::Items, _) => "dict_items",
            Self::Range(_) => "range",
            Self::Iterator(stream) => stream.kind,
            Self::Namespace(_) => "Namespace",
            Self::Loop(_) => "LoopContext",
            Self::Cycler(_) => "Cycler",
            Self::Joiner(_) => "Joiner",
            Self::Callable(callable) => match **callable {
                Callable::Function(_) => "function",
                Callable::Method(..) => "builtin_function_or_method",
                Callable::Macro(_) => "Macro",
                Callable::Template => "TemplateReference",
                Callable::Block(_) => "BlockReference",
            },
        }
    }

    /// Python's `bool()`.
    pub(super) fn is_true(&self) -> bool {
        match self {
            Self::Undefined(_) | Self::None => false,
            Self::Bool(value) => *value,
            Self::Int(value) => *value != 0,
            Self::Float(value) => *value != 0.0,
            other => other.len().is_none_or(|length| length > 0),
        }
    }

    /// Python's `len()`, if it has one.
    pub(super) fn len(&self) -> Option<usize> {
        match self {
            Self::Undefined(_) => Some(0),
            Self::Str(text) | Self::Markup(text) => Some(text.chars().count()),
            Self::List(items) | Self::Tuple(items) => Some(items.values.len()),
            Self::Dict(dict) | Self::View(_, dict) => Some(dict.entries.len()),
            Self::Range(range) => usize::try_from(range.len()).ok(),
            Self::Loop(of) => Some(of.items.values.len()),
            _ => None,
        }
    }

    /// Levels of nested containers.
    pub(super) fn depth(&self) -> usize {
        match self {
            Self::List(items) | Self::Tuple(items) => items.depth,
            Self::Dict(dict) => dict.depth,
            Self::View(_, dict) => dict.depth + 1,
            Self::Iterator(stream) => stream.depth,
            Self::Loop(of) => of.items.depth + 1,
            Self::Cycler(of) => of.items.depth + 1,
            Self::Joiner(of) => of.separator.depth() + 1,
            Self::Callable(callable) => match &**callable {
                Callable::Method(of, _) => of.depth() + 1,
                _ => 0,
            },
            _ => 0,
        }
    }

    /// The bytes of a value with every item as often as it is contained; when printed, it is not much longer.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Str(text) | Self::Markup(text) => VALUE_BYTES + text.len(),
            Self::List(items) | Self::Tuple(items) => items.bytes,
            Self::Dict(dict) | Self::View(_, dict) => dict.bytes,
            Self::Iterator(stream) => stream.bytes,
            _ => VALUE_BYTES,
        }
    }

    /// Python's `iter()`, read to its end.
    pub(super) fn items(&self, meter: &Meter) -> Result<Vec<Self>> {
        match self.items_if_any(meter)? {
            Some(items) => Ok(items),
            None => fail(format!("`{}` object is not iterable", self.class())),
        }
    }

    /// The items of an iterable.
    pub(super) fn items_if_any(&self, meter: &Meter) -> Result<Option<Vec<Self>>> {
        let items = match self {
            Self::Undefined(_) => Vec::new(),
            Self::Str(text) | Self::Markup(text) => {
                meter.take(text.len().saturating_mul(VALUE_BYTES))?;
                let mut buffer = [0; 4];
                text.chars().map(|c| Self::text(c.encode_utf8(&mut buffer))).collect()
            }
            Self::List(items) | Self::Tuple(items) => items.values.clone(),
            Self::Dict(dict) | Self::View(View::Keys, dict) => {
                dict.entries.keys().map(|key| key.value().clone()).collect()
            }
            Self::View(View::Values, dict) => dict.entries.values().cloned().collect(),
            Self::View(View::Items, dict) => {
                let pairs = dict.entries.iter();
                let pairs = pairs.map(|(key, value)| vec![key.value().clone(), value.clone()]);
                pairs.map(|pair| Self::tuple(meter, pair)).collect::<Result<_>>()?
            }
            Self::Range(range) => {
                let range = *range;
                (0..range.len()).map(|index| range.get(index)).collect()
            }
            Self::Iterator(stream) => {
                let mut items = Vec::new();
                while let Some(item) = stream.next()? {
                    items.push(item);
                }
                items
            }
            Self::Loop(_) => return fail("iterating over `loop` is not supported"),
            _ => return Ok(None),
        };
        meter.steps(items.len() / 8)?;
        meter.take(items.len().saturating_mul(8))?;
        Ok(Some(items))
    }
}
