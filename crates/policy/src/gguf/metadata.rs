//! The values by key with which a GGUF file describes its model.

use std::fmt::Display;
use std::ops::Range;

use embodied_r_kernels::quantized::SharedBytes;
use indexmap::IndexMap;
use indexmap::map::Entry;

use super::cursor::{Cursor, text};
use super::fault::{GgufFault, Result};

/// Lists in lists are passed over up to here.
const MOST_DEPTH: usize = 4;

/// The least that a key with its value takes: the key's length, the value's type, one byte.
const LEAST_ENTRY_BYTES: u64 = 13;

/// One value. Texts and lists stay where they are in the file.
#[derive(Debug, Clone, PartialEq)]
enum Value {
    Unsigned(u64),
    Signed(i64),
    F32(f32),
    F64(f64),
    Bool(bool),
    Text(Range<usize>),
    List { kind: Kind, count: u64, range: Range<usize> },
}

/// The type of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    Text,
    List,
    U64,
    I64,
    F64,
}

impl Kind {
    /// By the numbers that the format gives the types.
    const ALL: [Self; 13] = [
        Self::U8,
        Self::I8,
        Self::U16,
        Self::I16,
        Self::U32,
        Self::I32,
        Self::F32,
        Self::Bool,
        Self::Text,
        Self::List,
        Self::U64,
        Self::I64,
        Self::F64,
    ];

    fn read(cursor: &mut Cursor<'_>, key: &str) -> Result<Self> {
        let found = cursor.u32(&format_args!("the type of `{key}`"))?;
        let kind = Self::ALL.get(found as usize).copied();
        kind.ok_or_else(|| GgufFault::ValueType { key: key.to_owned(), found })
    }

    /// The bytes of a value, or the fewest that one can have.
    fn least_bytes(self) -> u64 {
        match self {
            Self::U8 | Self::I8 | Self::Bool => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 | Self::Text => 8,
            Self::List => 12,
        }
    }
}

/// All values of a file.
#[derive(Clone)]
pub(super) struct Metadata {
    bytes: SharedBytes,
    values: IndexMap<String, Value>,
}

impl Metadata {
    /// Reads `count` values from `cursor`, which stands in `bytes`.
    pub(super) fn read(bytes: &SharedBytes, cursor: &mut Cursor<'_>, count: u64) -> Result<Self> {
        let mut values = IndexMap::new();
        for index in 0..count {
            let key = cursor.text(&format_args!("the key of value {index}"))?;
            let kind = Kind::read(cursor, key)?;
            let value = value(cursor, key, kind)?;
            match values.entry(key.to_owned()) {
                Entry::Occupied(_) => {
                    return Err(GgufFault::Twice { what: "key", name: key.to_owned() });
                }
                Entry::Vacant(entry) => entry.insert(value),
            };
        }
        Ok(Self { bytes: SharedBytes::clone(bytes), values })
    }

    /// The number that a key's count announces, checked against the file's size.
    pub(super) fn read_count(cursor: &mut Cursor<'_>) -> Result<u64> {
        cursor.count(LEAST_ENTRY_BYTES, &"values")
    }

    fn bytes(&self, range: &Range<usize>) -> &[u8] {
        (*self.bytes).as_ref().get(range.clone()).unwrap_or_default()
    }

    fn wrong(&self, key: &str, want: &str) -> GgufFault {
        let found = match self.values.get(key) {
            None => return GgufFault::Missing { key: key.to_owned() },
            Some(Value::Unsigned(n)) => n.to_string(),
            Some(Value::Signed(n)) => n.to_string(),
            Some(Value::F32(x)) => x.to_string(),
            Some(Value::F64(x)) => x.to_string(),
            Some(Value::Bool(flag)) => flag.to_string(),
            Some(Value::Text(_)) => "a text".to_owned(),
            Some(Value::List { kind, count, .. }) => format!("a list of {count} of {kind:?}"),
        };
        GgufFault::Value { key: key.to_owned(), found, want: want.to_owned() }
    }

    /// An integer that is not negative.
    pub(super) fn count(&self, key: &str) -> Result<Option<u64>> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::Unsigned(n)) => Ok(Some(*n)),
            Some(Value::Signed(n)) if *n >= 0 => Ok(Some(n.unsigned_abs())),
            Some(_) => Err(self.wrong(key, "an integer that is not negative")),
        }
    }

    /// A token's id.
    pub(super) fn id(&self, key: &str) -> Result<Option<u32>> {
        let id = self.count(key)?;
        let in_range = id.map(|id| u32::try_from(id).map_err(|_| self.wrong(key, "a token id")));
        in_range.transpose()
    }

    /// A number as it was written down in decimal: 1e-6 in f32 is not 1e-6 in f64.
    pub(super) fn number(&self, key: &str) -> Result<Option<f64>> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::F32(x)) => Ok(Some(in_decimal(*x))),
            Some(Value::F64(x)) => Ok(Some(*x)),
            Some(_) => Err(self.wrong(key, "a number with a fraction")),
        }
    }

    /// A text.
    pub(super) fn text(&self, key: &str) -> Result<Option<&str>> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::Text(range)) => text(self.bytes(range), &Quoted(key)).map(Some),
            Some(_) => Err(self.wrong(key, "a text")),
        }
    }

    /// A list of texts.
    pub(super) fn texts(&self, key: &str) -> Result<Option<Vec<&str>>> {
        let (count, range) = match self.values.get(key) {
            None => return Ok(None),
            Some(Value::List { kind: Kind::Text, count, range }) => (*count, range),
            Some(_) => return Err(self.wrong(key, "a list of texts")),
        };
        let mut cursor = Cursor::new(self.bytes(range));
        (0..count).map(|_| cursor.text(&Quoted(key))).collect::<Result<_>>().map(Some)
    }

    /// A list of 32-bit floats, each as [`Self::number`] gives it.
    pub(super) fn numbers(&self, key: &str) -> Result<Option<Vec<f64>>> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::List { kind: Kind::F32, range, .. }) => {
                let words = self.bytes(range).as_chunks().0;
                Ok(Some(words.iter().map(|word| in_decimal(f32::from_le_bytes(*word))).collect()))
            }
            Some(_) => Err(self.wrong(key, "a list of 32-bit floats")),
        }
    }

    /// A list of 32-bit integers.
    pub(super) fn integers(&self, key: &str) -> Result<Option<Vec<i32>>> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::List { kind: Kind::I32 | Kind::U32, range, .. }) => {
                let words = self.bytes(range).as_chunks().0;
                Ok(Some(words.iter().map(|word| i32::from_le_bytes(*word)).collect()))
            }
            Some(_) => Err(self.wrong(key, "a list of 32-bit integers")),
        }
    }
}

/// The f64 that reads as an f32 does in decimal.
fn in_decimal(number: f32) -> f64 {
    number.to_string().parse().unwrap_or(f64::from(number))
}

/// A key in a message.
struct Quoted<'a>(&'a str);

impl Display for Quoted<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}`", self.0)
    }
}

fn value(cursor: &mut Cursor<'_>, key: &str, kind: Kind) -> Result<Value> {
    let what = &Quoted(key);
    Ok(match kind {
        Kind::U8 => Value::Unsigned(cursor.array::<1>(what)?[0].into()),
        Kind::I8 => Value::Signed(i8::from_le_bytes(cursor.array(what)?).into()),
        Kind::U16 => Value::Unsigned(u16::from_le_bytes(cursor.array(what)?).into()),
        Kind::I16 => Value::Signed(i16::from_le_bytes(cursor.array(what)?).into()),
        Kind::U32 => Value::Unsigned(cursor.u32(what)?.into()),
        Kind::I32 => Value::Signed(i32::from_le_bytes(cursor.array(what)?).into()),
        Kind::U64 => Value::Unsigned(cursor.u64(what)?),
        Kind::I64 => Value::Signed(i64::from_le_bytes(cursor.array(what)?)),
        Kind::F32 => Value::F32(f32::from_le_bytes(cursor.array(what)?)),
        Kind::F64 => Value::F64(f64::from_le_bytes(cursor.array(what)?)),
        Kind::Bool => match cursor.array(what)? {
            [0] => Value::Bool(false),
            [1] => Value::Bool(true),
            [found] => {
                let (key, found) = (key.to_owned(), found.to_string());
                return Err(GgufFault::Value { key, found, want: "0 or 1".to_owned() });
            }
        },
        Kind::Text => Value::Text(cursor.skip_text(what)?),
        Kind::List => list(cursor, key, 1)?,
    })
}

/// Passes over a list. The file bounds the work: every element takes bytes of it.
fn list(cursor: &mut Cursor<'_>, key: &str, depth: usize) -> Result<Value> {
    if depth > MOST_DEPTH {
        return Err(GgufFault::Depth { key: key.to_owned(), most: MOST_DEPTH });
    }
    let kind = Kind::read(cursor, key)?;
    let count = cursor.count(kind.least_bytes(), &format_args!("elements of `{key}`"))?;
    let start = cursor.position();
    match kind {
        Kind::Text => {
            for _ in 0..count {
                cursor.skip_text(&Quoted(key))?;
            }
        }
        Kind::List => {
            for _ in 0..count {
                list(cursor, key, depth + 1)?;
            }
        }
        fixed => {
            // The count has been held against the bytes left, so the product is in range.
            cursor.skip(count * fixed.least_bytes(), &Quoted(key))?;
        }
    }
    Ok(Value::List { kind, count, range: start..cursor.position() })
}
