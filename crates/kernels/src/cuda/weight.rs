//! Weights on the device: dense f32 or bf16, or block-quantized.

use candle_core::{DType, Device, Tensor};

use super::memory::{cast_copy, copy};
use super::quantized::QuantizedBlocks;
use super::{Dtype, linear, lookup, read};
use crate::error::Result;
use crate::quantized::QuantizedMatrix;

/// A weight on the device.
#[derive(Debug, Clone)]
pub(crate) enum DeviceWeight {
    Dense(Tensor),
    /// With the dtype of dequantized rows.
    Blocks(QuantizedBlocks, Dtype),
}

impl DeviceWeight {
    /// Uploads a quantized matrix, whose rows are dequantized to `dtype`: its blocks, or a dense tensor for float
    /// formats.
    pub(crate) fn from_quantized(
        matrix: &QuantizedMatrix,
        device: &Device,
        dtype: DType,
    ) -> Result<Self> {
        let rows = if dtype == DType::F32 { Dtype::F32 } else { Dtype::Bf16 };
        match QuantizedBlocks::new(matrix, device)? {
            Some(blocks) => Ok(Self::Blocks(blocks, rows)),
            None => {
                let values = matrix.dequantize()?.to_dtype(dtype)?;
                Ok(Self::Dense(crate::memory::to_device(&values, device)?))
            }
        }
    }

    /// Dtype of its rows and of the activations.
    pub(crate) fn dtype(&self) -> DType {
        match self {
            Self::Dense(weight) => weight.dtype(),
            Self::Blocks(_, Dtype::F32) => DType::F32,
            Self::Blocks(..) => DType::BF16,
        }
    }
}

/// Shares the tensor, if it is on the device.
pub(crate) fn alias(weight: &Tensor, op: &'static str) -> Result<Tensor> {
    drop(read(weight, op)?.expect_float()?);
    Ok(weight.clone())
}

/// A copy as `dtype`.
pub(crate) fn copied(weight: &Tensor, dtype: Dtype, op: &'static str) -> Result<Tensor> {
    cast_copy(weight, dtype, op)
}

/// `x · Wᵀ + b`; operands are bf16 if either is.
pub(crate) fn forward(
    x: &Tensor,
    weight: &DeviceWeight,
    bias: Option<&Tensor>,
    op: &'static str,
) -> Result<Tensor> {
    match weight {
        DeviceWeight::Dense(weight) => {
            linear::forward(x, weight, bias, operand_dtype(x, weight, op)?, op)
        }
        DeviceWeight::Blocks(blocks, activations) => blocks.forward(x, bias, *activations, op),
    }
}

/// `y + x · Wᵀ + b`, out of place.
pub(crate) fn forward_add(
    x: &Tensor,
    weight: &DeviceWeight,
    y: &Tensor,
    bias: Option<&Tensor>,
    op: &'static str,
) -> Result<Tensor> {
    let weight = match weight {
        DeviceWeight::Dense(weight) => weight,
        DeviceWeight::Blocks(blocks, activations) => {
            return blocks.forward_add(x, y, bias, *activations, op);
        }
    };
    let operand_dtype = operand_dtype(x, weight, op)?;
    let Some(bias) = bias else { return linear::forward_onto(x, weight, y, operand_dtype, op) };
    let sum = copy(y, op)?;
    linear::add_bias(&sum, bias, op)?;
    linear::add(x, weight, &sum, operand_dtype, op)?;
    Ok(sum)
}

/// The rows `ids`, in the weight's row dtype.
pub(crate) fn rows(weight: &DeviceWeight, ids: &[usize], op: &'static str) -> Result<Tensor> {
    match weight {
        DeviceWeight::Dense(weight) => lookup::gather(weight, ids, None, op),
        DeviceWeight::Blocks(blocks, dtype) => blocks.rows(ids, *dtype, op),
    }
}

/// Operand dtype of a GEMM: bf16 if either is.
pub(super) fn operand_dtype(x: &Tensor, weight: &Tensor, op: &'static str) -> Result<Dtype> {
    let bf16 = [x, weight].map(|tensor| Dtype::of(tensor, op));
    let [x, weight] = bf16;
    Ok(if x? == Dtype::Bf16 || weight? == Dtype::Bf16 { Dtype::Bf16 } else { Dtype::F32 })
}
