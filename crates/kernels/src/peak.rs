//! Measured peak rates of the machine, for roofline comparisons.

use std::time::Instant;

use candle_core::Tensor;
use multiversion::multiversion;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::error::Result;
use crate::memory::tensor;
use crate::simd_level::simd_level;
use crate::weight::Weight;

/// Accumulators in registers: enough to hide the FMA latency of two units.
const SUMS: usize = 12;

/// Elements of a buffer (512 MiB), larger than the caches.
const BUFFER: usize = 128 << 20;

/// Elements per task.
const TASK: usize = 1 << 20;

/// Accumulator lanes while reading: eight AVX-512 registers.
const LANES: usize = 128;

/// Repetitions, of which the best counts: many short ones, so that some run undisturbed.
const COMPUTING_TRIES: usize = 100;
const MEMORY_TRIES: usize = 10;

/// Peak f32 FLOP/s with all of rayon's threads and operands in registers. Takes a tenth of a second.
pub fn flops_per_s() -> f64 {
    best(COMPUTING_TRIES, flops)
}

/// Peak rates with all of rayon's threads.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Peak {
    /// f32 FLOP/s with operands in registers.
    pub flops_per_s: f64,
    /// Memory read bandwidth in bytes/s.
    pub read_bytes_per_s: f64,
    /// Memory copy bandwidth in bytes/s, reads plus writes.
    pub copy_bytes_per_s: f64,
}

impl Peak {
    /// Takes about two seconds and 1 GiB of memory.
    pub fn measure() -> Self {
        let flops_per_s = flops_per_s();
        let (from, mut to) = (vec![1f32; BUFFER], vec![0f32; BUFFER]);
        let bytes = (BUFFER * size_of::<f32>()) as f64;
        let read = best(MEMORY_TRIES, || {
            let began = Instant::now();
            let total: f32 = from.par_chunks(TASK).map(total).sum();
            std::hint::black_box(total);
            bytes / began.elapsed().as_secs_f64()
        });
        let copy = best(MEMORY_TRIES, || {
            let began = Instant::now();
            let tasks = to.par_chunks_mut(TASK).zip(from.par_chunks(TASK));
            tasks.for_each(|(to, from)| to.copy_from_slice(from));
            std::hint::black_box(&to);
            2.0 * bytes / began.elapsed().as_secs_f64()
        });
        Self { flops_per_s, read_bytes_per_s: read, copy_bytes_per_s: copy }
    }

    /// The larger of the two bandwidths.
    pub fn bytes_per_s(&self) -> f64 {
        self.read_bytes_per_s.max(self.copy_bytes_per_s)
    }
}

/// Rows, inputs and outputs of the compared GEMM.
const PRODUCT: (usize, usize, usize) = (512, 1024, 1024);

/// Speed of bf16 GEMMs (f32 accumulation) relative to f32: below 1 on CPUs without bf16 instructions, and on some
/// with.
///
/// # Errors
/// Out of memory.
pub fn bf16_speedup() -> Result<f64> {
    let (rows, inputs, outputs) = PRODUCT;
    let values = |n: usize| (0..n).map(|i| (i % 13) as f32 - 6.0).collect::<Vec<f32>>();
    let x = tensor(values(rows * inputs), (rows, inputs))?;
    let w = tensor(values(outputs * inputs), (outputs, inputs))?;
    Ok(rate(&x, &Weight::bf16(&w)?)? / rate(&x, &Weight::f32_copy(&w)?)?)
}

/// Best GEMMs per second.
fn rate(x: &Tensor, weight: &Weight) -> Result<f64> {
    weight.forward(x, None)?;
    let mut rate = 0.0f64;
    for _ in 0..MEMORY_TRIES {
        let began = Instant::now();
        std::hint::black_box(weight.forward(x, None)?);
        rate = rate.max(1.0 / began.elapsed().as_secs_f64());
    }
    Ok(rate)
}

fn best(tries: usize, measure: impl FnMut() -> f64) -> f64 {
    std::iter::repeat_with(measure).take(tries).fold(0.0, f64::max)
}

/// One FMA measurement: the sum of the threads' own rates, each with its own clock, so that a descheduled thread does
/// not slow the others' figures.
fn flops() -> f64 {
    const ROUNDS: usize = 500_000;
    let rates = rayon::broadcast(|_| {
        let began = Instant::now();
        let (operations, total) = simd_level().arch().dispatch(Chains { rounds: ROUNDS });
        std::hint::black_box(total);
        operations as f64 / began.elapsed().as_secs_f64()
    });
    rates.iter().sum()
}

/// Independent chains of `x ← a · x + b`.
struct Chains {
    rounds: usize,
}

impl WithSimd for Chains {
    /// Number of operations, and their result.
    type Output = (usize, f32);

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Self::Output {
        let rounds = std::hint::black_box(self.rounds);
        let (a, b) = (simd.splat_f32s(0.999), simd.splat_f32s(0.001));
        let mut sums = [simd.splat_f32s(0.5); SUMS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = simd.mul_add_f32s(*sum, a, b);
            }
        }
        let total = sums.iter().map(|sum| simd.reduce_sum_f32s(*sum)).sum();
        (2 * rounds * SUMS * S::F32_LANES, total)
    }
}

#[multiversion(targets = "simd")]
fn total(x: &[f32]) -> f32 {
    let mut lanes = [0f32; LANES];
    for x in x.chunks_exact(LANES) {
        for (lane, x) in lanes.iter_mut().zip(x) {
            *lane += x;
        }
    }
    lanes.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_includes_every_element_of_whole_lanes() {
        let x: Vec<f32> = (0..2 * LANES).map(|i| i as f32).collect();
        assert_eq!(total(&x), (LANES * (2 * LANES - 1)) as f32);
    }

    #[test]
    fn the_chains_run_the_operations_they_count() {
        let (operations, total) = simd_level().arch().dispatch(Chains { rounds: 7 });
        assert!(operations.is_multiple_of(2 * 7 * SUMS) && operations > 0);
        // Each lane: x ← 0.999 x + 0.001 from 0.5, seven times.
        let lane = 1.0 - 0.5 * 0.999f64.powi(7);
        let lanes = (operations / (2 * 7)) as f64;
        assert!((f64::from(total) - lane * lanes).abs() < 1e-3 * lanes, "{total}");
    }
}
