use super::*;
use crate::advantages::AdvantageEstimator;

fn spread(rollout: &Rollout) -> bool {
    rollout.has_spread(&[0.5, 0.5], AdvantageEstimator::Grpo)
}

/// One step of four questions with two completions each, which are often alike.
fn one_step(output: &Path) -> Train {
    Train {
        num_generations: 2,
        max_steps: Some(1),
        stage: vec![stage(1.0, 0.5, 0.5)],
        ..settings(output)
    }
}

/// The groups of the first step, and its figures.
fn first_step(model: Bigram, settings: &Train) -> (Vec<Rollout>, serde_json::Value) {
    let keep = Keep::default();
    run_new(model, settings, None, vec![Box::new(keep.clone())]).unwrap();
    let rollouts = keep.0.lock().unwrap().remove(0);
    (rollouts, of_kind(&events(&settings.output), "step").remove(0))
}

fn drawn(
    dynamic_sample: bool,
    change: impl Fn(&mut Train),
    model: Bigram,
) -> (Vec<Rollout>, serde_json::Value) {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = Train { dynamic_sample, ..one_step(dir.path()) };
    change(&mut settings);
    first_step(model, &settings)
}

#[test]
fn groups_without_spread_give_way_to_groups_of_other_questions_and_the_others_stay() {
    let (before, plain) = drawn(false, |_| {}, Bigram::thinking(6));
    let (after, figures) = drawn(true, |_| {}, Bigram::thinking(6));
    let asked: Vec<usize> = before.iter().map(|rollout| rollout.index).collect();
    let mut replaced = 0;
    for (before, after) in before.iter().zip(&after) {
        if spread(before) || before.index == after.index {
            assert_eq!(before.index, after.index);
            assert_eq!(before.completions[0].ids, after.completions[0].ids);
        } else {
            replaced += 1;
            assert!(spread(after) && !asked.contains(&after.index));
        }
    }
    assert!(before.iter().any(spread) && replaced > 0, "{replaced} replaced");
    assert_eq!(figures["dynamic_sample/groups_replaced"], f64::from(replaced));
    let flat = |figures: &serde_json::Value| figures["frac_reward_zero_std"].as_f64().unwrap();
    assert_eq!(flat(&figures), flat(&plain) - f64::from(replaced) / 4.0);
    assert!(plain.get("dynamic_sample/attempts").is_none());
}

/// Always the same right answer: no group has spread.
fn alike(settings: &mut Train) {
    settings.temperature = 0.01;
    settings.num_generations = 4;
}

#[test]
fn what_has_no_spread_after_the_last_attempt_stays_as_it_was_first_drawn() {
    let model = || Bigram::saying(6, &[1, 2, 0]);
    let (before, _) = drawn(false, alike, model());
    let (after, figures) = drawn(true, alike, model());
    assert!(before.iter().all(|rollout| !spread(rollout)));
    assert_eq!(after, before);
    assert_eq!(figures["dynamic_sample/attempts"], 3.0);
    assert_eq!(figures["dynamic_sample/groups_replaced"], 0.0);
    let (_, figures) = drawn(
        true,
        |settings| {
            alike(settings);
            settings.max_resample_times = 2;
        },
        model(),
    );
    assert_eq!(figures["dynamic_sample/attempts"], 2.0);
}

#[test]
fn no_question_is_asked_twice_in_a_step() {
    let all = |settings: &mut Train| {
        alike(settings);
        settings.generation_batch_size = 32;
    };
    let (rollouts, figures) = drawn(true, all, Bigram::saying(6, &[1, 2, 0]));
    assert_eq!(rollouts.len(), 8, "all of the questions");
    assert_eq!(figures["dynamic_sample/attempts"], 0.0);
}

#[test]
fn every_attempt_has_random_numbers_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let settings = one_step(dir.path());
    let stop = AtomicBool::new(false);
    let job = Job {
        settings: &settings,
        settings_text: "",
        fingerprint: "bigram",
        base: dir.path(),
        text: Arc::new(Words::new()),
        questions: questions(8),
        eval: Vec::new(),
        judge: None,
        activation_bytes: 0,
        device: candle_core::Device::Cpu,
        tape: None,
        verify_packing: false,
        stop: &stop,
        team: Team::default(),
    };
    let trainer = Trainer::start(Bigram::new(6, 3), job, Vec::new()).unwrap();
    let all: Vec<usize> = (0..8).collect();
    let ids = |attempt: u64| -> Vec<Vec<u32>> {
        let (rollouts, _) = trainer.sample((0, attempt), &all, None).unwrap();
        rollouts.into_iter().flat_map(|r| r.completions).map(|c| c.ids).collect()
    };
    assert_eq!(ids(1), ids(1));
    assert_ne!(ids(0), ids(1));
    assert_ne!(ids(1), ids(2));
}

#[test]
fn a_truncated_completion_is_punished_as_overlong_and_still_not_learnt_from_where_it_does_not_count()
 {
    let learnt = |mask_truncated_completions: bool| {
        let dir = tempfile::tempdir().unwrap();
        let settings = Train {
            mask_truncated_completions,
            num_generations: 8,
            generation_batch_size: 16,
            max_completion_length: 3,
            soft_cache_length: Some(2),
            weight_decay: 0.0,
            beta: 0.0,
            stage: vec![Stage::new(Length::Steps(1), [("soft_overlong".to_owned(), 1.0)].into())],
            ..settings(dir.path())
        };
        let (rollouts, figures) = first_step(Bigram::new(6, 3), &settings);
        let folder = dir.path().join("final");
        let numbers = Bigram::load(&folder, &settings.loading(&folder, 0)).unwrap().numbers();
        (rollouts, figures, numbers)
    };
    let (rollouts, figures, masked) = learnt(true);
    let completions: Vec<_> = rollouts.iter().flat_map(|rollout| &rollout.completions).collect();
    for completion in &completions {
        let expected = -(completion.ids.len().saturating_sub(1) as f64) / 2.0;
        assert_eq!(completion.reward, Some(expected), "{} tokens", completion.ids.len());
    }
    let truncated = completions.iter().filter(|c| c.finish == crate::model::Finish::Length);
    assert!(truncated.clone().count() > 0 && truncated.clone().all(|c| c.advantage < 0.0));
    assert!(figures["completions/clipped_ratio"].as_f64().unwrap() < 1.0);
    let (_, _, counted) = learnt(false);
    assert_ne!(masked, counted);
}
