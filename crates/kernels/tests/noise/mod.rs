//! Random inputs of the operations' tests.

#![allow(clippy::expect_used)]

use std::cell::Cell;

use candle_core::{Device, Tensor};

thread_local! {
    /// Calls of `noise` in this test.
    static CALLS: Cell<u64> = const { Cell::new(0) };
}

/// Standard normal values, reproducible: each call in a test differs.
pub(crate) fn noise(shape: &[usize]) -> Tensor {
    let call = CALLS.replace(CALLS.get() + 1);
    let values = (0..shape.iter().product::<usize>()).map(|i| normal(call << 32 | i as u64));
    Tensor::from_iter(values, &Device::Cpu).and_then(|t| t.reshape(shape)).expect("noise")
}

/// A normal value of a counter (Box-Muller).
fn normal(counter: u64) -> f32 {
    let uniform = |word: u64| ((mixed(word) >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    let (radius, phase) = (uniform(2 * counter), uniform(2 * counter + 1));
    ((-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * phase).cos()) as f32
}

/// `SplitMix64`'s output for a counter.
fn mixed(counter: u64) -> u64 {
    let z = counter.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
