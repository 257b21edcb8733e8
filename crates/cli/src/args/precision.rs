//! The `--precision` option.

use embodied_r_policy::Precision;

/// Precision of matrix multiplications.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum PrecisionName {
    /// float32.
    #[default]
    F32,
    /// bfloat16, with float32 accumulation.
    Bf16,
}

impl PrecisionName {
    /// The value of the setting `precision`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }
}

impl From<PrecisionName> for Precision {
    fn from(name: PrecisionName) -> Self {
        match name {
            PrecisionName::F32 => Self::F32,
            PrecisionName::Bf16 => Self::Bf16,
        }
    }
}
