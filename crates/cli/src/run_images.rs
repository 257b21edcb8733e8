//! The images of training runs and of inspected batches.

use std::path::Path;
use std::sync::Arc;

use candle_core::Device;
use embodied_r_grpo::estimate::memory_plan::VisionLoad;
use embodied_r_grpo::images::disk_cache::DiskCache;
use embodied_r_grpo::images::store::{ImageStore, StoreOptions};
use embodied_r_grpo::images::table::ImageTable;
use embodied_r_grpo::images::{ReferenceTower, RunImages, TowerTraining};
use embodied_r_grpo::settings::VisionSettings;
use embodied_r_policy::{Precision, Trainable};
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
/// It is no vision-language model.
pub(crate) fn image_table(folder: &Path, vision: &VisionSettings) -> anyhow::Result<ImageTable> {
    let processor = VisionProcessor::of_model(folder, None).map_err(|error| {
        let hint = "train on images with a vision-language model such as Qwen2.5-VL";
        exit::hint(error.to_string(), hint)
    })?;
    Ok(ImageTable::new(processor.with_pixels(vision.min_pixels, vision.max_pixels)))
}

/// The memory of the vision encoder and of the images of steps of `prompts` prompts.
pub(crate) fn vision_load(
    table: &ImageTable,
    vision: &VisionSettings,
    (trainable, reference): (&Trainable, ReferenceTower),
    prompts: usize,
) -> VisionLoad {
    let load = VisionLoad::new(table, prompts, vision.frozen_parts(), cache_bytes(vision));
    let load = match trainable {
        Trainable::Lora(lora) => load.with_lora(table, lora),
        _ => load,
    };
    match reference {
        ReferenceTower::Own => load.with_reference(table, prompts, cache_bytes(vision)),
        ReferenceTower::Base => load,
    }
}

fn cache_bytes(vision: &VisionSettings) -> usize {
    (vision.image_cache_gb * 1e9) as usize
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
        memory_bytes: cache_bytes(vision),
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
