//! `embodied-r inspect caption`: what a vision-language model sees in pictures and says of them.

use std::sync::Arc;

use embodied_r_grpo::team::Team;
use embodied_r_policy::tokenizer::{Special, Tokenizer};
use embodied_r_policy::{
    Engine, EngineOptions, Output, Prompt, Request, Sampling, TensorParallel, hub,
};
use embodied_r_vision::{Message, Pixels, VisionLanguageModel, VisionOptions, picture};
use image::RgbImage;
use serde_json::json;

use crate::args::inspect::CaptionArgs;
use crate::exit::Status;
use crate::output::outln;
use crate::ranks::together;

/// Tokens whose log-probabilities are shown.
const TOP: usize = 5;

/// Look at pictures.
pub(super) fn run(args: &CaptionArgs) -> anyhow::Result<Status> {
    together(&args.parallel.ranks, args.weights.device, |team| look(args, team))
}

/// Looks at them on every rank of `team`, which all do the same.
fn look(args: &CaptionArgs, team: &Team) -> anyhow::Result<Status> {
    args.parallel.check_one(team.size())?;
    let ranks = TensorParallel::over(team.communicator().clone());
    let folder = hub::resolve(&args.model, None)?;
    // Before the weights, as it takes no time.
    let pictures: Vec<RgbImage> =
        args.image.iter().map(|path| picture::read(path)).collect::<Result<_, _>>()?;
    let tokenizer = Tokenizer::from_dir(&folder)?;
    let placement = args.weights.placement_of(args.parallel.ranks.gpus)?;
    let options = VisionOptions { placement, max_pixels: args.max_pixels };
    let model = VisionLanguageModel::load_part(&folder, &options, &ranks)?;
    let processor = model.eyes().processor();
    let pixels = pictures.iter().map(|picture| processor.image(picture));
    let pixels: Vec<Pixels> = pixels.collect::<Result<_, _>>()?;
    let (mean, deviation) = moments(&pixels)?;
    let seen = model.eyes().images_over(&pictures.iter().collect::<Vec<_>>(), &ranks)?;
    let message = Message::user(pictures.len(), &args.prompt);
    let prompt = model.eyes().prompt(&tokenizer, &[message], &seen)?;
    let n_input = prompt.len();
    let Said { top, tokens } = said(&model, prompt, args.max_tokens, tokenizer.stop_ids())?;
    if !team.is_first() {
        return Ok(Status::Done);
    }
    if !args.json {
        for (path, picture) in args.image.iter().zip(&seen) {
            let [_, height, width] = picture.grid().thw();
            let (path, tokens) = (path.display(), picture.tokens());
            outln!("{path}: {width} × {height} patches, {tokens} tokens")?;
        }
        outln!("{}", tokenizer.decode(&tokens, Special::Skip)?)?;
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

/// Mean and deviation of all pictures' normalised pixels, as torch reckons them.
fn moments(pictures: &[Pixels]) -> anyhow::Result<(f64, f64)> {
    let (mut count, mut sum, mut squares) = (0.0, 0.0, 0.0);
    for picture in pictures {
        for number in picture.patches.flatten_all()?.to_vec1::<f32>()? {
            let number = f64::from(number);
            (count, sum, squares) = (count + 1.0, sum + number, squares + number * number);
        }
    }
    let mean = sum / count;
    Ok((mean, ((squares - sum * mean) / (count - 1.0)).sqrt()))
}

/// What follows a prompt.
struct Said {
    /// The likeliest tokens at the first position, with their log-probabilities.
    top: Vec<(u32, f32)>,
    tokens: Vec<u32>,
}

fn said(
    model: &VisionLanguageModel,
    prompt: Prompt,
    max_new_tokens: usize,
    stop_ids: &[u32],
) -> anyhow::Result<Said> {
    let stop_ids = stop_ids.to_vec();
    let logprobs = Some(TOP);
    let sampling = Sampling { max_new_tokens, stop_ids, logprobs, ..Sampling::greedy() };
    let mut engine = Engine::new(model.decoder().clone(), EngineOptions::default())?;
    engine.add(&Request { prompt, samples: 1, stream: 0 }, &Arc::new(sampling))?;
    let mut said = Said { top: Vec::new(), tokens: Vec::new() };
    while engine.has_work() {
        for output in engine.step()? {
            let Output::Token { token, .. } = output else { continue };
            if let Some(report) = token.report.filter(|_| said.tokens.is_empty()) {
                said.top = report.top;
            }
            said.tokens.push(token.id);
        }
    }
    Ok(said)
}
