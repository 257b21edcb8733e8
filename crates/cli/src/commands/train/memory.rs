//! How much memory a run takes, and what of it may go to activations.

use candle_core::Device;
use embodied_r_grpo::checkpoint::State;
use embodied_r_grpo::memory_plan::{Layout, Load, MemoryPlan, Taping};
use embodied_r_grpo::optimizer::Optim;
use embodied_r_grpo::questions::Prompted;
use embodied_r_grpo::settings::{Recompute, Sft, Train};
use embodied_r_grpo::supervised::Example;
use embodied_r_kernels::device;
use embodied_r_policy::{ModelConfig, Precision};
use embodied_r_rewards::Schedule as Stages;

use super::session::Trained;
use crate::commands::doctor::memory_bytes;
use crate::ranks::on_this_machine;

/// What a run is computed on: each of so many ranks on such a device.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) device: &'a Device,
    pub(crate) precision: Precision,
    pub(crate) ranks: usize,
}

impl Place<'_> {
    fn layout(&self) -> Layout {
        match (self.device.is_cpu(), self.precision) {
            (true, _) => Layout::cpu(self.ranks),
            (false, Precision::Bf16) => Layout::gpu(self.ranks),
            (false, Precision::F32) => Layout::gpu(self.ranks).in_f32(),
        }
    }

    /// Bytes that a rank may take, where that is known: all of its GPU's, or its share of the machine's.
    pub(super) fn free_bytes(&self) -> anyhow::Result<Option<usize>> {
        let bytes = match device::memory(self.device)? {
            Some(memory) => Some(memory.free_bytes),
            None => memory_bytes().map(|bytes| bytes / on_this_machine() as u64),
        };
        Ok(bytes.and_then(|bytes| usize::try_from(bytes).ok()))
    }
}

/// The memory of a GRPO run over `questions`, of the rank that takes most.
pub(crate) fn of_train(
    settings: &Train,
    stages: &Stages,
    trained: &Trained,
    questions: &[Prompted],
    taping: Taping,
    place: &Place<'_>,
) -> anyhow::Result<MemoryPlan> {
    let longest = questions.iter().map(|question| question.prompt.len()).max().unwrap_or(0);
    let load = Load::of_train(settings, stages, trained.counts, longest, taping);
    plan(&trained.config, load, settings.recompute, place)
}

/// Whether the update takes over what the rollout has computed: as the run has begun, if it goes on from a checkpoint
/// with the settings that it had.
pub(crate) fn taping(settings: &Train, goes_on: Option<&State>) -> Taping {
    match goes_on {
        _ if !settings.update_repeats_rollout() => Taping::Never,
        Some(state) => Taping::Settled(state.taped_layers),
        None => Taping::Open,
    }
}

/// The memory of a supervised run over `examples`, of the rank that takes most.
pub(crate) fn of_sft(
    settings: &Sft,
    trained: &Trained,
    examples: &[Example],
    place: &Place<'_>,
) -> anyhow::Result<MemoryPlan> {
    let longest = |part: fn(&Example) -> usize| examples.iter().map(part).max().unwrap_or(0);
    let load = Load {
        prompts: settings.train_batch_size,
        prompt: longest(|example| example.prompt.len()),
        completions: 1,
        completion: longest(|example| example.completion.len()),
        budget: settings.max_tokens_per_batch,
        ..Load::new(trained.counts, settings.optim)
    };
    plan(&trained.config, load, settings.recompute, place)
}

/// What a rank has of a run, where there are several: of what a step takes in, and of what is remembered.
pub(crate) fn share(
    ranks: usize,
    (step, what): (usize, &str),
    optim: Optim,
) -> Option<(&'static str, String)> {
    let moments = match optim {
        Optim::Adamw => "AdamW's moments are shared out",
        Optim::Muon => "all of Muon's moments",
    };
    let most = step.div_ceil(ranks.max(1));
    let told = format!("{ranks}, each with at most {most} of a step's {step} {what}; {moments}");
    (ranks > 1).then_some(("ranks", told))
}

/// The plan for a rank's part of `load`, with the memory that there is for it.
pub(crate) fn plan(
    config: &ModelConfig,
    load: Load,
    recompute: Recompute,
    place: &Place<'_>,
) -> anyhow::Result<MemoryPlan> {
    let load = Load { layout: place.layout(), ..load.on_ranks(place.ranks) };
    Ok(MemoryPlan::new(config, &load, recompute, place.free_bytes()?))
}

/// The plan in words: the total of each of so many `ranks`, and what it is made of.
pub(crate) fn words(plan: &MemoryPlan, ranks: usize) -> String {
    let gb = |bytes: usize| format!("{:.2}", bytes as f64 / 1e9);
    let mut parts = vec![format!("weights {}", gb(plan.weights))];
    for (name, bytes) in [
        ("reference", plan.reference),
        ("masters", plan.masters),
        ("moments", plan.moments),
        ("rollout's pass", plan.taped),
        ("rollout", plan.rollout),
        ("gradients", plan.gradients),
        ("update", plan.update.max(plan.sampler)),
    ] {
        if bytes > 0 {
            parts.push(format!("{name} {}", gb(bytes)));
        }
    }
    let kept = plan.tape.map_or(plan.kept_layers, |tape| tape.layers);
    let of = if plan.tape.is_some() { " of the rollout" } else { "" };
    let recompute =
        format!("{kept} layer{}{of} not computed again", if kept == 1 { "" } else { "s" });
    format!(
        "about {} GB{}: {}; rollout takes turns with gradients and update; {recompute}",
        gb(plan.total()),
        if ranks > 1 { " a rank" } else { "" },
        parts.join(" + ")
    )
}

/// What to say where a run that takes `total` bytes a rank may not find them: each rank has so many, where that is known.
pub(super) fn shortage(total: usize, free: &[Option<usize>]) -> Option<String> {
    let known = free.iter().enumerate().filter_map(|(rank, free)| Some((rank, (*free)?)));
    let (rank, least) = known.min_by_key(|(_, free)| *free).filter(|(_, least)| *least < total)?;
    let gb = |bytes: usize| bytes as f64 / 1e9;
    let who = match free.len() {
        1 => "there are".to_owned(),
        _ => format!("rank {rank} has"),
    };
    Some(format!(
        "the run takes about {:.2} GB, and {who} {:.2} GB: it may end for want of memory; lower \
         `max_tokens_per_batch`, set `recompute` to `all`, or train an adapter",
        gb(total),
        gb(least)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rank_has_whole_questions_and_its_share_of_the_moments() {
        let (_, told) = share(2, (3, "questions"), Optim::Adamw).unwrap();
        let expected =
            "2, each with at most 2 of a step's 3 questions; AdamW's moments are shared out";
        assert_eq!(told, expected);
        assert_eq!(share(1, (3, "questions"), Optim::Adamw), None);
    }

    #[test]
    fn the_rank_that_has_least_memory_is_named_where_it_is_too_little() {
        let gb = |gb: usize| Some(gb * 1_000_000_000);
        assert_eq!(shortage(2_000_000_000, &[gb(3), None, gb(2)]), None);
        assert_eq!(shortage(2_000_000_000, &[None]), None);
        let told = shortage(2_500_000_000, &[gb(3), gb(2), gb(1)]).unwrap();
        assert!(told.contains("about 2.50 GB, and rank 2 has 1.00 GB"), "{told}");
        let told = shortage(2_500_000_000, &[gb(1)]).unwrap();
        assert!(told.contains("and there are 1.00 GB"), "{told}");
    }

    #[test]
    fn a_run_that_goes_on_keeps_as_much_of_its_rollouts_as_before() {
        let (open, state) =
            (Train::default(), |taped_layers| State { taped_layers, ..State::new("model") });
        assert_eq!(taping(&open, None), Taping::Open);
        assert_eq!(taping(&open, Some(&state(Some(3)))), Taping::Settled(Some(3)));
        assert_eq!(taping(&open, Some(&state(None))), Taping::Settled(None));
        let other = Train { rollout_precision: Some(Precision::Bf16), ..Train::default() };
        assert_eq!(taping(&other, Some(&state(Some(3)))), Taping::Never);
        let dropping = Train { use_peft: true, lora_dropout: 0.1, ..Train::default() };
        assert_eq!(taping(&dropping, None), Taping::Never);
    }
}
