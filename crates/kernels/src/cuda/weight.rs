//! Weights of sampling on the device: f32 or bf16, rows end to end.

use candle_core::{Device, Tensor};
use half::bf16;
use rayon::prelude::*;

use super::memory::{converted, copy};
use super::{Dtype, linear, lookup, read};
use crate::error::{Result, check};
use crate::quantized::QuantizedMatrix;

/// The numbers themselves, if they are of the device.
pub(crate) fn shared(weight: &Tensor, op: &'static str) -> Result<Tensor> {
    drop(read(weight, op)?.float()?);
    Ok(weight.clone())
}

/// A copy held as `dtype`.
pub(crate) fn copied(weight: &Tensor, dtype: Dtype, op: &'static str) -> Result<Tensor> {
    converted(weight, dtype, op)
}

/// The blocks' numbers as bf16: there is no product with blocks here.
pub(crate) fn dequantised(blocks: &QuantizedMatrix, device: &Device) -> Result<Tensor> {
    let (outputs, inputs) = (blocks.outputs(), blocks.inputs());
    let mut numbers = vec![bf16::ZERO; outputs * inputs];
    numbers.par_chunks_mut(inputs.max(1)).enumerate().for_each_init(
        || vec![0.0; inputs],
        |row, (output, out)| {
            blocks.read_blocks(output, 0..inputs, row);
            out.iter_mut().zip(row).for_each(|(out, x)| *out = bf16::from_f32(*x));
        },
    );
    Ok(Tensor::from_vec(numbers, (outputs, inputs), device)?)
}

/// `x · Wᵀ + b`; factors are bf16 where either is.
pub(crate) fn forward(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    op: &'static str,
) -> Result<Tensor> {
    linear::forward(x, weight, bias, factors(x, weight, op)?, op)
}

/// `y + x · Wᵀ + b`, in memory of its own.
pub(crate) fn forward_add(
    x: &Tensor,
    weight: &Tensor,
    y: &Tensor,
    bias: Option<&Tensor>,
    op: &'static str,
) -> Result<Tensor> {
    let sum = copy(y, op)?;
    if let Some(bias) = bias {
        linear::add_bias(&sum, bias, op)?;
    }
    linear::add(x, weight, &sum, factors(x, weight, op)?, op)?;
    Ok(sum)
}

/// The rows `ids`, held as the weight.
pub(crate) fn rows(weight: &Tensor, ids: &[usize], op: &'static str) -> Result<Tensor> {
    lookup::gather(weight, ids, None, op)
}

/// The products with several weights, one after the other.
pub(crate) fn forward_all<const N: usize>(
    x: &Tensor,
    weights: [(&crate::weight::Weight, Option<&Tensor>); N],
    op: &'static str,
) -> Result<[Tensor; N]> {
    let products: Result<Vec<Tensor>> =
        weights.iter().map(|(weight, bias)| weight.forward(x, *bias)).collect();
    let products = products?;
    let count = products.len();
    products.try_into().or_else(|_| {
        check(false, op, || format!("{count} products of {N} weights"))?;
        Err(super::buffer::unwritten(op))
    })
}

fn factors(x: &Tensor, weight: &Tensor, op: &'static str) -> Result<Dtype> {
    let bf16 = [x, weight].map(|tensor| Dtype::of(tensor, op));
    let [x, weight] = bf16;
    Ok(if x? == Dtype::Bf16 || weight? == Dtype::Bf16 { Dtype::Bf16 } else { Dtype::F32 })
}
