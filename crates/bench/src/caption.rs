//! Captioning of video frames: vision encoder, prefill and decoding.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use embodied_r_grpo::estimate::peak_memory::take_peak_bytes;
use embodied_r_policy::tokenizer::Tokenizer;
use embodied_r_policy::{GenerationRequest, Prompt, SamplingParams, TensorParallel};
use embodied_r_vision::{
    ImageEmbeddings, MultimodalMessage, VisionEncoder, VisionLanguageModel, VisionOptions,
};
use image::{Rgb, RgbImage};

use crate::error::Result;
use crate::metrics::{Metrics, median};

/// About as long as the prompt of `perceive`.
const INSTRUCTIONS: &str = "These two images are consecutive views from the camera of a moving agent. Reply with a \
    numbered list of exactly three items: the movement that leads from the first view to the second, what the second \
    view shows that the first one did not, and which of the things that the question mentions are in it. Be brief.";

/// What is captioned: the first frame alone, each later frame together with the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frames {
    /// Number of frames.
    pub count: usize,
    /// Width and height in pixels.
    pub size: (u32, u32),
    /// Caption length in tokens; stop tokens are ignored.
    pub new: usize,
    /// Measured runs, after one warmup run.
    pub runs: usize,
}

/// Times captioning by the model in `folder`, split over `ranks`; all of them compute the same.
///
/// # Errors
/// The model cannot be loaded, or a caption or a rank fails.
pub fn run(
    folder: &Path,
    frames: &Frames,
    options: &VisionOptions,
    ranks: &TensorParallel,
) -> Result<Metrics> {
    let tokenizer = Tokenizer::from_dir(folder)?;
    let model = VisionLanguageModel::load_part(folder, options, ranks)?;
    let mut runs = Vec::new();
    for run in 0..=frames.runs {
        runs.push(timed(frames, &model, &tokenizer, run)?);
    }
    let of = |time: fn(&Times) -> f64| median(runs[1..].iter().map(time));
    let (tower, again) = (of(|run| run.tower), of(|run| run.again));
    let (prefill, decode) = (of(|run| run.prefill), of(|run| run.decode));
    let encoder = model.vision_encoder();
    let grid = encoder.processor().image_grid(frames.size)?;
    let (count, flop) = (frames.count as f64, encoder.config().flops(grid));
    let prompt_tokens = runs[0].prompt_tokens as f64;
    let mut metrics = Metrics::new([
        ("patches_per_frame", grid.patches() as f64),
        ("tokens_per_frame", grid.tokens(encoder.config().spatial_merge_size) as f64),
        ("prompt_tokens", prompt_tokens),
        ("frames_per_s", count / (tower + prefill + decode)),
        ("frames_per_s_without_reuse", count / (again + prefill + decode)),
        ("tower_frames_per_s", count / tower),
        ("tower_gflop_per_frame", flop / 1e9),
        ("tower_gflop_per_s", flop * count / tower / 1e9),
        ("prefill_tokens_per_s", prompt_tokens / prefill),
        ("decode_tokens_per_s", count * frames.new as f64 / decode),
    ]);
    let device = &options.placement.device;
    metrics.add_peak_memory(device, take_peak_bytes(device)?);
    Ok(metrics)
}

/// Seconds of the phases of a run.
struct Times {
    /// Encoding each frame once.
    tower: f64,
    /// Encoding each frame for every prompt that contains it.
    again: f64,
    prefill: f64,
    decode: f64,
    prompt_tokens: usize,
}

fn timed(
    frames: &Frames,
    model: &VisionLanguageModel,
    tokenizer: &Tokenizer,
    run: usize,
) -> Result<Times> {
    let images: Vec<RgbImage> = (0..frames.count)
        .map(|index| frame(frames.size, (run * frames.count + index) as u32))
        .collect();
    let began = Instant::now();
    let embeddings = encode(model, &images.iter().collect::<Vec<_>>())?;
    let tower = began.elapsed().as_secs_f64();
    let began = Instant::now();
    let of_prompts = (0..images.len()).flat_map(|after| &images[after.saturating_sub(1)..=after]);
    encode(model, &of_prompts.collect::<Vec<_>>())?;
    let again = began.elapsed().as_secs_f64();
    let prompts: Vec<Prompt> = prompts(model.vision_encoder(), tokenizer, &embeddings)?;
    let prompt_tokens = prompts.iter().map(Prompt::len).sum();
    let request = |prompt: &Prompt| GenerationRequest {
        prompt: prompt.clone(),
        samples: 1,
        stream: 0,
        first_sample: 0,
    };
    let requests: Vec<GenerationRequest> = prompts.iter().map(request).collect();
    let timed = |new: usize| -> Result<f64> {
        let sampling = SamplingParams { max_new_tokens: new, ..SamplingParams::greedy() };
        let began = Instant::now();
        Arc::clone(model.decoder()).generate(&requests, &sampling, &|_| {})?;
        Ok(began.elapsed().as_secs_f64())
    };
    let (prefill, whole) = (timed(1)?, timed(frames.new)?);
    Ok(Times { tower, again, prefill, decode: (whole - prefill).max(1e-9), prompt_tokens })
}

/// Image embeddings: computed one at a time, or partitioned over the ranks.
fn encode(model: &VisionLanguageModel, images: &[&RgbImage]) -> Result<Vec<ImageEmbeddings>> {
    let (encoder, ranks) = (model.vision_encoder(), model.decoder().ranks());
    if ranks.is_single_rank() {
        return Ok(images
            .iter()
            .map(|image| encoder.encode_image(image))
            .collect::<Result<_, _>>()?);
    }
    Ok(encoder.encode_images_over(images, ranks)?)
}

/// One prompt per frame, each with the previous frame.
fn prompts(
    encoder: &VisionEncoder,
    tokenizer: &Tokenizer,
    embeddings: &[ImageEmbeddings],
) -> Result<Vec<Prompt>> {
    let prompt = |after: usize| {
        let embeddings = &embeddings[after.saturating_sub(1)..=after];
        Ok(encoder.prompt(
            tokenizer,
            &[MultimodalMessage::user(embeddings.len(), INSTRUCTIONS)],
            embeddings,
        )?)
    };
    (0..embeddings.len()).map(prompt).collect()
}

/// A synthetic image of gradients and edges, distinct for each seed.
fn frame((width, height): (u32, u32), seed: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let slope = (x + 3 * y + 17 * seed) % 256;
        let edge = (x / 40 + y / 30 + seed) % 2 * 200;
        Rgb([slope as u8, edge as u8, (slope ^ edge) as u8])
    })
}
