//! A vision tower: from patches to the decoder's features.
//!
//! The patch embedding, with learned positions in some families; blocks of attention with a 2-D rotary embedding and a
//! feed-forward layer; and mergers, which make tokens of adjacent patches. The last merger gives the decoder's input
//! embeddings, those behind other blocks what the decoder adds after its first layers (DeepStack).

mod batch;
mod block;
mod dropout;
mod merger;
mod modules;
mod norm;
mod positions;

use candle_core::{DType, Device, Tensor};
use embodied_r_kernels::weight::{self, Weight};

use crate::config::VisionConfig;
use crate::error::Result;
use crate::linear::Linear;
use crate::processor::Pixels;
use crate::tower_weights::TowerWeights;
pub(crate) use batch::{Batch, Pass, batch_lengths};
pub(crate) use block::{Activations, Attention, FeedForwardActivations, activated};
pub(crate) use dropout::Dropout;
pub(crate) use merger::{MergerActivations, joined};
pub(crate) use modules::{Block, FeedForward, Merger, ModuleSource, Modules};

/// A vision tower.
pub(crate) struct Tower {
    config: VisionConfig,
    patch_embedding: Weight,
    pub(crate) modules: Modules<Linear, Tensor>,
}

impl Tower {
    /// The tower of `config`.
    ///
    /// # Errors
    /// Those of `weights`.
    pub(crate) fn new(config: VisionConfig, weights: &dyn TowerWeights) -> Result<Self> {
        let patch_embedding = weights.patches(&config)?;
        let mut modules = Modules::new(&config, &weights)?;
        for block in &mut modules.blocks {
            let weights = block.qkv.each_ref().map(|linear| linear.weight.clone());
            let fused = weight::fuse_projections(weights)?;
            for (linear, weight) in block.qkv.iter_mut().zip(fused) {
                linear.weight = weight;
            }
        }
        Ok(Self { config, patch_embedding, modules })
    }

    /// The tower's device.
    pub(crate) fn device(&self) -> &Device {
        self.modules.mergers[0].first.bias.device()
    }

    /// The features of each image or video, in host memory. They do not depend on the other images, to the bit.
    ///
    /// # Shapes
    /// Returns (levels · tokens, hidden size of the decoder) for each.
    ///
    /// # Errors
    /// [`Error::Patches`](crate::Error::Patches) if an image's patches do not match the tower's.
    pub(crate) fn forward(&self, images: &[&Pixels]) -> Result<Vec<Tensor>> {
        if images.is_empty() {
            return Ok(Vec::new());
        }
        let batch = Batch::new(images, &self.config)?;
        let mut x = self.embed(images, &batch)?;
        let mut merged = Vec::new();
        for (index, block) in self.modules.blocks.iter().enumerate() {
            x = block.forward(x, &batch.pass, self.config.family().is_full(index))?;
            for (level, merger) in self.mergers_behind(index) {
                let (y, _) = merger.forward(&x, self.config.patches_per_token(), None)?;
                merged.push((level, y));
            }
        }
        batch.features(merged)
    }

    /// The mergers behind a block, with the levels that they give.
    pub(crate) fn mergers_behind(
        &self,
        block: usize,
    ) -> impl Iterator<Item = (usize, &Merger<Linear, Tensor>)> {
        let mergers = self.modules.mergers.iter().enumerate();
        mergers.filter(move |(_, merger)| merger.after == block)
    }

    /// The first block's input (patches, hidden).
    pub(crate) fn embed(&self, images: &[&Pixels], batch: &Batch) -> Result<Tensor> {
        let patches = batch.patches(images, self.device(), self.dtype())?;
        let x = self.patch_embedding.forward(&patches, self.modules.patch_bias.as_ref())?;
        if let (Some(taps), Some(positions)) = (&batch.taps, &self.modules.positions) {
            taps.add_to(&x, positions)?;
        }
        Ok(x)
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
    use crate::layout::{POSITIONS, TowerPart};
    use crate::source::Source;

    /// Weights that record the names of the tensors that are asked of them.
    struct Recorded<'a>(&'a dyn TowerWeights, RefCell<Vec<String>>);

    impl Recorded<'_> {
        fn add(&self, names: &[String]) {
            self.1.borrow_mut().extend_from_slice(names);
        }

        fn add_linear(&self, name: &str) {
            self.add(&["weight", "bias"].map(|part| format!("{name}.{part}")));
        }
    }

    impl TowerWeights for Recorded<'_> {
        fn patches(&self, config: &VisionConfig) -> Result<Weight> {
            let tensors = TowerPart::Patches.tensors(config).into_iter();
            self.add(&tensors.map(|(name, _)| name).collect::<Vec<_>>());
            self.0.patches(config)
        }

        fn vector(&self, name: &str, width: usize) -> Result<Tensor> {
            self.add(&[name.to_owned()]);
            self.0.vector(name, width)
        }

        fn positions(&self, side: usize, hidden_size: usize) -> Result<Tensor> {
            self.add(&[POSITIONS.to_owned()]);
            self.0.positions(side, hidden_size)
        }

        fn linear(&self, name: &str, outputs: usize, inputs: usize) -> Result<Linear> {
            self.add_linear(name);
            self.0.linear(name, outputs, inputs)
        }

        fn qkv(&self, name: &str, width: usize) -> Result<[Linear; 3]> {
            self.add_linear(name);
            self.0.qkv(name, width)
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
            config.parts().iter().for_each(|(_, part)| recorded.check(part, &config).unwrap());
            let mut expected: Vec<String> = config.tensor_shapes().into_keys().collect();
            Tower::new(config, &recorded).unwrap();
            let mut asked = recorded.1.into_inner();
            asked.sort();
            expected.sort();
            assert_eq!(asked, expected, "{name}");
        }
    }
}
