//! What a vision tower asks of its files.

use candle_core::Tensor;
use embodied_r_kernels::weight::Weight;

use crate::config::VisionConfig;
use crate::error::Result;
use crate::linear::Linear;

/// The weights of a vision tower, by their names in `transformers`.
pub(crate) trait TowerWeights {
    /// The patch embedding.
    fn patches(&self, config: &VisionConfig) -> Result<Weight>;

    /// The weights of a norm.
    fn norm(&self, name: &str, hidden_size: usize) -> Result<Tensor>;

    /// `x · Wᵀ + b`.
    fn linear(&self, name: &str, outputs: usize, inputs: usize) -> Result<Linear>;

    /// The query, key and value projections of a block, each (hidden, hidden).
    fn qkv(&self, block: usize, hidden_size: usize) -> Result<[Linear; 3]>;

    /// Checks, from the file's header, that one of the above can be read.
    fn check(&self, part: &TowerPart, config: &VisionConfig) -> Result<()>;
}

/// What a tower asks of its [`TowerWeights`], with the same arguments.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TowerPart {
    Patches,
    Norm(String, usize),
    Linear(String, usize, usize),
    Qkv(usize, usize),
}
