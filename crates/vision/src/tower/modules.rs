//! The modules of a tower: of weights, or of gradients, which frozen tensors have none of.

use super::norm::Norm;
use crate::config::VisionConfig;
use crate::layout::{FeedForwardKind, PATCH_BIAS, qkv_name};

/// A block of linear layers `L` and vectors `T`.
pub(crate) struct Block<L, T> {
    pub(crate) attention_norm: Norm<T>,
    pub(crate) qkv: [L; 3],
    pub(crate) o: L,
    pub(crate) feed_forward_norm: Norm<T>,
    pub(crate) feed_forward: FeedForward<L>,
}

/// A feed-forward layer.
pub(crate) enum FeedForward<L> {
    Gated { gate: L, up: L, down: L },
    Plain { first: L, second: L },
}

/// A merger: from adjacent patches to a token of the decoder.
pub(crate) struct Merger<L, T> {
    pub(crate) norm: Norm<T>,
    pub(crate) first: L,
    pub(crate) second: L,
    /// Whether the patches of a token are joined before the norm.
    pub(crate) joins_first: bool,
    /// The block behind which it is.
    pub(crate) after: usize,
}

/// All modules but the patch embedding.
pub(crate) struct Modules<L, T> {
    pub(crate) patch_bias: Option<T>,
    /// The learned positions (entries, hidden).
    pub(crate) positions: Option<T>,
    pub(crate) blocks: Vec<Block<L, T>>,
    /// By the level of the features that they give.
    pub(crate) mergers: Vec<Merger<L, T>>,
}

/// What modules are built from, by name.
pub(crate) trait ModuleSource<L, T, E> {
    /// A vector.
    fn vector(&self, name: &str, width: usize) -> Result<T, E>;

    /// The learned positions, of so many entries along a side.
    fn positions(&self, side: usize, hidden_size: usize) -> Result<T, E>;

    /// A linear layer.
    fn linear(&self, name: &str, outputs: usize, inputs: usize) -> Result<L, E>;

    /// The three parts of a block's fused projection, each (hidden, hidden).
    fn qkv(&self, name: &str, hidden_size: usize) -> Result<[L; 3], E>;
}

impl<L, T> Modules<L, T> {
    /// The modules of a tower of `config`.
    ///
    /// # Errors
    /// Those of `source`.
    pub(crate) fn new<E>(
        config: &VisionConfig,
        source: &impl ModuleSource<L, T, E>,
    ) -> Result<Self, E> {
        let (h, inner, wide) = (config.hidden_size, config.intermediate_size, config.merged_size());
        let layout = config.layout();
        let norm = |name: &str, width: usize| {
            Norm::new(layout.norm, name, |name| source.vector(name, width))
        };
        let block = |index: usize| -> Result<Block<L, T>, E> {
            let name = |part: &str| format!("blocks.{index}.{part}");
            let linear = |part: &str, outputs, inputs| source.linear(&name(part), outputs, inputs);
            Ok(Block {
                attention_norm: norm(&name("norm1"), h)?,
                qkv: source.qkv(&qkv_name(index), h)?,
                o: linear("attn.proj", h, h)?,
                feed_forward_norm: norm(&name("norm2"), h)?,
                feed_forward: match layout.feed_forward {
                    FeedForwardKind::Gated => FeedForward::Gated {
                        gate: linear("mlp.gate_proj", inner, h)?,
                        up: linear("mlp.up_proj", inner, h)?,
                        down: linear("mlp.down_proj", h, inner)?,
                    },
                    FeedForwardKind::Plain => FeedForward::Plain {
                        first: linear("mlp.linear_fc1", inner, h)?,
                        second: linear("mlp.linear_fc2", h, inner)?,
                    },
                },
            })
        };
        let mergers = layout.mergers.iter().map(|merger| {
            let [name, first, second] = &merger.names;
            Ok(Merger {
                norm: norm(name, if merger.joins_first { wide } else { h })?,
                first: source.linear(first, wide, wide)?,
                second: source.linear(second, config.out_hidden_size, wide)?,
                joins_first: merger.joins_first,
                after: merger.after,
            })
        });
        let patch_bias = layout.patch_bias.then(|| source.vector(PATCH_BIAS, h)).transpose()?;
        let positions = layout.positions.map(|side| source.positions(side, h)).transpose()?;
        Ok(Self {
            patch_bias,
            positions,
            mergers: mergers.collect::<Result<_, E>>()?,
            blocks: (0..config.depth).map(block).collect::<Result<_, E>>()?,
        })
    }
}
