//! `embodied-r inspect caption`: image preprocessing and greedy output of a vision-language model.

use std::path::PathBuf;
use std::sync::Arc;

use embodied_r_dist::ProcessGroup;
use embodied_r_media::sampled_video::{FramePlan, FrameSelection, FrameUse};
use embodied_r_policy::tokenizer::{SpecialTokens, Tokenizer};
use embodied_r_policy::{
    Engine, EngineOptions, EngineOutput, GenerationRequest, Prompt, SamplingParams, TensorParallel,
};
use embodied_r_video::Limits;
use embodied_r_vision::{
    MultimodalMessage, MultimodalPart, PixelOptions, Pixels, Processor, SampledVideo,
    VisionLanguageModel, VisionOptions, VisionProcessor, image_file,
};
use image::RgbImage;
use serde_json::json;

use crate::args::inspect::CaptionArgs;
use crate::exit::Status;
use crate::hub;
use crate::output::outln;
use crate::ranks::run_on_ranks;

/// Number of top log-probabilities.
const TOP_LOGPROBS: usize = 5;

/// Caption images.
pub(super) fn run(args: &CaptionArgs) -> anyhow::Result<Status> {
    run_on_ranks(&args.parallel.ranks, args.weights.device, |process_group| {
        caption(args, process_group)
    })
}

/// Captions on every rank of `process_group`; all compute the same.
fn caption(args: &CaptionArgs, process_group: &ProcessGroup) -> anyhow::Result<Status> {
    args.parallel.check_one(process_group.world_size())?;
    let ranks = TensorParallel::new(process_group.communicator().clone());
    let folder = hub::with_vision_encoder(&args.model, None)?;
    // Checks images and videos before the slow loading of the weights.
    let images: Vec<RgbImage> =
        args.image.iter().map(|path| image_file::read(path)).collect::<Result<_, _>>()?;
    let video_pixels = Some(args.video_pixels.into());
    let pixels = PixelOptions { video_pixels, ..PixelOptions::at_most(args.max_pixels) };
    let processor = VisionProcessor::of_model(&folder)?.with_pixels(pixels);
    let videos = videos(args, processor.processor())?;
    let tokenizer = Tokenizer::from_dir(&folder)?;
    let placement = args.weights.placement_of(args.parallel.ranks.gpus)?;
    let options = VisionOptions { placement, pixels };
    let model = VisionLanguageModel::load_part(&folder, &options, &ranks)?;
    let of_images = images.iter().map(|image| processor.processor().image(image));
    let of_videos = videos.iter().map(|(_, video)| processor.processor().video(&video.frames));
    let pixels: Vec<Pixels> = of_images.chain(of_videos).collect::<Result<_, _>>()?;
    let (mean, deviation) = moments(&pixels)?;
    let mut embeddings =
        model.vision_encoder().encode_images_over(&images.iter().collect::<Vec<_>>(), &ranks)?;
    for (_, video) in &videos {
        embeddings.push(model.vision_encoder().encode_video(video)?);
    }
    let mut message = MultimodalMessage::user(images.len(), &args.prompt);
    let after_images = images.len()..images.len();
    message.content.splice(after_images, videos.iter().map(|_| MultimodalPart::Video));
    let prompt = model.vision_encoder().prompt(&tokenizer, &[message], &embeddings)?;
    let n_input = prompt.len();
    let GreedyOutput { top, tokens } =
        greedy(&model, prompt, args.max_tokens, tokenizer.stop_ids())?;
    if !process_group.is_rank_zero() {
        return Ok(Status::Done);
    }
    if !args.json {
        for (path, visual) in args.image.iter().chain(&args.video).zip(&embeddings) {
            let [time, height, width] = visual.grid().thw();
            let of_time = if visual.is_video() { format!("{time} × ") } else { String::new() };
            let (path, tokens) = (path.display(), visual.tokens());
            outln!("{path}: {of_time}{width} × {height} patches, {tokens} tokens")?;
        }
        outln!("{}", tokenizer.decode(&tokens, SpecialTokens::Skip)?)?;
        return Ok(Status::Done);
    }
    let grids: Vec<[usize; 3]> = pixels.iter().map(|pixels| pixels.grid.thw()).collect();
    let mut facts = json!({
        "grid_thw": grids,
        "n_input": n_input,
        "pixel_mean": mean,
        "pixel_std": deviation,
        "last_top5": top,
        "tokens": tokens,
    });
    if !videos.is_empty() {
        facts["video_pixels"] = json!(processor.processor().video_pixels());
        let timestamps =
            embeddings.iter().skip(images.len()).map(|video| video.layout().timestamps());
        let facts_of = |((plan, video), timestamps): (&(FramePlan, SampledVideo), &[String])| json!({"frames": plan.indices(), "times": video.times.starts, "timestamps": timestamps});
        facts["videos"] = videos.iter().zip(timestamps).map(facts_of).collect();
    }
    outln!("{facts}")?;
    Ok(Status::Done)
}

/// The selected frames of the videos.
fn videos(
    args: &CaptionArgs,
    processor: &Processor,
) -> anyhow::Result<Vec<(FramePlan, SampledVideo)>> {
    let (selection, limits) =
        (args.frames.selection(FrameSelection::default())?, Limits::default());
    let decoded = |path: &PathBuf| {
        let plan = FramePlan::of_file(path, &selection, processor, &limits)?;
        let video = plan.decode(FrameUse::Video, processor, &limits)?;
        Ok((plan, video))
    };
    args.video.iter().map(decoded).collect()
}

/// Mean and (unbiased, as in torch) standard deviation of all images' normalized pixels.
fn moments(images: &[Pixels]) -> anyhow::Result<(f64, f64)> {
    let (mut count, mut sum, mut squares) = (0.0, 0.0, 0.0);
    for image in images {
        for number in image.patches.flatten_all()?.to_vec1::<f32>()? {
            let number = f64::from(number);
            (count, sum, squares) = (count + 1.0, sum + number, squares + number * number);
        }
    }
    let mean = sum / count;
    Ok((mean, ((squares - sum * mean) / (count - 1.0)).sqrt()))
}

/// A greedy completion.
struct GreedyOutput {
    /// The top log-probabilities at the first position.
    top: Vec<(u32, f32)>,
    tokens: Vec<u32>,
}

fn greedy(
    model: &VisionLanguageModel,
    prompt: Prompt,
    max_new_tokens: usize,
    stop_ids: &[u32],
) -> anyhow::Result<GreedyOutput> {
    let stop_ids = stop_ids.to_vec();
    let logprobs = Some(TOP_LOGPROBS);
    let sampling =
        SamplingParams { max_new_tokens, stop_ids, logprobs, ..SamplingParams::greedy() };
    let mut engine = Engine::new(model.decoder().clone(), EngineOptions::default())?;
    engine.add(
        &GenerationRequest { prompt, samples: 1, stream: 0, first_sample: 0 },
        &Arc::new(sampling),
    )?;
    let mut greedy = GreedyOutput { top: Vec::new(), tokens: Vec::new() };
    while engine.has_work() {
        for output in engine.step()? {
            if let EngineOutput::NonFinite { .. } = output {
                return Err(embodied_r_policy::Error::NonFiniteLogits.into());
            }
            let EngineOutput::Token { token, .. } = output else { continue };
            if let Some(report) = token.logprobs.filter(|_| greedy.tokens.is_empty()) {
                greedy.top = report.top_logprobs;
            }
            greedy.tokens.push(token.id);
        }
    }
    Ok(greedy)
}
