//! `embodied-r bench caption`.

use std::sync::Arc;
use std::time::Instant;

use embodied_r_grpo::process_group::ProcessGroup;
use embodied_r_policy::tokenizer::Tokenizer;
use embodied_r_policy::{GenerationRequest, Prompt, SamplingParams, TensorParallel};
use embodied_r_vision::{
    ImageEmbeddings, MultimodalMessage, VisionEncoder, VisionLanguageModel, VisionOptions,
};
use image::{Rgb, RgbImage};
use serde_json::json;

use crate::args::bench::CaptionArgs;
use crate::exit::{Status, Usage};
use crate::hub;
use crate::output::outln;
use crate::ranks::run_on_ranks;

use super::work::{add, lines, median, with_peak};

/// About as long as the prompt of `perceive`.
const INSTRUCTIONS: &str = "These two pictures are consecutive views from the camera of a moving agent. Reply with a \
    numbered list of exactly three items: the movement that leads from the first view to the second, what the second \
    view shows that the first one did not, and which of the things that the question mentions are in it. Be brief.";

/// Benchmarks captioning of video frames.
pub(super) fn run(args: &CaptionArgs) -> anyhow::Result<Status> {
    if args.runs == 0 || args.frames == 0 || args.new == 0 || args.size.contains(&0) {
        let what = "`--runs`, `--frames`, `--new` and both sides of `--size` must be above 0";
        return Err(Usage(what.into()).into());
    }
    run_on_ranks(&args.parallel.ranks, args.weights.device, |process_group| {
        measure(args, process_group)
    })
}

/// Measures on every rank of `process_group`; all compute the same.
fn measure(args: &CaptionArgs, process_group: &ProcessGroup) -> anyhow::Result<Status> {
    args.parallel.check_one(process_group.world_size())?;
    let ranks = TensorParallel::new(process_group.communicator().clone());
    let folder = hub::with_vision_encoder(&args.model, None)?;
    let tokenizer = Tokenizer::from_dir(&folder)?;
    let placement = args.weights.placement_of(args.parallel.ranks.gpus)?;
    let device = placement.device.clone();
    let options = VisionOptions { placement, max_pixels: None };
    let model = VisionLanguageModel::load_part(&folder, &options, &ranks)?;
    let mut runs = Vec::new();
    for run in 0..=args.runs {
        runs.push(timed(args, &model, &tokenizer, run)?);
    }
    let of = |time: fn(&Times) -> f64| median(&runs[1..].iter().map(time).collect::<Vec<_>>());
    let (tower, again) = (of(|run| run.tower), of(|run| run.again));
    let (prefill, decode) = (of(|run| run.prefill), of(|run| run.decode));
    let encoder = model.vision_encoder();
    let grid = encoder.processor().image_grid((args.size[0], args.size[1]))?;
    let (frames, flop) = (args.frames as f64, encoder.config().flops(grid));
    let prompt_tokens = runs[0].prompt_tokens as f64;
    let metrics = [
        ("patches_per_frame", grid.patches() as f64),
        ("tokens_per_frame", grid.tokens(encoder.config().spatial_merge_size) as f64),
        ("prompt_tokens", prompt_tokens),
        ("frames_per_s", frames / (tower + prefill + decode)),
        ("frames_per_s_without_reuse", frames / (again + prefill + decode)),
        ("tower_frames_per_s", frames / tower),
        ("tower_gflop_per_frame", flop / 1e9),
        ("tower_gflop_per_s", flop * frames / tower / 1e9),
        ("prefill_tokens_per_s", prompt_tokens / prefill),
        ("decode_tokens_per_s", frames * args.new as f64 / decode),
    ];
    if !process_group.is_rank_zero() {
        return Ok(Status::Done);
    }
    let metrics = with_peak(&metrics, &device)?;
    if !args.json {
        let (width, height) = (args.size[0], args.size[1]);
        outln!("{frames} frames of {width} × {height}, {} tokens each", args.new)?;
        return lines(&metrics);
    }
    let mut all = json!({
        "model": args.model,
        "frames": args.frames,
        "size": args.size,
        "new": args.new,
    });
    add(&mut all, &metrics);
    outln!("{all}")?;
    Ok(Status::Done)
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
    args: &CaptionArgs,
    model: &VisionLanguageModel,
    tokenizer: &Tokenizer,
    run: usize,
) -> anyhow::Result<Times> {
    let frames: Vec<RgbImage> = (0..args.frames)
        .map(|index| frame((args.size[0], args.size[1]), (run * args.frames + index) as u32))
        .collect();
    let began = Instant::now();
    let embeddings = encode(model, &frames.iter().collect::<Vec<_>>())?;
    let tower = began.elapsed().as_secs_f64();
    let began = Instant::now();
    let of_prompts = (0..frames.len()).flat_map(|after| &frames[after.saturating_sub(1)..=after]);
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
    let timed = |new: usize| -> anyhow::Result<f64> {
        let sampling = SamplingParams { max_new_tokens: new, ..SamplingParams::greedy() };
        let began = Instant::now();
        Arc::clone(model.decoder()).generate(&requests, &sampling, &|_| {})?;
        Ok(began.elapsed().as_secs_f64())
    };
    let (prefill, whole) = (timed(1)?, timed(args.new)?);
    Ok(Times { tower, again, prefill, decode: (whole - prefill).max(1e-9), prompt_tokens })
}

/// Image embeddings: computed one at a time, or partitioned over the ranks.
fn encode(
    model: &VisionLanguageModel,
    images: &[&RgbImage],
) -> anyhow::Result<Vec<ImageEmbeddings>> {
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
) -> anyhow::Result<Vec<Prompt>> {
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
