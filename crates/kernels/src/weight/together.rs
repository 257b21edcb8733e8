//! Products with several weights at once.

use candle_core::Tensor;

use super::{OP, Storage, Weight};
#[cfg(device)]
use crate::cuda::{together::Stack, weight::Held};
use crate::device::on_device;
use crate::error::{Error, Result};
use crate::linear;
use crate::matmul::Into;
use crate::memory::{Floats, floats, tensor};
use crate::panels::bf16::Packed;
use crate::panels::{self, Plain, Turned};

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
    on_device!(x, together::forward_all(x, weights, OP));
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

/// The same weights, on a device one behind the other in one tensor's memory, so that products with them can be one. On
/// the CPU, and where they are no numbers of one width, they stay as they are.
///
/// # Errors
/// There is no room for another copy of them.
pub fn side_by_side<const N: usize>(weights: [Weight; N]) -> Result<[Weight; N]> {
    #[cfg(device)]
    if let Some(moved) = moved_together(&weights)? {
        return Ok(moved);
    }
    Ok(weights)
}

/// The weights of a device one behind the other, if they can be and are not.
#[cfg(device)]
fn moved_together<const N: usize>(weights: &[Weight; N]) -> Result<Option<[Weight; N]>> {
    let numbers = weights.each_ref().map(|weight| match &weight.storage {
        Storage::Device(Held::Numbers(numbers)) => Some(numbers),
        _ => None,
    });
    let Some(numbers) = numbers.into_iter().collect::<Option<Vec<_>>>() else { return Ok(None) };
    let alike = |pair: &[&Tensor]| {
        pair[0].dims()[1] == pair[1].dims()[1] && pair[0].dtype() == pair[1].dtype()
    };
    if !numbers.windows(2).all(alike) || Stack::of(&weights.each_ref(), OP)?.is_some() {
        return Ok(None);
    }
    let parts = crate::memory::end_to_end(&numbers)?.into_iter().zip(weights);
    let moved: Vec<Weight> =
        parts.map(|(part, weight)| Weight::on_device(part, weight.shape)).collect();
    Ok(moved.try_into().ok())
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
