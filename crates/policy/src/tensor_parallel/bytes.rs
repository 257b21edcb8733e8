//! Estimates the memory of a tensor-parallel shard before it is loaded.

use embodied_r_kernels::weight::WeightFormat;

use super::{Shard, TensorSlice};
use crate::config::ModelConfig;
use crate::error::Result;
use crate::tensors::tensor_shapes;

/// Memory of the largest shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShardBytes {
    /// Bytes of the weights. Norms and biases are f32 with f32 matrices, else bf16.
    pub weights: usize,
    /// KV-cache elements per token.
    pub kv_elements_per_token: usize,
    /// Peak activation elements of a layer per token: the residual stream, its norm and its sum, queries, keys and
    /// values, and the MLP's activations.
    pub layer_elements_per_token: usize,
}

impl ShardBytes {
    /// The memory of a decoder with matrices in `format`, on `ranks` ranks.
    ///
    /// # Errors
    /// [`crate::Error::ShardSize`] if it cannot be sharded.
    pub fn new(config: &ModelConfig, format: WeightFormat, ranks: usize) -> Result<Self> {
        let shard =
            |rank| Shard::new(config, (rank, ranks), format.block_len(config.intermediate_size));
        // If shards differ in size, the last rank has the largest.
        let shard = shard(ranks.saturating_sub(1))?;
        let shapes = tensor_shapes(config);
        let weights = shapes.iter().map(|(name, shape)| bytes(shape, &shard.of(name), format));
        let heads = shard.heads;
        let kv_width = heads.kv * heads.dim;
        Ok(Self {
            weights: weights.sum(),
            kv_elements_per_token: 2 * config.num_hidden_layers * kv_width,
            layer_elements_per_token: 3 * config.hidden_size
                + 2 * heads.query * heads.dim
                + 2 * kv_width
                + 3 * shard.inner_size(),
        })
    }
}

/// Bytes of a slice of a tensor of this shape.
fn bytes(shape: &[usize], slice: &TensorSlice, format: WeightFormat) -> usize {
    let (rows, columns) = match shape {
        [rows, columns] => (*rows, *columns),
        _ => (1, shape.iter().product()),
    };
    // A slice has the format of the whole matrix.
    let format = if shape.len() == 2 { format.for_rows(columns) } else { format.of_vectors() };
    let (rows, columns) = match slice {
        TensorSlice::Rows(taken) if shape.len() == 2 => (taken.len(), columns),
        TensorSlice::Rows(taken) => (1, taken.len()),
        TensorSlice::Columns(taken) => (rows, taken.len()),
        TensorSlice::Whole => (rows, columns),
    };
    rows * format.row_bytes(columns)
}
