//! The trainable vision tower, compared with `transformers` (`scripts/parity/make_tower_fixtures.py`), finite differences
//! and the vision encoder.

#![allow(clippy::unwrap_used)]

#[path = "trainable/adapters.rs"]
mod adapters;
#[path = "trainable/emulation.rs"]
#[cfg(feature = "cuda-host")]
mod emulation;
#[path = "trainable/encoder.rs"]
mod encoder;
#[path = "trainable/finite_differences.rs"]
mod finite_differences;
#[path = "trainable/passes.rs"]
mod passes;
#[path = "trainable/reference.rs"]
mod reference;
#[path = "parity/test_image.rs"]
mod test_image;
#[path = "trainable/weights.rs"]
mod weights;
#[path = "parity/written_model.rs"]
mod written_model;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use embodied_r_policy::Precision;
use embodied_r_vision::{
    FrozenParts, Pixels, SavedTower, TowerOptions, TrainableTower, VisionProcessor,
};
use test_image::test_image;
use written_model::WRITTEN;

/// Qwen2.5-VL in the format of `transformers` 5 and in the hub's; Qwen3-VL, and with a tower of heads of 72.
const LAYOUTS: [&str; 4] = ["nested", "flat", "qwen3_vl", WRITTEN];

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn folder(layout: &str) -> PathBuf {
    if layout == WRITTEN { written_model::folder(&fixtures()) } else { fixtures().join(layout) }
}

fn options() -> TowerOptions {
    TowerOptions { frozen: FrozenParts::default(), precision: Precision::F32, device: Device::Cpu }
}

fn tower(layout: &str) -> TrainableTower {
    tower_with(layout, &options())
}

fn tower_with(layout: &str, options: &TowerOptions) -> TrainableTower {
    let processor = VisionProcessor::of_model(&folder(layout)).unwrap();
    TrainableTower::load(&folder(layout), processor, options).unwrap()
}

/// Two images of different sizes and a video, as in the reference.
fn pixels(tower: &TrainableTower) -> Vec<Pixels> {
    let images = [(252, 140), (100, 180)].into_iter().zip(1..);
    let mut pixels: Vec<Pixels> = images
        .map(|(size, seed)| tower.processor().processor().image(&test_image(size, seed)).unwrap())
        .collect();
    let frames: Vec<_> = (11..16).map(|seed| test_image((170, 120), seed)).collect();
    pixels.push(tower.processor().processor().video(&frames).unwrap());
    pixels
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

fn wide(tensor: &Tensor) -> Vec<f64> {
    values(tensor).into_iter().map(f64::from).collect()
}

/// sin(step), sin(2 · step), …
fn waves(step: f64) -> impl Iterator<Item = f64> {
    (1..).map(move |i| (step * f64::from(i)).sin())
}

/// The loss Σ sin(i) · e[i] over all elements of the embeddings.
fn loss(embeddings: &[Tensor]) -> f64 {
    let values = embeddings.iter().flat_map(wide);
    values.zip(waves(1.0)).map(|(value, wave)| value * wave).sum()
}

/// Its gradient.
fn d_loss(embeddings: &[Tensor]) -> Vec<Tensor> {
    let mut waves = waves(1.0).map(|wave| wave as f32);
    let like = |embeddings: &Tensor| {
        let values = waves.by_ref().take(embeddings.elem_count()).collect();
        Tensor::from_vec(values, embeddings.shape(), &Device::Cpu).unwrap()
    };
    embeddings.iter().map(like).collect()
}

type Gradients = BTreeMap<String, Vec<f32>>;

/// The loss and the gradients of one pass over `images`.
fn pass(tower: &TrainableTower, images: &[&Pixels], activation_bytes: usize) -> (f64, Gradients) {
    pass_of(tower, tower.forward(images, activation_bytes).unwrap())
}

/// The loss and the gradients of a forward pass.
fn pass_of(
    tower: &TrainableTower,
    (embeddings, saved): (Vec<Tensor>, SavedTower),
) -> (f64, Gradients) {
    let mut grads = tower.zero_gradients().unwrap();
    tower.backward(saved, &d_loss(&embeddings), &mut grads, &mut |_| ()).unwrap();
    (loss(&embeddings), grads.iter().map(|(name, d)| (name.to_owned(), values(d))).collect())
}

fn norm(values: impl IntoIterator<Item = f64>) -> f64 {
    values.into_iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// The norm of the difference, relative to that of `expected`.
fn relative_error(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let pairs = || found.iter().zip(expected).map(|(a, b)| (f64::from(*a), f64::from(*b)));
    norm(pairs().map(|(a, b)| a - b)) / norm(pairs().map(|(_, b)| b)).max(f64::MIN_POSITIVE)
}
