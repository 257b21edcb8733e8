//! Storage format of weights.

use crate::precision::Precision;
use crate::quantized::BlockFormat;

/// Storage format of a weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeightFormat {
    /// 32-bit floats.
    F32,
    /// bfloat16; GEMMs use bf16 operands too.
    Bf16,
    /// Block-quantized.
    Blocks(BlockFormat),
}

impl WeightFormat {
    /// The format's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Blocks(format) => format.name(),
        }
    }

    /// Bits per weight, including the blocks' scales.
    pub fn bits(self) -> f64 {
        match self {
            Self::F32 => 32.0,
            Self::Bf16 => 16.0,
            Self::Blocks(blocks) => 8.0 * blocks.block_bytes() as f64 / blocks.block_len() as f64,
        }
    }
}

impl From<Precision> for WeightFormat {
    fn from(precision: Precision) -> Self {
        match precision {
            Precision::F32 => Self::F32,
            Precision::Bf16 => Self::Bf16,
        }
    }
}
