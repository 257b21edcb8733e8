//! `embodied-r bench caption`.

use embodied_r_bench::Metrics;
use embodied_r_bench::caption::{self, Frames};
use embodied_r_dist::ProcessGroup;
use embodied_r_policy::TensorParallel;
use embodied_r_vision::{PixelOptions, VisionOptions};
use serde::Serialize;

use super::report::lines;
use crate::args::bench::CaptionArgs;
use crate::exit::{Status, Usage};
use crate::hub;
use crate::output::outln;
use crate::ranks::run_on_ranks;

/// The JSON object.
#[derive(Serialize)]
struct CaptionReport<'a> {
    model: &'a str,
    frames: usize,
    size: &'a [u32],
    new: usize,
    #[serde(flatten)]
    metrics: &'a Metrics,
}

/// Benchmarks captioning of video frames.
pub(super) fn run(args: &CaptionArgs) -> anyhow::Result<Status> {
    if args.runs == 0 || args.frames == 0 || args.new == 0 || args.size.contains(&0) {
        let what = "`--runs`, `--frames`, `--new` and both sides of `--size` must be above 0";
        return Err(Usage(what.into()).into());
    }
    run_on_ranks(&args.parallel.ranks, args.weights.device, |process_group| {
        run_as(args, process_group)
    })
}

fn run_as(args: &CaptionArgs, process_group: &ProcessGroup) -> anyhow::Result<Status> {
    args.parallel.check_one(process_group.world_size())?;
    let ranks = TensorParallel::new(process_group.communicator().clone());
    let folder = hub::with_vision_encoder(&args.model, None)?;
    let placement = args.weights.placement_of(args.parallel.ranks.gpus)?;
    let options = VisionOptions { placement, pixels: PixelOptions::default() };
    let &CaptionArgs { frames: count, new, runs, .. } = args;
    let size = (args.size[0], args.size[1]);
    let frames = Frames { count, size, new, runs };
    let metrics = caption::run(&folder, &frames, &options, &ranks)?;
    if !process_group.is_rank_zero() {
        return Ok(Status::Done);
    }
    if args.json {
        let (model, size, metrics) = (&args.model, &args.size, &metrics);
        let report = CaptionReport { model, frames: count, size, new, metrics };
        outln!("{}", serde_json::to_string(&report)?)?;
    } else {
        outln!("{count} frames of {} × {}, {new} tokens each", size.0, size.1)?;
        lines(&metrics)?;
    }
    Ok(Status::Done)
}
