//! What a run's numbers are held as, and over how many ranks they are shared out.

use embodied_r_policy::WeightFormat;

/// Bytes of a 32-bit float.
const F32: usize = size_of::<f32>();

/// Bytes of a bfloat16.
const BF16: usize = 2;

/// Program, tokenizer, questions, and what the allocator keeps, on a CPU.
const PROGRAM: usize = 96 << 20;

/// CUDA's context with the kernels and cuBLASLt's workspace (0.5 to 0.7 GB on Ampere and Hopper, as `nvidia-smi` shows a
/// process that has multiplied once), NCCL's channels (0.3 GB), and the rows that attention has in work.
const CONTEXT: usize = 1 << 30;

/// What a rank's talk with others takes on a CPU: four buckets of 16 MiB on their way, what is coming of one, and MPI's own
/// buffers.
const TALK: usize = 96 << 20;

/// Bytes of gradients that are reduced at once; while one bucket is on its way the next one fills.
pub const BUCKET: usize = 64 << 20;

/// Where the sampler's weights are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SamplerWeights {
    /// Turned for its products: a copy, where all of the model is trained.
    Copied,
    /// It computes with training's.
    Shared,
}

/// What a run's numbers are held as.
///
/// Of several ranks each has all weights and a gradient for each that is trained, and 1/ranks of the masters and moments
/// (ZeRO-1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// The weights that compute, the reference's too.
    pub weights: WeightFormat,
    /// Bytes of an activation, a key or a value.
    pub number: usize,
    /// Bytes of a gradient.
    pub gradient: usize,
    /// Bytes of a number's master copy: 0 where the weights are their own masters.
    pub master: usize,
    /// Ranks over which masters and moments are shared out.
    pub ranks: usize,
    /// Where the sampler's weights are.
    pub sampler: SamplerWeights,
    /// What is there before anything of the model is.
    pub base: usize,
}

impl Layout {
    /// One rank on a CPU: f32 throughout.
    pub const CPU: Self = Self {
        weights: WeightFormat::F32,
        number: F32,
        gradient: F32,
        master: 0,
        ranks: 1,
        sampler: SamplerWeights::Copied,
        base: PROGRAM,
    };

    /// One of `ranks` ranks on CPUs: f32 throughout.
    pub const fn cpu(ranks: usize) -> Self {
        let base = if ranks > 1 { PROGRAM + TALK } else { PROGRAM };
        Self { ranks, base, ..Self::CPU }
    }

    /// A GPU, one of `ranks`: bf16 but for gradients, masters and moments.
    pub const fn gpu(ranks: usize) -> Self {
        Self {
            weights: WeightFormat::Bf16,
            number: BF16,
            gradient: F32,
            master: F32,
            ranks,
            sampler: SamplerWeights::Shared,
            base: CONTEXT + 2 * BUCKET,
        }
    }

    /// The same in f32 throughout.
    pub const fn in_f32(self) -> Self {
        Self { weights: WeightFormat::F32, number: F32, master: 0, ..self }
    }

    /// The same with gradients in bf16.
    pub const fn with_bf16_gradients(self) -> Self {
        Self { gradient: BF16, ..self }
    }

    /// Bytes of so many weights.
    pub fn weight_bytes(&self, numbers: usize) -> usize {
        (numbers as f64 * self.weights.bits() / 8.0) as usize
    }

    /// A rank's share of what is shared out.
    pub fn share(&self, bytes: usize) -> usize {
        bytes.div_ceil(self.ranks.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masters_and_moments_of_3b_take_a_share_of_37_gigabytes() {
        let (layout, numbers) = (Layout::gpu(8), 3_085_938_688);
        assert_eq!(layout.weight_bytes(numbers), 6_171_877_376);
        // Master, first and second moment: 12 bytes a number, 37.03 GB in all.
        assert_eq!(layout.share(numbers * (layout.master + 2 * 4)), 4_628_908_032);
        assert_eq!(layout.with_bf16_gradients().gradient * numbers, 6_171_877_376);
    }

    #[test]
    fn weights_in_blocks_take_the_bits_of_their_block() {
        let q4 = WeightFormat::Blocks(embodied_r_policy::BlockFormat::Q4K);
        assert_eq!(Layout { weights: q4, ..Layout::gpu(1) }.weight_bytes(8_000), 4_500);
    }
}
