use super::sampling::Draw;
use super::*;
use crate::advantages::AdvantageEstimator;

fn has_variance(rollout: &Rollout) -> bool {
    rollout.has_reward_variance(&[0.5, 0.5], AdvantageEstimator::Grpo)
}

/// One step of four questions with two completions each, which are often equal.
fn one_step(output: &Path) -> GrpoSettings {
    settings(output).with(|s| {
        s.rollout.num_generations = 2;
        s.stages.max_steps = Some(1);
        s.stages.stage = vec![stage(1.0, 0.5, 0.5)];
    })
}

/// The groups of the first step, and its metrics.
fn first_step(model: Bigram, settings: &GrpoSettings) -> (Vec<Rollout>, serde_json::Value) {
    let keep = Keep::default();
    run_new(model, settings, None, vec![Box::new(keep.clone())]).unwrap();
    let rollouts = keep.0.lock().unwrap().remove(0);
    (rollouts, of_kind(&events(&settings.run.output), "step").remove(0))
}

fn sampled(
    dynamic_sample: bool,
    change: impl Fn(&mut GrpoSettings),
    model: Bigram,
) -> (Vec<Rollout>, serde_json::Value) {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = one_step(dir.path()).with(|s| s.rollout.dynamic_sample = dynamic_sample);
    change(&mut settings);
    first_step(model, &settings)
}

#[test]
fn zero_variance_groups_are_replaced_and_the_others_are_kept() {
    let (before, plain) = sampled(false, |_| {}, Bigram::thinking(6));
    let (after, metrics) = sampled(true, |_| {}, Bigram::thinking(6));
    let sampled: Vec<usize> = before.iter().map(|rollout| rollout.index).collect();
    let mut replaced = 0;
    for (before, after) in before.iter().zip(&after) {
        if has_variance(before) || before.index == after.index {
            assert_eq!(before.index, after.index);
            assert_eq!(before.completions[0].ids, after.completions[0].ids);
        } else {
            replaced += 1;
            assert!(has_variance(after) && !sampled.contains(&after.index));
        }
    }
    assert!(before.iter().any(has_variance) && replaced > 0, "{replaced} replaced");
    assert_eq!(metrics["dynamic_sample/groups_replaced"], f64::from(replaced));
    let zero_variance =
        |metrics: &serde_json::Value| metrics["frac_reward_zero_std"].as_f64().unwrap();
    assert_eq!(zero_variance(&metrics), zero_variance(&plain) - f64::from(replaced) / 4.0);
    assert!(plain.get("dynamic_sample/attempts").is_none());
}

/// Always the same correct answer: every group has zero variance.
fn alike(settings: &mut GrpoSettings) {
    settings.loss.temperature = 0.01;
    settings.rollout.num_generations = 4;
}

#[test]
fn zero_variance_groups_remain_after_the_last_attempt() {
    let model = || Bigram::saying(6, &[1, 2, 0]);
    let (before, _) = sampled(false, alike, model());
    let (after, metrics) = sampled(true, alike, model());
    assert!(before.iter().all(|rollout| !has_variance(rollout)));
    assert_eq!(after, before);
    assert_eq!(metrics["dynamic_sample/attempts"], 3.0);
    assert_eq!(metrics["dynamic_sample/groups_replaced"], 0.0);
    let (_, metrics) = sampled(
        true,
        |settings| {
            alike(settings);
            settings.rollout.max_resample_times = 2;
        },
        model(),
    );
    assert_eq!(metrics["dynamic_sample/attempts"], 2.0);
}

#[test]
fn filtered_groups_do_not_count_in_the_update() {
    let run = |filter_groups: bool| {
        let change = |settings: &mut GrpoSettings| settings.rollout.filter_groups = filter_groups;
        sampled(false, change, Bigram::thinking(6))
    };
    let ((rollouts, kept), (filtered_rollouts, filtered)) = (run(false), run(true));
    assert_eq!(rollouts, filtered_rollouts, "all groups are logged");
    let groups = rollouts.iter().filter(|rollout| has_variance(rollout)).count();
    assert!(groups > 0 && groups < 4, "{groups} groups with variance");
    // The mean over completions is over fewer of them; groups that are left out had no gradient.
    let norm = |metrics: &serde_json::Value| metrics["grad_norm"].as_f64().unwrap();
    let expected = norm(&kept) * 4.0 / groups as f64;
    assert!((norm(&filtered) - expected).abs() < 1e-5 * expected, "{filtered}, {kept}");
    let tokens = |metrics: &serde_json::Value| metrics["num_tokens"].as_f64().unwrap();
    assert!(tokens(&filtered) < tokens(&kept));
}

#[test]
fn a_step_whose_groups_are_all_filtered_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = one_step(dir.path()).with(|s| {
        s.rollout.filter_groups = true;
        s.optimizer.weight_decay = 0.0;
    });
    alike(&mut settings);
    let model = Bigram::saying(6, &[1, 2, 0]);
    let before = model.values();
    let (_, metrics) = first_step(model, &settings);
    assert_eq!((&metrics["grad_norm"], &metrics["loss"]), (&0.0.into(), &0.0.into()));
    let after = Bigram::read(&settings.run.output.join("final")).unwrap().values();
    assert_eq!(after, before);
}

#[test]
fn no_question_is_sampled_twice_in_a_step() {
    let all = |settings: &mut GrpoSettings| {
        alike(settings);
        settings.rollout.generation_batch_size = 32;
    };
    let (rollouts, metrics) = sampled(true, all, Bigram::saying(6, &[1, 2, 0]));
    assert_eq!(rollouts.len(), 8, "all questions");
    assert_eq!(metrics["dynamic_sample/attempts"], 0.0);
}

#[test]
fn every_attempt_has_its_own_random_stream() {
    let dir = tempfile::tempdir().unwrap();
    let settings = one_step(dir.path());
    let stop = AtomicBool::new(false);
    let inputs = GrpoInputs { verify_packing: false, ..inputs(&settings, dir.path(), &stop) };
    let trainer = GrpoTrainer::start(Bigram::new(6, 3), inputs, Vec::new()).unwrap();
    let ids = |attempt: u64| -> Vec<Vec<u32>> {
        let all: Vec<_> = (0..8).map(|index| trainer.request(index, 0..4)).collect();
        let (rollouts, _) = trainer.sample(Draw { step: 0, attempt }, &all, None).unwrap();
        rollouts.into_iter().flat_map(|r| r.completions).map(|c| c.ids).collect()
    };
    assert_eq!(ids(1), ids(1));
    assert_ne!(ids(0), ids(1));
    assert_ne!(ids(1), ids(2));
}

#[test]
fn a_truncated_completion_is_penalized_as_overlong_even_if_it_is_masked() {
    let learned = |mask_truncated_completions: bool| {
        let dir = tempfile::tempdir().unwrap();
        let settings = settings(dir.path()).with(|s| {
            s.loss.mask_truncated_completions = mask_truncated_completions;
            s.rollout.num_generations = 8;
            s.rollout.generation_batch_size = 16;
            s.loss.max_completion_length = 3;
            s.rewards.soft_cache_length = Some(2);
            s.optimizer.weight_decay = 0.0;
            s.loss.beta = 0.0;
            s.stages.stage =
                vec![Stage::new(StageLength::Steps(1), [("soft_overlong".to_owned(), 1.0)].into())];
        });
        let (rollouts, metrics) = first_step(Bigram::new(6, 3), &settings);
        let folder = dir.path().join("final");
        let values = Bigram::read(&folder).unwrap().values();
        (rollouts, metrics, values)
    };
    let (rollouts, metrics, masked) = learned(true);
    let completions: Vec<_> = rollouts.iter().flat_map(|rollout| &rollout.completions).collect();
    for completion in &completions {
        let expected = -(completion.ids.len().saturating_sub(1) as f64) / 2.0;
        assert_eq!(completion.reward, Some(expected), "{} tokens", completion.ids.len());
    }
    let truncated = completions.iter().filter(|c| c.finish == crate::model::FinishReason::Length);
    assert!(truncated.clone().count() > 0 && truncated.clone().all(|c| c.advantage < 0.0));
    assert!(metrics["completions/clipped_ratio"].as_f64().unwrap() < 1.0);
    let (_, _, counted) = learned(false);
    assert_ne!(masked, counted);
}
