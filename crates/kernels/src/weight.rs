//! Weights as sampling and frozen models hold them: shared with training or turned in f32, packed as bf16,
//! or in the blocks of a quantised file.

use std::sync::Arc;

use candle_core::{Device, Tensor};

#[cfg(device)]
use crate::cuda;
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
    /// On the device, f32 or bf16, rows end to end.
    #[cfg(device)]
    Device(Tensor),
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

    /// The weight on a device. Blocks of a quantised file become bf16 there; what is turned or packed for the
    /// CPU stays.
    ///
    /// # Errors
    /// There is no room for it, or it is no longer as the device could have it.
    pub fn to_device(self, device: &Device) -> Result<Self> {
        let shape = self.shape;
        match self.storage {
            #[cfg(device)]
            Storage::Quantized(blocks) if cuda::is_device(device) => {
                Ok(Self::on_device(cuda::weight::dequantised(&blocks, device)?, shape))
            }
            #[cfg(device)]
            Storage::Device(weight) => Ok(Self::on_device(weight.to_device(device)?, shape)),
            Storage::F32(weight) => Self::f32(&weight.to_device(device)?),
            storage if device.is_cpu() => Ok(Self { shape, storage }),
            _ => Err(Error::Storage { op: OP }),
        }
    }

    #[cfg(device)]
    fn on_device(weight: Tensor, shape: (usize, usize)) -> Self {
        Self { shape, storage: Storage::Device(weight) }
    }

    /// The weight as the device's products take it.
    #[cfg(device)]
    fn device(&self) -> Result<&Tensor> {
        match &self.storage {
            Storage::Device(weight) | Storage::F32(weight) => Ok(weight),
            _ => Err(Error::DeviceStorage { op: OP }),
        }
    }

    /// The blocks of a quantised file, which become numbers only while they are multiplied with.
    pub fn quantized(weight: QuantizedMatrix) -> Self {
        let shape = (weight.outputs(), weight.inputs());
        #[cfg(feature = "cuda-host")]
        if cuda::host::is_on()
            && let Ok(weight) = cuda::weight::dequantised(&weight, &Device::Cpu)
        {
            return Self::on_device(weight, shape);
        }
        Self { shape, storage: Storage::Quantized(weight) }
    }

    /// Outputs and inputs.
    pub fn shape(&self) -> (usize, usize) {
        self.shape
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
        on_device!(x, weight::forward(x, self.device()?, bias, OP));
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
        on_device!(x, weight::forward_add(x, self.device()?, y, bias, OP));
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
mod tests {
    use super::*;
    use crate::quantized::ByteRange;

    fn matrix(rows: usize, columns: usize, seed: usize) -> Tensor {
        let number = |i: usize| ((i * 7919 + seed * 104_729) % 1013) as f32 / 506.5 - 1.0;
        tensor((0..rows * columns).map(number).collect(), (rows, columns)).unwrap()
    }

    fn blocks(outputs: usize, inputs: usize) -> Weight {
        let bytes = BlockFormat::Q8_0.row_bytes(inputs).unwrap() * outputs;
        let bytes: Vec<u8> = (0..bytes).map(|i| [7, 36, 21, 40][i % 4]).collect();
        let bytes = ByteRange::from(bytes);
        Weight::quantized(QuantizedMatrix::new(BlockFormat::Q8_0, outputs, inputs, bytes).unwrap())
    }

    #[test]
    fn products_side_by_side_have_the_bits_of_each_alone() {
        let (wide, narrow) = (matrix(130, 64, 1), matrix(20, 64, 2));
        let bias = tensor((0..20).map(|i| i as f32).collect(), 20).unwrap();
        let kinds = [
            [Weight::f32(&wide).unwrap(), Weight::f32(&narrow).unwrap()],
            [Weight::f32_copy(&wide).unwrap(), Weight::f32_copy(&narrow).unwrap()],
            [Weight::bf16(&wide).unwrap(), Weight::bf16(&narrow).unwrap()],
            [blocks(130, 64), blocks(20, 64)],
            [Weight::f32(&wide).unwrap(), blocks(20, 64)],
        ];
        for rows in [1, 5, 70] {
            let x = matrix(rows, 64, 3);
            for [a, b] in &kinds {
                let together = forward_all(&x, [(a, None), (b, Some(&bias))]).unwrap();
                let alone = [a.forward(&x, None).unwrap(), b.forward(&x, Some(&bias)).unwrap()];
                for (together, alone) in together.iter().zip(&alone) {
                    assert_eq!(
                        together.to_vec2::<f32>().unwrap(),
                        alone.to_vec2::<f32>().unwrap(),
                        "{rows} rows"
                    );
                }
            }
        }
    }

    #[test]
    fn a_copy_has_the_bits_of_the_shared_numbers() {
        let matrix_of = |rows| matrix(rows, 150, 1);
        for outputs in [1, 64, 130] {
            let shared = Weight::f32(&matrix_of(outputs)).unwrap();
            let copy = Weight::f32_copy(&matrix_of(outputs)).unwrap();
            let numbers = |x: Tensor| x.to_vec2::<f32>().unwrap();
            for rows in [1, 7, 400] {
                let x = matrix(rows, 150, 2);
                let (a, b) = (shared.forward(&x, None).unwrap(), copy.forward(&x, None).unwrap());
                assert_eq!(numbers(a), numbers(b), "{rows} rows, {outputs} outputs");
            }
            let ids = [outputs - 1, 0];
            assert_eq!(numbers(shared.rows(&ids).unwrap()), numbers(copy.rows(&ids).unwrap()));
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_and_named() {
        let weight = Weight::f32(&matrix(5, 8, 1)).unwrap();
        let told = weight.forward(&matrix(2, 7, 1), None).unwrap_err().to_string();
        assert!(told.contains("x has 7 columns, the weight 8"), "{told}");
        assert!(weight.forward_add(&matrix(2, 8, 1), &matrix(2, 4, 1), None).is_err());
        let told = weight.rows(&[4, 5]).unwrap_err().to_string();
        assert!(told.contains("there is no row 5"), "{told}");
    }
}
