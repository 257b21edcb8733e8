//! The numbers that products are made of.

use serde::{Deserialize, Serialize};

/// The numbers that products with weights are made of. All else is f32 in either case: the weights
/// that training changes, gradients, norms, attention, softmax.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// 32-bit floats throughout.
    #[default]
    F32,
    /// Both factors are rounded to bfloat16, sums are f32.
    Bf16,
}

impl Precision {
    /// What activations are held as on a device, if not as the table that they are looked up in.
    #[cfg(device)]
    pub(crate) fn held(self) -> Option<crate::cuda::Dtype> {
        (self == Self::Bf16).then_some(crate::cuda::Dtype::Bf16)
    }

    /// The name of the type that factors have, as torch calls it.
    pub fn dtype(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::Bf16 => "bfloat16",
        }
    }
}
