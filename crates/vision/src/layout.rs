//! What a vision tower is made of: its tensors in the order of the forward pass, with their names and shapes.

use crate::sizes::TowerSizes;

/// The parts in which towers differ.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TowerLayout {
    pub(crate) norm: NormKind,
    pub(crate) feed_forward: FeedForwardKind,
    /// Whether the patch embedding has a bias.
    pub(crate) patch_bias: bool,
    /// Entries of learned positions along a side, if there are any.
    pub(crate) positions: Option<usize>,
    /// The mergers by the level of the features that they give: the last one, then those that DeepStack adds.
    pub(crate) mergers: Vec<MergerLayout>,
}

/// The norms of blocks and mergers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NormKind {
    /// RMSNorm.
    Rms,
    /// LayerNorm.
    Layer,
}

/// The feed-forward layer of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FeedForwardKind {
    /// `down(silu(gate(x)) · up(x))`.
    Gated,
    /// `fc2(gelu_tanh(fc1(x)))`.
    Plain,
}

/// A merger: a norm and two linear layers with GELU between them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct MergerLayout {
    /// The names of the norm and of the linear layers.
    pub(crate) names: [String; 3],
    /// The block behind which it is.
    pub(crate) after: usize,
    /// Whether the patches of a token are joined before the norm.
    pub(crate) joins_first: bool,
}

/// The patch embedding.
pub(crate) const PATCHES: &str = "patch_embed.proj.weight";
/// Its bias.
pub(crate) const PATCH_BIAS: &str = "patch_embed.proj.bias";
/// The learned positions.
pub(crate) const POSITIONS: &str = "pos_embed.weight";

/// The shape of the patch embedding: (hidden, channels, frames, side, side).
pub(crate) fn patches_shape(sizes: &TowerSizes) -> [usize; 5] {
    let TowerSizes { hidden_size, in_channels, temporal_patch_size, patch_size, .. } = *sizes;
    [hidden_size, in_channels, temporal_patch_size, patch_size, patch_size]
}

/// A part of a tower.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TowerPart {
    /// The patch embedding.
    Patches,
    /// A vector of this name and width.
    Vector(String, usize),
    /// Learned positions: entries along a side.
    Positions(usize),
    /// A linear layer with a bias: its name, outputs and inputs.
    Linear(String, usize, usize),
    /// The query, key and value projections of a block, of one size.
    Qkv(usize, usize),
}

/// The name of a block's fused query, key and value projections.
pub(crate) fn qkv_name(block: usize) -> String {
    format!("blocks.{block}.attn.qkv")
}

impl TowerPart {
    /// The names and shapes of its tensors.
    pub(crate) fn tensors(&self, sizes: &TowerSizes) -> Vec<(String, Vec<usize>)> {
        let linear = |name: &str, outputs: usize, inputs: usize| {
            let weight = (format!("{name}.weight"), vec![outputs, inputs]);
            vec![weight, (format!("{name}.bias"), vec![outputs])]
        };
        match self {
            Self::Patches => vec![(PATCHES.to_owned(), patches_shape(sizes).to_vec())],
            Self::Vector(name, width) => vec![(name.clone(), vec![*width])],
            Self::Positions(side) => {
                vec![(POSITIONS.to_owned(), vec![side * side, sizes.hidden_size])]
            }
            Self::Linear(name, outputs, inputs) => linear(name, *outputs, *inputs),
            Self::Qkv(block, width) => linear(&qkv_name(*block), 3 * width, *width),
        }
    }
}

/// A stage of the forward pass, in its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Stage {
    /// The number of blocks before it, itself included.
    blocks: usize,
    is_merger: bool,
}

impl Stage {
    /// The patch embedding with the positions.
    pub(crate) const PATCHES: Self = Self { blocks: 0, is_merger: false };

    pub(crate) fn block(index: usize) -> Self {
        Self { blocks: index + 1, is_merger: false }
    }

    /// The mergers behind a block.
    pub(crate) fn mergers(after: usize) -> Self {
        Self { blocks: after + 1, is_merger: true }
    }

    /// Whether it belongs to the aligner.
    pub(crate) fn is_merger(self) -> bool {
        self.is_merger
    }
}

impl TowerLayout {
    /// The indices of the mergers in the order of the forward pass: those of DeepStack, then the last.
    pub(crate) fn merger_order(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (1..self.mergers.len()).chain([0]).collect();
        order.sort_by_key(|index| self.mergers[*index].after);
        order
    }

    /// All parts, in the order of the forward pass.
    pub(crate) fn parts(&self, sizes: &TowerSizes) -> Vec<(Stage, TowerPart)> {
        let (h, inner) = (sizes.hidden_size, sizes.intermediate_size);
        let linear = |name: String, outputs, inputs| vec![TowerPart::Linear(name, outputs, inputs)];
        let mut parts = vec![(Stage::PATCHES, TowerPart::Patches)];
        let bias = self.patch_bias.then(|| TowerPart::Vector(PATCH_BIAS.to_owned(), h));
        let positions = self.positions.map(TowerPart::Positions);
        parts.extend(bias.into_iter().chain(positions).map(|part| (Stage::PATCHES, part)));
        let order = self.merger_order();
        for index in 0..sizes.depth {
            let name = |part: &str| format!("blocks.{index}.{part}");
            let feed_forward = match self.feed_forward {
                FeedForwardKind::Gated => [
                    linear(name("mlp.gate_proj"), inner, h),
                    linear(name("mlp.up_proj"), inner, h),
                    linear(name("mlp.down_proj"), h, inner),
                ]
                .concat(),
                FeedForwardKind::Plain => [
                    linear(name("mlp.linear_fc1"), inner, h),
                    linear(name("mlp.linear_fc2"), h, inner),
                ]
                .concat(),
            };
            let of_block = [
                self.norm.parts(&name("norm1"), h),
                vec![TowerPart::Qkv(index, h)],
                linear(name("attn.proj"), h, h),
                self.norm.parts(&name("norm2"), h),
                feed_forward,
            ];
            let stage = Stage::block(index);
            parts.extend(of_block.into_iter().flatten().map(|part| (stage, part)));
            let behind = order.iter().map(|merger| &self.mergers[*merger]);
            for merger in behind.filter(|merger| merger.after == index) {
                let parts_of = self.merger_parts(merger, sizes).into_iter();
                parts.extend(parts_of.map(|part| (Stage::mergers(index), part)));
            }
        }
        parts
    }

    fn merger_parts(&self, merger: &MergerLayout, sizes: &TowerSizes) -> Vec<TowerPart> {
        let wide = sizes.merged_size();
        let [norm, first, second] = &merger.names;
        let width = if merger.joins_first { wide } else { sizes.hidden_size };
        let mut parts = self.norm.parts(norm, width);
        parts.push(TowerPart::Linear(first.clone(), wide, wide));
        parts.push(TowerPart::Linear(second.clone(), sizes.out_hidden_size, wide));
        parts
    }
}

impl NormKind {
    /// Statistics of a row that the backward takes.
    pub(crate) fn statistics(self) -> usize {
        match self {
            Self::Rms => 1,
            Self::Layer => 2,
        }
    }

    /// Its vectors, by the norm's name.
    fn parts(self, name: &str, width: usize) -> Vec<TowerPart> {
        let vector = |part: &str| TowerPart::Vector(format!("{name}.{part}"), width);
        match self {
            Self::Rms => vec![vector("weight")],
            Self::Layer => vec![vector("weight"), vector("bias")],
        }
    }
}
