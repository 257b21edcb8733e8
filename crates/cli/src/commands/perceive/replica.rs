//! `perceive` with a model on the ranks: one, or one on each `--tp` of them.

use embodied_r_data::Progress;
use embodied_r_data::progress::Silent;
use embodied_r_grpo::team::Team;
use embodied_r_perception::perceive::{self, Options, Replica, Summary};
use embodied_r_policy::{Placement, TensorParallel};
use serde_json::{Map, Value};

use super::model::{self, Taken, Telling};
use super::{asked, explain, report};
use crate::args::parallel::ParallelArgs;
use crate::args::perceive::{LocalArgs, VisionModelArgs};
use crate::exit::Status;
use crate::progress::Bar;

/// Captions with the models of `team`.
pub(super) fn run(
    asked_as: VisionModelArgs,
    args: &LocalArgs,
    parallel: &ParallelArgs,
    options: Options,
    team: &Team,
) -> anyhow::Result<Status> {
    let replicas = parallel.replicas(team.size())?;
    let ranks = TensorParallel::over(team.communicator().split(replicas)?);
    let placement = args.weights.placement_of(parallel.ranks.gpus)?;
    let bar = Bar::default();
    let telling: (Telling, &dyn Progress) = match team.is_first() {
        true => (Telling::Estimate, &bar),
        false => (Telling::Nothing, &Silent),
    };
    let status = if replicas == 1 {
        match model::local(asked_as, args, &options, (&placement, &ranks), telling)? {
            Some(captioner) => asked(&captioner, &options, telling.1)?,
            None => Status::Done,
        }
    } else {
        shared(asked_as, args, (options, replicas), (team, &placement, &ranks), telling)?
    };
    // Where the first one fails, the others hear of it here.
    team.wait()?;
    Ok(status)
}

/// Captions with several models, each on so many of `ranks`.
fn shared(
    asked_as: VisionModelArgs,
    args: &LocalArgs,
    (whole, replicas): (Options, usize),
    (team, placement, ranks): (&Team, &Placement, &TensorParallel),
    telling: (Telling, &dyn Progress),
) -> anyhow::Result<Status> {
    let index = team.rank() / ranks.size();
    let share = |limit: usize| limit * (index + 1) / replicas - limit * index / replicas;
    let options = Options {
        replica: Replica::new(index + 1, replicas),
        limit: whole.limit.map(share),
        ..whole.clone()
    };
    let own = own(asked_as, args, &options, (placement, ranks), telling)?;
    team.enter("unite");
    let all = team.gather(own.as_ref().map(|own| (own.summaries.clone(), own.taken)))?;
    let Some(own) = own.filter(|_| team.is_first()) else { return Ok(Status::Done) };
    perceive::unite(&whole, &own.settings, telling.1).map_err(explain)?;
    let (mut summaries, mut taken) = (own.summaries, own.taken);
    for (others, other) in all.iter().skip(1).flatten() {
        taken = taken.with(other);
        let sums = summaries.into_iter().zip(others);
        summaries = sums.map(|(summary, other)| summary.with(other)).collect();
    }
    let status = report(&summaries);
    model::report(&taken, &whole)?;
    status
}

/// What one model has done.
struct Done {
    summaries: Vec<Summary>,
    taken: Taken,
    settings: Map<String, Value>,
}

/// Captions the share of one model; the ranks but the first that hold it get nothing.
fn own(
    asked_as: VisionModelArgs,
    args: &LocalArgs,
    options: &Options,
    place: (&Placement, &TensorParallel),
    telling: (Telling, &dyn Progress),
) -> anyhow::Result<Option<Done>> {
    let Some(captioner) = model::local(asked_as, args, options, place, telling)? else {
        return Ok(None);
    };
    let summaries = super::perceive(options, &captioner, telling.1)?;
    let settings = perceive::settings(options, &captioner);
    Ok(Some(Done { summaries, taken: Taken::of(&captioner), settings }))
}
