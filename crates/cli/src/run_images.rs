//! The images of training runs and of inspected batches.

use std::path::Path;
use std::sync::Arc;

use candle_core::Device;
use embodied_r_grpo::estimate::memory_plan::{PromptImages, VisionLoad};
use embodied_r_grpo::images::{ReferenceTower, RunImages, TowerTraining};
use embodied_r_grpo::settings::VisionSettings;
use embodied_r_media::disk_cache::DiskCache;
use embodied_r_media::store::{ImageStore, StoreOptions};
use embodied_r_media::table::ImageTable;
use embodied_r_policy::tokenizer::Tokenizer;
use embodied_r_policy::{Precision, Prompt, Trainable};
use embodied_r_vision::VisionProcessor;

use crate::exit;

/// Where and how the images of a model are encoded.
#[derive(Debug, Clone)]
pub(crate) struct ImageEncoding {
    pub(crate) precision: Precision,
    pub(crate) device: Device,
    /// Learning rate of the decoder.
    pub(crate) learning_rate: f64,
    /// Bytes of activations that a trained tower may save.
    pub(crate) activation_bytes: usize,
    /// Embeddings on disk.
    pub(crate) disk: Option<DiskCache>,
    /// The vision tower of the reference model.
    pub(crate) reference: ReferenceTower,
}

/// An empty table for the images of the model in `folder`.
///
/// # Errors
/// It is no vision-language model, or its tokenizer is another model's.
pub(crate) fn image_table(folder: &Path, vision: &VisionSettings) -> anyhow::Result<ImageTable> {
    let processor = VisionProcessor::of_model(folder).map_err(|error| {
        let hint = "train on images with a vision-language model such as Qwen2.5-VL";
        exit::hint(error.to_string(), hint)
    })?;
    processor.check_tokenizer(&Tokenizer::from_dir(folder)?)?;
    Ok(ImageTable::new(processor.with_pixels(vision.pixels())))
}

/// The load of the vision encoder by `prompts`, whose images are in `table`; `None` without images.
///
/// # Errors
/// The table does not have an image.
pub(crate) fn vision_load<'a>(
    table: &ImageTable,
    vision: &VisionSettings,
    (trainable, reference): (&Trainable, ReferenceTower),
    prompts: impl IntoIterator<Item = &'a Prompt>,
) -> anyhow::Result<Option<VisionLoad>> {
    let config = table.processor().config();
    let images = PromptImages::of_prompts(prompts, table)?;
    Ok(images.map(|images| {
        VisionLoad::new(config, images, vision).trained_as(config, trainable, reference)
    }))
}

/// The images of `table` for the models of a run on the base model in `folder`.
pub(crate) fn run_images(
    folder: &Path,
    table: ImageTable,
    vision: &VisionSettings,
    encoding: ImageEncoding,
) -> RunImages {
    let ImageEncoding { precision, device, learning_rate, activation_bytes, disk, reference } =
        encoding;
    let options = StoreOptions {
        model: folder.to_owned(),
        format: precision.into(),
        device,
        memory_bytes: (vision.image_cache_gb * 1e9) as usize,
        disk,
    };
    let training = vision.frozen_parts().map(|frozen| TowerTraining {
        frozen,
        learning_rate_scale: vision.vision_learning_rate.unwrap_or(learning_rate) / learning_rate,
        activation_bytes,
        reference,
    });
    RunImages { frozen: Arc::new(ImageStore::new(Arc::new(table), options)), training }
}
