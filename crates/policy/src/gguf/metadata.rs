//! The key-value metadata of a GGUF file.

use std::fmt::Display;
use std::ops::Range;

use embodied_r_kernels::quantized::SharedBytes;
use indexmap::IndexMap;
use indexmap::map::Entry;

use super::cursor::{Cursor, text};
use super::fault::{GgufFault, Result};

/// Maximum nesting of arrays.
const MAX_DEPTH: usize = 4;

/// Minimum size of a key-value pair: key length, value type, one byte.
const MIN_ENTRY_BYTES: u64 = 13;

/// One value. Strings and arrays are stored as byte ranges of the file.
#[derive(Debug, Clone, PartialEq)]
enum Value {
    Unsigned(u64),
    Signed(i64),
    F32(f32),
    F64(f64),
    Bool(bool),
    String(Range<usize>),
    Array { kind: ValueType, count: u64, range: Range<usize> },
}

/// The type of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ValueType {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    String,
    Array,
    U64,
    I64,
    F64,
}

impl ValueType {
    /// Indexed by the format's type ids.
    const ALL: [Self; 13] = [
        Self::U8,
        Self::I8,
        Self::U16,
        Self::I16,
        Self::U32,
        Self::I32,
        Self::F32,
        Self::Bool,
        Self::String,
        Self::Array,
        Self::U64,
        Self::I64,
        Self::F64,
    ];

    fn read(cursor: &mut Cursor<'_>, key: &str) -> Result<Self> {
        let found = cursor.u32(&format_args!("the type of `{key}`"))?;
        let kind = Self::ALL.get(found as usize).copied();
        kind.ok_or_else(|| GgufFault::ValueType { key: key.to_owned(), found })
    }

    /// Size of a value in bytes, or its minimum.
    fn min_bytes(self) -> u64 {
        match self {
            Self::U8 | Self::I8 | Self::Bool => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 | Self::String => 8,
            Self::Array => 12,
        }
    }
}

/// The metadata of a file.
#[derive(Clone)]
pub(super) struct Metadata {
    bytes: SharedBytes,
    values: IndexMap<String, Value>,
}

impl Metadata {
    /// Reads `count` key-value pairs from `cursor`, a position in `bytes`.
    pub(super) fn read(bytes: &SharedBytes, cursor: &mut Cursor<'_>, count: u64) -> Result<Self> {
        let mut values = IndexMap::new();
        for index in 0..count {
            let key = cursor.text(&format_args!("the key of value {index}"))?;
            let kind = ValueType::read(cursor, key)?;
            let value = value(cursor, key, kind)?;
            match values.entry(key.to_owned()) {
                Entry::Occupied(_) => {
                    return Err(GgufFault::Duplicate { what: "key", name: key.to_owned() });
                }
                Entry::Vacant(entry) => entry.insert(value),
            };
        }
        Ok(Self { bytes: SharedBytes::clone(bytes), values })
    }

    /// Reads the number of key-value pairs, checked against the file's size.
    pub(super) fn read_count(cursor: &mut Cursor<'_>) -> Result<u64> {
        cursor.count(MIN_ENTRY_BYTES, &"values")
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
            Some(Value::String(_)) => "a string".to_owned(),
            Some(Value::Array { kind, count, .. }) => format!("an array of {count} {kind:?}"),
        };
        GgufFault::Value { key: key.to_owned(), found, want: want.to_owned() }
    }

    /// A non-negative integer.
    pub(super) fn count(&self, key: &str) -> Result<Option<u64>> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::Unsigned(n)) => Ok(Some(*n)),
            Some(Value::Signed(n)) if *n >= 0 => Ok(Some(n.unsigned_abs())),
            Some(_) => Err(self.wrong(key, "a non-negative integer")),
        }
    }

    /// A token id.
    pub(super) fn id(&self, key: &str) -> Result<Option<u32>> {
        let id = self.count(key)?;
        let in_range = id.map(|id| u32::try_from(id).map_err(|_| self.wrong(key, "a token id")));
        in_range.transpose()
    }

    /// A flag.
    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(_) => Err(self.wrong(key, "a boolean")),
        }
    }

    /// A float with the shortest decimal representation of the stored value: 1e-6 in f32 is not 1e-6 in f64.
    pub(super) fn number(&self, key: &str) -> Result<Option<f64>> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::F32(x)) => Ok(Some(in_decimal(*x))),
            Some(Value::F64(x)) => Ok(Some(*x)),
            Some(_) => Err(self.wrong(key, "a float")),
        }
    }

    /// A string.
    pub(super) fn text(&self, key: &str) -> Result<Option<&str>> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::String(range)) => text(self.bytes(range), &Quoted(key)).map(Some),
            Some(_) => Err(self.wrong(key, "a string")),
        }
    }

    /// An array of strings.
    pub(super) fn texts(&self, key: &str) -> Result<Option<Vec<&str>>> {
        let (count, range) = match self.values.get(key) {
            None => return Ok(None),
            Some(Value::Array { kind: ValueType::String, count, range }) => (*count, range),
            Some(_) => return Err(self.wrong(key, "an array of strings")),
        };
        let mut cursor = Cursor::new(self.bytes(range));
        (0..count).map(|_| cursor.text(&Quoted(key))).collect::<Result<_>>().map(Some)
    }

    /// An array of 32-bit floats, each converted as in [`Self::number`].
    pub(super) fn numbers(&self, key: &str) -> Result<Option<Vec<f64>>> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::Array { kind: ValueType::F32, range, .. }) => {
                let words = self.bytes(range).as_chunks().0;
                Ok(Some(words.iter().map(|word| in_decimal(f32::from_le_bytes(*word))).collect()))
            }
            Some(_) => Err(self.wrong(key, "an array of 32-bit floats")),
        }
    }

    /// An array of flags.
    pub(super) fn flags(&self, key: &str) -> Result<Option<Vec<bool>>> {
        let wrong = || self.wrong(key, "an array of booleans");
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::Array { kind: ValueType::Bool, range, .. }) => {
                let flag = |byte: &u8| match byte {
                    0 => Ok(false),
                    1 => Ok(true),
                    _ => Err(wrong()),
                };
                self.bytes(range).iter().map(flag).collect::<Result<_>>().map(Some)
            }
            Some(_) => Err(wrong()),
        }
    }

    /// An array of 32-bit integers.
    pub(super) fn integers(&self, key: &str) -> Result<Option<Vec<i32>>> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::Array { kind: ValueType::I32 | ValueType::U32, range, .. }) => {
                let words = self.bytes(range).as_chunks().0;
                Ok(Some(words.iter().map(|word| i32::from_le_bytes(*word)).collect()))
            }
            Some(_) => Err(self.wrong(key, "an array of 32-bit integers")),
        }
    }
}

/// The f64 with the decimal representation of an f32.
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

fn value(cursor: &mut Cursor<'_>, key: &str, kind: ValueType) -> Result<Value> {
    let what = &Quoted(key);
    Ok(match kind {
        ValueType::U8 => Value::Unsigned(cursor.array::<1>(what)?[0].into()),
        ValueType::I8 => Value::Signed(i8::from_le_bytes(cursor.array(what)?).into()),
        ValueType::U16 => Value::Unsigned(u16::from_le_bytes(cursor.array(what)?).into()),
        ValueType::I16 => Value::Signed(i16::from_le_bytes(cursor.array(what)?).into()),
        ValueType::U32 => Value::Unsigned(cursor.u32(what)?.into()),
        ValueType::I32 => Value::Signed(i32::from_le_bytes(cursor.array(what)?).into()),
        ValueType::U64 => Value::Unsigned(cursor.u64(what)?),
        ValueType::I64 => Value::Signed(i64::from_le_bytes(cursor.array(what)?)),
        ValueType::F32 => Value::F32(f32::from_le_bytes(cursor.array(what)?)),
        ValueType::F64 => Value::F64(f64::from_le_bytes(cursor.array(what)?)),
        ValueType::Bool => match cursor.array(what)? {
            [0] => Value::Bool(false),
            [1] => Value::Bool(true),
            [found] => {
                let (key, found) = (key.to_owned(), found.to_string());
                return Err(GgufFault::Value { key, found, want: "0 or 1".to_owned() });
            }
        },
        ValueType::String => Value::String(cursor.skip_text(what)?),
        ValueType::Array => list(cursor, key, 1)?,
    })
}

/// Skips an array. The file size bounds the work, since every element takes bytes.
fn list(cursor: &mut Cursor<'_>, key: &str, depth: usize) -> Result<Value> {
    if depth > MAX_DEPTH {
        return Err(GgufFault::Depth { key: key.to_owned(), max: MAX_DEPTH });
    }
    let kind = ValueType::read(cursor, key)?;
    let count = cursor.count(kind.min_bytes(), &format_args!("elements of `{key}`"))?;
    let start = cursor.position();
    match kind {
        ValueType::String => {
            for _ in 0..count {
                cursor.skip_text(&Quoted(key))?;
            }
        }
        ValueType::Array => {
            for _ in 0..count {
                list(cursor, key, depth + 1)?;
            }
        }
        fixed => {
            // The count is bounded by the bytes left, so the product is in range.
            cursor.skip(count * fixed.min_bytes(), &Quoted(key))?;
        }
    }
    Ok(Value::Array { kind, count, range: start..cursor.position() })
}
