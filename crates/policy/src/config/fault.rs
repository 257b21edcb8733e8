//! Faults of a `config.json`.

/// One fault of a `config.json`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigFault {
    /// A required field is missing.
    #[error("`{field}` is missing")]
    Missing {
        /// Its name.
        field: String,
    },
    /// A field's value is invalid.
    #[error("`{field}` must be {want}, not `{found}`")]
    Wrong {
        /// Its name.
        field: String,
        /// Its value.
        found: String,
        /// The expected value.
        want: &'static str,
    },
    /// A field's value is unsupported.
    #[error("`{field}` = `{found}` is not supported: {why}")]
    Unsupported {
        /// Its name.
        field: String,
        /// Its value.
        found: String,
        /// What is supported.
        why: &'static str,
    },
}

impl ConfigFault {
    pub(crate) fn missing(field: impl Into<String>) -> Self {
        Self::Missing { field: field.into() }
    }

    pub(crate) fn wrong(
        field: impl Into<String>,
        found: impl ToString,
        want: &'static str,
    ) -> Self {
        Self::Wrong { field: field.into(), found: found.to_string(), want }
    }

    pub(crate) fn unsupported(
        field: impl Into<String>,
        found: impl ToString,
        why: &'static str,
    ) -> Self {
        Self::Unsupported { field: field.into(), found: found.to_string(), why }
    }
}
