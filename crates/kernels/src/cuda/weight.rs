//! Weights of sampling on the device: f32 or bf16, rows end to end, or in blocks of few bits.

use candle_core::{DType, Device, Tensor};

use super::blocks::Blocks;
use super::memory::{converted, copy};
use super::{Dtype, linear, lookup, read};
use crate::error::Result;
use crate::quantized::QuantizedMatrix;

/// A weight as the device has it.
#[derive(Debug, Clone)]
pub(crate) enum Held {
    Numbers(Tensor),
    /// With what rows of them are held as.
    Blocks(Blocks, Dtype),
}

impl Held {
    /// A quantised file's matrix, rows of which are held as `dtype`: its blocks, or the numbers of what is no blocks.
    pub(crate) fn quantised(
        matrix: &QuantizedMatrix,
        device: &Device,
        dtype: DType,
    ) -> Result<Self> {
        let rows = if dtype == DType::F32 { Dtype::F32 } else { Dtype::Bf16 };
        match Blocks::new(matrix, device)? {
            Some(blocks) => Ok(Self::Blocks(blocks, rows)),
            None => {
                let numbers = matrix.dequantize()?.to_dtype(dtype)?;
                Ok(Self::Numbers(crate::memory::to_device(&numbers, device)?))
            }
        }
    }

    /// What rows of it, and with them the activations, are held as.
    pub(crate) fn dtype(&self) -> DType {
        match self {
            Self::Numbers(weight) => weight.dtype(),
            Self::Blocks(_, Dtype::F32) => DType::F32,
            Self::Blocks(..) => DType::BF16,
        }
    }
}

/// The numbers themselves, if they are of the device.
pub(crate) fn shared(weight: &Tensor, op: &'static str) -> Result<Tensor> {
    drop(read(weight, op)?.float()?);
    Ok(weight.clone())
}

/// A copy held as `dtype`.
pub(crate) fn copied(weight: &Tensor, dtype: Dtype, op: &'static str) -> Result<Tensor> {
    converted(weight, dtype, op)
}

/// `x · Wᵀ + b`; factors are bf16 where either is.
pub(crate) fn forward(
    x: &Tensor,
    weight: &Held,
    bias: Option<&Tensor>,
    op: &'static str,
) -> Result<Tensor> {
    match weight {
        Held::Numbers(weight) => linear::forward(x, weight, bias, factors(x, weight, op)?, op),
        Held::Blocks(blocks, _) => blocks.forward(x, bias, op),
    }
}

/// `y + x · Wᵀ + b`, in memory of its own.
pub(crate) fn forward_add(
    x: &Tensor,
    weight: &Held,
    y: &Tensor,
    bias: Option<&Tensor>,
    op: &'static str,
) -> Result<Tensor> {
    let weight = match weight {
        Held::Numbers(weight) => weight,
        Held::Blocks(blocks, _) => return blocks.forward_add(x, y, bias, op),
    };
    let factors = factors(x, weight, op)?;
    let Some(bias) = bias else { return linear::forward_onto(x, weight, y, factors, op) };
    let sum = copy(y, op)?;
    linear::add_bias(&sum, bias, op)?;
    linear::add(x, weight, &sum, factors, op)?;
    Ok(sum)
}

/// The rows `ids`, held as the weight.
pub(crate) fn rows(weight: &Held, ids: &[usize], op: &'static str) -> Result<Tensor> {
    match weight {
        Held::Numbers(weight) => lookup::gather(weight, ids, None, op),
        Held::Blocks(blocks, dtype) => blocks.rows(ids, *dtype, op),
    }
}

/// What the factors of a product are held as: bf16 where either is.
pub(super) fn factors(x: &Tensor, weight: &Tensor, op: &'static str) -> Result<Dtype> {
    let bf16 = [x, weight].map(|tensor| Dtype::of(tensor, op));
    let [x, weight] = bf16;
    Ok(if x? == Dtype::Bf16 || weight? == Dtype::Bf16 { Dtype::Bf16 } else { Dtype::F32 })
}
