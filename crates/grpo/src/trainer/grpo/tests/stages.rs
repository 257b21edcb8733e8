use embodied_r_rewards::stages::{ExitCondition, STEP_METRICS, Threshold};
use embodied_r_rewards::{JudgePrompt, Result as RewardResult};

use super::*;

fn until(metric: &str, threshold: Threshold, window: u64) -> Option<ExitCondition> {
    Some(ExitCondition { metric: metric.into(), threshold, window })
}

/// Two stages of four steps, the first of which may end early.
fn ending(output: &Path, threshold: Threshold) -> GrpoSettings {
    let mut settings = settings(output);
    settings.stages.stage[0].until = until("completions/mean_length", threshold, 3);
    settings
}

/// The named metric of every step.
fn metrics(output: &Path, name: &str) -> Vec<f64> {
    of_kind(&events(output), "step").iter().map(|step| step[name].as_f64().unwrap()).collect()
}

#[test]
fn a_stage_ends_once_the_mean_passes_the_threshold_and_the_last_one_is_extended() {
    let dir = tempfile::tempdir().unwrap();
    run(&ending(dir.path(), Threshold::Above(0.5)), None).unwrap();
    assert_eq!(metrics(dir.path(), "stage"), [0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0]);
    let stages = of_kind(&events(dir.path()), "stage");
    assert_eq!(stages[0]["because"], serde_json::json!({"kind": "start"}));
    let because = &stages[1]["because"];
    let lengths = metrics(dir.path(), "completions/mean_length");
    assert_eq!(because["mean"].as_f64(), Some(lengths[..3].iter().sum::<f64>() / 3.0));
    assert_eq!(
        (&because["kind"], &because["metric"], &because["mark"], &because["window"]),
        (&"until".into(), &"completions/mean_length".into(), &"above 0.5".into(), &3.into())
    );
    assert_eq!(stages[1]["step"], 3);
}

#[test]
fn a_stage_whose_threshold_is_not_passed_runs_its_full_length() {
    let dir = tempfile::tempdir().unwrap();
    run(&ending(dir.path(), Threshold::Below(0.5)), None).unwrap();
    let stages = of_kind(&events(dir.path()), "stage");
    assert_eq!((&stages[1]["step"], &stages[1]["because"]["kind"]), (&4.into(), &"length".into()));
}

#[test]
fn every_stage_has_its_own_window() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = ending(dir.path(), Threshold::Above(0.5));
    settings.stages.stage[1].until = settings.stages.stage[0].until.clone();
    settings.stages.stage.push(stage(1.0, 0.0, 1.0));
    run(&settings, None).unwrap();
    let steps =
        of_kind(&events(dir.path()), "stage").into_iter().map(|stage| stage["step"].clone());
    assert_eq!(steps.collect::<Vec<_>>(), [0, 3, 6]);
}

#[test]
fn an_early_end_does_not_change_the_learning_rate_without_restarts() {
    let rates = |threshold| {
        let dir = tempfile::tempdir().unwrap();
        run(&ending(dir.path(), threshold), None).unwrap();
        metrics(dir.path(), "learning_rate")
    };
    assert_eq!(rates(Threshold::Above(0.5)), rates(Threshold::Below(0.5)));
}

#[test]
fn blended_weights_are_logged_and_applied_to_the_reward() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = settings(dir.path());
    settings.stages.stage[1].blend_steps = 2;
    run(&settings, None).unwrap();
    let weights = metrics(dir.path(), "reward_weights/format");
    for (found, expected) in weights.iter().zip([0.5, 0.5, 0.5, 0.5, 0.4, 0.3, 0.2, 0.2]) {
        assert!((found - expected).abs() < 1e-12, "{weights:?}");
    }
    for step in of_kind(&events(dir.path()), "step") {
        let metric = |name: &str| step[name].as_f64().unwrap();
        let weighted = metric("reward_weights/format") * metric("rewards/format/mean")
            + metric("reward_weights/accuracy") * metric("rewards/accuracy/mean");
        assert!((metric("reward") - weighted).abs() < 1e-12);
    }
    let stage = &of_kind(&events(dir.path()), "stage")[1];
    assert_eq!((&stage["blend_steps"], &stage["weights"]["format"]), (&2.into(), &0.2.into()));
}

#[test]
fn every_metric_of_an_until_condition_is_logged_at_every_step() {
    let dir = tempfile::tempdir().unwrap();
    run(&settings(dir.path()), None).unwrap();
    let rewards = ["rewards/accuracy/mean", "rewards/accuracy/std", "rewards/format/mean"];
    for metric in STEP_METRICS.into_iter().chain(rewards) {
        assert_eq!(metrics(dir.path(), metric).len(), 8, "{metric}");
    }
}

/// Three stages that end early, restart and blend, with resampled groups.
fn demanding(output: &Path) -> GrpoSettings {
    let mut settings = settings(output).with(|s| {
        s.rollout.num_iterations = 2;
        s.rollout.num_generations = 2;
        s.lr.warmup_ratio = 0.2;
        s.rollout.dynamic_sample = true;
    });
    settings.stages.stage.push(stage(1.0, 0.0, 1.0));
    settings.stages.stage.iter_mut().for_each(|stage| stage.length = StageLength::Steps(4));
    settings.stages.stage[0].until = until("completions/mean_length", Threshold::Above(0.5), 2);
    settings.stages.stage[1].until = until("reward", Threshold::Above(-1.0), 3);
    settings.stages.stage[1].blend_steps = 2;
    settings.stages.stage[1].restart_schedule = true;
    settings.stages.stage[2].blend_steps = 1;
    settings.stages.stage[2].reset_reference = true;
    settings
}

/// The clock-independent results of a run.
fn results(output: &Path, steps: u64) -> (Vec<Vec<u8>>, State, Vec<serde_json::Value>) {
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
fn a_run_resumed_at_any_step_is_byte_for_byte_the_uninterrupted_run() {
    let whole = tempfile::tempdir().unwrap();
    run(&demanding(whole.path()), None).unwrap();
    let expected = results(whole.path(), 12);
    let begins = of_kind(&expected.2, "stage").into_iter().map(|stage| stage["step"].clone());
    assert_eq!(begins.collect::<Vec<_>>(), [0, 2, 5]);
    assert_eq!(expected.1.stage_begins, [0, 2, 5]);
    let attempts = metrics(whole.path(), "dynamic_sample/attempts");
    assert!(attempts.iter().any(|&attempts| attempts > 0.0), "nothing was resampled");
    for stop_after in 1..12 {
        let cut = tempfile::tempdir().unwrap();
        let settings = demanding(cut.path());
        run(&settings, Some(stop_after)).unwrap();
        run(&settings, None).unwrap();
        assert!(results(cut.path(), 12) == expected, "stopped after {stop_after}");
    }
}

/// A judge that always replies A and records the number of prompts of each call.
#[derive(Clone, Default)]
struct Counting(Arc<Mutex<Vec<usize>>>);

impl Judge for Counting {
    fn reply(&self, prompts: &[JudgePrompt]) -> RewardResult<Vec<Option<String>>> {
        self.0.lock().unwrap().push(prompts.len());
        Ok(vec![Some("A".into()); prompts.len()])
    }
}

#[test]
fn the_judge_is_called_once_a_step_with_correct_answers_while_its_blended_weight_is_above_0() {
    let dir = tempfile::tempdir().unwrap();
    let consistency = |weight: f64, blend_steps: u64| {
        let mut stage = stage(1.0, 0.5, 0.5);
        stage.weights.insert("consistency".into(), weight);
        Stage { blend_steps, ..stage }
    };
    let settings = settings(dir.path()).with(|s| {
        s.stages.stage = vec![consistency(0.0, 0), consistency(0.5, 3), consistency(0.0, 2)];
        s.lr.learning_rate = 1e-6;
        s.loss.temperature = 3.0;
    });
    let judge = Counting::default();
    let (model, keep) = (Bigram::saying(6, &[1, 2, 0]), Keep::default());
    let sinks: Vec<Box<dyn Sink>> = vec![Box::new(keep.clone())];
    run_new(model, &settings, Some(Box::new(judge.clone())), sinks).unwrap();
    let steps = keep.0.lock().unwrap();
    let judged: Vec<bool> =
        steps.iter().map(|step| step[0].completions[0].scores[2].is_some()).collect();
    let mut expected = [true; 12];
    expected[..4].fill(false);
    expected[10..].fill(false);
    assert_eq!(judged, expected);
    let right = |step: &Vec<Rollout>| {
        let completions = step.iter().flat_map(|rollout| &rollout.completions);
        let right = completions.filter(|c| c.scores[0].as_ref().unwrap().value == Some(1.0));
        right.filter(|c| c.text.contains("<think>t</think>")).count()
    };
    let right: Vec<usize> = steps[4..10].iter().map(right).collect();
    assert_eq!(*judge.0.lock().unwrap(), right, "one call per step, with the correct answers only");
    assert!(right.iter().any(|&n| 0 < n && n < 8), "{right:?}");
}

#[test]
fn stages_beyond_max_steps_are_refused_before_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path()).with(|s| s.stages.max_steps = Some(4));
    let error = run(&settings, None).unwrap_err().to_string();
    assert!(error.starts_with("`stage[1]`: would start after step 4"), "{error}");
}
