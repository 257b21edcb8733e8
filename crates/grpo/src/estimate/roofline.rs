//! Step time estimates from a device's peak performance.
//!
//! Each phase of a step takes the maximum of its FLOPs over the device's peak, its memory traffic over the bandwidth,
//! and its launch overhead: the roofline model of Williams, Waterman and Patterson (2009). No program reaches a
//! device's peaks; the efficiencies assumed are in [`efficiency`], each with its source. Communication follows from the
//! volumes of NCCL's rings ([`network`]).
//!
//! Not included are checkpoints, evaluations, external rewards, the judge's few tokens, and stragglers among the ranks.

pub mod efficiency;
pub mod fit;
pub mod gpu_spec;
pub mod network;
mod phases;

pub use efficiency::Efficiencies;
pub use gpu_spec::{GPU_SPECS, GpuSpec, peak_flops_per_s};
pub use network::{InterNodeLink, IntraNodeLink, Network};
pub use phases::{Bottleneck, Phase, PhaseKind, StepEstimate};

use embodied_r_policy::Precision;

/// A device's peaks, with the efficiencies assumed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Machine {
    /// Peak matmul FLOP/s in the format of the weights.
    pub matmul_flops_per_s: f64,
    /// Peak FLOP/s in the format of attention.
    pub attention_flops_per_s: f64,
    /// Memory bandwidth in bytes per second.
    pub bytes_per_s: f64,
    /// The fractions of the peaks that programs reach.
    pub efficiencies: Efficiencies,
}

/// Measured peaks of a CPU, with all threads.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CpuPeaks {
    /// f32 FLOP/s with all operands in registers.
    pub f32_flops_per_s: f64,
    /// bf16 FLOP/s with f32 accumulation, as measured or as its matmuls achieve.
    pub bf16_flops_per_s: f64,
    /// Memory read bandwidth in bytes per second.
    pub read_bytes_per_s: f64,
}

impl Machine {
    /// A CPU whose matmuls run in `precision`.
    pub fn cpu(peaks: &CpuPeaks, precision: Precision) -> Self {
        Self {
            matmul_flops_per_s: match precision {
                Precision::F32 => peaks.f32_flops_per_s,
                Precision::Bf16 => peaks.bf16_flops_per_s,
            },
            attention_flops_per_s: peaks.f32_flops_per_s,
            bytes_per_s: peaks.read_bytes_per_s,
            efficiencies: efficiency::CPU,
        }
    }

    /// One of `ranks` equal shares of the device.
    #[must_use]
    pub fn shared_by(self, ranks: usize) -> Self {
        let share = 1.0 / ranks.max(1) as f64;
        Self {
            matmul_flops_per_s: self.matmul_flops_per_s * share,
            attention_flops_per_s: self.attention_flops_per_s * share,
            bytes_per_s: self.bytes_per_s * share,
            ..self
        }
    }

    /// A GPU that computes in `precision`.
    pub fn gpu(gpu_spec: &GpuSpec, precision: Precision) -> Self {
        let flops_per_s = match precision {
            Precision::F32 => gpu_spec.f32_flops_per_s,
            Precision::Bf16 => gpu_spec.flops_per_s,
        };
        Self {
            matmul_flops_per_s: flops_per_s,
            attention_flops_per_s: flops_per_s,
            bytes_per_s: gpu_spec.bytes_per_s,
            efficiencies: gpu_spec.efficiencies,
        }
    }
}
