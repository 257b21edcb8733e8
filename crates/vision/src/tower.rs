//! Qwen2.5-VL's vision tower: from patches to decoder tokens.
//!
//! Each block has RMS norms, attention with a 2-D rotary embedding, and a gated feed-forward layer. Most blocks use
//! window attention, a few full attention over the frame; patches are sorted by window once and restored at the end. A
//! two-layer MLP merges adjacent patches into tokens.

mod batch;
mod block;
mod dropout;
mod merger;

use candle_core::{DType, Device, Tensor};
use embodied_r_kernels::weight::{self, Weight};

use crate::config::VisionConfig;
use crate::error::Result;
use crate::linear::Linear;
use crate::processor::Pixels;
use crate::tower_weights::{TowerPart, TowerWeights};
pub(crate) use batch::{Batch, Pass, batch_lengths};
pub(crate) use block::{Activations, Attention, Block, FeedForward};
pub(crate) use dropout::Dropout;
pub(crate) use merger::{Merger, MergerActivations};

/// Epsilon of the RMS norms.
const EPS: f64 = 1e-6;

/// A vision tower.
pub(crate) struct Tower {
    config: VisionConfig,
    patch_embedding: Weight,
    pub(crate) blocks: Vec<Block>,
    pub(crate) merger: Merger,
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

    /// The tower's device.
    pub(crate) fn device(&self) -> &Device {
        self.merger.norm.device()
    }

    /// The decoder tokens of each image or video, in host memory. They do not depend on the other images, to the bit.
    ///
    /// # Shapes
    /// Returns (tokens, hidden size of the decoder) for each.
    ///
    /// # Errors
    /// [`Error::Patches`](crate::Error::Patches) if an image's patches do not match the tower's.
    pub(crate) fn forward(&self, images: &[&Pixels]) -> Result<Vec<Tensor>> {
        if images.is_empty() {
            return Ok(Vec::new());
        }
        let batch = Batch::new(images, &self.config)?;
        let mut x = self.embed(images, &batch)?;
        for (index, block) in self.blocks.iter().enumerate() {
            x = block.forward(x, &batch.pass, self.config.is_full(index))?;
        }
        batch.embeddings(&self.merger.forward(&x, self.config.patches_per_token(), None)?.0)
    }

    /// The first block's input (patches, hidden).
    pub(crate) fn embed(&self, images: &[&Pixels], batch: &Batch) -> Result<Tensor> {
        let patches = batch.patches(images, self.device(), self.dtype())?;
        Ok(self.patch_embedding.forward(&patches, None)?)
    }

    /// The dtype of activations.
    pub(crate) fn dtype(&self) -> DType {
        self.patch_embedding.dtype()
    }
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
