//! Projections of one input with several weights.

use candle_core::Tensor;

use super::{OP, Storage, Weight};
#[cfg(device)]
use crate::cuda::{fused::FusedWeights, weight::DeviceWeight};
use crate::device::on_device;
use crate::error::{Error, Result};
use crate::linear;
use crate::matmul::WriteMode;
use crate::memory::{Floats, floats, tensor};
use crate::panels::bf16::PackedBf16;
use crate::panels::blocks::PackedBlocks;
use crate::panels::{self, PackedF16, PackedF32, RowMajorF32};

/// `x · Wᵀ + b` for several weights in one parallel region, each as [`Weight::forward`]: threads do not wait for each
/// other between them.
///
/// # Shapes
/// `x` (rows, inputs), each bias (outputs); returns (rows, outputs) for each weight.
///
/// # Errors
/// As [`Weight::forward`].
pub fn forward_all<const N: usize>(
    x: &Tensor,
    weights: [(&Weight, Option<&Tensor>); N],
) -> Result<[Tensor; N]> {
    on_device!(x, fused::forward_all(x, weights, OP));
    let values = floats(x, OP)?;
    let mut results = Vec::with_capacity(N);
    for (weight, bias) in &weights {
        let (rows, _) = weight.check(x)?;
        results.push(linear::start(rows, weight.shape.0, *bias)?);
    }
    let outputs: Vec<(&mut [f32], WriteMode)> =
        results.iter_mut().map(|(y, mode)| (y.as_mut_slice(), *mode)).collect();
    let depth = x.dims()[1];
    if let Some(plain) = each(&weights, Storage::row_major) {
        let plain: Vec<RowMajorF32<'_>> =
            plain.iter().map(|data| RowMajorF32 { data, inputs: depth }).collect();
        let plain: Vec<&RowMajorF32<'_>> = plain.iter().collect();
        panels::matmul_all(outputs, &values, &plain, depth);
    } else if let Some(packed) = each(&weights, Storage::packed_f32) {
        panels::matmul_all(outputs, &values, &packed, depth);
    } else if let Some(packed) = each(&weights, Storage::packed_f16) {
        panels::matmul_all(outputs, &values, &packed, depth);
    } else if let Some(packed) = each(&weights, Storage::packed_bf16) {
        panels::bf16::matmul_all(outputs, &values, &packed);
    } else if let Some(packed) = each(&weights, Storage::widened_bf16) {
        panels::bf16::exact_matmul_all(outputs, &values, &packed);
    } else if let Some(packed) = each(&weights, Storage::packed_blocks) {
        panels::blocks::matmul_all(outputs, &values, &packed);
    } else {
        for ((y, mode), (weight, _)) in outputs.into_iter().zip(&weights) {
            weight.product(y, mode, &values)?;
        }
    }
    let mut tensors = Vec::with_capacity(N);
    for ((y, _), (weight, _)) in results.into_iter().zip(&weights) {
        tensors.push(tensor(y, (x.dims()[0], weight.shape.0))?);
    }
    let shape =
        || Error::Shape { op: OP, what: "the numbers of outputs and weights differ".into() };
    tensors.try_into().map_err(|_| shape())
}

/// Stores weights contiguously on a device, so that their projections can run as one GEMM. On the CPU, and for
/// quantized weights or different input sizes, they are returned unchanged.
///
/// # Errors
/// Out of memory.
pub fn fuse_projections<const N: usize>(weights: [Weight; N]) -> Result<[Weight; N]> {
    #[cfg(device)]
    if let Some(copies) = contiguous_copies(&weights)? {
        return Ok(copies);
    }
    Ok(weights)
}

/// Contiguous copies of device weights; `None` if they cannot be fused or already are.
#[cfg(device)]
fn contiguous_copies<const N: usize>(weights: &[Weight; N]) -> Result<Option<[Weight; N]>> {
    let values = weights.each_ref().map(|weight| match &weight.storage {
        Storage::Device(DeviceWeight::Dense(values)) => Some(values),
        _ => None,
    });
    let Some(values) = values.into_iter().collect::<Option<Vec<_>>>() else { return Ok(None) };
    let alike = |pair: &[&Tensor]| {
        pair[0].dims()[1] == pair[1].dims()[1] && pair[0].dtype() == pair[1].dtype()
    };
    if !values.windows(2).all(alike) || FusedWeights::of(&weights.each_ref(), OP)?.is_some() {
        return Ok(None);
    }
    let parts = crate::memory::pack_contiguous(&values)?.into_iter().zip(weights);
    let moved: Vec<Weight> =
        parts.map(|(part, weight)| Weight::on_device(part, weight.shape)).collect();
    Ok(moved.try_into().ok())
}

/// The storage of each weight, if all have this kind.
fn each<'a, T>(
    weights: &[(&'a Weight, Option<&Tensor>)],
    of: impl Fn(&'a Storage) -> Option<T>,
) -> Option<Vec<T>> {
    weights.iter().map(|(weight, _)| of(&weight.storage)).collect()
}

impl Storage {
    fn row_major(&self) -> Option<Floats<'_>> {
        match self {
            Self::F32(weight) => floats(weight, OP).ok(),
            _ => None,
        }
    }

    fn packed_f32(&self) -> Option<&PackedF32> {
        match self {
            Self::PackedF32(packed) => Some(packed),
            _ => None,
        }
    }

    fn packed_f16(&self) -> Option<&PackedF16> {
        match self {
            Self::PackedF16(packed) => Some(packed),
            _ => None,
        }
    }

    fn widened_bf16(&self) -> Option<&PackedBf16> {
        match self {
            Self::WidenedBf16(packed) => Some(packed),
            _ => None,
        }
    }

    fn packed_blocks(&self) -> Option<&PackedBlocks> {
        match self {
            Self::PackedBlocks(packed) => Some(packed),
            _ => None,
        }
    }

    fn packed_bf16(&self) -> Option<&PackedBf16> {
        match self {
            Self::PackedBf16(packed) => Some(packed),
            _ => None,
        }
    }
}
