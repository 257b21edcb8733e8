//! Memory that a rank's part of a decoder takes, before anything is loaded.

use embodied_r_kernels::weight::WeightFormat;

use super::{Slice, Split};
use crate::config::ModelConfig;
use crate::error::Result;
use crate::weights::tensor_shapes;

/// Memory of the rank that has most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartBytes {
    /// Bytes of the weights. Vectors are held in f32, or in bf16 beside matrices of fewer bits.
    pub weights: usize,
    /// Numbers of a token's keys and values.
    pub kv_numbers: usize,
    /// Numbers that a layer holds at a time for each token: the residual stream, its norm and sum, the queries, keys and
    /// values, and the gated products.
    pub layer_numbers: usize,
}

impl PartBytes {
    /// That of a decoder whose matrices are held in `format`, on so many ranks.
    ///
    /// # Errors
    /// [`crate::Error::Split`] if it cannot be split so.
    pub fn new(config: &ModelConfig, format: WeightFormat, ranks: usize) -> Result<Self> {
        let split =
            |rank| Split::new(config, (rank, ranks), block(format, config.intermediate_size));
        // Where shares differ, the last rank has the larger one.
        let split = split(ranks.saturating_sub(1))?;
        let shapes = tensor_shapes(config);
        let weights = shapes.iter().map(|(name, shape)| bytes(shape, &split.of(name), format));
        let heads = split.heads;
        let kv_width = heads.kv * heads.dim;
        let inner = match split.of("mlp.down_proj.weight") {
            Slice::Columns(columns) => columns.len(),
            _ => config.intermediate_size,
        };
        Ok(Self {
            weights: weights.sum(),
            kv_numbers: 2 * config.num_hidden_layers * kv_width,
            layer_numbers: 3 * config.hidden_size
                + 2 * heads.query * heads.dim
                + 2 * kv_width
                + 3 * inner,
        })
    }
}

/// Bytes of a part of a tensor of this shape.
fn bytes(shape: &[usize], slice: &Slice, format: WeightFormat) -> usize {
    let (rows, columns) = match shape {
        [rows, columns] => (*rows, *columns),
        _ => (1, shape.iter().product()),
    };
    let (rows, columns) = match slice {
        Slice::Rows(taken) if shape.len() == 2 => (taken.len(), columns),
        Slice::Rows(taken) => (1, taken.len()),
        Slice::Columns(taken) => (rows, taken.len()),
        Slice::Whole => (rows, columns),
    };
    let row = match format {
        WeightFormat::Blocks(blocks) if shape.len() == 2 => {
            blocks.row_bytes(columns).unwrap_or(2 * columns)
        }
        WeightFormat::F32 => 4 * columns,
        _ => 2 * columns,
    };
    rows * row
}

/// Numbers that a row of so many holds together in a format; rows that are no whole blocks are held as bf16.
pub(crate) fn block(format: WeightFormat, inputs: usize) -> usize {
    match format {
        WeightFormat::Blocks(blocks) if blocks.row_bytes(inputs).is_some() => blocks.block_len(),
        _ => 1,
    }
}
