//! Parity with `transformers` (`make_vision_fixtures.py` and `make_head_size_fixtures.py` in `scripts/parity`).

#![allow(clippy::unwrap_used)]

#[path = "parity/mmproj.rs"]
mod mmproj;
#[path = "parity/multimodal.rs"]
mod multimodal;
#[path = "parity/test_image.rs"]
mod test_image;
#[path = "parity/videos.rs"]
mod videos;
#[path = "parity/written_model.rs"]
mod written_model;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use embodied_r_policy::tokenizer::Tokenizer;
use embodied_r_policy::{
    BlockFormat, Engine, EngineOptions, EngineOutput, GenerationRequest, Prompt, SamplingParams,
    WeightFormat,
};
use embodied_r_vision::{
    FrameTimes, ImageEmbeddings, MultimodalMessage, MultimodalPart, SampledVideo, VisionEncoder,
    VisionLanguageModel, is_vision_language_model,
};
use image::RgbImage;
use serde::Deserialize;
use test_image::test_image;
use written_model::WRITTEN;

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

fn folder(layout: &str) -> PathBuf {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    if layout == WRITTEN { written_model::folder(&fixtures) } else { fixtures.join(layout) }
}

/// The checkpoint formats of Qwen2.5-VL: that of `transformers` 5, the hub's, and llama.cpp's with the hub's weights
/// (`scripts/parity/make_mmproj_fixtures.py`); Qwen3-VL in both, and with a tower of heads of 72.
const LAYOUTS: [&str; 6] = ["nested", "flat", "gguf", "qwen3_vl", "qwen3_vl_gguf", WRITTEN];

fn cases(layout: &str) -> Vec<Case> {
    let layout = match layout {
        "gguf" => "flat",
        "qwen3_vl_gguf" => "qwen3_vl",
        layout => layout,
    };
    let text = std::fs::read(folder(layout).join("expected.json")).unwrap();
    let cases: Vec<Case> = serde_json::from_slice(&text).unwrap();
    // Images alone of Qwen3-VL.
    let expected = match layout {
        "qwen3_vl" => 8,
        WRITTEN => 2,
        _ => 9,
    };
    assert_eq!(cases.len(), expected);
    cases
}

/// The video of frames at a rate.
fn video(frames: Vec<RgbImage>, fps: f64) -> SampledVideo {
    let times = FrameTimes::at_rate(frames.len(), fps);
    SampledVideo { frames, times }
}

impl Case {
    fn images(&self) -> Vec<RgbImage> {
        self.sizes.iter().zip(self.seed..).map(|(size, seed)| test_image(*size, seed)).collect()
    }

    fn encode(&self, vision_encoder: &VisionEncoder) -> Vec<ImageEmbeddings> {
        let images = self.images();
        match self.kind.as_str() {
            "video" => {
                vec![vision_encoder.encode_video(&video(images, 1.0 / self.seconds)).unwrap()]
            }
            _ => vision_encoder.encode_images(&images.iter().collect::<Vec<_>>()).unwrap(),
        }
    }

    fn message(&self) -> MultimodalMessage {
        let mut message = MultimodalMessage::user(self.sizes.len(), "What is there?");
        if self.kind == "video" {
            message.content.splice(..self.sizes.len(), [MultimodalPart::Video]);
        }
        message
    }

    fn prompt(&self, vision_encoder: &VisionEncoder, tokenizer: &Tokenizer) -> Prompt {
        vision_encoder.prompt(tokenizer, &[self.message()], &self.encode(vision_encoder)).unwrap()
    }
}

/// An engine's completion of a prompt.
#[derive(Debug, Default, Clone, PartialEq)]
struct Sampled {
    /// Log-probabilities of the whole vocabulary at the first position.
    first: Vec<f32>,
    ids: Vec<u32>,
}

impl Sampled {
    /// Compares some log-probabilities at the first position, and the greedy tokens.
    fn assert_matches(&self, name: &str, logp: &[(usize, f32)], greedy: &[u32], most: f32) {
        for (id, expected) in logp {
            let found = self.first[*id];
            assert!((found - expected).abs() < most, "{name}, {id}: {found} {expected}");
        }
        assert_eq!(self.ids, greedy, "{name}");
    }
}

/// Greedy completions of all prompts in one batch.
fn drawn(
    model: &VisionLanguageModel,
    prompts: Vec<Prompt>,
    options: EngineOptions,
) -> Vec<Sampled> {
    let vocabulary = model.decoder().config().vocab_size;
    let sampling = SamplingParams {
        max_new_tokens: 6,
        logprobs: Some(vocabulary),
        ..SamplingParams::greedy()
    };
    let sampling = Arc::new(sampling);
    let mut engine = Engine::new(model.decoder().clone(), options).unwrap();
    let add = |prompt| {
        engine
            .add(&GenerationRequest { prompt, samples: 1, stream: 0, first_sample: 0 }, &sampling)
            .unwrap()
    };
    let requests: Vec<_> = prompts.into_iter().map(add).collect();
    let mut drawn = vec![Sampled::default(); requests.len()];
    while engine.has_work() {
        for output in engine.step().unwrap() {
            let EngineOutput::Token { request, token, .. } = output else { continue };
            let drawn = &mut drawn[requests.iter().position(|id| *id == request).unwrap()];
            if drawn.ids.is_empty() {
                drawn.first = vec![0.0; vocabulary];
                for (id, logp) in token.logprobs.unwrap().top_logprobs {
                    drawn.first[id as usize] = logp;
                }
            }
            drawn.ids.push(token.id);
        }
    }
    drawn
}

#[test]
fn pixels_match_the_reference() {
    for layout in LAYOUTS {
        pixels_match(layout);
    }
}

fn pixels_match(layout: &str) {
    let vision_encoder = VisionEncoder::load(&folder(layout), &WeightFormat::F32.into()).unwrap();
    for case in cases(layout) {
        let images = case.images();
        let pixels = match case.kind.as_str() {
            "video" => vec![vision_encoder.processor().video(&images).unwrap()],
            _ => images.iter().map(|p| vision_encoder.processor().image(p).unwrap()).collect(),
        };
        let grids: Vec<_> = pixels.iter().map(|pixels| pixels.grid.thw()).collect();
        assert_eq!(grids, case.grid_thw, "{}", case.name);
        let values: Vec<f32> = pixels
            .iter()
            .flat_map(|p| p.patches.flatten_all().unwrap().to_vec1::<f32>().unwrap())
            .collect();
        // Apart by the rounding of one multiplication and one division.
        for (index, expected) in &case.pixels.some {
            let found = values[*index];
            assert!((found - expected).abs() < 1e-6, "{}, {index}: {found} {expected}", case.name);
        }
        let count = values.len() as f64;
        let mean = values.iter().map(|n| f64::from(*n)).sum::<f64>() / count;
        let square = |n: &f32| (f64::from(*n) - mean).powi(2);
        let std = (values.iter().map(square).sum::<f64>() / (count - 1.0)).sqrt();
        assert!((mean - case.pixels.mean).abs() < 1e-6 && (std - case.pixels.std).abs() < 1e-6);
    }
}

#[test]
fn the_vision_towers_tokens_match_the_reference_in_every_format() {
    for layout in LAYOUTS {
        let vision_encoder =
            VisionEncoder::load(&folder(layout), &WeightFormat::F32.into()).unwrap();
        for case in cases(layout) {
            let embeddings = case.encode(&vision_encoder);
            let values = embeddings.iter().flat_map(|embeddings| {
                embeddings.embeddings().flatten_all().unwrap().to_vec1::<f32>().unwrap()
            });
            let values: Vec<f64> = values.map(f64::from).collect();
            let norm = values.iter().map(|n| n * n).sum::<f64>().sqrt();
            let sines: f64 = values.iter().zip(1..).map(|(n, i)| n * f64::from(i).sin()).sum();
            let [expected_norm, expected_sines] = case.embedded;
            // Sums of thousands of values, accumulated in another order.
            let close = |a: f64, b: f64| (a - b).abs() < 1e-5 * expected_norm;
            assert!(close(norm, expected_norm), "{}: {norm} {expected_norm}", case.name);
            assert!(close(sines, expected_sines), "{}: {sines} {expected_sines}", case.name);
        }
    }
}

#[test]
fn token_ids_and_position_ids_match_the_reference() {
    for layout in ["flat", "gguf", "qwen3_vl", "qwen3_vl_gguf"] {
        let vision_encoder =
            VisionEncoder::load(&folder(layout), &WeightFormat::F32.into()).unwrap();
        let tokenizer = Tokenizer::from_dir(&folder(layout)).unwrap();
        for case in cases(layout) {
            let prompt = case.prompt(&vision_encoder, &tokenizer);
            assert_eq!(prompt.ids(), case.ids, "{}", case.name);
            let positions: Vec<_> = (0..prompt.len()).map(|index| prompt.position(index)).collect();
            assert_eq!(positions, case.positions, "{}", case.name);
        }
    }
}

#[test]
fn log_probabilities_and_greedy_tokens_match_the_reference() {
    for layout in LAYOUTS {
        let model = VisionLanguageModel::load(&folder(layout), &WeightFormat::F32.into()).unwrap();
        let tokenizer = Tokenizer::from_dir(&folder(layout)).unwrap();
        let cases = cases(layout);
        let prompts =
            cases.iter().map(|case| case.prompt(model.vision_encoder(), &tokenizer)).collect();
        let drawn = drawn(&model, prompts, EngineOptions::default());
        for (case, drawn) in cases.iter().zip(drawn) {
            let pairs = drawn.first.iter().zip(&case.last_logp);
            let largest = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            // f32 accumulated in another order, through five layers of random weights.
            assert!(largest < 2e-4, "{layout}, {}: {largest}", case.name);
            assert_eq!(drawn.ids, case.greedy, "{layout}, {}", case.name);
        }
    }
}

#[test]
fn an_image_has_bit_identical_log_probabilities_alone_in_chunks_and_from_the_cache() {
    for layout in ["flat", "qwen3_vl", WRITTEN] {
        bit_identical(layout);
    }
}

fn bit_identical(layout: &str) {
    let model = VisionLanguageModel::load(&folder(layout), &WeightFormat::F32.into()).unwrap();
    let tokenizer = Tokenizer::from_dir(&folder(layout)).unwrap();
    let cases = cases(layout);
    let prompts = || cases.iter().map(|case| case.prompt(model.vision_encoder(), &tokenizer));
    let together = drawn(&model, prompts().collect(), EngineOptions::default());
    let small =
        EngineOptions { max_num_seqs: 2, max_num_batched_tokens: 37, kv_cache_tokens: None };
    for (prompt, together) in prompts().zip(&together) {
        let twice = drawn(&model, vec![prompt.clone(), prompt], small.clone());
        assert_eq!([together, together], [&twice[0], &twice[1]]);
    }
}

#[test]
fn kv_cache_pages_of_different_images_are_not_shared() {
    let model = VisionLanguageModel::load(&folder("flat"), &WeightFormat::F32.into()).unwrap();
    let tokenizer = Tokenizer::from_dir(&folder("flat")).unwrap();
    let [one, other] = [1, 2].map(|seed| test_image((300, 240), seed));
    let prompt = |image: &RgbImage| {
        let embeddings = model.vision_encoder().encode_images(&[image]).unwrap();
        let message = MultimodalMessage::user(1, "What is there?");
        model.vision_encoder().prompt(&tokenizer, &[message], &embeddings).unwrap()
    };
    let alone = drawn(&model, vec![prompt(&other)], EngineOptions::default());
    // One after the other, so that the second could find the first one's pages.
    let options = EngineOptions { max_num_seqs: 1, ..EngineOptions::default() };
    let behind = drawn(&model, vec![prompt(&one), prompt(&other)], options);
    assert_eq!(behind[1], alone[0]);
    assert_ne!(behind[0].first, behind[1].first);
}

#[test]
fn bf16_and_quantized_weights_stay_near_f32() {
    let model = |format: WeightFormat| {
        VisionLanguageModel::load(&folder("nested"), &format.into()).unwrap()
    };
    let tokenizer = Tokenizer::from_dir(&folder("nested")).unwrap();
    let first = |model: &VisionLanguageModel| -> Vec<Vec<f32>> {
        let cases = cases("nested");
        let prompts =
            cases.iter().map(|case| case.prompt(model.vision_encoder(), &tokenizer)).collect();
        drawn(model, prompts, EngineOptions::default()).into_iter().map(|d| d.first).collect()
    };
    let exact = first(&model(WeightFormat::F32));
    // RMS over the vocabulary. These random weights amplify rounding far more than trained ones.
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
fn a_placeholder_without_an_image_is_rejected() {
    let vision_encoder = VisionEncoder::load(&folder("flat"), &WeightFormat::F32.into()).unwrap();
    let tokenizer = Tokenizer::from_dir(&folder("flat")).unwrap();
    let message = vision_encoder
        .prompt(&tokenizer, &[MultimodalMessage::user(2, "?")], &[])
        .unwrap_err()
        .to_string();
    assert!(message.contains("2 image placeholders for 0 images"), "{message}");
}

/// A folder with copies of llama.cpp files.
fn copied(files: &[(&str, &str)]) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for (file, name) in files {
        std::fs::copy(folder("gguf").join(file), copy.path().join(name)).unwrap();
    }
    copy
}

#[test]
fn an_mmproj_file_is_found_by_its_name_and_named_if_missing() {
    let load = |path: &Path| VisionLanguageModel::load(path, &WeightFormat::F32.into());
    let decoder = ("model.gguf", "Qwen2.5-VL-Q8_0.gguf");
    let both = copied(&[decoder, ("mmproj-model.gguf", "Qwen2.5-VL.MMProj-f16.gguf")]);
    assert!(is_vision_language_model(both.path()) && load(both.path()).is_ok());
    assert!(load(&both.path().join(decoder.1)).is_ok());
    let alone = copied(&[decoder]);
    assert!(!is_vision_language_model(alone.path()));
    let message = load(alone.path()).err().unwrap().to_string();
    assert!(message.contains("Q8_0.gguf` is a decoder without a vision tower"), "{message}");
    let two =
        [decoder, ("mmproj-model.gguf", "mmproj-a.gguf"), ("mmproj-model.gguf", "mmproj-b.gguf")];
    let two = copied(&two);
    assert!(is_vision_language_model(two.path()));
    let message = load(two.path()).err().unwrap().to_string();
    assert!(message.contains("mmproj-a.gguf, mmproj-b.gguf"), "{message}");
    let decoder_twice = copied(&[decoder, ("model.gguf", "mmproj.gguf")]);
    let message = load(decoder_twice.path()).err().unwrap().to_string();
    assert!(
        message.contains("`general.architecture` must be `clip` (a vision tower), not `qwen2vl`"),
        "{message}"
    );
    let message = load(&both.path().join("Qwen2.5-VL.MMProj-f16.gguf")).err().unwrap().to_string();
    assert!(message.contains("this is a vision tower"), "{message}");
}

#[test]
fn processor_files_take_precedence_over_the_mmproj_file() {
    let model = copied(&[("model.gguf", "model.gguf"), ("mmproj-model.gguf", "mmproj.gguf")]);
    let tokens = || {
        let vision_encoder = VisionEncoder::load(model.path(), &WeightFormat::F32.into()).unwrap();
        vision_encoder.image_tokens((640, 480)).unwrap()
    };
    assert_eq!(tokens(), 12 * 9);
    let processor = r#"{"min_pixels": 3136, "max_pixels": 7840, "patch_size": 14}"#;
    std::fs::write(model.path().join("preprocessor_config.json"), processor).unwrap();
    assert_eq!(tokens(), 3 * 2);
}

#[test]
fn a_corrupt_mmproj_file_is_an_error_and_no_panic() {
    let model = copied(&[("model.gguf", "model.gguf"), ("mmproj-model.gguf", "mmproj.gguf")]);
    let whole = std::fs::read(folder("gguf").join("mmproj-model.gguf")).unwrap();
    let load = |bytes: &[u8]| {
        std::fs::write(model.path().join("mmproj.gguf"), bytes).unwrap();
        VisionEncoder::load(model.path(), &WeightFormat::F32.into()).is_ok()
    };
    assert!(load(&whole) && !load(&whole[..whole.len() / 2]) && !load(b""));
    let mut rejected = 0;
    for draw in 0..300_usize {
        let mut bytes = whole.clone();
        // The header with all sizes comes first.
        let at = 24 + draw * 7919 % 1200;
        bytes[at] ^= [0xff, 0x80, 0x01][draw % 3];
        rejected += usize::from(!load(&bytes));
    }
    assert!(rejected > 100, "{rejected}");
}
