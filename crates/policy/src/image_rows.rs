//! Image embeddings in the input of the decoder, and their gradients.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use candle_core::Tensor;
use embodied_r_kernels::memory;
use indexmap::IndexMap;

use crate::error::{Result, TensorContext as _};

/// Replaces the rows of `x` from `row` on by the rows `range` of image embeddings.
///
/// # Shapes
/// `x` (tokens, hidden), `embeddings` (tokens of the image, hidden).
pub(crate) fn insert(
    x: &Tensor,
    row: usize,
    embeddings: &Tensor,
    range: Range<usize>,
) -> Result<()> {
    let embeddings = embeddings.to_device(x.device()).and_then(|it| it.to_dtype(x.dtype()));
    Ok(memory::copy_rows(x, row, &embeddings.context("insert image embeddings")?, range)?)
}

/// The gradients of image embeddings, summed over the prompts with that image.
#[derive(Debug, Default)]
pub struct ImageGradients(Mutex<IndexMap<u128, Tensor>>);

impl ImageGradients {
    /// Adds the gradient of the image of that digest (tokens, hidden).
    pub(crate) fn add(&self, digest: u128, gradient: &Tensor) -> Result<()> {
        let mut of_images = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match of_images.get(&digest) {
            Some(sum) => memory::add(sum, gradient)?,
            None => drop(of_images.insert(digest, memory::copy(gradient)?)),
        }
        Ok(())
    }

    /// Takes the gradients by digest (tokens, hidden), in the order of the first backward passes.
    #[must_use]
    pub fn take(&self) -> IndexMap<u128, Tensor> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
