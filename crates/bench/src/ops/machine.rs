//! The machine that operations run on, and its peak rates.

#[cfg(any(feature = "cuda", feature = "cuda-host"))]
use candle_core::Device;
#[cfg(any(feature = "cuda", feature = "cuda-host"))]
use embodied_r_grpo::estimate::roofline::GpuSpec;
use embodied_r_kernels::peak::Peak;
use serde::Serialize;

use super::decimals::{rounded, rounded_if_known};

#[cfg(any(feature = "cuda", feature = "cuda-host"))]
use crate::error::Result;

/// What operations run on, with its peak rates, which are serialized with four decimals.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Machine {
    /// A CPU, measured.
    Cpu {
        /// Threads of the pool.
        threads: usize,
        /// GFLOP/s in f32.
        #[serde(serialize_with = "rounded")]
        peak_gflops_f32: f64,
        /// GB/s of reads.
        #[serde(serialize_with = "rounded")]
        read_gb_per_s: f64,
        /// GB/s of copies.
        #[serde(serialize_with = "rounded")]
        copy_gb_per_s: f64,
    },
    /// A GPU, with the rates of its data sheet if they are known.
    Gpu {
        /// Its name.
        device: String,
        /// Threads of the pool.
        threads: usize,
        /// GFLOP/s in f32.
        #[serde(serialize_with = "rounded_if_known")]
        peak_gflops_f32: Option<f64>,
        /// GFLOP/s in bf16.
        #[serde(serialize_with = "rounded_if_known")]
        peak_gflops_bf16: Option<f64>,
        /// GB/s of reads.
        #[serde(serialize_with = "rounded_if_known")]
        read_gb_per_s: Option<f64>,
        /// GB/s of copies.
        #[serde(serialize_with = "rounded_if_known")]
        copy_gb_per_s: Option<f64>,
    },
}

/// Peak rates that bound an operation.
#[derive(Clone, Copy)]
pub(super) struct Peaks {
    pub(super) f32_flops_per_s: f64,
    /// With bf16 or quantized weights.
    pub(super) bf16_flops_per_s: f64,
    pub(super) bytes_per_s: f64,
}

impl Machine {
    /// The CPU, whose rates are measured now.
    pub(super) fn cpu() -> (Self, Option<Peaks>) {
        let peak = Peak::measure();
        let machine = Self::Cpu {
            threads: rayon::current_num_threads(),
            peak_gflops_f32: peak.flops_per_s / 1e9,
            read_gb_per_s: peak.read_bytes_per_s / 1e9,
            copy_gb_per_s: peak.copy_bytes_per_s / 1e9,
        };
        let peaks = Peaks {
            f32_flops_per_s: peak.flops_per_s,
            bf16_flops_per_s: peak.flops_per_s,
            bytes_per_s: peak.bytes_per_s(),
        };
        (machine, Some(peaks))
    }

    /// The GPU `device`.
    #[cfg(any(feature = "cuda", feature = "cuda-host"))]
    pub(super) fn gpu(device: &Device) -> Result<(Self, Option<Peaks>)> {
        let memory = embodied_r_kernels::device::memory(device)?;
        let name = memory.as_ref().map_or("emulated kernels", |memory| &memory.name).to_owned();
        let spec = memory.and_then(|memory| GpuSpec::of_gpu(&memory.name, memory.total_bytes));
        let rate = |of: fn(&GpuSpec) -> f64| spec.as_ref().map(|spec| of(spec) / 1e9);
        let gb_per_s = rate(|spec| spec.bytes_per_s);
        let machine = Self::Gpu {
            device: name,
            threads: rayon::current_num_threads(),
            peak_gflops_f32: rate(|spec| spec.f32_flops_per_s),
            peak_gflops_bf16: rate(|spec| spec.flops_per_s),
            read_gb_per_s: gb_per_s,
            copy_gb_per_s: gb_per_s,
        };
        let peaks = spec.map(|spec| Peaks {
            f32_flops_per_s: spec.f32_flops_per_s,
            bf16_flops_per_s: spec.flops_per_s,
            bytes_per_s: spec.bytes_per_s,
        });
        Ok((machine, peaks))
    }
}
