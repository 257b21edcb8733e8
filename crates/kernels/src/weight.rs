//! Weights as sampling and frozen models hold them: shared with training or turned in f32, packed as bf16,
//! or in the blocks of a quantised file.

mod format;
mod together;

#[cfg(device)]
use std::borrow::Cow;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

#[cfg(device)]
use crate::cuda::{self, weight::Held};
use crate::device::on_device;
use crate::error::{Error, Result, check};
use crate::linear::{self, times};
use crate::matmul::Into;
use crate::memory::{floats, tensor};
use crate::panels::bf16::Packed;
use crate::panels::{self, Turned};
use crate::quantized::QuantizedMatrix;
pub use format::WeightFormat;
pub use together::{forward_all, side_by_side};

const OP: &str = "weight";

/// A matrix (outputs, inputs) that activations are multiplied with and rows are looked up in.
#[derive(Debug, Clone)]
pub struct Weight {
    shape: (usize, usize),
    storage: Storage,
}

#[derive(Debug, Clone)]
enum Storage {
    F32(Tensor),
    Turned(Arc<Turned>),
    Bf16(Arc<Packed>),
    Quantized(QuantizedMatrix),
    #[cfg(device)]
    Device(cuda::weight::Held),
}

impl Weight {
    /// The numbers of `weight` themselves, shared with it: later changes are seen.
    ///
    /// # Errors
    /// It is no contiguous `f32` matrix on the CPU.
    pub fn f32(weight: &Tensor) -> Result<Self> {
        let shape = weight.dims2()?;
        #[cfg(device)]
        if cuda::on(weight) {
            return Ok(Self::on_device(cuda::weight::shared(weight, OP)?, shape));
        }
        drop(floats(weight, OP)?);
        Ok(Self { shape, storage: Storage::F32(weight.clone()) })
    }

    /// A copy of `weight`, in the order in which products take it: the same bits as those of
    /// [`Self::f32`], sooner for few rows.
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
        let turned = Turned::new(&floats(weight, OP)?, shape.0, shape.1);
        Ok(Self { shape, storage: Storage::Turned(Arc::new(turned)) })
    }

    /// A copy of `weight` as bf16, in the order in which products take it. Sums stay f32.
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
        let packed = Packed::new(&floats(weight, OP)?, shape.0, shape.1);
        Ok(Self { shape, storage: Storage::Bf16(Arc::new(packed)) })
    }

    /// A copy of `weight` in `format`, or in bf16 where its rows are no whole blocks of that.
    ///
    /// # Errors
    /// As [`Self::f32`].
    pub fn in_format(weight: &Tensor, format: WeightFormat) -> Result<Self> {
        let (_, inputs) = weight.dims2()?;
        match format {
            WeightFormat::F32 => Self::f32_copy(weight),
            WeightFormat::Bf16 => Self::bf16(weight),
            WeightFormat::Blocks(format) if format.row_bytes(inputs).is_none() => {
                Self::bf16(weight)
            }
            WeightFormat::Blocks(format) => {
                let blocks = QuantizedMatrix::quantize(&weight.to_device(&Device::Cpu)?, format)?;
                Self::quantized(blocks).to_device(weight.device())
            }
        }
    }

    /// The weight on a device; what is turned or packed for the CPU stays.
    ///
    /// # Errors
    /// There is no room for it, or it is no longer as the device could have it.
    pub fn to_device(self, device: &Device) -> Result<Self> {
        let shape = self.shape;
        match self.storage {
            #[cfg(device)]
            Storage::Quantized(blocks) if cuda::is_device(device) => {
                Self::quantized_on(blocks, device, DType::BF16)
            }
            #[cfg(device)]
            Storage::Device(Held::Numbers(weight)) => {
                Ok(Self::on_device(weight.to_device(device)?, shape))
            }
            Storage::F32(weight) => Self::f32(&weight.to_device(device)?),
            storage if device.is_cpu() => Ok(Self { shape, storage }),
            _ => Err(Error::Storage { op: OP }),
        }
    }

    #[cfg(device)]
    fn on_device(weight: Tensor, shape: (usize, usize)) -> Self {
        Self { shape, storage: Storage::Device(Held::Numbers(weight)) }
    }

    /// The weight as the device's products take it.
    #[cfg(device)]
    pub(crate) fn device(&self) -> Result<Cow<'_, Held>> {
        match &self.storage {
            Storage::Device(weight) => Ok(Cow::Borrowed(weight)),
            Storage::F32(weight) => Ok(Cow::Owned(Held::Numbers(weight.clone()))),
            _ => Err(Error::DeviceStorage { op: OP }),
        }
    }

    /// The blocks of a quantised file, which become numbers only while they are multiplied with.
    pub fn quantized(weight: QuantizedMatrix) -> Self {
        let shape = (weight.outputs(), weight.inputs());
        #[cfg(feature = "cuda-host")]
        if let Ok(weight) = Self::quantized_on(weight.clone(), &Device::Cpu, DType::F32) {
            return weight;
        }
        Self { shape, storage: Storage::Quantized(weight) }
    }

    /// [`Self::quantized`] on a device, where rows that are looked up, and with them the activations, are held as
    /// `activations`, f32 or bf16.
    ///
    /// # Errors
    /// There is no room.
    pub(crate) fn quantized_on(
        weight: QuantizedMatrix,
        device: &Device,
        activations: DType,
    ) -> Result<Self> {
        let shape = (weight.outputs(), weight.inputs());
        #[cfg(device)]
        if cuda::is_device(device) {
            let held = Held::quantised(&weight, device, activations)?;
            return Ok(Self { shape, storage: Storage::Device(held) });
        }
        let _ = activations;
        check(device.is_cpu(), OP, || "this build has no such device".into())?;
        Ok(Self { shape, storage: Storage::Quantized(weight) })
    }

    /// Outputs and inputs.
    pub fn shape(&self) -> (usize, usize) {
        self.shape
    }

    /// What its rows are held as, and with them the activations: f32 on the CPU; on a device as the weight is, or bf16.
    pub fn dtype(&self) -> DType {
        match &self.storage {
            #[cfg(device)]
            Storage::Device(weight) => weight.dtype(),
            _ => DType::F32,
        }
    }

    /// `x · Wᵀ + b`. Each number of the result is summed up in an order that depends on the number of
    /// inputs alone.
    ///
    /// # Shapes
    /// `x` (rows, inputs), `bias` (outputs); gives (rows, outputs).
    ///
    /// # Errors
    /// The shapes do not fit, or a tensor is not contiguous `f32` on the CPU.
    pub fn forward(&self, x: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
        let (rows, _) = self.check(x)?;
        on_device!(x, weight::forward(x, self.device()?.as_ref(), bias, OP));
        let (mut y, into) = linear::start(rows, self.shape.0, bias)?;
        self.product(&mut y, into, &floats(x, OP)?)?;
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
        check(y.dims() == [rows, self.shape.0], OP, || "what is added to does not fit".into())?;
        on_device!(x, weight::forward_add(x, self.device()?.as_ref(), y, bias, OP));
        let mut sum = floats(y, OP)?.to_vec();
        if let Some(bias) = bias {
            linear::add_bias(&mut sum, bias)?;
        }
        self.product(&mut sum, Into::Add, &floats(x, OP)?)?;
        tensor(sum, (rows, self.shape.0))
    }

    /// The rows `ids` (ids, inputs): f32 on the CPU, as the weight is held on a device.
    ///
    /// # Errors
    /// An id is no row.
    pub fn rows(&self, ids: &[usize]) -> Result<Tensor> {
        let (outputs, inputs) = self.shape;
        let outside = ids.iter().find(|id| **id >= outputs);
        check(outside.is_none(), OP, || format!("there is no row {}", outside.unwrap_or(&0)))?;
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
            Storage::Turned(turned) => rows.for_each(|(out, id)| turned.read_row(*id, out)),
            Storage::Bf16(packed) => rows.for_each(|(out, id)| packed.read_row(*id, out)),
            Storage::Quantized(blocks) => {
                rows.for_each(|(out, id)| blocks.read_blocks(*id, 0..inputs, out));
            }
            #[cfg(device)]
            Storage::Device(_) => return Err(Error::Storage { op: OP }),
        }
        tensor(out, (ids.len(), inputs))
    }

    fn check(&self, x: &Tensor) -> Result<(usize, usize)> {
        let (rows, inputs) = x.dims2()?;
        let want = self.shape.1;
        check(inputs == want, OP, || format!("x has {inputs} columns, the weight {want}"))?;
        Ok((rows, inputs))
    }

    fn product(&self, y: &mut [f32], into: Into, x: &[f32]) -> Result<()> {
        match &self.storage {
            Storage::F32(weight) => times(y, into, x, &floats(weight, OP)?, self.shape),
            Storage::Turned(turned) => panels::product(y, into, x, turned.as_ref(), self.shape),
            Storage::Bf16(packed) => panels::bf16::product(y, into, x, packed),
            Storage::Quantized(blocks) => panels::product(y, into, x, blocks, self.shape),
            #[cfg(device)]
            Storage::Device(_) => return Err(Error::Storage { op: OP }),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
