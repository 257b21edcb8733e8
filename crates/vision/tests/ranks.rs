//! Tensor-parallel inference, compared with a single rank.
#![allow(clippy::unwrap_used)]

#[path = "parity/test_image.rs"]
mod test_image;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use embodied_r_policy::tokenizer::Tokenizer;
use embodied_r_policy::{GenerationRequest, SamplingParams, TensorParallel, WeightFormat};
use embodied_r_vision::{ImageEmbeddings, MultimodalMessage, VisionLanguageModel};
use image::RgbImage;
use test_image::test_image;

/// [`TensorParallel::on_threads`].
fn on_ranks<R: Send>(ranks: usize, work: impl Fn(&TensorParallel) -> R + Sync) -> Vec<R> {
    TensorParallel::on_threads(ranks, work).unwrap()
}

fn folder(layout: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(layout)
}

fn images() -> Vec<RgbImage> {
    // One of several windows, a small one, and a duplicate.
    let images = [(200, 130), (60, 90), (200, 130), (84, 56)].into_iter().zip([1, 2, 1, 4]);
    images.map(|(size, seed)| test_image(size, seed)).collect()
}

fn values(embeddings: &[ImageEmbeddings]) -> Vec<Vec<Vec<f32>>> {
    embeddings.iter().map(|embeddings| embeddings.embeddings().to_vec2().unwrap()).collect()
}

#[test]
fn images_partitioned_over_ranks_are_encoded_bit_identically() {
    let model = VisionLanguageModel::load(&folder("nested"), &WeightFormat::F32.into()).unwrap();
    let images = images();
    let images: Vec<&RgbImage> = images.iter().collect();
    let want = values(&model.vision_encoder().encode_images(&images).unwrap());
    // Fewer ranks than images, and more.
    for ranks in [2, 3, 5] {
        for found in on_ranks(ranks, |ranks| {
            values(&model.vision_encoder().encode_images_over(&images, ranks).unwrap())
        }) {
            assert_eq!(found, want, "{ranks} ranks");
        }
    }
}

/// Greedy completions of prompts with images, and their log-probabilities.
fn completions(layout: &str, ranks: &TensorParallel) -> Vec<(Vec<u32>, Vec<f32>)> {
    let model =
        VisionLanguageModel::load_part(&folder(layout), &WeightFormat::F32.into(), ranks).unwrap();
    let tokenizer = Tokenizer::from_dir(&folder(layout)).unwrap();
    let images = images();
    let embeddings = model
        .vision_encoder()
        .encode_images_over(&images.iter().collect::<Vec<_>>(), ranks)
        .unwrap();
    let request = |embeddings: &[ImageEmbeddings]| {
        let messages = [MultimodalMessage::user(embeddings.len(), "What is there?")];
        let prompt = model.vision_encoder().prompt(&tokenizer, &messages, embeddings).unwrap();
        GenerationRequest { prompt, samples: 1, stream: 0, first_sample: 0 }
    };
    let requests =
        [request(&embeddings[..2]), request(&embeddings[1..3]), request(&embeddings[3..])];
    let sampling = SamplingParams { max_new_tokens: 8, ..SamplingParams::greedy() };
    let samples = Arc::clone(model.decoder()).generate(&requests, &sampling, &|_| {}).unwrap();
    samples.into_iter().flatten().map(|sample| (sample.ids, sample.logps)).collect()
}

#[test]
fn captions_of_two_ranks_match_one_rank_in_either_format() {
    for layout in ["nested", "gguf"] {
        let alone = completions(layout, &TensorParallel::single_rank());
        for found in on_ranks(2, |ranks| completions(layout, ranks)) {
            for ((want_ids, want), (ids, logps)) in alone.iter().zip(&found) {
                assert_eq!(ids, want_ids, "{layout}");
                for (want, found) in want.iter().zip(logps) {
                    assert!((want - found).abs() < 1e-4, "{layout}: {found}, expected {want}");
                }
            }
        }
    }
}
