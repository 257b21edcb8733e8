//! Quantization formats and the sizes of their blocks.

/// Quantization format; names and layouts are ggml's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BlockFormat {
    /// 32-bit floats.
    F32,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    Bf16,
    /// 4 bits, 32 elements per block with a scale.
    Q4_0,
    /// 4 bits, 32 elements per block with a scale and a minimum.
    Q4_1,
    /// 5 bits, 32 elements per block with a scale.
    Q5_0,
    /// 5 bits, 32 elements per block with a scale and a minimum.
    Q5_1,
    /// 8 bits, 32 elements per block with a scale.
    Q8_0,
    /// 4 bits, super-blocks of 256 with 6-bit scales and minimums per 32.
    Q4K,
    /// 5 bits, super-blocks of 256 with 6-bit scales and minimums per 32.
    Q5K,
    /// 6 bits, super-blocks of 256 with 8-bit scales per 16.
    Q6K,
}

impl BlockFormat {
    /// All formats.
    pub const ALL: [Self; 11] = [
        Self::F32,
        Self::F16,
        Self::Bf16,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Q4K,
        Self::Q5K,
        Self::Q6K,
    ];

    /// The name in ggml.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
            Self::Q5_0 => "Q5_0",
            Self::Q5_1 => "Q5_1",
            Self::Q8_0 => "Q8_0",
            Self::Q4K => "Q4_K",
            Self::Q5K => "Q5_K",
            Self::Q6K => "Q6_K",
        }
    }

    /// Elements per block.
    pub fn block_len(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => 1,
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 => 32,
            Self::Q4K | Self::Q5K | Self::Q6K => 256,
        }
    }

    /// Bytes per block.
    pub fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q8_0 => 34,
            Self::Q4K => 144,
            Self::Q5K => 176,
            Self::Q6K => 210,
        }
    }

    /// The format that rows of `inputs` elements are quantized to if this one is asked for: itself if they are whole
    /// blocks, else one with blocks of 32, as in llama.cpp. `None` if they are not whole blocks of 32 either.
    #[must_use]
    pub fn for_rows(self, inputs: usize) -> Option<Self> {
        let smaller = match self {
            Self::Q4K => Self::Q5_0,
            Self::Q5K => Self::Q5_1,
            Self::Q6K => Self::Q8_0,
            other => other,
        };
        [self, smaller].into_iter().find(|format| format.row_bytes(inputs).is_some())
    }

    /// Bytes of a row of `inputs` elements; `None` if that is not a whole number of blocks, or overflows.
    pub fn row_bytes(self, inputs: usize) -> Option<usize> {
        let whole = inputs.is_multiple_of(self.block_len());
        whole.then(|| (inputs / self.block_len()).checked_mul(self.block_bytes())).flatten()
    }
}
