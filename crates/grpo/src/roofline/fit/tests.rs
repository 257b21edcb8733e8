//! Claims about what fits.

use embodied_r_rewards::Schedule as Stages;

use super::*;
use crate::memory_plan::Taping;
use crate::settings::Train;

const GIB: usize = 1 << 30;

/// The paper's settings.
fn with(config: &ModelConfig, ranks: usize, gib: usize, test: impl FnOnce(Wanted<'_>)) {
    let settings = Train::default();
    let counts = settings.trainable().counts(config).unwrap();
    let lora = Train { use_peft: true, ..Train::default() }.trainable();
    let whole = Load::of_train(&settings, &Stages::default(), counts, 6144, Taping::Open);
    test(Wanted {
        config,
        whole,
        recompute: Recompute::Auto,
        bf16_gradients: false,
        blocks: false,
        place: Place::Gpus(ranks),
        usable: (USABLE * (gib * GIB) as f64) as usize,
        adapter: lora.counts(config).unwrap(),
    });
}

fn of(name: &str) -> ModelConfig {
    ModelConfig::published(name).unwrap()
}

#[test]
fn the_paper_s_run_fits_eight_cards_of_40_gb_and_not_one() {
    with(&of("Qwen2.5-VL-3B"), 8, 40, |run| assert!(run.fits() && run.advice().is_empty()));
    with(&of("Qwen2.5-VL-3B"), 1, 40, |run| {
        assert!(!run.fits());
        let advice = run.advice();
        let has = |change| advice.iter().any(|advice| advice.changes == [change]);
        assert!(has(Change::Gpus(4)) && has(Change::Adapter), "{advice:?}");
        assert!(advice.iter().all(|advice| advice.total <= run.usable));
    });
}

#[test]
fn the_memory_of_3b_by_part_is_what_a_hand_makes_it() {
    with(&of("Qwen2.5-VL-3B"), 8, 40, |run| {
        let plan = run.memory();
        let numbers = 3_085_938_688;
        assert_eq!((plan.weights, plan.reference), (2 * numbers, 2 * numbers));
        assert_eq!(plan.gradients, 4 * numbers);
        assert_eq!((plan.masters, plan.moments), (numbers / 2, numbers));
        // A prompt and four completions, at 36,864 bytes a token: 36 layers, keys and values, 2 heads of 128 in bf16.
        assert_eq!(plan.cache, (6144 + 4 * 2048) * 36_864);
    });
}

#[test]
fn more_gpus_never_need_more_memory_of_a_rank() {
    for name in ["Qwen2.5-0.5B", "Qwen2.5-VL-3B", "Qwen2.5-72B"] {
        let config = of(name);
        let mut before = usize::MAX;
        for ranks in [1, 2, 3, 4, 8, 16, 64, 1024] {
            with(&config, ranks, 80, |run| {
                let least = run.room().least;
                assert!(least <= before, "{name} on {ranks}: {least} after {before}");
                before = least;
            });
        }
    }
}

#[test]
fn the_largest_micro_batch_fits_and_the_next_does_not() {
    with(&of("Qwen2.5-VL-3B"), 8, 40, |run| {
        let whole = run.load().tokens().div_ceil(BUDGETS) * BUDGETS;
        assert_eq!(run.room().budget, Some(whole), "all of a rank's step");
        let tight = Wanted { usable: run.room().least + GIB / 8, ..run };
        let budget = tight.room().budget.unwrap();
        let fits = |budget| {
            let whole = Load { budget, ..run.whole };
            Wanted { whole, recompute: Recompute::All, ..tight }.fits()
        };
        assert!(budget < whole && fits(budget) && !fits(budget + BUDGETS), "{budget}");
    });
}

#[test]
fn a_72b_is_advised_several_changes_at_once_or_nothing() {
    with(&of("Qwen2.5-72B"), 8, 80, |run| {
        let advice = run.advice();
        assert_eq!(advice.len(), 1, "{advice:?}");
        assert!(advice[0].changes.ends_with(&[Change::Adapter, Change::Quantised]));
    });
    with(&of("Qwen2.5-72B"), 8, 24, |run| assert_eq!(run.advice(), []));
}

#[test]
fn a_rank_of_a_processor_has_its_share_of_the_questions_and_the_moments() {
    with(&of("Qwen2.5-0.5B"), 1, 40, |run| {
        let of = |ranks: usize| Wanted {
            place: Place::Processor(ranks),
            recompute: Recompute::All,
            ..run
        };
        let (one, two) = (of(1), of(2));
        assert_eq!((one.load().prompts, two.load().prompts), (4, 2));
        let (one, two) = (one.memory(), two.memory());
        assert_eq!(
            (two.moments, two.gradients, two.weights),
            (one.moments / 2, one.gradients, one.weights)
        );
        assert_eq!(two.cache, one.cache / 2);
    });
}
