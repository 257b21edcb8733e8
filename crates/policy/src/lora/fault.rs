//! What can be wrong with an adapter.

/// A reason why an adapter cannot be used.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum AdapterFault {
    /// A setting that has to be there is not.
    #[error("`{field}` is missing")]
    MissingField {
        /// Its name.
        field: String,
    },
    /// A setting's value cannot be.
    #[error("`{field}` is `{found}`, want {want}")]
    Field {
        /// Its name.
        field: String,
        /// Its value.
        found: String,
        /// What it should be.
        want: &'static str,
    },
    /// A setting asks for what is not done here.
    #[error("`{field}` = `{found}` is not supported: {why}")]
    Unsupported {
        /// Its name.
        field: String,
        /// Its value.
        found: String,
        /// What is supported, or what to do.
        why: &'static str,
    },
    /// A setting that is not known, and set.
    #[error("`{field}` = `{found}` is not known here, so what it changes would be lost")]
    Unknown {
        /// Its name.
        field: String,
        /// Its value.
        found: String,
    },
    /// A pattern is no regular expression.
    #[error("`{field}` has the pattern `{pattern}`, which is no regular expression: {reason}")]
    Pattern {
        /// The setting.
        field: String,
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The adapter's tensors do not have what its settings name.
    #[error("the tensor `{name}` is missing")]
    Missing {
        /// Its name in the file.
        name: String,
    },
    /// The model has no place for a tensor.
    #[error("the tensor `{name}` has no place: {why}")]
    Extra {
        /// Its name in the file.
        name: String,
        /// Why not.
        why: &'static str,
    },
    /// Two tensors mean the same.
    #[error("the tensor `{name}` is there twice")]
    Twice {
        /// Its name in the file.
        name: String,
    },
    /// A tensor has another shape than the model and the rank say.
    #[error("the tensor `{name}` has the shape {found:?}, want {want:?}")]
    Misshapen {
        /// Its name in the file.
        name: String,
        /// Its shape.
        found: Vec<usize>,
        /// What it should be.
        want: Vec<usize>,
    },
    /// A tensor is of no type that is read.
    #[error("the tensor `{name}` is of type {found}, want F32, BF16 or F16")]
    Dtype {
        /// Its name in the file.
        name: String,
        /// Its type.
        found: String,
    },
    /// No module of the model is meant.
    #[error("`target_modules` = `{found}` names no linear module of the model")]
    NoTarget {
        /// The setting.
        found: String,
    },
}
