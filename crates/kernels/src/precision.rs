//! Precision of GEMMs.

use serde::{Deserialize, Serialize};

/// Operand precision of GEMMs with weights. Everything else is f32: trained weights, gradients, norms, attention,
/// softmax.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// f32 throughout.
    #[default]
    F32,
    /// Operands rounded to bf16, f32 accumulation.
    Bf16,
}

impl Precision {
    /// The operands' dtype, as torch names it.
    pub fn dtype(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::Bf16 => "bfloat16",
        }
    }
}
