//! The memory plan of a run, and its activation budget.

use embodied_r_grpo::checkpoint::State;
use embodied_r_grpo::estimate::memory_plan::{ActivationCachePolicy, MemoryPlan};
use embodied_r_grpo::settings::{GrpoSettings, Optim};
use embodied_r_launch::local_world_size;

use crate::commands::doctor::memory_bytes;

/// A rank's share of the machine's available memory, if known.
pub(crate) fn host_bytes() -> Option<usize> {
    let bytes = memory_bytes()? / local_world_size() as u64;
    usize::try_from(bytes).ok()
}

/// Whether the update reuses the rollout's activations. A run resumed with unchanged settings keeps its choice.
pub(crate) fn cache_policy(
    settings: &GrpoSettings,
    resumed_from: Option<&State>,
) -> ActivationCachePolicy {
    match resumed_from {
        _ if !settings.can_reuse_rollout() => ActivationCachePolicy::Never,
        Some(state) => ActivationCachePolicy::Fixed(state.cached_layers),
        None => ActivationCachePolicy::Auto,
    }
}

/// The largest share that a rank has of a step's items.
pub(crate) struct StepShare {
    pub(crate) most: usize,
    pub(crate) of: usize,
    pub(crate) items: &'static str,
}

/// A rank's share of a step and of the optimizer state, as a line of text; `None` for a single rank.
pub(crate) fn share_line(
    ranks: usize,
    StepShare { most, of, items }: StepShare,
    optim: Optim,
) -> Option<(&'static str, String)> {
    let moments = match optim {
        Optim::Adamw => "AdamW moments are sharded",
        Optim::Muon => "Muon moments are replicated",
    };
    let text = format!("{ranks}, each with at most {most} of a step's {of} {items}; {moments}");
    (ranks > 1).then_some(("ranks", text))
}

/// The plan as text: the total per rank and its parts.
pub(crate) fn memory_summary(plan: &MemoryPlan, ranks: usize) -> String {
    let gb = |bytes: usize| format!("{:.2}", bytes as f64 / 1e9);
    let mut parts = vec![format!("weights {}", gb(plan.weights))];
    for (name, bytes) in [
        ("reference", plan.reference),
        ("master weights", plan.masters),
        ("optimizer state", plan.moments),
        ("vision encoder and images", plan.vision.resident()),
        ("activation cache", plan.cached_activations),
        ("rollout", plan.rollout),
        ("gradients", plan.gradients),
        ("update", plan.update.max(plan.sampler_weights)),
    ] {
        if bytes > 0 {
            parts.push(format!("{name} {}", gb(bytes)));
        }
    }
    let kept = plan.activation_cache.map_or(plan.saved_layers, |cache| cache.layers);
    let layers = format!("{kept} layer{}", if kept == 1 { "" } else { "s" });
    let recompute = match plan.activation_cache {
        Some(_) => format!("rollout activations of {layers} reused"),
        None => format!("{layers} not recomputed"),
    };
    format!(
        "about {} GB{}: {} (of the rollout and the update with its gradients, the larger counts); {recompute}",
        gb(plan.total()),
        if ranks > 1 { " per rank" } else { "" },
        parts.join(" + ")
    )
}

/// A warning if a run that needs `total` bytes per rank exceeds the `free` bytes of a rank, as far as these are known.
pub(super) fn shortage(total: usize, free: &[Option<usize>]) -> Option<String> {
    let known = free.iter().enumerate().filter_map(|(rank, free)| Some((rank, (*free)?)));
    let (rank, least) = known.min_by_key(|(_, free)| *free).filter(|(_, least)| *least < total)?;
    let gb = |bytes: usize| bytes as f64 / 1e9;
    let on_rank = match free.len() {
        1 => String::new(),
        _ => format!(" on rank {rank}"),
    };
    Some(format!(
        "the run needs about {:.2} GB, but only {:.2} GB are available{on_rank}: it may run out of memory; \
         lower `max_tokens_per_batch`, set `recompute` to `all`, or train a LoRA adapter",
        gb(total),
        gb(least)
    ))
}

#[cfg(test)]
mod tests {
    use embodied_r_policy::Precision;

    use super::*;

    #[test]
    fn a_rank_has_its_share_of_a_step_and_its_shard_of_the_moments() {
        let share = |most| StepShare { most, of: 3, items: "examples" };
        let (_, text) = share_line(2, share(2), Optim::Adamw).unwrap();
        let expected = "2, each with at most 2 of a step's 3 examples; AdamW moments are sharded";
        assert_eq!(text, expected);
        assert_eq!(share_line(1, share(3), Optim::Adamw), None);
    }

    #[test]
    fn the_rank_with_the_least_memory_is_named_if_it_is_too_little() {
        let gb = |gb: usize| Some(gb * 1_000_000_000);
        assert_eq!(shortage(2_000_000_000, &[gb(3), None, gb(2)]), None);
        assert_eq!(shortage(2_000_000_000, &[None]), None);
        let warning = shortage(2_500_000_000, &[gb(3), gb(2), gb(1)]).unwrap();
        let expected = "about 2.50 GB, but only 1.00 GB are available on rank 2:";
        assert!(warning.contains(expected), "{warning}");
        let warning = shortage(2_500_000_000, &[gb(1)]).unwrap();
        assert!(warning.contains("but only 1.00 GB are available:"), "{warning}");
    }

    #[test]
    fn a_resumed_run_caches_as_many_layers_as_before() {
        let (open, state) = (GrpoSettings::default(), |cached_layers| State {
            cached_layers,
            ..State::new("model")
        });
        assert_eq!(cache_policy(&open, None), ActivationCachePolicy::Auto);
        assert_eq!(
            cache_policy(&open, Some(&state(Some(3)))),
            ActivationCachePolicy::Fixed(Some(3))
        );
        assert_eq!(cache_policy(&open, Some(&state(None))), ActivationCachePolicy::Fixed(None));
        let other =
            GrpoSettings::default().with(|s| s.rollout.rollout_precision = Some(Precision::Bf16));
        assert_eq!(cache_policy(&other, Some(&state(Some(3)))), ActivationCachePolicy::Never);
        let dropping = GrpoSettings::default().with(|s| {
            s.trainable.use_peft = true;
            s.trainable.lora_dropout = 0.1;
        });
        assert_eq!(cache_policy(&dropping, None), ActivationCachePolicy::Never);
    }
}
