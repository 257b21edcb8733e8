//! Prompts with videos of Qwen3-VL (`scripts/parity/make_video_fixtures.py`).

use std::sync::Arc;

use embodied_r_policy::tokenizer::{RenderedChat, Tokenizer};
use embodied_r_policy::{EngineOptions, Prompt, WeightFormat};
use embodied_r_vision::{
    Error, FrameTimes, Frames, ImageEmbeddings, ImageLayout, Processor, SampledVideo,
    VisionEncoder, VisionLanguageModel, VisionProcessor,
};
use image::RgbImage;
use serde::Deserialize;

use super::test_image::test_image;
use super::{drawn, folder};

#[derive(Deserialize)]
struct Case {
    name: String,
    seed: u32,
    visuals: Vec<Visual>,
    text: String,
    ids: Vec<u32>,
    positions: Vec<[usize; 3]>,
    logp: Vec<(usize, f32)>,
    greedy: Vec<u32>,
}

#[derive(Deserialize)]
struct Visual {
    sizes: Vec<(u32, u32)>,
    /// Of a video: the frames of the file, and its frames per second.
    indices: Option<Vec<u32>>,
    #[serde(default)]
    fps: f64,
}

fn cases() -> Vec<Case> {
    let text = std::fs::read(folder("qwen3_vl").join("videos.json")).unwrap();
    let cases: Vec<Case> = serde_json::from_slice(&text).unwrap();
    assert_eq!(cases.len(), 9);
    cases
}

impl Case {
    fn visuals(&self) -> Vec<Frames> {
        let mut seeds = self.seed..;
        let frames = |Visual { sizes, indices, fps }: &Visual| {
            let frames = sizes.iter().zip(&mut seeds).map(|(size, seed)| test_image(*size, seed));
            let mut frames: Vec<RgbImage> = frames.collect();
            let Some(indices) = indices else { return Frames::Image(frames.remove(0)) };
            let starts = indices.iter().map(|index| f64::from(*index) / fps).collect();
            Frames::Video(SampledVideo { frames, times: FrameTimes { interval: 1.0, starts } })
        };
        self.visuals.iter().map(frames).collect()
    }

    fn prompt(&self, encoder: &VisionEncoder, tokenizer: &Tokenizer) -> Prompt {
        let embeddings: Vec<ImageEmbeddings> =
            self.visuals().iter().map(|frames| encoder.encode(frames).unwrap()).collect();
        encoder.chat_prompt(tokenizer, &chat(&self.text), &embeddings).unwrap()
    }
}

fn chat(text: &str) -> RenderedChat {
    RenderedChat::from(text.to_owned())
}

fn model() -> (Arc<VisionLanguageModel>, Tokenizer) {
    let model = VisionLanguageModel::load(&folder("qwen3_vl"), &WeightFormat::F32.into()).unwrap();
    (Arc::new(model), Tokenizer::from_dir(&folder("qwen3_vl")).unwrap())
}

fn positions(prompt: &Prompt) -> Vec<[usize; 3]> {
    (0..prompt.len()).map(|index| prompt.position(index)).collect()
}

#[test]
fn timestamps_and_positions_match_the_reference() {
    let (model, tokenizer) = model();
    for case in cases() {
        let prompt = case.prompt(model.vision_encoder(), &tokenizer);
        assert_eq!(prompt.ids(), case.ids, "{}", case.name);
        assert_eq!(positions(&prompt), case.positions, "{}", case.name);
    }
}

#[test]
fn log_probabilities_after_videos_match_the_reference() {
    let (model, tokenizer) = model();
    let cases = cases();
    let prompts =
        cases.iter().map(|case| case.prompt(model.vision_encoder(), &tokenizer)).collect();
    for (case, drawn) in cases.iter().zip(drawn(&model, prompts, EngineOptions::default())) {
        // f32 accumulated in another order, through seven layers of random weights.
        drawn.assert_matches(&case.name, &case.logp, &case.greedy, 2e-4);
    }
}

#[test]
fn the_tokens_that_a_model_sees_have_the_places_of_their_videos() {
    let processor = VisionProcessor::of_model(&folder("qwen3_vl")).unwrap();
    for case in cases() {
        let layouts = case.visuals().iter().map(|frames| processor.layout(frames)).collect();
        let layouts: Vec<ImageLayout> = Result::unwrap(layouts);
        let prompt = processor.expanded_prompt(&case.ids, &layouts).unwrap();
        assert_eq!(positions(&prompt), case.positions, "{}", case.name);
        let short = processor.expanded_prompt(&case.ids[..case.ids.len() / 2], &layouts);
        assert!(matches!(short, Err(Error::PlaceholderTokens { .. })), "{}", case.name);
    }
}

#[test]
fn a_video_without_a_place_in_the_conversation_is_an_error() {
    let (model, tokenizer) = model();
    let encoder = model.vision_encoder();
    let case = cases().remove(0);
    let video = encoder.encode(&case.visuals()[0]).unwrap();
    let error = |text: &str| {
        let videos = std::slice::from_ref(&video);
        encoder.chat_prompt(&tokenizer, &chat(text), videos).unwrap_err().to_string()
    };
    assert_eq!(error("none"), "the prompt has 0 video placeholders for 1 videos");
    let twice = case.text.replace("What", "<|vision_start|><|video_pad|><|vision_end|>");
    assert_eq!(error(&twice), "the prompt has 2 video placeholders for 1 videos");
}

#[test]
fn videos_that_differ_in_times_alone_have_other_digests_unless_their_timestamps_are_equal() {
    let processor = VisionProcessor::of_model(&folder("qwen3_vl")).unwrap();
    let digest = |starts: [f64; 2]| {
        let frames = vec![test_image((96, 64), 1), test_image((96, 64), 2)];
        let times = FrameTimes { interval: 0.5, starts: starts.to_vec() };
        processor.video_layout(&SampledVideo { frames, times }).unwrap().digest()
    };
    assert_eq!(digest([0.0, 0.5]), digest([0.0, 0.46]));
    assert_ne!(digest([0.0, 0.5]), digest([1.0, 1.5]));
}

/// The sizes of frames as transformers resizes them (`clip_resize.json`).
#[test]
fn clips_are_resized_as_by_the_reference() {
    let text = include_str!("../fixtures/clip_resize.json");
    let cases: Vec<[u32; 8]> = serde_json::from_str(text).unwrap();
    assert_eq!(cases.len(), 54);
    for [frames, width, height, shortest, longest, cap, to_width, to_height] in cases {
        let folder = copy_with_videos(&serde_json::json!({
            "size": {"shortest_edge": shortest, "longest_edge": longest}, "patch_size": 16,
            "cap_pixels_per_frame": cap == 1,
        }));
        let processor = Processor::of_model(folder.path()).unwrap();
        let grid = processor.video_grid(frames as usize, (width, height)).unwrap();
        let found = [16 * grid.width, 16 * grid.height].map(|side| side as u32);
        let case =
            format!("{frames} frames of {width} × {height} from {shortest} to {longest}, {cap}");
        assert_eq!(found, [to_width, to_height], "{case}");
    }
}

/// The model's configuration with these settings of the video processor.
fn copy_with_videos(settings: &serde_json::Value) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for name in ["config.json", "preprocessor_config.json"] {
        std::fs::copy(folder("qwen3_vl").join(name), copy.path().join(name)).unwrap();
    }
    let path = copy.path().join("video_preprocessor_config.json");
    std::fs::write(path, settings.to_string()).unwrap();
    copy
}

#[test]
fn a_video_processor_that_is_missing_or_another_models_is_named() {
    let of_qwen2_5 =
        serde_json::json!({"min_pixels": 3136, "max_pixels": 12_845_056, "patch_size": 14});
    let copy = copy_with_videos(&of_qwen2_5);
    let message = || VisionProcessor::of_model(copy.path()).unwrap_err().to_string();
    let expected = "video_preprocessor_config.json`: `patch_size` is 14, but 16 in `preprocessor_config.json`: is the \
                    file another model's?";
    assert!(message().ends_with(expected), "{}", message());
    std::fs::remove_file(copy.path().join("video_preprocessor_config.json")).unwrap();
    assert!(message().contains("has no `video_preprocessor_config.json`"), "{}", message());
}
