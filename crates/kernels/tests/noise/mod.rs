//! Random inputs of the operations' tests.

#![allow(clippy::expect_used)]

use std::cell::Cell;

use candle_core::{Device, Tensor};
use embodied_r_random::{GAMMA, mix, normal};

thread_local! {
    /// Calls of `noise` in this test.
    static CALLS: Cell<u64> = const { Cell::new(0) };
}

/// Standard normal values, reproducible: each call in a test differs.
pub(crate) fn noise(shape: &[usize]) -> Tensor {
    let call = CALLS.replace(CALLS.get() + 1);
    let values =
        (0..shape.iter().product::<usize>()).map(|i| standard_normal(call << 32 | i as u64));
    Tensor::from_iter(values, &Device::Cpu).and_then(|t| t.reshape(shape)).expect("noise")
}

/// A normal value of a counter.
fn standard_normal(counter: u64) -> f32 {
    let bits = |word: u64| mix(word.wrapping_add(1).wrapping_mul(GAMMA));
    let uniform = |word: u64| ((bits(word) >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    normal(uniform(2 * counter), uniform(2 * counter + 1)) as f32
}
