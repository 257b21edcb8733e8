//! What the machine can do at best, to hold the operations against.

use std::time::Instant;

use candle_core::Tensor;
use multiversion::multiversion;
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use crate::error::Result;
use crate::memory::tensor;
use crate::weight::Weight;

/// Sums held in registers: enough to keep two units busy over the latency of one addition.
const SUMS: usize = 12;

/// Numbers of a buffer: 512 MiB, beyond what caches hold.
const BUFFER: usize = 128 << 20;

/// Numbers that a task reads or copies.
const TASK: usize = 1 << 20;

/// Lanes of the sums while reading: eight registers of AVX-512.
const LANES: usize = 128;

/// Measurements of which the best counts: short ones and many of them, so that some fall between
/// whatever else the machine does.
const COMPUTING_TRIES: usize = 100;
const MEMORY_TRIES: usize = 10;

/// Multiplications and additions of f32 in a second with all of rayon's threads, all operands in
/// registers. Measures for a tenth of a second.
pub fn flops_per_s() -> f64 {
    best(COMPUTING_TRIES, flops)
}

/// The machine's limits with all of rayon's threads.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Peak {
    /// Multiplications and additions of f32 in a second, with all operands in registers.
    pub flops_per_s: f64,
    /// Bytes read in a second from memory.
    pub read_bytes_per_s: f64,
    /// Bytes read and written in a second while memory is copied.
    pub copy_bytes_per_s: f64,
}

impl Peak {
    /// Measures for about two seconds; takes 1 GiB of memory meanwhile.
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

    /// The larger of the two rates of memory.
    pub fn bytes_per_s(&self) -> f64 {
        self.read_bytes_per_s.max(self.copy_bytes_per_s)
    }
}

/// Rows, inputs and outputs of the products that are compared.
const PRODUCT: (usize, usize, usize) = (512, 1024, 1024);

/// How fast products of bf16 with sums in f32 go beside those of f32: below 1 on processors without instructions for them,
/// and on some with.
///
/// # Errors
/// There is no memory for them.
pub fn bf16_over_f32() -> Result<f64> {
    let (rows, inputs, outputs) = PRODUCT;
    let numbers = |n: usize| (0..n).map(|i| (i % 13) as f32 - 6.0).collect::<Vec<f32>>();
    let x = tensor(numbers(rows * inputs), (rows, inputs))?;
    let w = tensor(numbers(outputs * inputs), (outputs, inputs))?;
    Ok(rate(&x, &Weight::bf16(&w)?)? / rate(&x, &Weight::f32_copy(&w)?)?)
}

/// Products a second, at best.
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

/// One measurement of fused multiplications and additions: the sum of what all threads reach at once,
/// each by its own clock, as one that has to wait for the processor would slow the sum.
fn flops() -> f64 {
    const ROUNDS: usize = 500_000;
    let rates = rayon::broadcast(|_| {
        let began = Instant::now();
        let (operations, total) = Arch::new().dispatch(Chains { rounds: ROUNDS });
        std::hint::black_box(total);
        operations as f64 / began.elapsed().as_secs_f64()
    });
    rates.iter().sum()
}

/// Chains of `x ← a · x + b` that do not wait for each other.
struct Chains {
    rounds: usize,
}

impl WithSimd for Chains {
    /// The operations done, and their result.
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
    fn the_sum_has_every_number_of_whole_lanes() {
        let x: Vec<f32> = (0..2 * LANES).map(|i| i as f32).collect();
        assert_eq!(total(&x), (LANES * (2 * LANES - 1)) as f32);
    }

    #[test]
    fn the_chains_do_the_operations_they_count() {
        let (operations, total) = Arch::new().dispatch(Chains { rounds: 7 });
        assert!(operations.is_multiple_of(2 * 7 * SUMS) && operations > 0);
        // Each lane: x ← 0.999 x + 0.001 from 0.5, seven times.
        let lane = 1.0 - 0.5 * 0.999f64.powi(7);
        let lanes = (operations / (2 * 7)) as f64;
        assert!((f64::from(total) - lane * lanes).abs() < 1e-3 * lanes, "{total}");
    }
}
