//! Whether a stored LM head is a copy of the embedding matrix.

use std::path::Path;

use rayon::prelude::*;

use super::file::WeightFile;
use super::names::canonical;
use super::read::{LazyTensor, is_float, open, values};
use crate::tensors::{EMBEDDING, HEAD};

/// Elements that are converted and compared at a time.
const CHUNK: usize = 1 << 16;

/// Whether the weight files of `dir` have an LM head that differs from the embedding matrix, which contradicts
/// `tie_word_embeddings`. If they cannot be read, there is none: loading them reports why.
pub(crate) fn has_own_head(dir: &Path) -> bool {
    let Ok(files) = open(dir) else { return false };
    match (named(&files, HEAD), named(&files, EMBEDDING)) {
        (Some(head), Some(embedding)) => !head.equals(&embedding),
        _ => false,
    }
}

/// The tensor with a canonical name.
fn named(files: &[WeightFile], wanted: &str) -> Option<LazyTensor> {
    files.iter().find_map(|file| {
        let mut tensors = file.iter();
        let (_, stored) = tensors.find(|(name, _)| canonical(name).as_deref() == Some(wanted))?;
        Some(LazyTensor { file: file.clone(), stored: stored.clone() })
    })
}

impl LazyTensor {
    /// Whether both tensors have the same shape and the same numbers, whatever their dtypes.
    pub(super) fn equals(&self, other: &Self) -> bool {
        let (this, that) = (&self.stored, &other.stored);
        if this.shape != that.shape {
            return false;
        }
        if this.dtype == that.dtype && self.file.bytes(this) == other.file.bytes(that) {
            return true;
        }
        if !(is_float(this.dtype) && is_float(that.dtype)) {
            return false;
        }
        let count = this.shape.iter().product::<usize>();
        (0..count.div_ceil(CHUNK)).into_par_iter().all(|chunk| {
            let range = chunk * CHUNK..count.min((chunk + 1) * CHUNK);
            values(this.dtype, self.file.part(this, range.clone()))
                == values(that.dtype, other.file.part(that, range))
        })
    }
}
