//! The model, and a batch with images and a video.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::Device;
use embodied_r_grpo::images::{ReferenceTower, RunImages, TowerTraining};
use embodied_r_grpo::inspect::batch_file::BatchFile;
use embodied_r_grpo::inspect::batch_images::{FileImage, FileVideo, FrameList};
use embodied_r_grpo::model::{LoadOptions, Model as _, Prompt, VisionPolicy};
use embodied_r_media::store::{ImageStore, StoreOptions};
use embodied_r_media::table::ImageTable;
use embodied_r_policy::{Precision, Trainable, WeightFormat};
use embodied_r_vision::{FrozenParts, VisionProcessor};
use serde::Deserialize;
use serde_json::Value;

use crate::test_image::test_image;

/// All of the vision encoder.
pub(crate) const TRAINED: Option<FrozenParts> =
    Some(FrozenParts { vision_tower: false, aligner: false });

pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../vision/tests/fixtures/nested")
}

#[derive(Deserialize)]
pub(crate) struct Fixture {
    visuals: Vec<Visuals>,
    batch: BatchFile,
    pub(crate) cases: Vec<Value>,
    pub(crate) logprobs: Vec<Vec<f32>>,
}

#[derive(Deserialize)]
struct Visuals {
    /// Width, height, seed.
    images: Vec<(u32, u32, u32)>,
    /// Width, height, seed of the first frame, frames, frames per second.
    videos: Vec<(u32, u32, u32, u32, f64)>,
}

/// A batch with its images in files.
pub(crate) struct Batch {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) file: BatchFile,
    pub(crate) fixture: Fixture,
}

pub(crate) fn batch() -> Batch {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/vision_loss.json");
    let fixture: Fixture = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = |size: (u32, u32), seed: u32| {
        let name = format!("{}-{}-{seed}.png", size.0, size.1);
        test_image(size, seed).save(dir.path().join(&name)).unwrap();
        PathBuf::from(name)
    };
    let mut batch = fixture.batch.clone();
    for (group, visuals) in batch.groups.iter_mut().zip(&fixture.visuals) {
        let images = visuals.images.iter();
        let image = |(width, height, seed): &(u32, u32, u32)| {
            FileImage::File(file((*width, *height), *seed))
        };
        group.images = images.map(image).collect();
        let videos = visuals.videos.iter();
        group.videos = videos
            .map(|(width, height, seed, frames, fps)| {
                let frames = (0..*frames).map(|i| file((*width, *height), seed + i)).collect();
                FileVideo::Frames(FrameList { frames, fps: *fps })
            })
            .collect();
    }
    Batch { dir, file: batch, fixture }
}

/// The model with the images of the batch, and its prompts.
pub(crate) fn policy(
    batch: &Batch,
    trained: Option<FrozenParts>,
    activation_bytes: usize,
) -> (VisionPolicy, Vec<Prompt>) {
    policy_of(batch, &folder(), Trainable::All, trained, activation_bytes)
}

/// The base model or what was saved in `dir`, with the images of the batch, and its prompts.
pub(crate) fn policy_of(
    batch: &Batch,
    dir: &Path,
    trainable: Trainable,
    trained: Option<FrozenParts>,
    activation_bytes: usize,
) -> (VisionPolicy, Vec<Prompt>) {
    // An adapter that is not trained is merged, also into the tower.
    let (base, model) = match &trainable {
        Trainable::Lora(_) => (folder(), folder()),
        _ => (dir.to_owned(), dir.to_owned()),
    };
    let mut table = ImageTable::new(VisionProcessor::of_model(&folder()).unwrap());
    let prompts = batch.file.prompts(Some(&mut table), batch.dir.path()).unwrap();
    let options = StoreOptions {
        model,
        format: WeightFormat::F32,
        device: Device::Cpu,
        memory_bytes: usize::MAX,
        disk: None,
    };
    let training = trained.map(|frozen| TowerTraining {
        frozen,
        learning_rate_scale: 1.0,
        activation_bytes,
        reference: ReferenceTower::Own,
    });
    let frozen = Arc::new(ImageStore::new(Arc::new(table), options));
    let load_options = LoadOptions {
        base: &base,
        precision: Precision::F32,
        activation_bytes,
        trainable,
        seed: 1,
        device: Device::Cpu,
        images: Some(Arc::new(RunImages { frozen, training })),
    };
    (VisionPolicy::load(dir, &load_options).unwrap(), prompts)
}
