//! Faults of a model's weights, and of safetensors files.

use safetensors::tensor::Dtype;

use super::names::canonical;
use crate::config::CONFIG_FILE;
use crate::tensors::Place;

/// A mismatch between weights and configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WeightFault {
    /// The tensor is missing.
    #[error("`{name}` is missing")]
    Missing {
        /// Its canonical name.
        name: String,
    },
    /// The tensor does not belong to the configuration.
    #[error("`{name}` is unexpected")]
    Unexpected {
        /// Its name in the file.
        name: String,
    },
    /// Two stored tensors have the same canonical name.
    #[error("`{name}` is duplicated")]
    Duplicate {
        /// Its canonical name.
        name: String,
    },
    /// The configuration ties the LM head to the embedding matrix, but the files have another.
    #[error("`{name}` differs from the embedding matrix, although `tie_word_embeddings` is true")]
    OwnHead {
        /// Its canonical name.
        name: String,
    },
    /// The tensor's shape does not match the configuration. The message names the fields that a decoder's tensor
    /// contradicts.
    #[error("`{name}` must have the shape {want:?}{}, not {found:?}", by_fields(name, found, want))]
    ShapeMismatch {
        /// Its name in the file.
        name: String,
        /// Its shape.
        found: Vec<usize>,
        /// The configuration's shape.
        want: Vec<usize>,
    },
    /// The tensor is not in the shard that the index names.
    #[error("`{name}` is not in `{shard}`, as the index claims")]
    NotInShard {
        /// Its name in the index.
        name: String,
        /// The file.
        shard: String,
    },
    /// The configuration has more layers than the files have tensors.
    #[error("`num_hidden_layers` is {layers}, but the files only have {tensors} tensors")]
    Layers {
        /// The configuration's layers.
        layers: usize,
        /// Tensors of all files.
        tensors: usize,
    },
    /// The tensor's dtype is unsupported.
    #[error("`{name}` must have the dtype F32, BF16 or F16, not {found}")]
    Dtype {
        /// Its name in the file.
        name: String,
        /// Its dtype in safetensors.
        found: String,
    },
}

/// Which fields of `config.json` determine the dimensions in which the shape of a decoder's tensor differs: `` by
/// `num_attention_heads` and `head_dim` in `config.json` ``. Empty for other tensors.
fn by_fields(name: &str, found: &[usize], want: &[usize]) -> String {
    let Some(place) = canonical(name).and_then(|name| Place::of(&name)) else {
        return String::new();
    };
    let differs =
        |dimension: usize| found.len() != want.len() || found.get(dimension) != want.get(dimension);
    let sizes = place.sizes().into_iter().enumerate();
    let contradicted = sizes.filter(|(dimension, _)| differs(*dimension));
    let fields: Vec<String> = contradicted
        .flat_map(|(_, size)| size.fields())
        .map(|field| format!("`{field}`"))
        .collect();
    format!(" by {} in `{CONFIG_FILE}`", fields.join(" and "))
}

/// Why a safetensors file is corrupt.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SafetensorsFault {
    /// The file is too short for the header length.
    #[error("it must have at least 8 bytes, not {found}")]
    TooShort {
        /// Its length.
        found: usize,
    },
    /// The header exceeds the file or the format's limit.
    #[error("its header claims {found} bytes, but may have at most {max}")]
    HeaderLength {
        /// The declared length.
        found: u64,
        /// The maximum length.
        max: u64,
    },
    /// The header is not valid JSON or lacks fields.
    #[error("its header is invalid: {0}")]
    Header(serde_json::Error),
    /// A tensor has an unknown dtype.
    #[error("the tensor `{name}` has the unknown dtype `{found}`")]
    Dtype {
        /// Its name.
        name: String,
        /// Its dtype.
        found: String,
    },
    /// A tensor exceeds the file.
    #[error(
        "the tensor `{name}` has the offsets {found:?}, outside of the {have} bytes after the header"
    )]
    OutOfBounds {
        /// Its name.
        name: String,
        /// Its start and end.
        found: [u64; 2],
        /// Bytes after the header.
        have: u64,
    },
    /// A tensor's length does not match its shape.
    #[error("the tensor `{name}` takes {found} bytes, but {dtype} {shape:?} needs {want}")]
    LengthMismatch {
        /// Its name.
        name: String,
        /// Its length.
        found: u64,
        /// The length of its shape, as text: it may overflow.
        want: String,
        /// Its dtype.
        dtype: Dtype,
        /// Its shape.
        shape: Vec<u64>,
    },
    /// Tensors overlap or leave a gap.
    #[error(
        "the tensor `{name}` must begin at {want}, the end of the previous tensor, not at {found}"
    )]
    NotContiguous {
        /// Its name.
        name: String,
        /// Its start.
        found: u64,
        /// The previous tensor's end.
        want: u64,
    },
    /// The file has trailing bytes.
    #[error("its tensors end at {want} of the {found} bytes after the header")]
    TrailingBytes {
        /// Bytes after the header.
        found: u64,
        /// The last tensor's end.
        want: u64,
    },
}
