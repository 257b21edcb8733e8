//! What can be wrong with a GGUF file.

/// A reason why a GGUF file cannot be used.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum GgufFault {
    /// The file is something else.
    #[error("it begins with `{found}`, want `GGUF`")]
    Magic {
        /// Its first bytes, those that are no letters escaped.
        found: String,
    },
    /// The file is of a version that is not read.
    #[error("its version is {found}, want 2 or 3 in little-endian, convert the model anew")]
    Version {
        /// The version.
        found: u32,
    },
    /// The file ends before something that it announces.
    #[error("{what} needs {want} bytes at byte {at}, {left} are left: fetch the file anew")]
    Truncated {
        /// What should be there.
        what: String,
        /// Its length.
        want: u64,
        /// Where it begins.
        at: usize,
        /// Bytes from there to the file's end.
        left: usize,
    },
    /// A number of things is more than the file has room for.
    #[error(
        "it announces {found} {what}, the {left} bytes left have room for {most}: fetch it anew"
    )]
    Count {
        /// What is counted.
        what: String,
        /// The number given.
        found: u64,
        /// Bytes left for them.
        left: usize,
        /// The largest possible number.
        most: u64,
    },
    /// A text is not UTF-8.
    #[error("{what} is no UTF-8 text")]
    Text {
        /// Which text.
        what: String,
    },
    /// A value is of a type that the format does not have.
    #[error("`{key}` is of the unknown value type {found}, want 0 to 12")]
    ValueType {
        /// The value's key.
        key: String,
        /// The type's number.
        found: u32,
    },
    /// Lists lie in lists in lists.
    #[error("`{key}` holds lists more than {most} deep")]
    Depth {
        /// The value's key.
        key: String,
        /// The deepest that is read.
        most: usize,
    },
    /// Two values or two tensors bear the same name.
    #[error("the {what} `{name}` is there twice")]
    Twice {
        /// `key` or `tensor`.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// A value that has to be there is not.
    #[error("the key `{key}` is missing")]
    Missing {
        /// The key.
        key: String,
    },
    /// The file has a model and no tokenizer.
    #[error("it holds no tokenizer, put the model's own `tokenizer.json` beside it")]
    NoTokenizer,
    /// A value is not what it has to be.
    #[error("`{key}` is {found}, want {want}")]
    Value {
        /// The key.
        key: String,
        /// The value.
        found: String,
        /// What it should be.
        want: String,
    },
    /// A value asks for what is not done here.
    #[error("`{key}` = `{found}` is not supported: {why}")]
    Unsupported {
        /// The key, or the tensor's name.
        key: String,
        /// The value.
        found: String,
        /// What is supported, or what to do.
        why: &'static str,
    },
    /// A tensor's shape cannot be.
    #[error("the tensor `{name}` has the shape {found:?}, want {want}")]
    Shape {
        /// Its name in the file.
        name: String,
        /// Its sizes, in the file's order.
        found: Vec<u64>,
        /// What it should be.
        want: String,
    },
    /// A tensor begins where none may.
    #[error("the tensor `{name}` begins at {found}, want a multiple of {alignment}")]
    Alignment {
        /// Its name in the file.
        name: String,
        /// Its place behind the header.
        found: u64,
        /// The file's alignment.
        alignment: u64,
    },
    /// A tensor lies beyond the file's end.
    #[error(
        "the tensor `{name}` takes {want} bytes at {at} behind the header, which {have} bytes follow: fetch the file \
         anew"
    )]
    Outside {
        /// Its name in the file.
        name: String,
        /// Its place behind the header.
        at: u64,
        /// Its length.
        want: u64,
        /// Bytes behind the header.
        have: u64,
    },
    /// Two tensors share bytes.
    #[error("the tensors `{first}` and `{second}` overlap at byte {at}")]
    Overlap {
        /// The one that begins first.
        first: String,
        /// The other.
        second: String,
        /// Where the other begins in the file.
        at: usize,
    },
}

/// The result of reading a part of a file.
pub(super) type Result<T, E = GgufFault> = std::result::Result<T, E>;
