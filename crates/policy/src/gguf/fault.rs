//! Faults of GGUF files.

/// Why a GGUF file cannot be used.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum GgufFault {
    /// The file is not GGUF.
    #[error("it must begin with `GGUF`, not `{found}`")]
    Magic {
        /// Its first bytes, escaped.
        found: String,
    },
    /// The version is unsupported.
    #[error("its version must be 2 or 3 in little-endian, not {found}: convert the model again")]
    Version {
        /// The version.
        found: u32,
    },
    /// The file is truncated.
    #[error(
        "{what} needs {want} bytes at byte {at}, but only {left} are left: download the file again"
    )]
    Truncated {
        /// The missing item.
        what: String,
        /// Its length.
        want: u64,
        /// Its offset.
        at: usize,
        /// Bytes from there to the file's end.
        left: usize,
    },
    /// A count exceeds what the file can hold.
    #[error(
        "its header declares {found} {what}, but the {left} bytes left fit at most {max}: download it again"
    )]
    Count {
        /// The counted items.
        what: String,
        /// The declared count.
        found: u64,
        /// Bytes left for them.
        left: usize,
        /// The largest possible count.
        max: u64,
    },
    /// A string is not UTF-8.
    #[error("{what} is not valid UTF-8")]
    Text {
        /// The string.
        what: String,
    },
    /// A metadata value has an unknown type.
    #[error(
        "`{key}` has the unknown value type {found}, above the largest, 12: convert the model again"
    )]
    ValueType {
        /// The value's key.
        key: String,
        /// The type's number.
        found: u32,
    },
    /// Arrays are nested too deeply.
    #[error("`{key}` holds arrays nested more than {max} deep")]
    Depth {
        /// The value's key.
        key: String,
        /// Maximum nesting.
        max: usize,
    },
    /// Two metadata keys or two tensors have the same name.
    #[error("duplicate {what} `{name}`")]
    Duplicate {
        /// `key` or `tensor`.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// A required metadata key is missing.
    #[error("the key `{key}` is missing")]
    Missing {
        /// The key.
        key: String,
    },
    /// The file has no tokenizer.
    #[error("it has no tokenizer, put the model's `tokenizer.json` beside it")]
    NoTokenizer,
    /// A metadata value is invalid.
    #[error("`{key}` must be {want}, not {found}")]
    Value {
        /// The key.
        key: String,
        /// The value.
        found: String,
        /// The expected value.
        want: String,
    },
    /// A metadata value or tensor is unsupported.
    #[error("`{key}` = `{found}` is not supported: {why}")]
    Unsupported {
        /// The key, or the tensor's name.
        key: String,
        /// The value.
        found: String,
        /// What is supported, or what to do.
        why: &'static str,
    },
    /// A tensor's shape is invalid.
    #[error("the tensor `{name}` must have {want}, not the shape {found:?}")]
    Shape {
        /// Its name in the file.
        name: String,
        /// Its sizes, in the file's order.
        found: Vec<u64>,
        /// What it should be.
        want: String,
    },
    /// A tensor is misaligned.
    #[error("the offset of the tensor `{name}` must be a multiple of {alignment}, not {found}")]
    Alignment {
        /// Its name in the file.
        name: String,
        /// Its offset after the header.
        found: u64,
        /// The file's alignment.
        alignment: u64,
    },
    /// A tensor exceeds the file.
    #[error(
        "the tensor `{name}` takes {want} bytes at offset {at} after the header, which {have} bytes follow: download the \
         file again"
    )]
    OutOfBounds {
        /// Its name in the file.
        name: String,
        /// Its offset after the header.
        at: u64,
        /// Its length.
        want: u64,
        /// Bytes after the header.
        have: u64,
    },
    /// Two tensors overlap.
    #[error("the tensors `{first}` and `{second}` overlap at byte {at}")]
    Overlap {
        /// The first one.
        first: String,
        /// The second one.
        second: String,
        /// File offset of the second one.
        at: usize,
    },
}

/// The result of reading a section of a file.
pub(super) type Result<T, E = GgufFault> = std::result::Result<T, E>;
