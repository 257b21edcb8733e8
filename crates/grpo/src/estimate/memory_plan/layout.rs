//! Number formats of a run's tensors, and their sharding over ranks.

use embodied_r_policy::{Precision, WeightFormat};

use crate::update::optimizer::BUCKET_BYTES;

/// Bytes of a 32-bit float.
const F32: usize = size_of::<f32>();

/// Bytes of a bfloat16.
const BF16: usize = 2;

/// Baseline of a CPU process: program, tokenizer, questions and allocator overhead.
const PROGRAM: usize = 96 << 20;

/// CUDA context with kernels and cuBLASLt workspace (0.5 to 0.7 GB on Ampere and Hopper, as `nvidia-smi` reports for a
/// process after its first matmul), NCCL channels (0.3 GB), and attention's workspace.
const CONTEXT: usize = 1 << 30;

/// Communication buffers of a CPU rank: four buckets in flight, one being received, and MPI's own.
const COMMUNICATION: usize = 5 * BUCKET_BYTES + (16 << 20);

/// Gradient buckets of a GPU: four in flight, and the one that fills.
const BUCKETS: usize = 5 * BUCKET_BYTES;

/// The devices of a run's ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// CPUs that this many ranks share.
    Cpu(usize),
    /// This many GPUs, one rank each.
    Gpus(usize),
}

impl Placement {
    /// The number of ranks.
    pub fn ranks(self) -> usize {
        match self {
            Self::Cpu(ranks) | Self::Gpus(ranks) => ranks.max(1),
        }
    }
}

/// Where the sampler's weights are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SamplerWeights {
    /// A transposed, packed copy, when the full model is trained.
    Copied,
    /// Shared with training.
    Shared,
}

/// Number formats of a run's tensors.
///
/// Every rank holds all weights and gradients, and 1/ranks of the master weights and moments (ZeRO-1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryLayout {
    /// Format of the weights, the reference's included.
    pub weights: WeightFormat,
    /// Bytes per activation, key or value.
    pub activation: usize,
    /// Bytes per gradient.
    pub gradient: usize,
    /// Bytes per master weight; 0 without separate master weights.
    pub master: usize,
    /// Ranks over which optimizer state is sharded.
    pub ranks: usize,
    /// Where the sampler's weights are.
    pub sampler_weights: SamplerWeights,
    /// Baseline in bytes before the model is loaded.
    pub base: usize,
    /// The memory that is planned.
    pub memory: MemoryKind,
}

/// Whose memory is planned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryKind {
    /// The host's.
    Host,
    /// A device's; patches of images and their embeddings stay on the host.
    Device,
}

impl MemoryLayout {
    /// A single CPU rank: f32 throughout.
    pub const CPU: Self = Self {
        weights: WeightFormat::F32,
        activation: F32,
        gradient: F32,
        master: 0,
        ranks: 1,
        sampler_weights: SamplerWeights::Copied,
        base: PROGRAM,
        memory: MemoryKind::Host,
    };

    /// A rank of a run that computes in `precision`. On CPUs weights are f32 in every precision.
    pub fn new(placement: Placement, precision: Precision) -> Self {
        match (placement, precision) {
            (Placement::Cpu(_), _) => Self::cpu(placement.ranks()),
            (Placement::Gpus(_), Precision::Bf16) => Self::gpu(placement.ranks()),
            (Placement::Gpus(_), Precision::F32) => Self::gpu(placement.ranks()).in_f32(),
        }
    }

    /// One of `ranks` CPU ranks: f32 throughout.
    pub const fn cpu(ranks: usize) -> Self {
        let base = if ranks > 1 { PROGRAM + COMMUNICATION } else { PROGRAM };
        Self { ranks, base, ..Self::CPU }
    }

    /// One of `ranks` GPUs: bf16, with f32 gradients, master weights and moments.
    pub const fn gpu(ranks: usize) -> Self {
        Self {
            weights: WeightFormat::Bf16,
            activation: BF16,
            gradient: F32,
            master: F32,
            ranks,
            sampler_weights: SamplerWeights::Shared,
            base: CONTEXT + BUCKETS,
            memory: MemoryKind::Device,
        }
    }

    /// The same layout in f32 throughout.
    const fn in_f32(self) -> Self {
        Self { weights: WeightFormat::F32, activation: F32, master: 0, ..self }
    }

    /// Bytes of `parameters` weights.
    pub fn weight_bytes(&self, parameters: usize) -> usize {
        (parameters as f64 * self.weights.bits() / 8.0) as usize
    }

    /// A rank's shard of `bytes`.
    pub fn shard(&self, bytes: usize) -> usize {
        bytes.div_ceil(self.ranks.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn master_weights_and_moments_of_3b_are_sharded_37_gigabytes() {
        let (layout, parameters) = (MemoryLayout::gpu(8), 3_085_938_688);
        assert_eq!(layout.weight_bytes(parameters), 6_171_877_376);
        // Master, first and second moment: 12 bytes per parameter, 37.03 GB in all.
        assert_eq!(layout.shard(parameters * (layout.master + 2 * 4)), 4_628_908_032);
        assert_eq!(layout.gradient * parameters, 12_343_754_752);
    }

    #[test]
    fn block_quantized_weights_take_the_bits_of_their_block() {
        let q4 = WeightFormat::Blocks(embodied_r_policy::BlockFormat::Q4K);
        assert_eq!(MemoryLayout { weights: q4, ..MemoryLayout::gpu(1) }.weight_bytes(8_000), 4_500);
    }
}
