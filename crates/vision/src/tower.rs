//! Qwen2.5-VL's vision tower: from patches to decoder tokens.
//!
//! Each block has RMS norms, attention with a 2-D rotary embedding, and a gated feed-forward layer. Most blocks use
//! window attention, a few full attention over the frame; patches are sorted by window once and restored at the end. A
//! two-layer MLP merges adjacent patches into tokens.

use candle_core::{Device, Tensor};
use embodied_r_kernels::attention::{self, GroupSpan, Heads, Pattern};
use embodied_r_kernels::rope::{CosSinCache, Frequencies};
use embodied_r_kernels::weight::{self, Weight};
use embodied_r_kernels::{embedding, gelu, memory, qkv, rms_norm, swiglu};

use crate::config::VisionConfig;
use crate::error::{Error, Result};
use crate::grid::Grid;
use crate::linear::Linear;
use crate::processor::Pixels;
use crate::tower_weights::{TowerPart, TowerWeights};
use crate::windows::Windows;

/// Epsilon of the RMS norms.
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

/// Merges adjacent patches into tokens.
struct Merger {
    norm: Tensor,
    first: Linear,
    second: Linear,
}

/// The shared inputs of all blocks in a forward pass.
struct Pass {
    cos_sin: CosSinCache,
    windows: Vec<GroupSpan>,
    frames: Vec<GroupSpan>,
    heads: Heads,
}

impl Tower {
    /// The tower of `config`.
    ///
    /// # Errors
    /// Those of `weights`.
    pub(crate) fn new(config: VisionConfig, weights: &dyn TowerWeights) -> Result<Self> {
        let (h, inner) = (config.hidden_size, config.intermediate_size);
        let block = |index: usize| -> Result<Block> {
            let name = |part: &str| format!("blocks.{index}.{part}");
            let [q, k, v] = weights.qkv(index, h)?;
            let [q_weight, k_weight, v_weight] =
                weight::fuse_projections([q.weight, k.weight, v.weight])?;
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
        let wide = h * config.patches_per_token();
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

    /// All that [`Self::new`] asks of the weights of a tower of `config`.
    pub(crate) fn parts(config: &VisionConfig) -> Vec<TowerPart> {
        let (h, inner) = (config.hidden_size, config.intermediate_size);
        let wide = h * config.patches_per_token();
        let linear =
            |name: &str, outputs, inputs| TowerPart::Linear(name.to_owned(), outputs, inputs);
        let mut parts = vec![
            TowerPart::Patches,
            TowerPart::Norm("merger.ln_q".to_owned(), h),
            linear("merger.mlp.0", wide, wide),
            linear("merger.mlp.2", config.out_hidden_size, wide),
        ];
        for index in 0..config.depth {
            let name = |part: &str| format!("blocks.{index}.{part}");
            parts.extend([
                TowerPart::Qkv(index, h),
                TowerPart::Norm(name("norm1"), h),
                TowerPart::Norm(name("norm2"), h),
                linear(&name("attn.proj"), h, h),
                linear(&name("mlp.gate_proj"), inner, h),
                linear(&name("mlp.up_proj"), inner, h),
                linear(&name("mlp.down_proj"), h, inner),
            ]);
        }
        parts
    }

    /// The tower's configuration.
    pub(crate) fn config(&self) -> &VisionConfig {
        &self.config
    }

    /// The tower's device.
    fn device(&self) -> &Device {
        self.merger.norm.device()
    }

    /// The decoder tokens of each image or video, in host memory. They do not depend on the other images, to the bit.
    ///
    /// # Shapes
    /// Returns (tokens, hidden size of the decoder) for each.
    ///
    /// # Errors
    /// [`Error::Patches`] if an image's patches do not match the tower's.
    pub(crate) fn forward(&self, images: &[&Pixels]) -> Result<Vec<Tensor>> {
        let Some(patches) = self.joined(images)? else { return Ok(Vec::new()) };
        let grids: Vec<Grid> = images.iter().map(|image| image.grid).collect();
        let Windows { patches: order, tokens, position_ids, windows, frames } =
            Windows::new(&grids, &self.config);
        let pairs = self.config.head_dim() / 4;
        let cos_sin = CosSinCache::multimodal(&position_ids, [pairs, pairs, 0], &self.frequencies)?;
        let (heads, dim) = (self.config.num_heads, self.config.head_dim());
        let heads = Heads { query: heads, kv: heads, dim };
        let pass = Pass { cos_sin, windows, frames, heads };
        // Patches come from the host. On a device, activations have the dtype of the weights.
        let x = memory::to_device(&embedding::gather(&patches, &order)?, self.device())?;
        drop(patches);
        let x =
            x.to_dtype(self.patch_embedding.dtype()).map_err(embodied_r_kernels::Error::from)?;
        let x = self.patch_embedding.forward(&x, None)?;
        let x =
            self.blocks.iter().enumerate().try_fold(x, |x, (index, block)| {
                block.forward(x, &pass, self.config.is_full(index))
            })?;
        let merged =
            embedding::gather(&self.merger.forward(&x, self.config.patches_per_token())?, &tokens)?;
        let merged = memory::to_host(&merged)?;
        let mut first = 0;
        let of_grid = |grid: &Grid| {
            let start = first;
            first += grid.tokens(self.config.spatial_merge_size);
            Ok(memory::rows(&merged, start..first)?)
        };
        grids.iter().map(of_grid).collect()
    }

    /// The patches of all images, concatenated.
    fn joined(&self, images: &[&Pixels]) -> Result<Option<Tensor>> {
        for image in images {
            let Grid { height, width, .. } = image.grid;
            let whole = height.is_multiple_of(self.config.spatial_merge_size)
                && width.is_multiple_of(self.config.spatial_merge_size);
            let expected = [image.grid.patches(), self.config.patch_elements()];
            if !whole || image.patches.dims() != expected || image.grid.patches() == 0 {
                let found = image.patches.dims();
                let message = format!("the patches' shape must be {expected:?}, not {found:?}");
                return Err(Error::Patches(message));
            }
        }
        let patches: Vec<&Tensor> = images.iter().map(|image| &image.patches).collect();
        match patches[..] {
            [] => Ok(None),
            [one] => Ok(Some(one.clone())),
            _ => Ok(Some(memory::concat_rows(&patches)?)),
        }
    }
}

impl Block {
    /// # Shapes
    /// `x` and the result (patches, hidden).
    fn forward(&self, x: Tensor, pass: &Pass, is_full: bool) -> Result<Tensor> {
        let normed = rms_norm::forward(&x, &self.attention_norm, EPS)?.y;
        let weights = [self.q.parts(), self.k.parts(), self.v.parts()];
        let [q, k, v] = qkv::forward(&normed, weights, &pass.cos_sin, pass.heads)?;
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
    /// `x` (patches, hidden), where `merged` adjacent patches form a token; returns (tokens, hidden size of the decoder).
    fn forward(&self, x: &Tensor, merged: usize) -> Result<Tensor> {
        let (patches, hidden) = (x.dims()[0], x.dims()[1]);
        let normed = rms_norm::forward(x, &self.norm, EPS)?.y;
        let wide = memory::reshape(&normed, (patches / merged, hidden * merged))?;
        self.second.forward(&gelu::forward(&self.first.forward(&wide)?)?)
    }
}

/// The frequencies of a head's pairs: the first half rotates by the height, the second by the width.
fn frequencies(config: &VisionConfig) -> Frequencies {
    let pairs = config.head_dim() / 4;
    let inverse = |pair: usize| {
        let exponent = (2 * pair) as f32 / (2 * pairs) as f32;
        (config.theta().powf(f64::from(exponent)) as f32).recip()
    };
    let inverse: Vec<f32> = (0..pairs).map(inverse).collect();
    Frequencies { inv_freq: [inverse.clone(), inverse].concat(), attention_factor: 1.0 }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::path::Path;

    use embodied_r_policy::{WeightFormat, WeightPlacement};

    use super::*;
    use crate::source::Source;

    /// Weights that record what is asked of them.
    struct Recorded<'a>(&'a dyn TowerWeights, RefCell<Vec<TowerPart>>);

    impl TowerWeights for Recorded<'_> {
        fn patches(&self, config: &VisionConfig) -> Result<Weight> {
            self.1.borrow_mut().push(TowerPart::Patches);
            self.0.patches(config)
        }

        fn norm(&self, name: &str, width: usize) -> Result<Tensor> {
            self.1.borrow_mut().push(TowerPart::Norm(name.to_owned(), width));
            self.0.norm(name, width)
        }

        fn linear(&self, name: &str, outputs: usize, inputs: usize) -> Result<Linear> {
            self.1.borrow_mut().push(TowerPart::Linear(name.to_owned(), outputs, inputs));
            self.0.linear(name, outputs, inputs)
        }

        fn qkv(&self, block: usize, width: usize) -> Result<[Linear; 3]> {
            self.1.borrow_mut().push(TowerPart::Qkv(block, width));
            self.0.qkv(block, width)
        }

        fn check(&self, part: &TowerPart, config: &VisionConfig) -> Result<()> {
            self.0.check(part, config)
        }
    }

    #[test]
    fn the_parts_of_a_tower_are_all_that_it_is_built_from() {
        for name in ["flat", "nested", "gguf"] {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
            let source = Source::of_model(&folder).unwrap();
            let (config, _) = source.config().unwrap();
            let placement = WeightPlacement { format: WeightFormat::F32, device: Device::Cpu };
            let weights = source.weights(&placement).unwrap();
            let recorded = Recorded(weights.as_ref(), RefCell::default());
            let mut expected = Tower::parts(&config);
            expected.iter().for_each(|part| recorded.check(part, &config).unwrap());
            Tower::new(config, &recorded).unwrap();
            let mut asked = recorded.1.into_inner();
            asked.sort();
            expected.sort();
            assert_eq!(asked, expected, "{name}");
        }
    }
}
