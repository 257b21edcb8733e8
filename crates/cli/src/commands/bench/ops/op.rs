//! An entry of the table of operations.

use candle_core::Tensor;
use embodied_r_kernels::memory::{floats, tensor};
use embodied_r_kernels::{Error, Result};

/// Numbers of a result that are held against the plain form, at most.
const SAMPLES: usize = 512;

type Run = Box<dyn FnMut() -> Result<Vec<Tensor>>>;

type Plain = Box<dyn FnOnce(&[usize]) -> Vec<f64>>;

/// An operation at one shape.
pub(super) struct Op {
    pub(super) name: &'static str,
    pub(super) shape: String,
    /// Format of the larger input.
    pub(super) dtype: &'static str,
    /// Additions and multiplications that the result needs; 0 where moving numbers is all there is.
    pub(super) flops: f64,
    /// Bytes of the inputs read once and of the outputs written once.
    pub(super) bytes: f64,
    /// Largest deviation from the plain form, as a share of the result's largest number.
    pub(super) tolerance: f64,
    make: Box<dyn Fn() -> Result<Prepared>>,
}

/// An operation with its inputs.
pub(super) struct Prepared {
    /// Does it once, and gives what it computed.
    pub(super) run: Run,
    /// The numbers of the first run's results, end to end, at some places: by the definition, in f64.
    pub(super) plain: Plain,
}

impl Prepared {
    pub(super) fn new(
        run: impl FnMut() -> Result<Vec<Tensor>> + 'static,
        plain: impl FnOnce(&[usize]) -> Vec<f64> + 'static,
    ) -> Self {
        Self { run: Box::new(run), plain: Box::new(plain) }
    }
}

impl Op {
    /// An operation in f32 whose result may deviate by rounding alone.
    pub(super) fn new(
        name: &'static str,
        shape: String,
        (flops, bytes): (f64, f64),
        make: impl Fn() -> Result<Prepared> + 'static,
    ) -> Self {
        let (dtype, tolerance) = ("float32", 2e-5);
        Self { name, shape, dtype, flops, bytes, tolerance, make: Box::new(make) }
    }

    /// Its inputs; they are gone with what is given, so that those of one operation lie in memory.
    pub(super) fn prepare(&self) -> Result<Prepared> {
        (self.make)()
    }

    /// The largest deviation from the plain form, as a share of the largest number.
    pub(super) fn deviation(&self) -> Result<f64> {
        let Prepared { mut run, plain } = self.prepare()?;
        let mut ours = Vec::new();
        for part in run()? {
            ours.extend_from_slice(&floats(&part, "check")?);
        }
        // A step that shares no factor with the usual widths.
        let step = (ours.len() / SAMPLES).max(1) | 1;
        let places: Vec<usize> = (0..ours.len()).step_by(step).collect();
        let truth = plain(&places);
        if truth.len() != places.len() {
            let what = format!("{} numbers, but {} plain ones", places.len(), truth.len());
            return Err(Error::Shape { op: "check", what });
        }
        let largest = truth.iter().fold(f64::MIN_POSITIVE, |largest, x| largest.max(x.abs()));
        let far = places.iter().zip(&truth).map(|(place, x)| (f64::from(ours[*place]) - x).abs());
        // `max` would drop what is no number.
        Ok(far.fold(0.0, |a, b| if b > a || b.is_nan() { b } else { a }) / largest)
    }
}

/// Numbers between -1 and 1, the same for the same seed.
pub(super) fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let mut random = fastrand::Rng::with_seed(seed);
    (0..count).map(|_| random.f32() * 2.0 - 1.0).collect()
}

/// A matrix of such numbers.
pub(super) fn matrix(rows: usize, columns: usize, seed: u64) -> Result<Tensor> {
    tensor(numbers(rows * columns, seed), (rows, columns))
}

/// The numbers of a tensor, for the plain form.
pub(super) fn values(of: &Tensor) -> Result<Vec<f32>> {
    Ok(floats(of, "check")?.to_vec())
}

/// The sum of products, in f64.
pub(super) fn dot(a: impl Iterator<Item = f32>, b: impl Iterator<Item = f32>) -> f64 {
    a.zip(b).map(|(a, b)| f64::from(a) * f64::from(b)).sum()
}

/// Bytes of so many numbers in f32.
pub(super) fn f32_bytes(count: usize) -> f64 {
    (count * size_of::<f32>()) as f64
}
