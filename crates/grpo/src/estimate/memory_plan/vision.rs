//! A vision-language model's encoder and the images of its prompts.

use embodied_r_media::table::ImageTable;
use embodied_r_policy::{LoraConfig, Prompt, Trainable};
use embodied_r_vision::{FrozenParts, Grid, TowerBytes, VisionConfig};

use super::F32;
use crate::error::Result;
use crate::images::ReferenceTower;
use crate::settings::VisionSettings;

/// Bytes of a bfloat16.
pub(super) const BF16: usize = 2;

/// Enough images for a batch of the encoder, of any size.
const MANY: usize = 1024;

/// The images of a prompt and of all of a run's data, for estimates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PromptImages {
    /// The patch grid of an image or a video.
    pub grid: Grid,
    /// So many of them.
    pub count: usize,
    /// Tokens of all images of the data; `None` if it is unknown how many there are.
    pub tokens_of_data: Option<usize>,
}

impl PromptImages {
    /// Those of the prompts with images of `table`: as many of the largest image as the prompt with the most patches has
    /// patches; `None` without images.
    ///
    /// # Errors
    /// The table does not have an image.
    pub fn of_prompts<'a>(
        prompts: impl IntoIterator<Item = &'a Prompt>,
        table: &ImageTable,
    ) -> Result<Option<Self>> {
        let merge = table.processor().config().spatial_merge_size;
        let mut most = 0;
        for prompt in prompts {
            let grids =
                prompt.images().iter().map(|image| Ok(table.layout_of(image.digest)?.grid()));
            let grids = grids.collect::<Result<Vec<Grid>>>()?;
            most = most.max(grids.iter().map(Grid::patches).sum());
        }
        let tokens = table.grids().map(|grid| grid.tokens(merge)).sum();
        Ok(table.grids().max_by_key(Grid::patches).map(|grid| Self {
            grid,
            count: most.div_ceil(grid.patches().max(1)),
            tokens_of_data: Some(tokens),
        }))
    }

    /// Those of a prompt with images of these grids; `None` without images.
    #[must_use]
    pub fn of_grids(grids: &[Grid]) -> Option<Self> {
        let patches: usize = grids.iter().map(Grid::patches).sum();
        let grid = *grids.iter().max_by_key(|grid| grid.patches())?;
        let count = patches.div_ceil(grid.patches().max(1));
        Some(Self { grid, count, tokens_of_data: None })
    }
}

/// The vision encoder, and the images of each prompt.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct VisionLoad {
    /// Parameters of the encoder.
    pub parameters: usize,
    /// Parameters of the reference model's encoder that it does not share with a trained one.
    pub reference: usize,
    /// Those that are trained; the others' images are encoded once per run.
    pub trainable: usize,
    /// Images of a prompt.
    pub images: usize,
    /// Patches of an image.
    pub patches: usize,
    /// Floating-point operations of a forward pass over an image.
    pub forward_flops: f64,
    /// Those of a backward pass without recomputation; 0 if all is frozen.
    pub backward_flops: f64,
    /// Those of recomputing all blocks that are trained.
    pub recompute_flops: f64,
    /// Bytes of an image's embeddings.
    pub(super) embeddings: usize,
    /// Bytes of the embeddings that a frozen encoder keeps.
    pub(super) cache: usize,
    /// Blocks that are trained.
    pub(super) blocks: usize,
    /// With activations in bf16 and in f32.
    pub(super) pass: [ImageBytes; 2],
}

/// Memory of a pass over an image, and the workspace of a pass over any number of images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ImageBytes {
    pub(super) image: TowerBytes,
    pub(super) most_workspace: usize,
}

impl VisionLoad {
    /// The load of prompts with `images` on an encoder of `config`, which is trained as `settings` say.
    #[must_use]
    pub fn new(config: &VisionConfig, images: PromptImages, settings: &VisionSettings) -> Self {
        let PromptImages { grid, count, tokens_of_data } = images;
        let frozen = settings.frozen_parts();
        let cache_bytes = (settings.image_cache_gb * 1e9) as usize;
        let merger = config.aligner_parameter_count();
        let own = config.parameter_count() - merger;
        let trains = frozen.map(|frozen| (!frozen.vision_tower, !frozen.aligner));
        let (tower, aligner) = trains.unwrap_or_default();
        let token = config.feature_levels() * config.out_hidden_size * F32;
        let blocks = if tower { config.depth } else { 0 };
        let all_frozen = FrozenParts { vision_tower: true, aligner: true };
        let pass_bytes = |grids: &[Grid], element_bytes| {
            config.pass_bytes(grids, element_bytes, frozen.unwrap_or(all_frozen))
        };
        Self {
            parameters: config.parameter_count(),
            reference: config.parameter_count(),
            trainable: usize::from(tower) * own + usize::from(aligner) * merger,
            images: count,
            patches: grid.patches(),
            forward_flops: config.flops(grid),
            backward_flops: frozen.map_or(0.0, |frozen| config.backward_flops(grid, frozen)),
            recompute_flops: config.recompute_flops(grid, blocks),
            blocks,
            embeddings: grid.tokens(config.spatial_merge_size) * token,
            cache: tokens_of_data.map_or(cache_bytes, |all| cache_bytes.min(all * token)),
            pass: [BF16, F32].map(|element_bytes| ImageBytes {
                image: pass_bytes(&[grid], element_bytes),
                most_workspace: pass_bytes(&[grid; MANY], element_bytes).workspace,
            }),
        }
    }

    /// The load if the encoder or an adapter in its place is trained, beside that of the reference model.
    #[must_use]
    pub fn trained_as(
        self,
        config: &VisionConfig,
        trainable: &Trainable,
        reference: ReferenceTower,
    ) -> Self {
        let load = match trainable {
            Trainable::Lora(lora) if self.trainable > 0 => self.with_lora(config, lora),
            _ => self,
        };
        match reference {
            // It shares what is not trained.
            ReferenceTower::Own => Self { reference: load.trainable, ..load },
            ReferenceTower::Base => load,
        }
    }

    /// The load if an adapter with these settings is trained in place of the encoder.
    fn with_lora(self, config: &VisionConfig, lora: &LoraConfig) -> Self {
        let shapes = config.adapter_shapes(lora);
        let adapter = shapes.values().map(|shape| shape.iter().product::<usize>()).sum();
        Self { parameters: self.parameters + adapter, trainable: adapter, ..self }
    }
}
