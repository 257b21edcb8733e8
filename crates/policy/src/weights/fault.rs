//! Faults of a model's weights.

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
    /// The tensor's shape does not match the configuration.
    #[error("`{name}` must have the shape {want:?}, not {found:?}")]
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

/// Joins faults into one message. A wrong configuration can cause hundreds, so only the first ones are listed.
pub(crate) fn join_weight_faults(faults: &[WeightFault]) -> String {
    const SHOWN: usize = 24;
    let shown = &faults[..faults.len().min(SHOWN)];
    let text = crate::error::join_faults(shown);
    match faults.len() - shown.len() {
        0 => text,
        more => format!("{text}; and {more} more"),
    }
}
