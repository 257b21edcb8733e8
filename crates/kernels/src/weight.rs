//! Weights for sampling and frozen models: shared with training, or packed as f32, f16, bf16 or quantized blocks.

mod format;
mod fused;

#[cfg(device)]
use std::borrow::Cow;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

#[cfg(device)]
use crate::cuda::{self, weight::DeviceWeight};
use crate::device::on_device;
use crate::error::{Error, Result, check};
use crate::linear;
use crate::matmul::WriteMode;
use crate::memory::{floats, tensor};
use crate::panels::bf16::PackedBf16;
use crate::panels::blocks::PackedBlocks;
use crate::panels::{self, PackedF16, PackedF32, RowMajorF32};
use crate::quantized::{BlockFormat, QuantizedMatrix};
pub use format::WeightFormat;
pub use fused::{forward_all, fuse_projections};

const OP: &str = "weight";

/// A matrix (outputs, inputs) for GEMMs and row lookups.
#[derive(Debug, Clone)]
pub struct Weight {
    shape: (usize, usize),
    storage: Storage,
}

#[derive(Debug, Clone)]
enum Storage {
    F32(Tensor),
    PackedF32(Arc<PackedF32>),
    PackedF16(Arc<PackedF16>),
    PackedBf16(Arc<PackedBf16>),
    /// As [`Storage::PackedBf16`], multiplied by f32 activations.
    WidenedBf16(Arc<PackedBf16>),
    PackedBlocks(Arc<PackedBlocks>),
    #[cfg(device)]
    Device(cuda::weight::DeviceWeight),
}

impl Weight {
    /// Shares the storage of `weight`: later updates are visible.
    ///
    /// # Errors
    /// It is not a contiguous `f32` matrix on the CPU.
    pub fn f32(weight: &Tensor) -> Result<Self> {
        let shape = weight.dims2()?;
        #[cfg(device)]
        if cuda::on(weight) {
            return Ok(Self::on_device(cuda::weight::alias(weight, OP)?, shape));
        }
        drop(floats(weight, OP)?);
        Ok(Self { shape, storage: Storage::F32(weight.clone()) })
    }

    /// A transposed, packed f32 copy: bit-identical to [`Self::f32`], and faster for few rows.
    ///
    /// # Errors
    /// As [`Self::f32`].
    pub fn f32_copy(weight: &Tensor) -> Result<Self> {
        let shape = weight.dims2()?;
        #[cfg(device)]
        if cuda::on(weight) {
            let copy = cuda::weight::copied(weight, cuda::Dtype::F32, OP)?;
            return Ok(Self::on_device(copy, shape));
        }
        let packed = PackedF32::new(&floats(weight, OP)?, shape.0, shape.1);
        Ok(Self { shape, storage: Storage::PackedF32(Arc::new(packed)) })
    }

    /// A packed bf16 copy. Accumulation stays f32.
    ///
    /// # Errors
    /// As [`Self::f32`].
    pub fn bf16(weight: &Tensor) -> Result<Self> {
        let shape = weight.dims2()?;
        #[cfg(device)]
        if cuda::on(weight) {
            let copy = cuda::weight::copied(weight, cuda::Dtype::Bf16, OP)?;
            return Ok(Self::on_device(copy, shape));
        }
        let packed = PackedBf16::new(&floats(weight, OP)?, shape.0, shape.1);
        Ok(Self { shape, storage: Storage::PackedBf16(Arc::new(packed)) })
    }

    /// A copy in `format`, or in that of [`WeightFormat::for_rows`].
    ///
    /// # Errors
    /// As [`Self::f32`].
    pub fn in_format(weight: &Tensor, format: WeightFormat) -> Result<Self> {
        let (_, inputs) = weight.dims2()?;
        match format.for_rows(inputs) {
            WeightFormat::F32 => Self::f32_copy(weight),
            WeightFormat::Bf16 => Self::bf16(weight),
            WeightFormat::Blocks(format) => {
                let blocks = QuantizedMatrix::quantize(&weight.to_device(&Device::Cpu)?, format)?;
                match weight.device() {
                    Device::Cpu => Self::quantized(&blocks),
                    device => Self::quantized_on(&blocks, device, DType::BF16),
                }
            }
        }
    }

    /// Moves the weight to a device; weights packed for the CPU stay there.
    ///
    /// # Errors
    /// Out of memory, or the weight is packed for the CPU.
    pub fn to_device(self, device: &Device) -> Result<Self> {
        let shape = self.shape;
        match self.storage {
            #[cfg(device)]
            Storage::Device(DeviceWeight::Dense(weight)) => {
                Ok(Self::on_device(weight.to_device(device)?, shape))
            }
            Storage::F32(weight) => Self::f32(&weight.to_device(device)?),
            storage if device.is_cpu() => Ok(Self { shape, storage }),
            _ => Err(Error::Storage { op: OP }),
        }
    }

    #[cfg(device)]
    fn on_device(weight: Tensor, shape: (usize, usize)) -> Self {
        Self { shape, storage: Storage::Device(DeviceWeight::Dense(weight)) }
    }

    /// The weight as an operand of device GEMMs.
    #[cfg(device)]
    pub(crate) fn device(&self) -> Result<Cow<'_, DeviceWeight>> {
        match &self.storage {
            Storage::Device(weight) => Ok(Cow::Borrowed(weight)),
            Storage::F32(weight) => Ok(Cow::Owned(DeviceWeight::Dense(weight.clone()))),
            _ => Err(Error::DeviceStorage { op: OP }),
        }
    }

    /// A packed copy of a matrix in its format. Activations are f32: products have the bits of the weights in f32 for
    /// f16 and bf16, and their sums for quantized blocks.
    ///
    /// # Errors
    /// Out of memory.
    pub fn quantized(weight: &QuantizedMatrix) -> Result<Self> {
        Self::quantized_on(weight, &Device::Cpu, DType::F32)
    }

    /// [`Self::quantized`] on a device, where looked-up rows and activations have dtype `activations`, f32 or bf16. On
    /// the CPU, bf16 applies to bf16 weights, as in [`Self::bf16`].
    ///
    /// # Errors
    /// Out of memory.
    pub(crate) fn quantized_on(
        weight: &QuantizedMatrix,
        device: &Device,
        activations: DType,
    ) -> Result<Self> {
        let shape @ (outputs, inputs) = (weight.outputs(), weight.inputs());
        #[cfg(device)]
        if cuda::is_device(device) {
            let weight = DeviceWeight::from_quantized(weight, device, activations)?;
            return Ok(Self { shape, storage: Storage::Device(weight) });
        }
        check(device.is_cpu(), OP, || "this build does not support the device".into())?;
        let pairs = || weight.bytes().as_chunks().0;
        let storage = match (weight.format(), PackedBlocks::new(weight)) {
            (_, Some(packed)) => Storage::PackedBlocks(Arc::new(packed)),
            (BlockFormat::F16, None) => {
                Storage::PackedF16(Arc::new(PackedF16::from_bytes(pairs(), outputs, inputs)))
            }
            (BlockFormat::Bf16, None) => {
                let packed = Arc::new(PackedBf16::from_bytes(pairs(), outputs, inputs));
                match activations {
                    DType::BF16 => Storage::PackedBf16(packed),
                    _ => Storage::WidenedBf16(packed),
                }
            }
            _ => return Self::f32_copy(&weight.dequantize()?),
        };
        Ok(Self { shape, storage })
    }

    /// Outputs and inputs.
    pub fn shape(&self) -> (usize, usize) {
        self.shape
    }

    /// Dtype of its rows and of the activations: f32 on the CPU; on a device the weight's own, or bf16 for blocks.
    pub fn dtype(&self) -> DType {
        match &self.storage {
            #[cfg(device)]
            Storage::Device(weight) => weight.dtype(),
            _ => DType::F32,
        }
    }

    /// `x · Wᵀ + b`. Each element is accumulated in an order that depends on the number of inputs alone.
    ///
    /// # Shapes
    /// `x` (rows, inputs), `bias` (outputs); returns (rows, outputs).
    ///
    /// # Errors
    /// The shapes do not fit, or a tensor is not contiguous `f32` on the CPU.
    pub fn forward(&self, x: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
        let (rows, _) = self.check(x)?;
        on_device!(x, weight::forward(x, self.device()?.as_ref(), bias, OP));
        let (mut y, mode) = linear::start(rows, self.shape.0, bias)?;
        self.product(&mut y, mode, &floats(x, OP)?)?;
        tensor(y, (rows, self.shape.0))
    }

    /// `y + x · Wᵀ + b`.
    ///
    /// # Shapes
    /// `x` (rows, inputs), `y` and the result (rows, outputs), `bias` (outputs).
    ///
    /// # Errors
    /// As [`Self::forward`].
    pub fn forward_add(&self, x: &Tensor, y: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
        let (rows, _) = self.check(x)?;
        check(y.dims() == [rows, self.shape.0], OP, || {
            "`y` differs from (rows, outputs) in shape".into()
        })?;
        on_device!(x, weight::forward_add(x, self.device()?.as_ref(), y, bias, OP));
        let mut sum = linear::plus_bias(&floats(y, OP)?, (rows, self.shape.0), bias)?;
        self.product(&mut sum, WriteMode::Accumulate, &floats(x, OP)?)?;
        tensor(sum, (rows, self.shape.0))
    }

    /// The rows `ids` (ids, inputs): f32 on the CPU, the weight's row dtype on a device.
    ///
    /// # Errors
    /// An id is out of range.
    pub fn rows(&self, ids: &[usize]) -> Result<Tensor> {
        let (outputs, inputs) = self.shape;
        let outside = ids.iter().find(|id| **id >= outputs);
        check(outside.is_none(), OP, || format!("row {} is out of range", outside.unwrap_or(&0)))?;
        #[cfg(device)]
        if let Storage::Device(weight) = &self.storage {
            return cuda::weight::rows(weight, ids, OP);
        }
        let mut out = vec![0.0; ids.len() * inputs];
        let rows = out.chunks_mut(inputs.max(1)).zip(ids);
        match &self.storage {
            Storage::F32(weight) => {
                let weight = floats(weight, OP)?;
                rows.for_each(|(out, id)| out.copy_from_slice(&weight[id * inputs..][..inputs]));
            }
            Storage::PackedF32(packed) => rows.for_each(|(out, id)| packed.read_row(*id, out)),
            Storage::PackedF16(packed) => rows.for_each(|(out, id)| packed.read_row(*id, out)),
            Storage::PackedBf16(packed) | Storage::WidenedBf16(packed) => {
                rows.for_each(|(out, id)| packed.read_row(*id, out));
            }
            Storage::PackedBlocks(packed) => rows.for_each(|(out, id)| packed.read_row(*id, out)),
            #[cfg(device)]
            Storage::Device(_) => return Err(Error::Storage { op: OP }),
        }
        tensor(out, (ids.len(), inputs))
    }

    fn check(&self, x: &Tensor) -> Result<(usize, usize)> {
        let (rows, inputs) = x.dims2()?;
        let expected = self.shape.1;
        check(inputs == expected, OP, || {
            format!("x has {inputs} columns, but the weight has {expected} inputs")
        })?;
        Ok((rows, inputs))
    }

    fn product(&self, y: &mut [f32], mode: WriteMode, x: &[f32]) -> Result<()> {
        match &self.storage {
            Storage::F32(weight) => {
                let (data, inputs) = (floats(weight, OP)?, self.shape.1);
                panels::matmul(y, mode, x, &RowMajorF32 { data: &data, inputs }, self.shape);
            }
            Storage::PackedF32(packed) => panels::matmul(y, mode, x, packed.as_ref(), self.shape),
            Storage::PackedF16(packed) => panels::matmul(y, mode, x, packed.as_ref(), self.shape),
            Storage::PackedBf16(packed) => panels::bf16::matmul(y, mode, x, packed),
            Storage::WidenedBf16(packed) => {
                panels::bf16::exact_matmul_all(vec![(y, mode)], x, &[packed]);
            }
            Storage::PackedBlocks(packed) => panels::blocks::matmul(y, mode, x, packed),
            #[cfg(device)]
            Storage::Device(_) => return Err(Error::Storage { op: OP }),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
