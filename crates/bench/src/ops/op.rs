//! A benchmarked operation.

use candle_core::Tensor;
use embodied_r_kernels::memory::{floats, tensor};
use embodied_r_kernels::{Error, Result};
use rayon::prelude::*;

/// Maximum elements of a result that are compared with the reference.
const SAMPLES: usize = 512;

type Run = Box<dyn FnMut() -> Result<Vec<Tensor>>>;

type Reference = Box<dyn FnOnce(&[usize]) -> Result<Vec<f64>>>;

/// An operation at one shape.
pub(super) struct Op {
    pub(super) name: &'static str,
    pub(super) shape: String,
    /// Data type of the larger input.
    pub(super) dtype: &'static str,
    /// Floating-point operations; 0 for pure data movement.
    pub(super) flops: f64,
    /// Bytes of the inputs, read once, and of the outputs, written once.
    pub(super) bytes: f64,
    /// Maximum error relative to the reference's largest element.
    pub(super) tolerance: f64,
    make: Box<dyn Fn() -> Result<Prepared>>,
}

/// An operation with its inputs.
pub(super) struct Prepared {
    /// Runs the operation once and returns its results.
    pub(super) run: Run,
    /// The f64 reference: elements of the first run's concatenated results at the given indices.
    pub(super) reference: Reference,
}

impl Prepared {
    pub(super) fn new(
        run: impl FnMut() -> Result<Vec<Tensor>> + 'static,
        reference: impl FnOnce(&[usize]) -> Vec<f64> + 'static,
    ) -> Self {
        Self::with_products(run, |elements| Ok(reference(elements)))
    }

    /// An operation that is only timed: `kernels::check` compares its results.
    #[cfg(any(feature = "cuda", feature = "cuda-host"))]
    pub(super) fn timed(run: impl FnMut() -> Result<Vec<Tensor>> + 'static) -> Self {
        Self::with_products(run, |_| {
            Err(Error::Shape { op: "check", what: "the operation has no reference".into() })
        })
    }

    /// As [`Self::new`], for a reference that needs large matrix products: those of candle in f64, which share nothing
    /// with the kernels.
    pub(super) fn with_products(
        run: impl FnMut() -> Result<Vec<Tensor>> + 'static,
        reference: impl FnOnce(&[usize]) -> Result<Vec<f64>> + 'static,
    ) -> Self {
        Self { run: Box::new(run), reference: Box::new(reference) }
    }
}

impl Op {
    /// An f32 operation with a tolerance for rounding.
    pub(super) fn new(
        name: &'static str,
        shape: String,
        (flops, bytes): (f64, f64),
        make: impl Fn() -> Result<Prepared> + 'static,
    ) -> Self {
        let (dtype, tolerance) = ("float32", 2e-5);
        Self { name, shape, dtype, flops, bytes, tolerance, make: Box::new(make) }
    }

    /// Allocates the inputs; dropping the result frees them, so that one operation's inputs are in memory at a time.
    pub(super) fn prepare(&self) -> Result<Prepared> {
        (self.make)()
    }

    /// The maximum error relative to the reference's largest element.
    pub(super) fn deviation(&self) -> Result<f64> {
        let Prepared { mut run, reference } = self.prepare()?;
        let mut ours = Vec::new();
        for part in run()? {
            ours.extend_from_slice(&floats(&part, "check")?);
        }
        // An odd stride, coprime to the usual powers of two.
        let step = (ours.len() / SAMPLES).max(1) | 1;
        let elements: Vec<usize> = (0..ours.len()).step_by(step).collect();
        let truth = reference(&elements)?;
        if truth.len() != elements.len() {
            let what = format!("{} elements, but {} reference ones", elements.len(), truth.len());
            return Err(Error::Shape { op: "check", what });
        }
        let largest = truth.iter().fold(f64::MIN_POSITIVE, |largest, x| largest.max(x.abs()));
        let far =
            elements.iter().zip(&truth).map(|(element, x)| (f64::from(ours[*element]) - x).abs());
        // `max` would drop NaN.
        Ok(far.fold(0.0, |a, b| if b > a || b.is_nan() { b } else { a }) / largest)
    }
}

/// Random values between -1 and 1.
pub(super) fn uniform(count: usize, seed: u64) -> Vec<f32> {
    const CHUNK: usize = 1 << 16;
    let mut values = vec![0.0; count];
    values.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, values)| {
        let mut random = fastrand::Rng::with_seed(seed << 32 | chunk as u64);
        values.fill_with(|| random.f32() * 2.0 - 1.0);
    });
    values
}

/// A matrix of such values.
pub(super) fn matrix(rows: usize, columns: usize, seed: u64) -> Result<Tensor> {
    tensor(uniform(rows * columns, seed), (rows, columns))
}

/// The elements of a tensor, for the reference.
pub(super) fn values(of: &Tensor) -> Result<Vec<f32>> {
    Ok(floats(of, "check")?.to_vec())
}

/// The dot product in f64.
pub(super) fn dot(a: impl Iterator<Item = f32>, b: impl Iterator<Item = f32>) -> f64 {
    a.zip(b).map(|(a, b)| f64::from(a) * f64::from(b)).sum()
}

/// Bytes of `count` f32 elements.
pub(super) fn f32_bytes(count: usize) -> f64 {
    (count * size_of::<f32>()) as f64
}
