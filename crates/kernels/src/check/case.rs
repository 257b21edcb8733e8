//! An operation at a shape, on the CPU and on the device.

use candle_core::{DType, Device, Tensor};
use embodied_r_random::hash;
use rayon::prelude::*;

use crate::device::{with_cpu_kernels, with_device_kernels};
use crate::error::{Error, Result};
use crate::precision::Precision;

/// Dtype of a case's activations on the device. The CPU computes with the same values in f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActivationDtype {
    /// 32-bit floats.
    F32,
    /// bfloat16.
    Bf16,
}

/// An operation at a shape.
pub struct Case {
    /// The operation.
    pub op: &'static str,
    /// Description of the shape.
    pub shape: String,
    run: RunCase,
}

type RunCase = Box<dyn Fn(&CaseInputs) -> Result<Vec<Output>>>;

/// Creates a case's inputs.
pub(crate) struct CaseInputs {
    pub(super) device: Device,
    activations: ActivationDtype,
    pub(super) on_device: bool,
}

/// One output tensor.
pub(crate) struct Output {
    name: &'static str,
    tensor: Tensor,
    tolerance: Tolerance,
}

/// Allowed difference between CPU and device.
#[derive(Clone, Copy)]
enum Tolerance {
    /// Bit-identical.
    Exact,
    /// Rounding of the output's dtype.
    Near,
    /// An intermediate is rounded to bf16.
    Rounded,
    /// This relative error.
    Within(f64),
}

/// Comparison of one output.
#[derive(Debug, Clone)]
pub struct Comparison {
    /// Name of the output: `y`, `dx` …
    pub name: &'static str,
    /// Largest difference, relative to the element's magnitude plus the root mean square of all.
    pub error: f64,
    /// Largest error that rounding explains.
    pub tolerance: f64,
}

impl Comparison {
    /// Whether the error is within the tolerance.
    pub fn within_tolerance(&self) -> bool {
        self.error <= self.tolerance
    }
}

/// Sums of up to some thousand products in another order: 2⁻²⁴ per term, accumulating like a random walk.
const F32_ERROR: f64 = 2e-5;

/// bf16 has 8 bits of precision: half a unit when it is rounded, and again when it is accumulated.
const BF16_ERROR: f64 = 1.0 / 128.0;

impl Case {
    pub(crate) fn new(
        op: &'static str,
        shape: String,
        run: impl Fn(&CaseInputs) -> Result<Vec<Output>> + 'static,
    ) -> Self {
        Self { op, shape, run: Box::new(run) }
    }

    /// Runs on the CPU and on `device`, and compares the outputs.
    ///
    /// # Errors
    /// Either side failed, or the outputs differ in number or shape.
    pub fn compare(
        &self,
        device: &Device,
        activations: ActivationDtype,
    ) -> Result<Vec<Comparison>> {
        let cpu = CaseInputs { device: Device::Cpu, activations, on_device: false };
        let expected = with_cpu_kernels(|| (self.run)(&cpu))?;
        let found = self.results(device, activations)?;
        if expected.len() != found.len() {
            return Err(misfit(self.op));
        }
        expected
            .iter()
            .zip(&found)
            .map(|(expected, found)| compared(self.op, expected, found))
            .collect()
    }

    /// Outputs on the device, as f32 bits, to compare two runs.
    ///
    /// # Errors
    /// The device failed.
    pub fn bits(&self, device: &Device, activations: ActivationDtype) -> Result<Vec<Vec<u32>>> {
        let found = self.results(device, activations)?;
        let bits =
            |output: &Output| Ok(values(&output.tensor)?.into_iter().map(f32::to_bits).collect());
        found.iter().map(bits).collect()
    }

    fn results(&self, device: &Device, activations: ActivationDtype) -> Result<Vec<Output>> {
        with_device_kernels(|| {
            (self.run)(&CaseInputs { device: device.clone(), activations, on_device: true })
        })
    }
}

impl CaseInputs {
    /// Output of a chain of GEMMs in which `roundings` operands are rounded to the activations' dtype.
    pub(crate) fn chained(&self, name: &'static str, tensor: Tensor, roundings: u8) -> Output {
        let each = if self.activations == ActivationDtype::Bf16 { BF16_ERROR } else { F32_ERROR };
        Output { name, tensor, tolerance: Tolerance::Within(f64::from(roundings) * each) }
    }

    /// Activations: values of magnitude about 1.
    pub(crate) fn noise(&self, seed: u64, shape: &[usize]) -> Result<Tensor> {
        let tensor = self.cpu_noise(seed, shape)?;
        match (self.activations, self.on_device) {
            (ActivationDtype::F32, _) => self.to_device(tensor),
            (ActivationDtype::Bf16, true) => self.to_device(tensor.to_dtype(DType::BF16)?),
            (ActivationDtype::Bf16, false) => {
                Ok(tensor.to_dtype(DType::BF16)?.to_dtype(DType::F32)?)
            }
        }
    }

    /// Tensors that are always f32: weights, their gradients, optimizer moments.
    pub(crate) fn f32(&self, seed: u64, shape: &[usize]) -> Result<Tensor> {
        self.to_device(self.cpu_noise(seed, shape)?)
    }

    /// The device of the inputs.
    pub(crate) fn device(&self) -> &Device {
        &self.device
    }

    /// Precision that matches the activations' dtype.
    pub(crate) fn precision(&self) -> Precision {
        match self.activations {
            ActivationDtype::F32 => Precision::F32,
            ActivationDtype::Bf16 => Precision::Bf16,
        }
    }

    fn to_device(&self, tensor: Tensor) -> Result<Tensor> {
        crate::memory::to_device(&tensor, &self.device)
    }

    fn cpu_noise(&self, seed: u64, shape: &[usize]) -> Result<Tensor> {
        let value =
            |i: usize| (hash(seed << 32 | i as u64) >> 40) as f32 / (1u64 << 22) as f32 - 2.0;
        let values: Vec<f32> =
            (0..shape.iter().product::<usize>()).into_par_iter().map(value).collect();
        Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
    }
}

impl Output {
    /// An output that may differ by rounding.
    pub(crate) fn near(name: &'static str, tensor: Tensor) -> Self {
        Self { name, tensor, tolerance: Tolerance::Near }
    }

    /// An output with an intermediate in bf16.
    pub(crate) fn rounded(name: &'static str, tensor: Tensor) -> Self {
        Self { name, tensor, tolerance: Tolerance::Rounded }
    }

    /// An output that must be bit-identical.
    pub(crate) fn exact(name: &'static str, tensor: Tensor) -> Self {
        Self { name, tensor, tolerance: Tolerance::Exact }
    }
}

pub(super) fn compared(op: &'static str, expected: &Output, found: &Output) -> Result<Comparison> {
    if expected.tensor.dims() != found.tensor.dims() {
        return Err(misfit(op));
    }
    let tolerance = match (expected.tolerance, found.tensor.dtype()) {
        (Tolerance::Exact, _) => 0.0,
        (Tolerance::Within(error), _) => error,
        (Tolerance::Rounded, _) | (_, DType::BF16) => BF16_ERROR,
        (Tolerance::Near, _) => F32_ERROR,
    };
    let (expected_values, found_values) = (values(&expected.tensor)?, values(&found.tensor)?);
    let squares: f64 = expected_values.iter().map(|x| f64::from(*x).powi(2)).sum();
    let rms = (squares / expected_values.len().max(1) as f64).sqrt().max(1e-30);
    let error = expected_values.iter().zip(&found_values).map(|(expected, found)| {
        let error = f64::from(expected - found).abs() / (f64::from(expected.abs()) + rms);
        // An element that was never written is NaN, which `max` would ignore.
        if error.is_nan() { f64::INFINITY } else { error }
    });
    Ok(Comparison { name: expected.name, error: error.fold(0.0, f64::max), tolerance })
}

fn values(tensor: &Tensor) -> Result<Vec<f32>> {
    Ok(tensor.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?)
}

fn misfit(op: &'static str) -> Error {
    Error::Shape { op, what: "the device's outputs differ from the CPU's in shape".into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_inputs_stay_bit_for_bit() {
        let activations = ActivationDtype::F32;
        let inputs = CaseInputs { device: Device::Cpu, activations, on_device: false };
        let found = inputs.cpu_noise(7, &[4]).unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(found, [0.950_822_35, -1.589_925_3, 0.610_279_3, 1.956_189_2]);
    }
}
