//! Tests of the memory fit.

use embodied_r_rewards::RewardSchedule as Stages;

use super::*;
use crate::estimate::memory_plan::ActivationCachePolicy;
use crate::settings::GrpoSettings;

const GIB: usize = 1 << 30;

/// The paper's settings.
fn with(config: &ModelConfig, ranks: usize, gib: usize, test: impl FnOnce(PlannedRun<'_>)) {
    let settings = GrpoSettings::default().with(|s| s.run.precision = Precision::Bf16);
    let counts = settings.trainable().counts(config).unwrap();
    let lora = GrpoSettings::default().with(|s| s.trainable.use_peft = true).trainable();
    let total_workload = Workload::for_training(
        &settings,
        &Stages::default(),
        counts,
        6144,
        ActivationCachePolicy::Auto,
    );
    test(PlannedRun {
        config,
        total_workload,
        recompute: Recompute::Auto,
        precision: Precision::Bf16,
        placement: Placement::Gpus(ranks),
        usable: (USABLE * (gib * GIB) as f64) as usize,
        lora_counts: lora.counts(config).unwrap(),
    });
}

fn of(name: &str) -> ModelConfig {
    ModelConfig::published(name).unwrap()
}

#[test]
fn the_papers_run_fits_eight_gpus_of_40_gb_and_not_one() {
    with(&of("Qwen2.5-VL-3B"), 8, 40, |run| assert!(run.fits() && run.advice().is_empty()));
    with(&of("Qwen2.5-VL-3B"), 1, 40, |run| {
        assert!(!run.fits());
        let advice = run.advice();
        let has = |change| advice.iter().any(|advice| advice.changes == [change]);
        assert!(has(MemoryReduction::Gpus(4)) && has(MemoryReduction::Adapter), "{advice:?}");
        assert!(advice.iter().all(|advice| advice.total <= run.usable));
    });
}

#[test]
fn the_memory_of_3b_by_part_matches_a_manual_calculation() {
    with(&of("Qwen2.5-VL-3B"), 8, 40, |run| {
        let plan = run.memory();
        let parameters = 3_085_938_688;
        assert_eq!((plan.weights, plan.reference), (2 * parameters, 2 * parameters));
        assert_eq!(plan.gradients, 4 * parameters);
        assert_eq!((plan.masters, plan.moments), (parameters / 2, parameters));
        // One prompt and four completions, at 36,864 bytes per token: 36 layers, keys and values, 2 heads of 128 in
        // bf16.
        assert_eq!(plan.kv_cache, (6144 + 4 * 2048) * 36_864);
    });
}

#[test]
fn more_gpus_never_need_more_memory_per_rank() {
    for name in ["Qwen2.5-0.5B", "Qwen2.5-VL-3B", "Qwen2.5-72B"] {
        let config = of(name);
        let mut before = usize::MAX;
        for ranks in [1, 2, 3, 4, 8, 16, 64, 1024] {
            with(&config, ranks, 80, |run| {
                let least = run.headroom().least;
                assert!(least <= before, "{name} on {ranks}: {least} after {before}");
                before = least;
            });
        }
    }
}

#[test]
fn the_largest_micro_batch_fits_and_the_next_does_not() {
    with(&of("Qwen2.5-VL-3B"), 8, 40, |run| {
        let all_tokens = run.workload().tokens().div_ceil(BUDGET_STEP) * BUDGET_STEP;
        assert_eq!(run.headroom().budget, Some(all_tokens), "all of a rank's step");
        let tight = PlannedRun { usable: run.headroom().least + GIB / 8, ..run };
        let budget = tight.headroom().budget.unwrap();
        let fits = |budget| {
            let total_workload = Workload { budget, ..run.total_workload };
            PlannedRun { total_workload, recompute: Recompute::All, ..tight }.fits()
        };
        assert!(budget < all_tokens && fits(budget) && !fits(budget + BUDGET_STEP), "{budget}");
    });
}

#[test]
fn a_72b_needs_several_changes_at_once_or_does_not_fit() {
    with(&of("Qwen2.5-72B"), 8, 80, |run| {
        assert_eq!(run.advice(), []);
    });
    with(&of("Qwen2.5-72B"), 8, 24, |run| assert_eq!(run.advice(), []));
}

#[test]
fn a_cpu_rank_has_its_share_of_the_questions_and_the_moments() {
    with(&of("Qwen2.5-0.5B"), 1, 40, |run| {
        let of = |ranks: usize| PlannedRun {
            placement: Placement::Cpu(ranks),
            recompute: Recompute::All,
            ..run
        };
        let (one, two) = (of(1), of(2));
        assert_eq!((one.workload().prompts, two.workload().prompts), (4, 2));
        let (one, two) = (one.memory(), two.memory());
        assert_eq!(
            (two.moments, two.gradients, two.weights),
            (one.moments / 2, one.gradients, one.weights)
        );
        assert_eq!(two.kv_cache, one.kv_cache / 2);
    });
}
