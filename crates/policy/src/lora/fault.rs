//! Faults of adapters.

use crate::config::ConfigFault;

/// Why an adapter cannot be used.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum AdapterFault {
    /// A setting is missing, invalid or unsupported.
    #[error(transparent)]
    Setting(#[from] ConfigFault),
    /// A setting that PEFT does not have has a value.
    #[error(
        "`{field}` = `{found}` is not a known PEFT setting, and ignoring it could change the result"
    )]
    Unknown {
        /// Its name.
        field: String,
        /// Its value.
        found: String,
    },
    /// A pattern is not a valid regular expression.
    #[error("`{field}` has the invalid regular expression `{pattern}`: {reason}")]
    Pattern {
        /// The setting.
        field: String,
        /// The pattern.
        pattern: String,
        /// The regular expression parser's error.
        reason: String,
    },
    /// A tensor that the settings require is missing.
    #[error("the tensor `{name}` is missing")]
    Missing {
        /// Its name in the file.
        name: String,
    },
    /// A tensor is unexpected.
    #[error("the tensor `{name}` is unexpected: {why}")]
    Unexpected {
        /// Its name in the file.
        name: String,
        /// The reason.
        why: &'static str,
    },
    /// Two tensors have the same role.
    #[error("duplicate tensor `{name}`")]
    Duplicate {
        /// Its name in the file.
        name: String,
    },
    /// A tensor's shape does not match the model and the rank.
    #[error("the tensor `{name}` must have the shape {want:?}, not {found:?}")]
    ShapeMismatch {
        /// Its name in the file.
        name: String,
        /// Its shape.
        found: Vec<usize>,
        /// The expected shape.
        want: Vec<usize>,
    },
    /// A tensor has an unsupported dtype.
    #[error("the tensor `{name}` must have the dtype F32, BF16 or F16, not {found}")]
    Dtype {
        /// Its name in the file.
        name: String,
        /// Its dtype.
        found: String,
    },
    /// The target modules match nothing.
    #[error("`target_modules` = `{found}` matches no linear module of the model")]
    NoTarget {
        /// The setting.
        found: String,
    },
}
