//! What the machine can do at best, to hold the operations against.

use std::time::Instant;

use multiversion::multiversion;
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

/// Sums held in registers: enough to keep two units busy over the latency of one addition.
const SUMS: usize = 12;

/// Numbers of a buffer: 512 MiB, beyond what caches hold.
const BUFFER: usize = 128 << 20;

/// Numbers that a task reads or copies.
const TASK: usize = 1 << 20;

/// Lanes of the sums while reading: eight registers of AVX-512.
const LANES: usize = 128;

/// Measurements of which the best counts.
const TRIES: usize = 5;

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
        let flops_per_s = best(flops);
        let (from, mut to) = (vec![1f32; BUFFER], vec![0f32; BUFFER]);
        let bytes = (BUFFER * size_of::<f32>()) as f64;
        let read = best(|| {
            let began = Instant::now();
            let total: f32 = from.par_chunks(TASK).map(total).sum();
            std::hint::black_box(total);
            bytes / began.elapsed().as_secs_f64()
        });
        let copy = best(|| {
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

fn best(measure: impl FnMut() -> f64) -> f64 {
    std::iter::repeat_with(measure).take(TRIES).fold(0.0, f64::max)
}

/// One measurement of fused multiplications and additions, on all threads at once.
fn flops() -> f64 {
    const ROUNDS: usize = 20_000_000;
    let began = Instant::now();
    let done = rayon::broadcast(|_| Arch::new().dispatch(Chains { rounds: ROUNDS }));
    let operations: usize = done.iter().map(|(operations, _)| operations).sum();
    std::hint::black_box(done);
    operations as f64 / began.elapsed().as_secs_f64()
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
