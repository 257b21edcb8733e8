//! Prompts of images, videos and text (`scripts/parity/make_multimodal_fixtures.py`).

use embodied_r_policy::{EngineOptions, Prompt, WeightFormat};
use embodied_r_vision::{
    Error, FrameTimes, ImageEmbeddings, PixelOptions, Processor, SampledVideo, VisionEncoder,
    VisionLanguageModel,
};
use image::RgbImage;
use serde::Deserialize;

use super::test_image::test_image;
use super::{drawn, folder, video};

#[derive(Deserialize)]
struct Case {
    name: String,
    seed: u32,
    visuals: Vec<Visual>,
    raw: Vec<u32>,
    ids: Vec<u32>,
    positions: Vec<[usize; 3]>,
    logp: Vec<(usize, f32)>,
    greedy: Vec<u32>,
}

#[derive(Deserialize)]
struct Visual {
    sizes: Vec<(u32, u32)>,
    /// Of a video.
    fps: Option<f64>,
}

fn cases() -> Vec<Case> {
    let text = std::fs::read(folder("nested").join("multimodal.json")).unwrap();
    let cases: Vec<Case> = serde_json::from_slice(&text).unwrap();
    assert_eq!(cases.len(), 14);
    cases
}

impl Case {
    fn encode(&self, vision_encoder: &VisionEncoder) -> Vec<ImageEmbeddings> {
        let mut seeds = self.seed..;
        let encode = |Visual { sizes, fps }: &Visual| {
            let frames = sizes.iter().zip(&mut seeds).map(|(size, seed)| test_image(*size, seed));
            let frames: Vec<RgbImage> = frames.collect();
            match fps {
                Some(fps) => vision_encoder.encode_video(&video(frames, *fps)).unwrap(),
                None => vision_encoder.encode_image(&frames[0]).unwrap(),
            }
        };
        self.visuals.iter().map(encode).collect()
    }

    fn prompt(&self, vision_encoder: &VisionEncoder) -> Prompt {
        vision_encoder.expand_placeholders(&self.raw, &self.encode(vision_encoder)).unwrap()
    }
}

fn encoder() -> VisionEncoder {
    VisionEncoder::load(&folder("nested"), &WeightFormat::F32.into()).unwrap()
}

#[test]
fn positions_of_images_and_videos_match_the_reference() {
    let vision_encoder = encoder();
    for case in cases() {
        let prompt = case.prompt(&vision_encoder);
        assert_eq!(prompt.ids(), case.ids, "{}", case.name);
        let positions: Vec<_> = (0..prompt.len()).map(|index| prompt.position(index)).collect();
        assert_eq!(positions, case.positions, "{}", case.name);
    }
}

#[test]
fn log_probabilities_after_images_and_videos_match_the_reference() {
    let model = VisionLanguageModel::load(&folder("nested"), &WeightFormat::F32.into()).unwrap();
    let cases = cases();
    let prompts = cases.iter().map(|case| case.prompt(model.vision_encoder())).collect();
    for (case, drawn) in cases.iter().zip(drawn(&model, prompts, EngineOptions::default())) {
        // f32 accumulated in another order.
        drawn.assert_matches(&case.name, &case.logp, &case.greedy, 2e-5);
    }
}

#[test]
fn images_and_videos_take_their_placeholders_each_in_its_own_order() {
    let vision_encoder = encoder();
    let case = cases().into_iter().find(|case| case.name == "images and videos mixed").unwrap();
    let in_order = case.encode(&vision_encoder);
    let prompt = vision_encoder.expand_placeholders(&case.raw, &in_order).unwrap();
    let images = in_order.iter().filter(|visual| !visual.is_video());
    let videos = in_order.iter().filter(|visual| visual.is_video());
    let by_kind: Vec<ImageEmbeddings> = videos.chain(images).cloned().collect();
    let again = vision_encoder.expand_placeholders(&case.raw, &by_kind).unwrap();
    assert_eq!(again.ids(), prompt.ids());
    let positions = |prompt: &Prompt| -> Vec<_> {
        (0..prompt.len()).map(|index| prompt.position(index)).collect()
    };
    assert_eq!(positions(&again), positions(&prompt));
}

#[test]
fn an_image_for_a_video_placeholder_is_an_error_that_names_the_kind() {
    let vision_encoder = encoder();
    let all = cases();
    let raw = |name: &str| &all.iter().find(|case| case.name == name).unwrap().raw;
    let image = vision_encoder.encode_image(&test_image((84, 56), 1)).unwrap();
    let frames = [test_image((84, 56), 1), test_image((84, 56), 2)];
    let video = vision_encoder.encode_video(&video(frames.to_vec(), 2.0)).unwrap();
    let error = |name: &str, visuals: &[ImageEmbeddings]| {
        vision_encoder.expand_placeholders(raw(name), visuals).unwrap_err()
    };
    let wrong = error("a video at 2 fps", std::slice::from_ref(&image));
    assert!(matches!(wrong, Error::ImageCount { placeholders: 0, images: 1 }), "{wrong}");
    let wrong = error("an image", std::slice::from_ref(&video));
    assert_eq!(wrong.to_string(), "the prompt has 1 image placeholders for 0 images");
    let wrong = error("a video at 2 fps", &[]);
    assert_eq!(wrong.to_string(), "the prompt has 1 video placeholders for 0 videos");
    let wrong = error("an image", &[image, video]);
    assert!(matches!(wrong, Error::VideoCount { placeholders: 0, videos: 1 }), "{wrong}");
}

#[test]
fn invalid_frames_and_times_of_a_video_are_named() {
    let vision_encoder = encoder();
    let frames = [test_image((84, 56), 1), test_image((56, 84), 2)];
    let message = |frames: &[RgbImage], seconds: f64| {
        let video = video(frames.to_vec(), 1.0 / seconds);
        vision_encoder.encode_video(&video).unwrap_err().to_string()
    };
    assert_eq!(message(&[], 0.5), "a video needs one or more frames");
    let sizes = message(&frames, 0.5);
    assert_eq!(sizes, "a video's frames differ in size: 84 × 56 and 56 × 84 pixels");
    for seconds in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let message = message(&frames[..1], seconds);
        assert!(message.contains("must be positive"), "{message}");
    }
    let video =
        SampledVideo { times: FrameTimes::at_rate(3, 2.0), ..video(frames[..1].to_vec(), 2.0) };
    let message = vision_encoder.encode_video(&video).unwrap_err().to_string();
    assert_eq!(message, "a video of 1 frames has 3 times");
}

#[test]
fn frames_that_are_resized_early_have_the_same_patches() {
    let processor =
        encoder().processor().clone().with_pixels(PixelOptions::at_most(Some(40 * 784)));
    for (size, is_early) in
        [((400, 300), true), ((300, 401), true), ((84, 56), false), ((2400, 24), false)]
    {
        let frames: Vec<RgbImage> = (1..4).map(|seed| test_image(size, seed)).collect();
        let kept = processor.kept_frame_size(frames.len(), size).unwrap();
        assert_eq!(kept != size, is_early, "{size:?}: {kept:?}");
        let early: Vec<RgbImage> =
            frames.iter().cloned().map(|frame| Processor::resized(frame, kept)).collect();
        let patches = |frames: &[RgbImage]| {
            processor.video(frames).unwrap().patches.to_vec2::<f32>().unwrap()
        };
        assert_eq!(patches(&early), patches(&frames), "{size:?}");
    }
}

#[test]
fn the_pixels_of_a_videos_frames_may_be_limited_together() {
    let folder = tempfile::tempdir().unwrap();
    let text = r#"{"video_processor": {"cap_pixels_per_frame": true, "max_video_tokens": 1000,
        "size": {"shortest_edge": 3136, "longest_edge": 602112}}, "image_processor": {}}"#;
    std::fs::write(folder.path().join("processor_config.json"), text).unwrap();
    let processor = Processor::of_model(folder.path()).unwrap();
    let tokens = |frames| {
        let [_, height, width] = processor.video_grid(frames, (1120, 560)).unwrap().thw();
        height * width / 4
    };
    // The grids of `Qwen2VLVideoProcessor`: 900 tokens for all pairs of frames, up to a frame's own limits.
    assert_eq!(
        [tokens(2), tokens(4), tokens(16), tokens(64), tokens(4000)],
        [741, 450, 105, 21, 2]
    );
}
