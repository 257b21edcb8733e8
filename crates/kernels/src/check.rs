//! The device's operations against the CPU's.
//!
//! A [`Case`] is an operation at a shape: it makes its tensors, runs forward and backward, and gives what came
//! out. It runs on the CPU and on the device with the same numbers, and what came out is compared.

mod attention;
mod head;
mod learning;
mod memory;
mod products;
mod rows;

use candle_core::{DType, Device, Tensor};

use crate::error::{Error, Result};
use crate::precision::Precision;

/// What a case's activations are held as on the device. The CPU computes with the same numbers in f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// 32-bit floats.
    F32,
    /// bfloat16.
    Bf16,
}

/// An operation at a shape.
pub struct Case {
    /// The operation.
    pub op: &'static str,
    /// The shape, in words.
    pub shape: String,
    run: Run,
}

type Run = Box<dyn Fn(&Maker) -> Result<Vec<Output>>>;

/// Makes a case's tensors.
pub(crate) struct Maker {
    device: Device,
    held: Held,
    on_device: bool,
}

/// One tensor that came out.
pub(crate) struct Output {
    name: &'static str,
    tensor: Tensor,
    closeness: Closeness,
}

/// How close both sides are.
#[derive(Clone, Copy)]
enum Closeness {
    /// The same bits.
    Exact,
    /// Rounded as the result is held.
    Near,
    /// Rounded to bf16 on the way.
    Rounded,
    /// With so large an error.
    Within(f64),
}

/// How far one result of a case is off.
#[derive(Debug, Clone)]
pub struct Compared {
    /// Which result: `y`, `dx` …
    pub name: &'static str,
    /// The largest difference, divided by the number's size plus the root mean square of all.
    pub error: f64,
    /// The largest error that rounding explains.
    pub allowed: f64,
}

impl Compared {
    /// Whether rounding explains the error.
    pub fn holds(&self) -> bool {
        self.error <= self.allowed
    }
}

/// Sums of up to some thousand products in another order: 2⁻²⁴ a term, which add up like a random walk.
const F32_ERROR: f64 = 2e-5;

/// A bf16 has 8 bits: half a unit when it is made, and again when it is added to.
const BF16_ERROR: f64 = 1.0 / 128.0;

impl Case {
    pub(crate) fn new(
        op: &'static str,
        shape: String,
        run: impl Fn(&Maker) -> Result<Vec<Output>> + 'static,
    ) -> Self {
        Self { op, shape, run: Box::new(run) }
    }

    /// Runs it on the CPU and on `device`, and compares.
    ///
    /// # Errors
    /// One of the sides refused, or their results differ in number or shape.
    pub fn compare(&self, device: &Device, held: Held) -> Result<Vec<Compared>> {
        let cpu = Maker { device: Device::Cpu, held, on_device: false };
        let truth = on_cpu(|| (self.run)(&cpu))?;
        let found = self.results(device, held)?;
        if truth.len() != found.len() {
            return Err(misfit(self.op));
        }
        truth.iter().zip(&found).map(|(truth, found)| compared(self.op, truth, found)).collect()
    }

    /// What comes out on the device, as f32 bits: two runs can be compared.
    ///
    /// # Errors
    /// The device refused.
    pub fn bits(&self, device: &Device, held: Held) -> Result<Vec<Vec<u32>>> {
        let found = self.results(device, held)?;
        let bits =
            |output: &Output| Ok(numbers(&output.tensor)?.into_iter().map(f32::to_bits).collect());
        found.iter().map(bits).collect()
    }

    fn results(&self, device: &Device, held: Held) -> Result<Vec<Output>> {
        on_device(|| (self.run)(&Maker { device: device.clone(), held, on_device: true }))
    }
}

/// Every operation, at common and odd shapes.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    rows::add(&mut cases);
    products::add(&mut cases);
    memory::add(&mut cases);
    learning::add(&mut cases);
    attention::add(&mut cases);
    head::add(&mut cases);
    cases
}

impl Maker {
    /// A result of products one behind the other, of which so many have factors that are rounded as activations are
    /// held.
    pub(crate) fn chained(&self, name: &'static str, tensor: Tensor, roundings: u8) -> Output {
        let each = if self.held == Held::Bf16 { BF16_ERROR } else { F32_ERROR };
        Output { name, tensor, closeness: Closeness::Within(f64::from(roundings) * each) }
    }

    /// Activations: numbers of about 1.
    pub(crate) fn noise(&self, seed: u64, shape: &[usize]) -> Result<Tensor> {
        let tensor = self.cpu_noise(seed, shape)?;
        match (self.held, self.on_device) {
            (Held::F32, _) => self.placed(tensor),
            (Held::Bf16, true) => self.placed(tensor.to_dtype(DType::BF16)?),
            (Held::Bf16, false) => Ok(tensor.to_dtype(DType::BF16)?.to_dtype(DType::F32)?),
        }
    }

    /// Numbers that are f32 in any case: weights, their gradients, moments.
    pub(crate) fn f32(&self, seed: u64, shape: &[usize]) -> Result<Tensor> {
        self.placed(self.cpu_noise(seed, shape)?)
    }

    /// Where its tensors are.
    pub(crate) fn device(&self) -> &Device {
        &self.device
    }

    /// What products are made of, as activations are held.
    pub(crate) fn precision(&self) -> Precision {
        match self.held {
            Held::F32 => Precision::F32,
            Held::Bf16 => Precision::Bf16,
        }
    }

    fn placed(&self, tensor: Tensor) -> Result<Tensor> {
        crate::memory::to_device(&tensor, &self.device)
    }

    fn cpu_noise(&self, seed: u64, shape: &[usize]) -> Result<Tensor> {
        let number = |i: usize| {
            let mut x = (seed << 32 | i as u64).wrapping_add(0x9e37_79b9_7f4a_7c15);
            x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((x ^ (x >> 31)) >> 40) as f32 / (1u64 << 22) as f32 - 2.0
        };
        let numbers: Vec<f32> = (0..shape.iter().product()).map(number).collect();
        Ok(Tensor::from_vec(numbers, shape, &Device::Cpu)?)
    }
}

impl Output {
    /// A result that may differ by rounding.
    pub(crate) fn near(name: &'static str, tensor: Tensor) -> Self {
        Self { name, tensor, closeness: Closeness::Near }
    }

    /// A result that was rounded to bf16 on the way.
    pub(crate) fn rounded(name: &'static str, tensor: Tensor) -> Self {
        Self { name, tensor, closeness: Closeness::Rounded }
    }

    /// A result that may not differ.
    pub(crate) fn exact(name: &'static str, tensor: Tensor) -> Self {
        Self { name, tensor, closeness: Closeness::Exact }
    }
}

fn compared(op: &'static str, truth: &Output, found: &Output) -> Result<Compared> {
    if truth.tensor.dims() != found.tensor.dims() {
        return Err(misfit(op));
    }
    let allowed = match (truth.closeness, found.tensor.dtype()) {
        (Closeness::Exact, _) => 0.0,
        (Closeness::Within(error), _) => error,
        (Closeness::Rounded, _) | (_, DType::BF16) => BF16_ERROR,
        (Closeness::Near, _) => F32_ERROR,
    };
    let (truth_numbers, found_numbers) = (numbers(&truth.tensor)?, numbers(&found.tensor)?);
    let squares: f64 = truth_numbers.iter().map(|x| f64::from(*x).powi(2)).sum();
    let rms = (squares / truth_numbers.len().max(1) as f64).sqrt().max(1e-30);
    let error = truth_numbers.iter().zip(&found_numbers).map(|(truth, found)| {
        let error = f64::from(truth - found).abs() / (f64::from(truth.abs()) + rms);
        // A number that was never written is NaN, which a maximum would pass over.
        if error.is_nan() { f64::INFINITY } else { error }
    });
    Ok(Compared { name: truth.name, error: error.fold(0.0, f64::max), allowed })
}

fn numbers(tensor: &Tensor) -> Result<Vec<f32>> {
    Ok(tensor.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?)
}

fn misfit(op: &'static str) -> Error {
    Error::Shape { op, what: "the device's results have not the CPU's shapes".into() }
}

#[cfg(feature = "cuda-host")]
fn on_cpu<T>(act: impl FnOnce() -> T) -> T {
    crate::device::without_kernels(act)
}

#[cfg(feature = "cuda-host")]
fn on_device<T>(act: impl FnOnce() -> T) -> T {
    crate::device::through_kernels(act)
}

#[cfg(not(feature = "cuda-host"))]
fn on_cpu<T>(act: impl FnOnce() -> T) -> T {
    act()
}

#[cfg(not(feature = "cuda-host"))]
fn on_device<T>(act: impl FnOnce() -> T) -> T {
    act()
}

#[cfg(feature = "cuda-host")]
#[cfg(test)]
mod tests;
