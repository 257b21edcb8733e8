//! What numbers of weights are held as.

use crate::precision::Precision;
use crate::quantized::BlockFormat;

/// What the numbers of a weight are held as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeightFormat {
    /// 32-bit floats.
    F32,
    /// bfloat16, with which products are made of bf16 too.
    Bf16,
    /// Blocks of few bits, which become f32 as they are multiplied with.
    Blocks(BlockFormat),
}

impl WeightFormat {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Blocks(format) => format.name(),
        }
    }

    /// Bits of a number, with what its block holds beside.
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
