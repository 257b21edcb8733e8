//! `perceive` with a local model: data-parallel replicas, each tensor-parallel over `--tp` ranks.

use embodied_r_data::Progress;
use embodied_r_data::progress::Silent;
use embodied_r_grpo::process_group::ProcessGroup;
use embodied_r_perception::perceive::{self, PerceiveOptions, PerceiveSummary, Replica};
use embodied_r_policy::{TensorParallel, WeightPlacement};
use serde_json::{Map, Value};

use super::captioning::{self, report, run_model};
use super::explain::explain;
use super::model::{self, EstimateOutput, UsageReport};
use crate::args::parallel::ParallelArgs;
use crate::args::perceive::{LocalArgs, VisionModelArgs};
use crate::exit::Status;
use crate::progress::Bar;

/// Captions with the replicas of `process_group`.
pub(super) fn run(
    model_args: VisionModelArgs,
    args: &LocalArgs,
    parallel: &ParallelArgs,
    options: PerceiveOptions,
    process_group: &ProcessGroup,
) -> anyhow::Result<Status> {
    let replicas = parallel.replicas(process_group.world_size())?;
    let ranks = TensorParallel::new(process_group.communicator().split(replicas)?);
    let placement = args.weights.placement_of(parallel.ranks.gpus)?;
    let bar = Bar::default();
    let estimate_output: (EstimateOutput, &dyn Progress) = match process_group.is_rank_zero() {
        true => (EstimateOutput::Print, &bar),
        false => (EstimateOutput::Quiet, &Silent),
    };
    let status = if replicas == 1 {
        match model::local(model_args, args, &options, (&placement, &ranks), estimate_output)? {
            Some(captioner) => run_model(&captioner, &options, estimate_output.1)?,
            None => Status::Done,
        }
    } else {
        run_replicas(
            model_args,
            args,
            (options, replicas),
            (process_group, &placement, &ranks),
            estimate_output,
        )?
    };
    // A failure of the first rank reaches the others here.
    process_group.barrier()?;
    Ok(status)
}

/// Captions with several replicas of `ranks.world_size()` ranks each.
fn run_replicas(
    model_args: VisionModelArgs,
    args: &LocalArgs,
    (whole, replicas): (PerceiveOptions, usize),
    (process_group, placement, ranks): (&ProcessGroup, &WeightPlacement, &TensorParallel),
    estimate_output: (EstimateOutput, &dyn Progress),
) -> anyhow::Result<Status> {
    let index = process_group.rank() / ranks.world_size();
    let share = |limit: usize| limit * (index + 1) / replicas - limit * index / replicas;
    let options = PerceiveOptions {
        replica: Replica::new(index + 1, replicas),
        limit: whole.limit.map(share),
        ..whole.clone()
    };
    let own = own(model_args, args, &options, (placement, ranks), estimate_output)?;
    process_group.enter("merge");
    let all =
        process_group.all_gather(own.as_ref().map(|own| (own.summaries.clone(), own.usage)))?;
    let Some(own) = own.filter(|_| process_group.is_rank_zero()) else { return Ok(Status::Done) };
    perceive::merge_replicas(&whole, &own.settings, estimate_output.1).map_err(explain)?;
    let (mut summaries, mut usage) = (own.summaries, own.usage);
    for (others, other) in all.iter().skip(1).flatten() {
        usage = usage.with(other);
        let sums = summaries.into_iter().zip(others);
        summaries = sums.map(|(summary, other)| summary.with(other)).collect();
    }
    let status = report(&summaries);
    model::report(&usage, &whole)?;
    status
}

/// The results of one replica.
struct ReplicaResults {
    summaries: Vec<PerceiveSummary>,
    usage: UsageReport,
    settings: Map<String, Value>,
}

/// Captions the share of one replica; `None` on its ranks other than the first.
fn own(
    model_args: VisionModelArgs,
    args: &LocalArgs,
    options: &PerceiveOptions,
    parallelism: (&WeightPlacement, &TensorParallel),
    estimate_output: (EstimateOutput, &dyn Progress),
) -> anyhow::Result<Option<ReplicaResults>> {
    let Some(captioner) = model::local(model_args, args, options, parallelism, estimate_output)?
    else {
        return Ok(None);
    };
    let summaries = captioning::perceive(options, &captioner, estimate_output.1)?;
    let settings = perceive::settings(options, &captioner);
    Ok(Some(ReplicaResults { summaries, usage: UsageReport::of(&captioner), settings }))
}
