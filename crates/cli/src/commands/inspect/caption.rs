//! `embodied-r inspect caption`: image preprocessing and greedy output of a vision-language model.

use std::sync::Arc;

use embodied_r_dist::ProcessGroup;
use embodied_r_policy::tokenizer::{SpecialTokens, Tokenizer};
use embodied_r_policy::{
    Engine, EngineOptions, EngineOutput, GenerationRequest, Prompt, SamplingParams, TensorParallel,
};
use embodied_r_vision::{
    MultimodalMessage, Pixels, VisionLanguageModel, VisionOptions, image_file,
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
    // Checks the images before the slow loading of the weights.
    let images: Vec<RgbImage> =
        args.image.iter().map(|path| image_file::read(path)).collect::<Result<_, _>>()?;
    let tokenizer = Tokenizer::from_dir(&folder)?;
    let placement = args.weights.placement_of(args.parallel.ranks.gpus)?;
    let options = VisionOptions { placement, max_pixels: args.max_pixels };
    let model = VisionLanguageModel::load_part(&folder, &options, &ranks)?;
    let processor = model.vision_encoder().processor();
    let pixels = images.iter().map(|image| processor.image(image));
    let pixels: Vec<Pixels> = pixels.collect::<Result<_, _>>()?;
    let (mean, deviation) = moments(&pixels)?;
    let embeddings =
        model.vision_encoder().encode_images_over(&images.iter().collect::<Vec<_>>(), &ranks)?;
    let message = MultimodalMessage::user(images.len(), &args.prompt);
    let prompt = model.vision_encoder().prompt(&tokenizer, &[message], &embeddings)?;
    let n_input = prompt.len();
    let GreedyOutput { top, tokens } =
        greedy(&model, prompt, args.max_tokens, tokenizer.stop_ids())?;
    if !process_group.is_rank_zero() {
        return Ok(Status::Done);
    }
    if !args.json {
        for (path, image) in args.image.iter().zip(&embeddings) {
            let [_, height, width] = image.grid().thw();
            let (path, tokens) = (path.display(), image.tokens());
            outln!("{path}: {width} × {height} patches, {tokens} tokens")?;
        }
        outln!("{}", tokenizer.decode(&tokens, SpecialTokens::Skip)?)?;
        return Ok(Status::Done);
    }
    let grids: Vec<[usize; 3]> = pixels.iter().map(|pixels| pixels.grid.thw()).collect();
    let facts = json!({
        "grid_thw": grids,
        "n_input": n_input,
        "pixel_mean": mean,
        "pixel_std": deviation,
        "last_top5": top,
        "tokens": tokens,
    });
    outln!("{facts}")?;
    Ok(Status::Done)
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
