//! What `transformers` computes of pictures, beside what this crate does (`scripts/parity/make_vision_fixtures.py`).

#![allow(clippy::unwrap_used)]

#[path = "parity/picture.rs"]
mod picture;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use embodied_r_policy::tokenizer::Tokenizer;
use embodied_r_policy::{
    BlockFormat, Engine, EngineOptions, Output, Prompt, Request, Sampling, WeightFormat,
};
use embodied_r_vision::{Eyes, Message, Part, Seen, VisionLanguageModel, can_see};
use image::RgbImage;
use picture::picture;
use serde::Deserialize;

#[derive(Deserialize)]
struct Case {
    name: String,
    kind: String,
    seed: u32,
    sizes: Vec<(u32, u32)>,
    seconds: f64,
    grid_thw: Vec<[usize; 3]>,
    pixels: PixelFacts,
    embedded: [f64; 2],
    ids: Vec<u32>,
    positions: Vec<[usize; 3]>,
    last_logp: Vec<f32>,
    greedy: Vec<u32>,
}

#[derive(Deserialize)]
struct PixelFacts {
    mean: f64,
    std: f64,
    some: Vec<(usize, f32)>,
}

fn folder(form: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(form)
}

/// The forms that models come in: that of `transformers` 5, the hub's, and that of llama.cpp with the same numbers as
/// the hub's (`scripts/parity/make_mmproj_fixtures.py`).
const FORMS: [&str; 3] = ["nested", "flat", "gguf"];

fn cases(form: &str) -> Vec<Case> {
    let form = if form == "gguf" { "flat" } else { form };
    let text = std::fs::read(folder(form).join("expected.json")).unwrap();
    let cases: Vec<Case> = serde_json::from_slice(&text).unwrap();
    assert_eq!(cases.len(), 9);
    cases
}

impl Case {
    fn pictures(&self) -> Vec<RgbImage> {
        self.sizes.iter().zip(self.seed..).map(|(size, seed)| picture(*size, seed)).collect()
    }

    fn seen(&self, eyes: &Eyes) -> Vec<Seen> {
        let pictures = self.pictures();
        match self.kind.as_str() {
            "video" => vec![eyes.video(&pictures, self.seconds).unwrap()],
            _ => eyes.images(&pictures.iter().collect::<Vec<_>>()).unwrap(),
        }
    }

    fn message(&self) -> Message {
        let mut message = Message::user(self.sizes.len(), "What is there?");
        if self.kind == "video" {
            message.content.splice(..self.sizes.len(), [Part::Video]);
        }
        message
    }

    fn prompt(&self, eyes: &Eyes, tokenizer: &Tokenizer) -> Prompt {
        eyes.prompt(tokenizer, &[self.message()], &self.seen(eyes)).unwrap()
    }
}

/// What an engine draws for a prompt.
#[derive(Debug, Default, Clone, PartialEq)]
struct Drawn {
    /// Log-probabilities of the whole vocabulary at the first position.
    first: Vec<f32>,
    ids: Vec<u32>,
}

/// Draws the likeliest tokens behind all prompts at the same time.
fn drawn(model: &VisionLanguageModel, prompts: Vec<Prompt>, options: EngineOptions) -> Vec<Drawn> {
    let vocabulary = model.decoder().config().vocab_size;
    let sampling = Sampling { max_new_tokens: 6, logprobs: Some(vocabulary), ..Sampling::greedy() };
    let sampling = Arc::new(sampling);
    let mut engine = Engine::new(model.decoder().clone(), options).unwrap();
    let add = |prompt| engine.add(&Request { prompt, samples: 1, stream: 0 }, &sampling).unwrap();
    let requests: Vec<_> = prompts.into_iter().map(add).collect();
    let mut drawn = vec![Drawn::default(); requests.len()];
    while engine.has_work() {
        for output in engine.step().unwrap() {
            let Output::Token { request, token, .. } = output else { continue };
            let drawn = &mut drawn[requests.iter().position(|id| *id == request).unwrap()];
            if drawn.ids.is_empty() {
                drawn.first = vec![0.0; vocabulary];
                for (id, logp) in token.report.unwrap().top {
                    drawn.first[id as usize] = logp;
                }
            }
            drawn.ids.push(token.id);
        }
    }
    drawn
}

#[test]
fn pixels_are_those_of_the_reference() {
    for form in FORMS {
        pixels_are_those_of(form);
    }
}

fn pixels_are_those_of(form: &str) {
    let eyes = Eyes::load(&folder(form), &WeightFormat::F32.into()).unwrap();
    for case in cases(form) {
        let pictures = case.pictures();
        let pixels = match case.kind.as_str() {
            "video" => vec![eyes.processor().video(&pictures).unwrap()],
            _ => pictures.iter().map(|p| eyes.processor().image(p).unwrap()).collect(),
        };
        let grids: Vec<_> = pixels.iter().map(|pixels| pixels.grid.thw()).collect();
        assert_eq!(grids, case.grid_thw, "{}", case.name);
        let numbers: Vec<f32> = pixels
            .iter()
            .flat_map(|p| p.patches.flatten_all().unwrap().to_vec1::<f32>().unwrap())
            .collect();
        // Rounding of one multiplication and one division apart.
        for (index, expected) in &case.pixels.some {
            let found = numbers[*index];
            assert!((found - expected).abs() < 1e-6, "{}, {index}: {found} {expected}", case.name);
        }
        let count = numbers.len() as f64;
        let mean = numbers.iter().map(|n| f64::from(*n)).sum::<f64>() / count;
        let square = |n: &f32| (f64::from(*n) - mean).powi(2);
        let std = (numbers.iter().map(square).sum::<f64>() / (count - 1.0)).sqrt();
        assert!((mean - case.pixels.mean).abs() < 1e-6 && (std - case.pixels.std).abs() < 1e-6);
    }
}

#[test]
fn the_towers_tokens_are_those_of_the_reference_in_every_form() {
    for form in FORMS {
        let eyes = Eyes::load(&folder(form), &WeightFormat::F32.into()).unwrap();
        for case in cases(form) {
            let seen = case.seen(&eyes);
            let numbers = seen.iter().flat_map(|seen| {
                seen.embeddings().flatten_all().unwrap().to_vec1::<f32>().unwrap()
            });
            let numbers: Vec<f64> = numbers.map(f64::from).collect();
            let norm = numbers.iter().map(|n| n * n).sum::<f64>().sqrt();
            let sines: f64 = numbers.iter().zip(1..).map(|(n, i)| n * f64::from(i).sin()).sum();
            let [expected_norm, expected_sines] = case.embedded;
            // Sums of thousands of numbers that are each rounded in another order.
            let close = |a: f64, b: f64| (a - b).abs() < 1e-5 * expected_norm;
            assert!(close(norm, expected_norm), "{}: {norm} {expected_norm}", case.name);
            assert!(close(sines, expected_sines), "{}: {sines} {expected_sines}", case.name);
        }
    }
}

#[test]
fn prompts_have_the_ids_and_the_places_of_the_reference() {
    for form in ["flat", "gguf"] {
        let eyes = Eyes::load(&folder(form), &WeightFormat::F32.into()).unwrap();
        let tokenizer = Tokenizer::from_dir(&folder(form)).unwrap();
        for case in cases(form) {
            let prompt = case.prompt(&eyes, &tokenizer);
            assert_eq!(prompt.ids(), case.ids, "{}", case.name);
            let places: Vec<_> = (0..prompt.len()).map(|index| prompt.place(index)).collect();
            assert_eq!(places, case.positions, "{}", case.name);
        }
    }
}

#[test]
fn log_probabilities_and_greedy_tokens_are_those_of_the_reference() {
    for form in FORMS {
        let model = VisionLanguageModel::load(&folder(form), &WeightFormat::F32.into()).unwrap();
        let tokenizer = Tokenizer::from_dir(&folder(form)).unwrap();
        let cases = cases(form);
        let prompts = cases.iter().map(|case| case.prompt(model.eyes(), &tokenizer)).collect();
        let drawn = drawn(&model, prompts, EngineOptions::default());
        for (case, drawn) in cases.iter().zip(drawn) {
            let pairs = drawn.first.iter().zip(&case.last_logp);
            let largest = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            // f32 in another order of sums, through five layers of wide random weights.
            assert!(largest < 2e-4, "{form}, {}: {largest}", case.name);
            assert_eq!(drawn.ids, case.greedy, "{form}, {}", case.name);
        }
    }
}

#[test]
fn a_picture_gives_the_same_bits_alone_in_chunks_and_from_the_cache() {
    let model = VisionLanguageModel::load(&folder("flat"), &WeightFormat::F32.into()).unwrap();
    let tokenizer = Tokenizer::from_dir(&folder("flat")).unwrap();
    let cases = cases("flat");
    let prompts = || cases.iter().map(|case| case.prompt(model.eyes(), &tokenizer));
    let together = drawn(&model, prompts().collect(), EngineOptions::default());
    let small =
        EngineOptions { max_num_seqs: 2, max_num_batched_tokens: 37, kv_cache_tokens: None };
    for (prompt, together) in prompts().zip(&together) {
        let twice = drawn(&model, vec![prompt.clone(), prompt], small.clone());
        assert_eq!([together, together], [&twice[0], &twice[1]]);
    }
}

#[test]
fn pages_of_one_picture_are_not_taken_for_those_of_another() {
    let model = VisionLanguageModel::load(&folder("flat"), &WeightFormat::F32.into()).unwrap();
    let tokenizer = Tokenizer::from_dir(&folder("flat")).unwrap();
    let [one, other] = [1, 2].map(|seed| picture((300, 240), seed));
    let prompt = |picture: &RgbImage| {
        let seen = model.eyes().images(&[picture]).unwrap();
        let message = Message::user(1, "What is there?");
        model.eyes().prompt(&tokenizer, &[message], &seen).unwrap()
    };
    let alone = drawn(&model, vec![prompt(&other)], EngineOptions::default());
    // One after the other, so that the second could find the first one's pages.
    let options = EngineOptions { max_num_seqs: 1, ..EngineOptions::default() };
    let behind = drawn(&model, vec![prompt(&one), prompt(&other)], options);
    assert_eq!(behind[1], alone[0]);
    assert_ne!(behind[0].first, behind[1].first);
}

#[test]
fn bf16_and_blocks_stay_near_f32() {
    let model = |format: WeightFormat| {
        VisionLanguageModel::load(&folder("nested"), &format.into()).unwrap()
    };
    let tokenizer = Tokenizer::from_dir(&folder("nested")).unwrap();
    let first = |model: &VisionLanguageModel| -> Vec<Vec<f32>> {
        let cases = cases("nested");
        let prompts = cases.iter().map(|case| case.prompt(model.eyes(), &tokenizer)).collect();
        drawn(model, prompts, EngineOptions::default()).into_iter().map(|d| d.first).collect()
    };
    let exact = first(&model(WeightFormat::F32));
    // Rms over the vocabulary. These random weights are far steeper than trained ones.
    for (format, most) in
        [(WeightFormat::Bf16, 0.06), (WeightFormat::Blocks(BlockFormat::Q8_0), 0.12)]
    {
        for (exact, rounded) in exact.iter().zip(first(&model(format))) {
            let square = |(a, b): (&f32, &f32)| f64::from(a - b).powi(2);
            let sum: f64 = exact.iter().zip(&rounded).map(square).sum();
            let rms = (sum / exact.len() as f64).sqrt();
            assert!(rms > 0.0 && rms < most, "{format:?}: {rms}");
        }
    }
}

#[test]
fn a_place_without_a_picture_is_refused() {
    let eyes = Eyes::load(&folder("flat"), &WeightFormat::F32.into()).unwrap();
    let tokenizer = Tokenizer::from_dir(&folder("flat")).unwrap();
    let told = eyes.prompt(&tokenizer, &[Message::user(2, "?")], &[]).unwrap_err().to_string();
    assert!(told.contains("2 places for 0 pictures"), "{told}");
}

/// A folder with copies of files of the form of llama.cpp.
fn copied(files: &[(&str, &str)]) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for (file, name) in files {
        std::fs::copy(folder("gguf").join(file), copy.path().join(name)).unwrap();
    }
    copy
}

#[test]
fn a_tower_in_a_file_of_its_own_is_found_by_its_name_and_missed_by_its_own() {
    let load = |path: &Path| VisionLanguageModel::load(path, &WeightFormat::F32.into());
    let decoder = ("model.gguf", "Qwen2.5-VL-Q8_0.gguf");
    let both = copied(&[decoder, ("mmproj-model.gguf", "Qwen2.5-VL.MMProj-f16.gguf")]);
    assert!(can_see(both.path()) && load(both.path()).is_ok());
    assert!(load(&both.path().join(decoder.1)).is_ok());
    let alone = copied(&[decoder]);
    assert!(!can_see(alone.path()));
    let told = load(alone.path()).err().unwrap().to_string();
    assert!(told.contains("Q8_0.gguf` is a decoder alone"), "{told}");
    let two =
        [decoder, ("mmproj-model.gguf", "mmproj-a.gguf"), ("mmproj-model.gguf", "mmproj-b.gguf")];
    let two = copied(&two);
    assert!(can_see(two.path()));
    let told = load(two.path()).err().unwrap().to_string();
    assert!(told.contains("mmproj-a.gguf, mmproj-b.gguf"), "{told}");
    let decoder_twice = copied(&[decoder, ("model.gguf", "mmproj.gguf")]);
    let told = load(decoder_twice.path()).err().unwrap().to_string();
    assert!(told.contains("`general.architecture` is `qwen2vl`, want `clip`"), "{told}");
    let told = load(&both.path().join("Qwen2.5-VL.MMProj-f16.gguf")).err().unwrap().to_string();
    assert!(told.contains("this is a vision tower"), "{told}");
}

#[test]
fn a_processor_beside_a_tower_in_a_file_of_its_own_takes_precedence() {
    let model = copied(&[("model.gguf", "model.gguf"), ("mmproj-model.gguf", "mmproj.gguf")]);
    let tokens = || {
        let eyes = Eyes::load(model.path(), &WeightFormat::F32.into()).unwrap();
        eyes.image_tokens((640, 480)).unwrap()
    };
    assert_eq!(tokens(), 12 * 9);
    let processor = r#"{"min_pixels": 3136, "max_pixels": 7840, "patch_size": 14}"#;
    std::fs::write(model.path().join("preprocessor_config.json"), processor).unwrap();
    assert_eq!(tokens(), 3 * 2);
}

#[test]
fn a_broken_tower_in_a_file_of_its_own_is_an_error_and_no_panic() {
    let model = copied(&[("model.gguf", "model.gguf"), ("mmproj-model.gguf", "mmproj.gguf")]);
    let whole = std::fs::read(folder("gguf").join("mmproj-model.gguf")).unwrap();
    let load = |bytes: &[u8]| {
        std::fs::write(model.path().join("mmproj.gguf"), bytes).unwrap();
        Eyes::load(model.path(), &WeightFormat::F32.into()).is_ok()
    };
    assert!(load(&whole) && !load(&whole[..whole.len() / 2]) && !load(b""));
    let mut refused = 0;
    for draw in 0..300_usize {
        let mut bytes = whole.clone();
        // The header's values come first, with the sizes of everything.
        let at = 24 + draw * 7919 % 1200;
        bytes[at] ^= [0xff, 0x80, 0x01][draw % 3];
        refused += usize::from(!load(&bytes));
    }
    assert!(refused > 100, "{refused}");
}
