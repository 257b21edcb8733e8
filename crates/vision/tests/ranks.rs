//! A model whose parts are on several ranks, beside the whole one.
#![allow(clippy::unwrap_used)]

#[path = "parity/picture.rs"]
mod picture;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use embodied_r_policy::tokenizer::Tokenizer;
use embodied_r_policy::{Request, Sampling, TensorParallel, WeightFormat};
use embodied_r_vision::{Gallery, Message, Seen, VisionLanguageModel};
use image::RgbImage;
use picture::picture;

/// [`TensorParallel::on_threads`].
fn on_ranks<R: Send>(ranks: usize, work: impl Fn(&TensorParallel) -> R + Sync) -> Vec<R> {
    TensorParallel::on_threads(ranks, work).unwrap()
}

fn folder(form: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(form)
}

fn pictures() -> Vec<RgbImage> {
    // One of several windows, a small one, and one twice.
    let pictures = [(200, 130), (60, 90), (200, 130), (84, 56)].into_iter().zip([1, 2, 1, 4]);
    pictures.map(|(size, seed)| picture(size, seed)).collect()
}

fn numbers(seen: &[Seen]) -> Vec<Vec<Vec<f32>>> {
    seen.iter().map(|seen| seen.embeddings().to_vec2().unwrap()).collect()
}

#[test]
fn pictures_that_are_dealt_are_seen_by_all_as_by_one_to_the_bit() {
    let model = VisionLanguageModel::load(&folder("nested"), &WeightFormat::F32.into()).unwrap();
    let pictures = pictures();
    let pictures: Vec<&RgbImage> = pictures.iter().collect();
    let want = numbers(&model.eyes().images(&pictures).unwrap());
    // Fewer ranks than pictures, and more.
    for ranks in [2, 3, 5] {
        for found in
            on_ranks(ranks, |ranks| numbers(&model.eyes().images_over(&pictures, ranks).unwrap()))
        {
            assert_eq!(found, want, "{ranks} ranks");
        }
    }
}

#[test]
fn galleries_of_ranks_remember_the_same() {
    let model = VisionLanguageModel::load(&folder("flat"), &WeightFormat::F32.into()).unwrap();
    let pictures = pictures();
    let [a, b, _, c] = [0, 1, 2, 3].map(|index| &pictures[index]);
    let want = numbers(&model.eyes().images(&[a, b, a, c, a]).unwrap());
    for (found, looked, reused) in on_ranks(2, |ranks| {
        let gallery = Gallery::new(model.eyes().clone(), 1 << 20);
        let mut seen = gallery.images_over(&[a, b, a], ranks).unwrap();
        seen.extend(gallery.images_over(&[c, a], ranks).unwrap());
        (numbers(&seen), gallery.looked(), gallery.reused())
    }) {
        assert_eq!((looked, reused), (3, 2));
        assert_eq!(found, want);
    }
}

/// The likeliest tokens behind a prompt with pictures, and their log-probabilities.
fn said(form: &str, ranks: &TensorParallel) -> Vec<(Vec<u32>, Vec<f32>)> {
    let model =
        VisionLanguageModel::load_part(&folder(form), &WeightFormat::F32.into(), ranks).unwrap();
    let tokenizer = Tokenizer::from_dir(&folder(form)).unwrap();
    let pictures = pictures();
    let seen = model.eyes().images_over(&pictures.iter().collect::<Vec<_>>(), ranks).unwrap();
    let request = |seen: &[Seen]| {
        let messages = [Message::user(seen.len(), "What is there?")];
        let prompt = model.eyes().prompt(&tokenizer, &messages, seen).unwrap();
        Request { prompt, samples: 1, stream: 0 }
    };
    let requests = [request(&seen[..2]), request(&seen[1..3]), request(&seen[3..])];
    let sampling = Sampling { max_new_tokens: 8, ..Sampling::greedy() };
    let said = Arc::clone(model.decoder()).generate(&requests, &sampling, &|_| {}).unwrap();
    said.into_iter().flatten().map(|sample| (sample.ids, sample.logps)).collect()
}

#[test]
fn captions_of_two_ranks_are_those_of_one_in_either_format() {
    for form in ["nested", "gguf"] {
        let alone = said(form, &TensorParallel::alone());
        for found in on_ranks(2, |ranks| said(form, ranks)) {
            for ((want_ids, want), (ids, logps)) in alone.iter().zip(&found) {
                assert_eq!(ids, want_ids, "{form}");
                for (want, found) in want.iter().zip(logps) {
                    assert!((want - found).abs() < 1e-4, "{form}: {found}, want {want}");
                }
            }
        }
    }
}
