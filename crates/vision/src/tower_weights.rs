//! What a vision tower asks of its files.

use candle_core::Tensor;
use embodied_r_kernels::weight::Weight;

use crate::config::VisionConfig;
use crate::error::{Error, Result};
use crate::layout::TowerPart;
use crate::linear::Linear;
use crate::tower::ModuleSource;

/// The weights of a vision tower, by their names in `transformers`.
pub(crate) trait TowerWeights {
    /// The patch embedding.
    fn patches(&self, config: &VisionConfig) -> Result<Weight>;

    /// A vector: a norm's, or the bias of the patch embedding.
    fn vector(&self, name: &str, width: usize) -> Result<Tensor>;

    /// The learned positions in f32 (entries, hidden), of so many entries along a side.
    fn positions(&self, side: usize, hidden_size: usize) -> Result<Tensor>;

    /// `x · Wᵀ + b`.
    fn linear(&self, name: &str, outputs: usize, inputs: usize) -> Result<Linear>;

    /// The query, key and value projections of a block, each (hidden, hidden), by the name of the fused ones.
    fn qkv(&self, name: &str, hidden_size: usize) -> Result<[Linear; 3]>;

    /// Checks, from the file's header, that a part can be read.
    fn check(&self, part: &TowerPart, config: &VisionConfig) -> Result<()>;
}

impl ModuleSource<Linear, Tensor, Error> for &dyn TowerWeights {
    fn vector(&self, name: &str, width: usize) -> Result<Tensor> {
        (**self).vector(name, width)
    }

    fn positions(&self, side: usize, hidden_size: usize) -> Result<Tensor> {
        (**self).positions(side, hidden_size)
    }

    fn linear(&self, name: &str, outputs: usize, inputs: usize) -> Result<Linear> {
        (**self).linear(name, outputs, inputs)
    }

    fn qkv(&self, name: &str, hidden_size: usize) -> Result<[Linear; 3]> {
        (**self).qkv(name, hidden_size)
    }
}
