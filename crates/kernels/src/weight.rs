//! Weights as sampling and frozen models hold them: shared with training or turned in f32, packed as bf16,
//! or in the blocks of a quantised file.

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
use crate::memory::{Floats, floats, tensor};
use crate::panels::bf16::Packed;
use crate::panels::{self, Plain, Turned};
use crate::precision::Precision;
use crate::quantized::{BlockFormat, QuantizedMatrix};

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

/// What the numbers of a weight are held as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeightFormat {
    /// 32-bit floats.
    F32,
    /// bfloat16, with which products are made of bf16 too.
    Bf16,
    /// Blocks of few bits, which become f32 as they are multiplied with.
    Blocks(BlockFormat),
}

impl WeightFormat {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Blocks(format) => format.name(),
        }
    }

    /// Bits of a number, with what its block holds beside.
    pub fn bits(self) -> f64 {
        match self {
            Self::F32 => 32.0,
            Self::Bf16 => 16.0,
            Self::Blocks(blocks) => 8.0 * blocks.block_bytes() as f64 / blocks.block_len() as f64,
        }
    }
}

impl From<Precision> for WeightFormat {
    fn from(precision: Precision) -> Self {
        match precision {
            Precision::F32 => Self::F32,
            Precision::Bf16 => Self::Bf16,
        }
    }
}

/// `x · Wᵀ + b` for each of some weights, as [`Weight::forward`] gives it: threads need not wait for
/// each other between the products.
///
/// # Shapes
/// `x` (rows, inputs), each bias (outputs); gives (rows, outputs) of each weight.
///
/// # Errors
/// As [`Weight::forward`].
pub fn forward_all<const N: usize>(
    x: &Tensor,
    weights: [(&Weight, Option<&Tensor>); N],
) -> Result<[Tensor; N]> {
    on_device!(x, weight::forward_all(x, weights, OP));
    let numbers = floats(x, OP)?;
    let mut results = Vec::with_capacity(N);
    for (weight, bias) in &weights {
        let (rows, _) = weight.check(x)?;
        results.push(linear::start(rows, weight.shape.0, *bias)?);
    }
    let into: Vec<(&mut [f32], Into)> =
        results.iter_mut().map(|(y, into)| (y.as_mut_slice(), *into)).collect();
    let depth = x.dims()[1];
    if let Some(plain) = each(&weights, Storage::plain) {
        let plain: Vec<Plain<'_>> =
            plain.iter().map(|numbers| Plain { numbers, inputs: depth }).collect();
        let plain: Vec<&Plain<'_>> = plain.iter().collect();
        panels::products(into, &numbers, &plain, depth);
    } else if let Some(turned) = each(&weights, Storage::turned) {
        panels::products(into, &numbers, &turned, depth);
    } else if let Some(packed) = each(&weights, Storage::packed) {
        panels::bf16::products(into, &numbers, &packed);
    } else {
        for ((y, into), (weight, _)) in into.into_iter().zip(&weights) {
            weight.product(y, into, &numbers)?;
        }
    }
    let mut tensors = Vec::with_capacity(N);
    for ((y, _), (weight, _)) in results.into_iter().zip(&weights) {
        tensors.push(tensor(y, (x.dims()[0], weight.shape.0))?);
    }
    let shape = || Error::Shape { op: OP, what: "as many products as weights are due".into() };
    tensors.try_into().map_err(|_| shape())
}

/// What each weight is stored as, if all of them are stored so.
fn each<'a, T>(
    weights: &[(&'a Weight, Option<&Tensor>)],
    of: impl Fn(&'a Storage) -> Option<T>,
) -> Option<Vec<T>> {
    weights.iter().map(|(weight, _)| of(&weight.storage)).collect()
}

impl Storage {
    fn plain(&self) -> Option<Floats<'_>> {
        match self {
            Self::F32(weight) => floats(weight, OP).ok(),
            _ => None,
        }
    }

    fn turned(&self) -> Option<&Turned> {
        match self {
            Self::Turned(turned) => Some(turned),
            _ => None,
        }
    }

    fn packed(&self) -> Option<&Packed> {
        match self {
            Self::Bf16(packed) => Some(packed),
            _ => None,
        }
    }
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
    fn device(&self) -> Result<Cow<'_, Held>> {
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
