use embodied_r_rewards::stages::{METRICS, Mark, Until};
use embodied_r_rewards::{JudgePrompt, Result as RewardResult};

use super::*;

fn until(metric: &str, mark: Mark, window: u64) -> Option<Until> {
    Some(Until { metric: metric.into(), mark, window })
}

/// Two stages of four steps, the first of which may end early.
fn ending(output: &Path, mark: Mark) -> Train {
    let mut settings = settings(output);
    settings.stage[0].until = until("completions/mean_length", mark, 3);
    settings
}

/// The named figure of every step.
fn figures(output: &Path, name: &str) -> Vec<f64> {
    of_kind(&events(output), "step").iter().map(|step| step[name].as_f64().unwrap()).collect()
}

#[test]
fn a_stage_ends_once_the_mean_passes_the_mark_and_the_last_one_lasts_longer() {
    let dir = tempfile::tempdir().unwrap();
    run(&ending(dir.path(), Mark::Above(0.5)), None).unwrap();
    assert_eq!(figures(dir.path(), "stage"), [0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0]);
    let stages = of_kind(&events(dir.path()), "stage");
    assert_eq!(stages[0]["because"], serde_json::json!({"kind": "start"}));
    let because = &stages[1]["because"];
    let lengths = figures(dir.path(), "completions/mean_length");
    assert_eq!(because["mean"].as_f64(), Some(lengths[..3].iter().sum::<f64>() / 3.0));
    assert_eq!(
        (&because["kind"], &because["metric"], &because["mark"], &because["window"]),
        (&"until".into(), &"completions/mean_length".into(), &"above 0.5".into(), &3.into())
    );
    assert_eq!(stages[1]["step"], 3);
}

#[test]
fn a_stage_whose_mark_is_not_passed_lasts_its_time() {
    let dir = tempfile::tempdir().unwrap();
    run(&ending(dir.path(), Mark::Below(0.5)), None).unwrap();
    let stages = of_kind(&events(dir.path()), "stage");
    assert_eq!((&stages[1]["step"], &stages[1]["because"]["kind"]), (&4.into(), &"length".into()));
}

#[test]
fn every_stage_has_a_window_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = ending(dir.path(), Mark::Above(0.5));
    settings.stage[1].until = settings.stage[0].until.clone();
    settings.stage.push(stage(1.0, 0.0, 1.0));
    run(&settings, None).unwrap();
    let steps =
        of_kind(&events(dir.path()), "stage").into_iter().map(|stage| stage["step"].clone());
    assert_eq!(steps.collect::<Vec<_>>(), [0, 3, 6]);
}

#[test]
fn an_early_end_leaves_the_learning_rate_of_a_run_without_restarts_as_it_was() {
    let rates = |mark| {
        let dir = tempfile::tempdir().unwrap();
        run(&ending(dir.path(), mark), None).unwrap();
        figures(dir.path(), "learning_rate")
    };
    assert_eq!(rates(Mark::Above(0.5)), rates(Mark::Below(0.5)));
}

#[test]
fn blended_weights_are_told_and_weigh_the_reward() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = settings(dir.path());
    settings.stage[1].blend_steps = 2;
    run(&settings, None).unwrap();
    let weights = figures(dir.path(), "reward_weights/format");
    for (found, expected) in weights.iter().zip([0.5, 0.5, 0.5, 0.5, 0.4, 0.3, 0.2, 0.2]) {
        assert!((found - expected).abs() < 1e-12, "{weights:?}");
    }
    for step in of_kind(&events(dir.path()), "step") {
        let figure = |name: &str| step[name].as_f64().unwrap();
        let weighted = figure("reward_weights/format") * figure("rewards/format/mean")
            + figure("reward_weights/accuracy") * figure("rewards/accuracy/mean");
        assert!((figure("reward") - weighted).abs() < 1e-12);
    }
    let stage = &of_kind(&events(dir.path()), "stage")[1];
    assert_eq!((&stage["blend_steps"], &stage["weights"]["format"]), (&2.into(), &0.2.into()));
}

#[test]
fn every_metric_that_a_stage_can_wait_for_is_told_at_every_step() {
    let dir = tempfile::tempdir().unwrap();
    run(&settings(dir.path()), None).unwrap();
    let rewards = ["rewards/accuracy/mean", "rewards/accuracy/std", "rewards/format/mean"];
    for metric in METRICS.into_iter().chain(rewards) {
        assert_eq!(figures(dir.path(), metric).len(), 8, "{metric}");
    }
}

/// Three stages that end early, restart and blend, with groups that are sampled again.
fn demanding(output: &Path) -> Train {
    let mut settings = Train {
        num_iterations: 2,
        num_generations: 2,
        warmup_ratio: 0.2,
        dynamic_sample: true,
        ..settings(output)
    };
    settings.stage.push(stage(1.0, 0.0, 1.0));
    settings.stage.iter_mut().for_each(|stage| stage.length = Length::Steps(4));
    settings.stage[0].until = until("completions/mean_length", Mark::Above(0.5), 2);
    settings.stage[1].until = until("reward", Mark::Above(-1.0), 3);
    settings.stage[1].blend_steps = 2;
    settings.stage[1].restart_schedule = true;
    settings.stage[2].blend_steps = 1;
    settings.stage[2].reset_reference = true;
    settings
}

/// What a run leaves behind at its end, but for the clock.
fn remains(output: &Path, steps: u64) -> (Vec<Vec<u8>>, State, Vec<serde_json::Value>) {
    let checkpoint = output.join(format!("checkpoint-{steps}"));
    let mut files = vec![
        output.join("final/model.safetensors"),
        checkpoint.join("model.safetensors"),
        checkpoint.join("optimizer.safetensors"),
    ];
    files.extend(
        (1..=steps).map(|step| output.join(format!("completions/completions_{step:05}.parquet"))),
    );
    let read = |file: &std::path::PathBuf| std::fs::read(file).unwrap();
    let mut state = Checkpoint::open(&checkpoint).unwrap().state;
    state.events_bytes = 0;
    let mut events = events(output);
    events.retain(|event| event["event"] != "checkpoint");
    (files.iter().map(read).collect(), state, events)
}

#[test]
fn a_run_resumed_anywhere_in_its_stages_is_byte_for_byte_the_run_that_never_stopped() {
    let whole = tempfile::tempdir().unwrap();
    run(&demanding(whole.path()), None).unwrap();
    let expected = remains(whole.path(), 12);
    let begins = of_kind(&expected.2, "stage").into_iter().map(|stage| stage["step"].clone());
    assert_eq!(begins.collect::<Vec<_>>(), [0, 2, 5]);
    assert_eq!(expected.1.stage_begins, [0, 2, 5]);
    let attempts = figures(whole.path(), "dynamic_sample/attempts");
    assert!(attempts.iter().any(|&attempts| attempts > 0.0), "nothing was sampled again");
    for stop_after in 1..12 {
        let cut = tempfile::tempdir().unwrap();
        let settings = demanding(cut.path());
        run(&settings, Some(stop_after)).unwrap();
        run(&settings, None).unwrap();
        assert!(remains(cut.path(), 12) == expected, "stopped after {stop_after}");
    }
}

/// Says that every reasoning leads to A, and keeps the number of prompts of each call.
#[derive(Clone, Default)]
struct Counting(Arc<Mutex<Vec<usize>>>);

impl Judge for Counting {
    fn reply(&self, prompts: &[JudgePrompt]) -> RewardResult<Vec<Option<String>>> {
        self.0.lock().unwrap().push(prompts.len());
        Ok(vec![Some("A".into()); prompts.len()])
    }
}

#[test]
fn the_judge_is_asked_about_right_answers_once_a_step_while_its_blended_weight_is_more_than_0() {
    let dir = tempfile::tempdir().unwrap();
    let consistency = |weight: f64, blend_steps: u64| {
        let mut stage = stage(1.0, 0.5, 0.5);
        stage.weights.insert("consistency".into(), weight);
        Stage { blend_steps, ..stage }
    };
    let settings = Train {
        stage: vec![consistency(0.0, 0), consistency(0.5, 3), consistency(0.0, 2)],
        learning_rate: 1e-6,
        temperature: 3.0,
        ..settings(dir.path())
    };
    let judge = Counting::default();
    let (model, keep) = (Bigram::saying(6, &[1, 2, 0]), Keep::default());
    let sinks: Vec<Box<dyn Sink>> = vec![Box::new(keep.clone())];
    run_new(model, &settings, Some(Box::new(judge.clone())), sinks).unwrap();
    let steps = keep.0.lock().unwrap();
    let asked: Vec<bool> =
        steps.iter().map(|step| step[0].completions[0].scores[2].is_some()).collect();
    let mut expected = [true; 12];
    expected[..4].fill(false);
    expected[10..].fill(false);
    assert_eq!(asked, expected);
    let right = |step: &Vec<Rollout>| {
        let completions = step.iter().flat_map(|rollout| &rollout.completions);
        let right = completions.filter(|c| c.scores[0].as_ref().unwrap().value == Some(1.0));
        right.filter(|c| c.text.contains("<think>t</think>")).count()
    };
    let right: Vec<usize> = steps[4..10].iter().map(right).collect();
    assert_eq!(*judge.0.lock().unwrap(), right, "one call a step, with the right answers alone");
    assert!(right.iter().any(|&n| 0 < n && n < 8), "{right:?}");
}

#[test]
fn stages_that_max_steps_would_cut_off_are_refused_before_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Train { max_steps: Some(4), ..settings(dir.path()) };
    let error = run(&settings, None).unwrap_err().to_string();
    assert!(error.starts_with("`stage[1]` never comes: it would begin after step 4"), "{error}");
}
