//! `embodied-r bench grpo`.

use embodied_r_bench::grpo::{self, ImageOptions, Options};
use embodied_r_dist::ProcessGroup;
use embodied_r_grpo::settings::VisionSettings;
use serde_json::json;

use super::report::{JsonList, WorkReport, folder, print};
use crate::args::bench::GrpoArgs;
use crate::commands::train::memory::host_bytes;
use crate::device;
use crate::exit::{Status, Usage};
use crate::output::outln;
use crate::ranks::run_on_ranks;
use crate::settings::Layers;

/// Benchmarks whole steps on all ranks.
pub(super) fn run(args: &GrpoArgs) -> anyhow::Result<Status> {
    run_on_ranks(&args.ranks, args.work.device, |process_group| run_as(args, process_group))
}

/// The images of the prompts, if there are any.
fn images(args: &GrpoArgs) -> anyhow::Result<Option<ImageOptions>> {
    let Some(side) = args.image else { return Ok(None) };
    anyhow::ensure!(side > 0, Usage("`--image` must be above 0".into()));
    let vision: VisionSettings = Layers::default().pairs(&args.sets).resolve(&[])?;
    Ok(Some(ImageOptions { side, vision }))
}

fn run_as(args: &GrpoArgs, process_group: &ProcessGroup) -> anyhow::Result<Status> {
    let work = &args.work;
    anyhow::ensure!(work.group_size >= 2, Usage("`--group-size` must be 2 or more".into()));
    anyhow::ensure!(
        args.max_tokens_per_batch > 0,
        Usage("`--max-tokens-per-batch` must be above 0".into())
    );
    let (name, precision) = work.device_and_precision(args.ranks.gpus);
    let options = Options {
        work: work.work(),
        device: device::open(name)?,
        precision,
        recompute: args.recompute.into(),
        max_tokens_per_batch: args.max_tokens_per_batch,
        host_bytes,
        images: images(args)?,
    };
    let folder = folder(work)?;
    // Steps are printed as they go.
    let mut phases = match work.json && process_group.is_rank_zero() {
        true => Some(JsonList::open(&WorkReport::new(work, precision, json!({})), "phases")?),
        false => None,
    };
    let report = grpo::run(&folder, &options, process_group, &mut |phase| {
        let printed = phases.as_mut().map_or(Ok(()), |phases| phases.push(phase));
        printed.map_err(embodied_r_bench::Error::Output)
    })?;
    if let Some(phases) = phases {
        phases.close(&report)?;
    } else if process_group.is_rank_zero() {
        print(work, &report.metrics)?;
        let line = |name: &str, values: Vec<String>| outln!("{name:<28} {:>14}", values.join(" "));
        let completions = report.completions_per_rank.iter().map(ToString::to_string);
        line("completions_per_rank", completions.collect())?;
        // As JSON writes them.
        let shares = report.busy_share_per_rank.iter().map(|share| json!(share).to_string());
        line("busy_share_per_rank", shares.collect())?;
    }
    Ok(Status::Done)
}
