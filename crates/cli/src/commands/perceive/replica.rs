//! `perceive` with a local model: data-parallel replicas, each tensor-parallel over `--tp` ranks.

use embodied_r_data::progress::Silent;
use embodied_r_dist::ProcessGroup;
use embodied_r_perception::perceive::{self, PerceiveOptions, PerceiveSummary, Replica};
use embodied_r_policy::TensorParallel;
use serde_json::{Map, Value};

use super::captioning::{self, report, run_model};
use super::explain::explain;
use super::model::{self, LocalCaptioner, UsageReport};
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
    let is_first = process_group.is_rank_zero();
    let captioner = LocalCaptioner {
        model: &model_args,
        args,
        placement: &placement,
        ranks: &ranks,
        prints_estimate: is_first,
        progress: if is_first { &bar } else { &Silent },
    };
    let status = match replicas {
        1 => match captioner.open(&options)? {
            Some(opened) => run_model(&opened, &options, captioner.progress)?,
            None => Status::Done,
        },
        _ => run_replicas(&captioner, options, replicas, process_group)?,
    };
    // A failure of the first rank reaches the others here.
    process_group.barrier()?;
    Ok(status)
}

/// Captions with several replicas of the captioner, each on ranks of its own.
fn run_replicas(
    captioner: &LocalCaptioner<'_>,
    whole: PerceiveOptions,
    replicas: usize,
    process_group: &ProcessGroup,
) -> anyhow::Result<Status> {
    let index = process_group.rank() / captioner.ranks.world_size();
    let share = |limit: usize| limit * (index + 1) / replicas - limit * index / replicas;
    let options = PerceiveOptions {
        replica: Replica::new(index + 1, replicas),
        limit: whole.limit.map(share),
        ..whole.clone()
    };
    let own = own(captioner, &options)?;
    process_group.enter("merge");
    let all =
        process_group.all_gather(own.as_ref().map(|own| (own.summaries.clone(), own.usage)))?;
    let Some(own) = own.filter(|_| process_group.is_rank_zero()) else { return Ok(Status::Done) };
    perceive::merge_replicas(&whole, &own.settings, captioner.progress).map_err(explain)?;
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
    captioner: &LocalCaptioner<'_>,
    options: &PerceiveOptions,
) -> anyhow::Result<Option<ReplicaResults>> {
    let progress = captioner.progress;
    let Some(captioner) = captioner.open(options)? else { return Ok(None) };
    let summaries = captioning::perceive(options, &captioner, progress)?;
    let settings = perceive::settings(options, &captioner);
    Ok(Some(ReplicaResults { summaries, usage: UsageReport::of(&captioner), settings }))
}
