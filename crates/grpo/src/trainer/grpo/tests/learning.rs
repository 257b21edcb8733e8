use super::*;
use crate::advantages::ScaleRewards;
use crate::loss::LossType;

fn final_numbers(settings: &GrpoSettings) -> Vec<f32> {
    let RunOutcome::Finished(folder) = run(settings, None).unwrap() else {
        panic!("the run was not stopped")
    };
    numbers_in(&folder)
}

fn numbers_in(folder: &Path) -> Vec<f32> {
    Bigram::read(folder).unwrap().values()
}

#[test]
fn training_raises_the_reward_and_the_evaluation_accuracy() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path()).with(|s| {
        s.stages.stage = vec![stage(20.0, 0.5, 0.5)];
        s.evaluation.eval_steps = 80;
    });
    run_from(Bigram::thinking(6), &settings, None).unwrap();
    let events = events(dir.path());
    let steps = of_kind(&events, "step");
    let mean = |steps: &[serde_json::Value]| {
        steps.iter().map(|s| s["reward"].as_f64().unwrap()).sum::<f64>() / steps.len() as f64
    };
    let (first, last) = (mean(&steps[..4]), mean(&steps[72..]));
    assert!(last > 0.9 && last > first + 0.3, "from {first} to {last}");
    let evals = of_kind(&events, "eval");
    assert_eq!(evals.len(), 2, "before the first step and after the last");
    assert_eq!(evals[1]["eval/accuracy"], 1.0);
    assert_eq!(evals[1]["eval/accuracy/odd"], 1.0);
}

#[test]
fn the_update_does_not_depend_on_the_micro_batches() {
    for loss_type in [LossType::Grpo, LossType::DrGrpo, LossType::Dapo, LossType::Sapo] {
        let values = |budget: usize| {
            let dir = tempfile::tempdir().unwrap();
            let settings = settings(dir.path()).with(|s| {
                s.loss.loss_type = loss_type;
                s.run.max_tokens_per_batch = budget;
                s.stages.max_steps = Some(1);
                s.stages.stage = vec![stage(1.0, 0.5, 0.5)];
            });
            final_numbers(&settings)
        };
        // Each split adds a rounding error, which Adam's first step amplifies.
        for (whole, cut) in values(10_000).into_iter().zip(values(7)) {
            assert!((whole - cut).abs() < 1e-3, "{loss_type:?}: {whole} and {cut}");
        }
    }
}

#[test]
fn a_stage_event_has_its_weights_and_logged_scores_stay_raw() {
    let dir = tempfile::tempdir().unwrap();
    run(&settings(dir.path()), None).unwrap();
    let events = events(dir.path());
    let stages = of_kind(&events, "stage");
    assert_eq!(stages.len(), 2);
    assert_eq!((&stages[1]["step"], &stages[1]["weights"]["accuracy"]), (&4.into(), &0.8.into()));
    for step in of_kind(&events, "step") {
        let metric = |name: &str| step[name].as_f64().unwrap();
        let weighted = metric("reward_weights/format") * metric("rewards/format/mean")
            + metric("reward_weights/accuracy") * metric("rewards/accuracy/mean");
        assert!((metric("reward") - weighted).abs() < 1e-12);
    }
}

#[test]
fn without_kl_and_judge_no_reference_is_loaded() {
    let dir = tempfile::tempdir().unwrap();
    let stop = AtomicBool::new(false);
    let reference = |beta: f64, weights: &[(&str, f64)]| {
        let mut settings = settings(dir.path()).with(|s| s.loss.beta = beta);
        settings.stages.stage[1].weights = weights.iter().map(|(n, w)| ((*n).into(), *w)).collect();
        let inputs = GrpoInputs { verify_packing: false, ..inputs(&settings, dir.path(), &stop) };
        GrpoTrainer::start(Bigram::new(6, 3), inputs, Vec::new()).unwrap().reference.is_some()
    };
    assert!(!reference(0.0, &[("accuracy", 1.0)]));
    assert!(reference(0.01, &[("accuracy", 1.0)]));
    assert!(reference(0.0, &[("accuracy", 1.0), ("consistency", 0.5)]));
}

#[test]
fn the_first_iteration_is_on_policy_and_the_next_ones_are_not() {
    let clipped = |num_iterations: usize| {
        let dir = tempfile::tempdir().unwrap();
        let settings = settings(dir.path()).with(|s| {
            s.rollout.num_iterations = num_iterations;
            s.lr.learning_rate = 0.3;
            s.advantages.scale_rewards = ScaleRewards::None;
            s.stages.max_steps = Some(1);
            s.stages.stage = vec![stage(1.0, 0.5, 0.5)];
        });
        let values = final_numbers(&settings);
        let events = events(dir.path());
        let mut warnings = of_kind(&events, "warning");
        warnings.retain(|warning| warning["concern"] == "several_iterations");
        assert_eq!(warnings.len(), num_iterations - 1, "{warnings:?}");
        (of_kind(&events, "step")[0].clone(), values)
    };
    let (one, after_one) = clipped(1);
    let (two, after_two) = clipped(2);
    assert_eq!(one["clip_ratio/region_mean"], 0.0);
    let ratio = two["clip_ratio/region_mean"].as_f64().unwrap();
    assert!(
        0.0 < ratio && ratio <= 0.5,
        "the mean over an iteration without clips and one with: {ratio}"
    );
    assert_ne!(one["loss"], two["loss"], "the mean over both iterations");
    assert!(one["kl"].as_f64().unwrap() < two["kl"].as_f64().unwrap());
    assert_ne!(after_one, after_two);
}

#[test]
fn nothing_is_learned_from_masked_truncated_completions_alone() {
    let learned = |mask_truncated_completions: bool| {
        let dir = tempfile::tempdir().unwrap();
        let settings = settings(dir.path()).with(|s| {
            s.loss.mask_truncated_completions = mask_truncated_completions;
            s.loss.max_completion_length = 2;
            s.optimizer.weight_decay = 0.0;
            s.loss.beta = 0.0;
            s.stages.max_steps = Some(1);
            s.stages.stage = vec![stage(1.0, 0.5, 0.5)];
        });
        let before = Bigram::endless(6).values();
        run_from(Bigram::endless(6), &settings, None).unwrap();
        before != numbers_in(&dir.path().join("final"))
    };
    assert!(learned(false));
    assert!(!learned(true));
}
