//! The tensors of a tower by module: weights, or gradients, of which frozen tensors have none.

use candle_core::Tensor;
use embodied_r_kernels::memory;

use super::tensors::{A, B, PATCHES};
use crate::config::VisionConfig;
use crate::error::{Error, Result};

/// A linear layer.
pub(super) struct Linear<T> {
    /// (outputs, inputs).
    pub(super) weight: T,
    /// (outputs).
    pub(super) bias: T,
    /// The adapter's `A` (rank, inputs) and `B` (outputs, rank), and the site of its dropout.
    pub(super) low_rank: Option<([T; 2], u64)>,
}

/// A block.
pub(super) struct Block<T> {
    pub(super) attention_norm: T,
    /// Parts of the fused projection.
    pub(super) qkv: [Linear<T>; 3],
    pub(super) o: Linear<T>,
    pub(super) feed_forward_norm: T,
    pub(super) gate: Linear<T>,
    pub(super) up: Linear<T>,
    pub(super) down: Linear<T>,
}

/// All modules of a tower.
pub(super) struct Modules<T> {
    /// The patch embedding (hidden, elements per patch).
    pub(super) patches: T,
    pub(super) blocks: Vec<Block<T>>,
    pub(super) merger_norm: T,
    pub(super) first: Linear<T>,
    pub(super) second: Linear<T>,
}

/// A tensor with views that share its memory.
pub(super) trait View: Clone {
    /// `count` rows, or elements of a vector.
    fn rows(&self, first: usize, count: usize) -> Result<Self>;

    /// All elements as a matrix.
    fn matrix(&self, rows: usize, columns: usize) -> Result<Self>;
}

impl View for Tensor {
    fn rows(&self, first: usize, count: usize) -> Result<Self> {
        Ok(self.narrow(0, first, count).map_err(embodied_r_kernels::Error::from)?)
    }

    fn matrix(&self, rows: usize, columns: usize) -> Result<Self> {
        Ok(memory::reshape(self, (rows, columns))?)
    }
}

impl View for Option<Tensor> {
    fn rows(&self, first: usize, count: usize) -> Result<Self> {
        self.as_ref().map(|tensor| tensor.rows(first, count)).transpose()
    }

    fn matrix(&self, rows: usize, columns: usize) -> Result<Self> {
        self.as_ref().map(|tensor| tensor.matrix(rows, columns)).transpose()
    }
}

impl<T: View> Modules<T> {
    /// Looks each tensor up by its name within the tower. `site` is that of the dropout of linear layers with an adapter.
    pub(super) fn new(
        config: &VisionConfig,
        site: impl Fn(&str) -> Option<u64>,
        get: impl Fn(&str) -> Result<T>,
    ) -> Result<Self> {
        let hidden = config.hidden_size;
        let linear = |name: &str| -> Result<Linear<T>> {
            let part = |part: &str| get(&format!("{name}.{part}"));
            let low_rank = |site| Ok::<_, Error>(([part(A)?, part(B)?], site));
            let low_rank = site(name).map(low_rank).transpose()?;
            Ok(Linear { weight: part("weight")?, bias: part("bias")?, low_rank })
        };
        let block = |index: usize| -> Result<Block<T>> {
            let name = |part: &str| format!("blocks.{index}.{part}");
            let fused = linear(&name("attn.qkv"))?;
            let part = |index: usize| -> Result<Linear<T>> {
                let rows = |of: &T| of.rows(index * hidden, hidden);
                // The parts share their input, and so its mask.
                let adapter =
                    |([a, b], site): &([T; 2], u64)| Ok::<_, Error>(([a.clone(), rows(b)?], *site));
                let low_rank = fused.low_rank.as_ref().map(adapter).transpose()?;
                Ok(Linear { weight: rows(&fused.weight)?, bias: rows(&fused.bias)?, low_rank })
            };
            Ok(Block {
                attention_norm: get(&name("norm1.weight"))?,
                qkv: [part(0)?, part(1)?, part(2)?],
                o: linear(&name("attn.proj"))?,
                feed_forward_norm: get(&name("norm2.weight"))?,
                gate: linear(&name("mlp.gate_proj"))?,
                up: linear(&name("mlp.up_proj"))?,
                down: linear(&name("mlp.down_proj"))?,
            })
        };
        Ok(Self {
            patches: get(PATCHES)?.matrix(hidden, config.patch_elements())?,
            blocks: (0..config.depth).map(block).collect::<Result<_>>()?,
            merger_norm: get("merger.ln_q.weight")?,
            first: linear("merger.mlp.0")?,
            second: linear("merger.mlp.2")?,
        })
    }
}
