//! Qwen2.5-VL's vision tower: patches in, the decoder's tokens out.
//!
//! Blocks of RMS norms, attention with a rotary embedding in height and width, and a gated feed-forward
//! layer. In most blocks a patch sees its window alone, in a few all of its frame; patches are put in the
//! order of the windows once, and back at the end. Of the merged patches two layers make a token.

use candle_core::{Device, Tensor};
use embodied_r_kernels::attention::{self, GroupSpan, Heads, Pattern};
use embodied_r_kernels::rope::{Angles, Frequencies};
use embodied_r_kernels::weight::{self, Weight};
use embodied_r_kernels::{embedding, gelu, memory, qkv, rms_norm, swiglu};

use crate::config::VisionConfig;
use crate::error::{Error, Result};
use crate::grid::Grid;
use crate::processor::Pixels;
use crate::source::TowerWeights;
use crate::windows::Windows;

/// Added to the mean square in the tower's norms.
const EPS: f64 = 1e-6;

/// A vision tower.
pub(crate) struct Tower {
    config: VisionConfig,
    patch_embedding: Weight,
    blocks: Vec<Block>,
    merger: Merger,
    frequencies: Frequencies,
}

struct Block {
    attention_norm: Tensor,
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    feed_forward_norm: Tensor,
    gate: Linear,
    up: Linear,
    down: Linear,
}

/// What makes a token of merged patches.
struct Merger {
    norm: Tensor,
    first: Linear,
    second: Linear,
}

/// `x · Wᵀ + b`.
pub(crate) struct Linear {
    pub(crate) weight: Weight,
    pub(crate) bias: Tensor,
}

impl Linear {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(self.weight.forward(x, Some(&self.bias))?)
    }

    fn forward_add(&self, x: &Tensor, y: &Tensor) -> Result<Tensor> {
        Ok(self.weight.forward_add(x, y, Some(&self.bias))?)
    }

    fn parts(&self) -> (&Weight, Option<&Tensor>) {
        (&self.weight, Some(&self.bias))
    }
}

/// What the blocks of one pass share.
struct Pass {
    angles: Angles,
    windows: Vec<GroupSpan>,
    frames: Vec<GroupSpan>,
    heads: Heads,
}

impl Tower {
    /// The tower of `config`.
    ///
    /// # Errors
    /// What `weights` returns.
    pub(crate) fn new(config: VisionConfig, weights: &dyn TowerWeights) -> Result<Self> {
        let (h, inner) = (config.hidden_size, config.intermediate_size);
        let block = |index: usize| -> Result<Block> {
            let name = |part: &str| format!("blocks.{index}.{part}");
            let [q, k, v] = weights.qkv(index, h)?;
            let [q_weight, k_weight, v_weight] =
                weight::side_by_side([q.weight, k.weight, v.weight])?;
            Ok(Block {
                attention_norm: weights.norm(&name("norm1"), h)?,
                q: Linear { weight: q_weight, ..q },
                k: Linear { weight: k_weight, ..k },
                v: Linear { weight: v_weight, ..v },
                o: weights.linear(&name("attn.proj"), h, h)?,
                feed_forward_norm: weights.norm(&name("norm2"), h)?,
                gate: weights.linear(&name("mlp.gate_proj"), inner, h)?,
                up: weights.linear(&name("mlp.up_proj"), inner, h)?,
                down: weights.linear(&name("mlp.down_proj"), h, inner)?,
            })
        };
        let wide = h * config.merged();
        Ok(Self {
            patch_embedding: weights.patches(&config)?,
            blocks: (0..config.depth).map(block).collect::<Result<_>>()?,
            merger: Merger {
                norm: weights.norm("merger.ln_q", h)?,
                first: weights.linear("merger.mlp.0", wide, wide)?,
                second: weights.linear("merger.mlp.2", config.out_hidden_size, wide)?,
            },
            frequencies: frequencies(&config),
            config,
        })
    }

    /// The tower's shape.
    pub(crate) fn config(&self) -> &VisionConfig {
        &self.config
    }

    /// Where it computes.
    fn device(&self) -> &Device {
        self.merger.norm.device()
    }

    /// The decoder's tokens for each image or video, in the host's memory. What one gives does not depend on the others, to the bit.
    ///
    /// # Shapes
    /// Gives (tokens, hidden of the decoder) for each.
    ///
    /// # Errors
    /// [`Error::Patches`] if a picture was cut into other patches than the tower's.
    pub(crate) fn forward(&self, pictures: &[&Pixels]) -> Result<Vec<Tensor>> {
        let Some(patches) = self.joined(pictures)? else { return Ok(Vec::new()) };
        let grids: Vec<Grid> = pictures.iter().map(|picture| picture.grid).collect();
        let Windows { patches: order, tokens, places, windows, frames } =
            Windows::new(&grids, &self.config);
        let pairs = self.config.head_dim() / 4;
        let angles = Angles::multimodal(&places, [pairs, pairs, 0], &self.frequencies)?;
        let (heads, dim) = (self.config.num_heads, self.config.head_dim());
        let heads = Heads { query: heads, kv: heads, dim };
        let pass = Pass { angles, windows, frames, heads };
        // Patches come from the host; of weights of fewer bits on a device activations have as few.
        let x = memory::to_device(&embedding::gather(&patches, &order)?, self.device())?;
        drop(patches);
        let x =
            x.to_dtype(self.patch_embedding.dtype()).map_err(embodied_r_kernels::Error::from)?;
        let x = self.patch_embedding.forward(&x, None)?;
        let x =
            self.blocks.iter().enumerate().try_fold(x, |x, (index, block)| {
                block.forward(x, &pass, self.config.is_full(index))
            })?;
        let merged = embedding::gather(&self.merger.forward(&x, self.config.merged())?, &tokens)?;
        let merged = memory::fetched(&merged)?;
        let mut first = 0;
        let of_grid = |grid: &Grid| {
            let start = first;
            first += grid.tokens(self.config.spatial_merge_size);
            Ok(memory::rows(&merged, start..first)?)
        };
        grids.iter().map(of_grid).collect()
    }

    /// The patches of all pictures, end to end.
    fn joined(&self, pictures: &[&Pixels]) -> Result<Option<Tensor>> {
        for picture in pictures {
            let Grid { height, width, .. } = picture.grid;
            let whole = height.is_multiple_of(self.config.spatial_merge_size)
                && width.is_multiple_of(self.config.spatial_merge_size);
            let wanted = [picture.grid.patches(), self.config.patch_numbers()];
            if !whole || picture.patches.dims() != wanted || picture.grid.patches() == 0 {
                let found = picture.patches.dims();
                let told = format!("patches of shape {found:?} where the tower takes {wanted:?}");
                return Err(Error::Patches(told));
            }
        }
        let patches: Vec<&Tensor> = pictures.iter().map(|picture| &picture.patches).collect();
        match patches[..] {
            [] => Ok(None),
            [one] => Ok(Some(one.clone())),
            _ => Ok(Some(memory::stacked(&patches)?)),
        }
    }
}

impl Block {
    /// # Shapes
    /// `x` and the result (patches, hidden).
    fn forward(&self, x: Tensor, pass: &Pass, is_full: bool) -> Result<Tensor> {
        let normed = rms_norm::forward(&x, &self.attention_norm, EPS)?.y;
        let weights = [self.q.parts(), self.k.parts(), self.v.parts()];
        let [q, k, v] = qkv::forward(&normed, weights, &pass.angles, pass.heads)?;
        drop(normed);
        let spans = if is_full { &pass.frames } else { &pass.windows };
        let pattern = Pattern { heads: pass.heads, window: None, causal: false };
        let attended = attention::forward(&q, &k, &v, spans, pattern)?.out;
        drop((q, k, v));
        let x = self.o.forward_add(&attended, &x)?;
        drop(attended);
        let normed = rms_norm::forward(&x, &self.feed_forward_norm, EPS)?.y;
        let [gate, up] = weight::forward_all(&normed, [self.gate.parts(), self.up.parts()])?;
        self.down.forward_add(&swiglu::forward(&gate, &up)?, &x)
    }
}

impl Merger {
    /// # Shapes
    /// `x` (patches, hidden), of which `merged` after each other become a token; gives (tokens, hidden of the
    /// decoder).
    fn forward(&self, x: &Tensor, merged: usize) -> Result<Tensor> {
        let (patches, hidden) = (x.dims()[0], x.dims()[1]);
        let normed = rms_norm::forward(x, &self.norm, EPS)?.y;
        let wide = memory::reshaped(&normed, (patches / merged, hidden * merged))?;
        self.second.forward(&gelu::forward(&self.first.forward(&wide)?)?)
    }
}

/// Frequencies of a head's pairs: the first half turns by the height, the second by the width.
fn frequencies(config: &VisionConfig) -> Frequencies {
    let pairs = config.head_dim() / 4;
    let inverse = |pair: usize| {
        let exponent = (2 * pair) as f32 / (2 * pairs) as f32;
        (config.theta().powf(f64::from(exponent)) as f32).recip()
    };
    let inverse: Vec<f32> = (0..pairs).map(inverse).collect();
    Frequencies { inverse: [inverse.clone(), inverse].concat(), attention_factor: 1.0 }
}
