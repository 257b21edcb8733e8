//! What can be wrong with a set of weights.

/// One tensor that does not fit the configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WeightFault {
    /// No file has the tensor.
    #[error("`{name}` is missing")]
    Missing {
        /// Its canonical name.
        name: String,
    },
    /// The configuration has no place for the tensor.
    #[error("`{name}` has no place in this configuration")]
    Extra {
        /// Its name in the file.
        name: String,
    },
    /// Two tensors of the files mean the same one.
    #[error("`{name}` is there twice")]
    Duplicate {
        /// Its canonical name.
        name: String,
    },
    /// The tensor has another shape than the configuration says.
    #[error("`{name}` has the shape {found:?}, want {want:?}")]
    Misshapen {
        /// Its name in the file.
        name: String,
        /// Its shape.
        found: Vec<usize>,
        /// The configuration's shape.
        want: Vec<usize>,
    },
    /// The index places the tensor in a file that does not have it.
    #[error("`{name}` is not in `{shard}`, where the index places it")]
    NotInShard {
        /// Its name in the index.
        name: String,
        /// The file.
        shard: String,
    },
    /// The configuration has more layers than there are tensors.
    #[error("`num_hidden_layers` is {layers}, the files have {tensors} tensors in all")]
    Layers {
        /// The configuration's layers.
        layers: usize,
        /// Tensors of all files.
        tensors: usize,
    },
    /// The tensor's numbers are of another format than f32, bf16 and f16.
    #[error("`{name}` is of type {found}, want F32, BF16 or F16")]
    Dtype {
        /// Its name in the file.
        name: String,
        /// Its type as safetensors names it.
        found: String,
    },
}

/// Faults in one message. A wrong configuration can make hundreds: those beyond the first are counted.
pub(crate) fn faults_in_words(faults: &[WeightFault]) -> String {
    const SHOWN: usize = 24;
    let shown = &faults[..faults.len().min(SHOWN)];
    let text = crate::error::listed(shown);
    match faults.len() - shown.len() {
        0 => text,
        more => format!("{text}; and {more} more"),
    }
}
