//! Memory of a vision-language model's encoder and its images.

use embodied_r_policy::LoraConfig;
use embodied_r_vision::{FrozenParts, Grid};

use super::{F32, MemoryLayout};
use crate::images::table::ImageTable;

/// The vision encoder and the images of a step, on one rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VisionLoad {
    /// Parameters of the encoder.
    pub parameters: usize,
    /// Those that are trained; the others' images are encoded once per run.
    pub trainable: usize,
    /// Bytes of embeddings in memory.
    pub embeddings: usize,
    /// Bytes of patches and activations of an encoder's pass over the images of a step.
    pub pass: usize,
}

impl VisionLoad {
    /// The load of steps of `prompts` prompts with the images of `table`, of which the largest count. The encoder is
    /// trained but for `frozen`; up to `cache_bytes` of a frozen encoder's embeddings are kept in memory.
    #[must_use]
    pub fn new(
        table: &ImageTable,
        prompts: usize,
        frozen: Option<FrozenParts>,
        cache_bytes: usize,
    ) -> Self {
        let config = table.processor().config();
        let mut grids: Vec<Grid> = table.grids().collect();
        let merge = config.spatial_merge_size;
        let bytes = |grids: &[Grid]| -> usize {
            grids.iter().map(|grid| grid.tokens(merge) * config.out_hidden_size * F32).sum()
        };
        let all = bytes(&grids);
        grids.sort_by_key(|grid| std::cmp::Reverse(grid.patches()));
        grids.truncate(prompts);
        let step = bytes(&grids);
        let pass = config.pass_bytes(&grids, F32);
        let trains = |part: FrozenParts| (!part.vision_tower, !part.aligner);
        let merger = config.merger_parameter_count();
        let (trainable, embeddings, pass) = match frozen.map(trains) {
            None => (0, step.max(all.min(cache_bytes)), pass.patches + pass.workspace),
            Some((tower, aligner)) => {
                let own = config.parameter_count() - merger;
                let trainable = usize::from(tower) * own + usize::from(aligner) * merger;
                // Embeddings and their gradients.
                (trainable, 2 * step, pass.patches + pass.inputs + pass.workspace)
            }
        };
        Self { parameters: config.parameter_count(), trainable, embeddings, pass }
    }

    /// The load if an adapter with these settings is trained in place of the encoder that `table` has.
    #[must_use]
    pub fn with_lora(self, table: &ImageTable, lora: &LoraConfig) -> Self {
        let tower = table.processor().config().tensor_shapes();
        let shapes = lora.vision_shapes(tower.iter().map(|(name, it)| (name.as_str(), &it[..])));
        let adapter = shapes.values().map(|shape| shape.iter().product::<usize>()).sum();
        Self { parameters: self.parameters + adapter, trainable: adapter, ..self }
    }

    /// The load with a second encoder, of the reference model, that shares what is not trained and keeps up to `cache_bytes`
    /// of embeddings.
    #[must_use]
    pub fn with_reference(self, table: &ImageTable, prompts: usize, cache_bytes: usize) -> Self {
        let reference = Self::new(table, prompts, None, cache_bytes);
        let embeddings = self.embeddings + reference.embeddings;
        Self { parameters: self.parameters + self.trainable, embeddings, ..self }
    }

    /// Bytes of the encoder with its gradients and optimizer state, and of the images.
    pub(super) fn bytes(&self, layout: &MemoryLayout) -> usize {
        let moments = 2 * F32;
        layout.weight_bytes(self.parameters)
            + self.trainable * (layout.gradient + moments)
            + self.embeddings
            + self.pass
    }
}
