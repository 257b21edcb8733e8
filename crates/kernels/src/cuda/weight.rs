//! Weights of sampling on the device: f32 or bf16, rows end to end, or in blocks of few bits.

use candle_core::{DType, Device, Tensor};
use half::bf16;
use rayon::prelude::*;

use super::blocks::Blocks;
use super::memory::{converted, copy};
use super::{Dtype, linear, lookup, read};
use crate::error::{Result, check};
use crate::quantized::QuantizedMatrix;

/// A weight as the device has it.
#[derive(Debug, Clone)]
pub(crate) enum Held {
    Numbers(Tensor),
    Blocks(Blocks),
}

impl Held {
    /// A quantised file's matrix: its blocks, or bf16 of what is no blocks.
    pub(crate) fn quantised(matrix: &QuantizedMatrix, device: &Device) -> Result<Self> {
        match Blocks::new(matrix, device)? {
            Some(blocks) => Ok(Self::Blocks(blocks)),
            None => Ok(Self::Numbers(dequantised(matrix, device)?)),
        }
    }

    /// What rows of it, and with them the activations, are held as.
    pub(crate) fn dtype(&self) -> DType {
        match self {
            Self::Numbers(weight) => weight.dtype(),
            Self::Blocks(_) => DType::BF16,
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

/// The numbers as bf16.
fn dequantised(blocks: &QuantizedMatrix, device: &Device) -> Result<Tensor> {
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
    weight: &Held,
    bias: Option<&Tensor>,
    op: &'static str,
) -> Result<Tensor> {
    match weight {
        Held::Numbers(weight) => linear::forward(x, weight, bias, factors(x, weight, op)?, op),
        Held::Blocks(blocks) => blocks.forward(x, bias, op),
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
        Held::Blocks(blocks) => return blocks.forward_add(x, y, bias, op),
    };
    let sum = copy(y, op)?;
    if let Some(bias) = bias {
        linear::add_bias(&sum, bias, op)?;
    }
    linear::add(x, weight, &sum, factors(x, weight, op)?, op)?;
    Ok(sum)
}

/// The rows `ids`, held as the weight, or of blocks as bf16.
pub(crate) fn rows(weight: &Held, ids: &[usize], op: &'static str) -> Result<Tensor> {
    match weight {
        Held::Numbers(weight) => lookup::gather(weight, ids, None, op),
        Held::Blocks(blocks) => blocks.rows(Some(ids), Dtype::Bf16, op),
    }
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
