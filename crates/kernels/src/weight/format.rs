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

    /// The format of a weight with rows of `inputs` elements if this one is asked for: of blocks that of
    /// [`BlockFormat::for_rows`], bf16 if there is none.
    #[must_use]
    pub fn for_rows(self, inputs: usize) -> Self {
        match self {
            Self::Blocks(blocks) => blocks.for_rows(inputs).map_or(Self::Bf16, Self::Blocks),
            other => other,
        }
    }

    /// The format of vectors beside matrices in this one: norms and biases.
    #[must_use]
    pub fn of_vectors(self) -> Self {
        match self {
            Self::Blocks(_) => Self::Bf16,
            other => other,
        }
    }

    /// Bytes of a row of `inputs` elements in the format that it has ([`Self::for_rows`]).
    #[must_use]
    pub fn row_bytes(self, inputs: usize) -> usize {
        match self.for_rows(inputs) {
            Self::F32 => 4 * inputs,
            Self::Blocks(blocks) => blocks.row_bytes(inputs).unwrap_or_default(),
            Self::Bf16 => 2 * inputs,
        }
    }

    /// Elements that a row of `inputs` elements can only be cut between: those of a block.
    #[must_use]
    pub fn block_len(self, inputs: usize) -> usize {
        match self.for_rows(inputs) {
            Self::Blocks(blocks) => blocks.block_len(),
            Self::F32 | Self::Bf16 => 1,
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
