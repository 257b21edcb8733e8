use std::collections::BTreeMap;

use super::*;

/// All files of a run by name.
fn files(output: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![output.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(output).unwrap().display().to_string();
                files.insert(name, std::fs::read(&path).unwrap());
            }
        }
    }
    files
}

/// The differing files of two runs. Event files contain times, the state contains their lengths, and the manifest the
/// state's hash.
fn differences(a: &Path, b: &Path) -> Vec<String> {
    let (a, b) = (files(a), files(b));
    let names: std::collections::BTreeSet<_> = a.keys().chain(b.keys()).cloned().collect();
    let same = |name: &str| {
        if name.ends_with("trainer_state.json") {
            let state = |files: &BTreeMap<String, Vec<u8>>| {
                let mut state: State = serde_json::from_slice(files.get(name)?).unwrap();
                state.events_bytes = 0;
                Some(state)
            };
            return state(&a) == state(&b);
        }
        let length = |files: &BTreeMap<String, Vec<u8>>| files.get(name).map(Vec::len);
        if name.ends_with("manifest.json") || name.contains("tfevents") {
            return length(&a) == length(&b);
        }
        a.get(name) == b.get(name)
    };
    names.into_iter().filter(|name| name != "events.jsonl" && !same(name)).collect()
}

/// Settings that exercise everything a resume must restore.
fn demanding(output: &Path) -> GrpoSettings {
    let mut settings = settings(output).with(|s| {
        s.rollout.num_iterations = 2;
        s.rollout.num_mini_batches = 2;
        s.lr.warmup_ratio = 0.2;
    });
    settings.stages.stage[1].restart_schedule = true;
    settings.stages.stage[1].reset_reference = true;
    settings
}

#[test]
fn a_stopped_and_resumed_run_is_byte_for_byte_the_uninterrupted_run() {
    let whole = tempfile::tempdir().unwrap();
    run(&demanding(whole.path()), None).unwrap();
    // Before, at and after the boundary of epoch and stage at step 4.
    for stop_after in [1, 3, 4, 5, 7] {
        let cut = tempfile::tempdir().unwrap();
        let settings = demanding(cut.path());
        let outcome = run(&settings, Some(stop_after)).unwrap();
        let checkpoint = cut.path().join(format!("checkpoint-{stop_after}"));
        assert_eq!(outcome, RunOutcome::Stopped(checkpoint.clone()));
        run(&settings, None).unwrap();
        // Only the stop itself differs: the stopped run has an extra checkpoint, or wrote it before the evaluation of
        // its step.
        let stopped_at = format!("checkpoint-{stop_after}");
        let mut differences = differences(whole.path(), cut.path());
        differences.retain(|name| !name.starts_with(&stopped_at));
        let none: [&str; 0] = [];
        assert_eq!(differences, none, "stopped after {stop_after}");
        let recorded = |output: &Path| {
            let mut events = events(output);
            events.retain(|event| event["folder"] != stopped_at.as_str());
            events
        };
        assert_eq!(recorded(whole.path()), recorded(cut.path()), "stopped after {stop_after}");
    }
}

#[test]
fn a_run_killed_after_a_checkpoint_records_the_lost_steps_once() {
    let whole = tempfile::tempdir().unwrap();
    run(&settings(whole.path()), None).unwrap();
    let killed = tempfile::tempdir().unwrap();
    run(&settings(killed.path()), Some(6)).unwrap();
    // A kill after step 6 leaves the checkpoint of step 4 and the events up to 6.
    std::fs::remove_dir_all(killed.path().join("checkpoint-6")).unwrap();
    run(&settings(killed.path()), None).unwrap();
    assert_eq!(events(whole.path()), events(killed.path()));
    let none: [&str; 0] = [];
    assert_eq!(differences(whole.path(), killed.path()), none);
}

/// Fails at an event, which leaves what a kill at that moment would.
struct KillAt(usize);

impl Sink for KillAt {
    fn event(&mut self, _: &Event) -> Result<()> {
        let killed = || Error::Model { what: "was killed".into() };
        self.0 = self.0.checked_sub(1).ok_or_else(killed)?;
        Ok(())
    }
}

#[test]
fn a_run_killed_at_any_event_and_resumed_is_byte_for_byte_the_uninterrupted_run() {
    let whole = tempfile::tempdir().unwrap();
    run(&demanding(whole.path()), None).unwrap();
    let recorded = events(whole.path());
    for event in 0..recorded.len() {
        let killed = tempfile::tempdir().unwrap();
        let settings = demanding(killed.path());
        let sinks: Vec<Box<dyn Sink>> = vec![Box::new(KillAt(event))];
        assert!(run_with(Bigram::new(6, 3), &settings, sinks).is_err());
        run(&settings, None).unwrap();
        let none: [&str; 0] = [];
        assert_eq!(
            differences(whole.path(), killed.path()),
            none,
            "killed at {:?}",
            recorded[event]
        );
        assert_eq!(recorded, events(killed.path()), "killed at {:?}", recorded[event]);
    }
}

#[test]
fn a_surplus_checkpoint_left_by_a_kill_is_removed_on_resume() {
    let whole = tempfile::tempdir().unwrap();
    let settings = settings(whole.path()).with(|s| {
        s.run.save_total_limit = 1;
        s.evaluation.save_steps = 2;
    });
    run(&settings, None).unwrap();
    let killed = tempfile::tempdir().unwrap();
    let settings = settings.with(|s| s.run.output = killed.path().into());
    // A kill between writing the last checkpoint and removing the previous one leaves both.
    run(&settings.clone().with(|s| s.run.save_total_limit = 9), None).unwrap();
    std::fs::remove_dir_all(killed.path().join("final")).unwrap();
    run(&settings, None).unwrap();
    let none: [&str; 0] = [];
    assert_eq!(differences(whole.path(), killed.path()), none);
}

#[test]
fn the_same_seed_reproduces_the_run_and_another_does_not() {
    let rewards = |seed: u64| {
        let dir = tempfile::tempdir().unwrap();
        run(&settings(dir.path()).with(|s| s.run.seed = seed), None).unwrap();
        events(dir.path())
    };
    assert_eq!(rewards(1), rewards(1));
    assert_ne!(rewards(1), rewards(2));
}

#[test]
fn an_output_folder_with_a_run_is_not_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path());
    run(&settings, None).unwrap();
    let stop = AtomicBool::new(false);
    let inputs = inputs(&settings, dir.path(), &stop);
    let error = GrpoTrainer::start(Bigram::new(6, 3), inputs, Vec::new()).err().unwrap();
    assert!(matches!(error, Error::OutputExists { .. }), "{error}");
}

#[test]
fn only_the_latest_checkpoints_and_the_best_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path()).with(|s| {
        s.stages.stage = vec![stage(4.0, 0.5, 0.5)];
        s.evaluation.save_steps = 2;
        s.run.save_total_limit = 2;
        s.evaluation.eval_steps = 3;
    });
    run(&settings, None).unwrap();
    let checkpoints = Checkpoints::new(dir.path(), 2);
    let best = checkpoints.last().unwrap().unwrap().state.best.unwrap();
    let mut expected = vec![14, 16];
    if best.step > 0 && best.step < 14 {
        expected.insert(0, best.step);
    }
    assert_eq!(checkpoints.steps().unwrap(), expected);
}

#[test]
fn milestone_checkpoints_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path()).with(|s| {
        s.stages.stage = vec![stage(4.0, 0.5, 0.5)];
        s.evaluation.save_steps = 3;
        s.run.save_total_limit = 1;
        s.run.keep_every_epochs = Some(1.5);
        s.evaluation.eval_steps = 100;
    });
    run(&settings, None).unwrap();
    let steps = Checkpoints::new(dir.path(), 1).steps().unwrap();
    assert_eq!(steps, [6, 12, 16], "of 16 steps in 4 epochs");
}

#[test]
fn the_best_checkpoint_is_selected_by_metric_for_best_model() {
    let best = |metric: &str, greater_is_better| {
        let dir = tempfile::tempdir().unwrap();
        let settings = settings(dir.path()).with(|s| {
            s.evaluation.metric_for_best_model = metric.into();
            s.evaluation.greater_is_better = greater_is_better;
        });
        run_from(Bigram::thinking(6), &settings, None).unwrap();
        let best = Checkpoints::new(dir.path(), 1).last().unwrap().unwrap().state.best.unwrap();
        let evals = of_kind(&events(dir.path()), "eval");
        let value = |eval: &serde_json::Value| eval[metric].as_f64().unwrap();
        (best.value, evals.iter().map(value).collect::<Vec<_>>())
    };
    for (metric, greater_is_better) in
        [("eval/accuracy/odd", None), ("eval/completions/mean_length", Some(false))]
    {
        let (best, values) = best(metric, greater_is_better);
        let wanted = values.into_iter().reduce(match greater_is_better {
            Some(false) => f64::min,
            _ => f64::max,
        });
        assert_eq!(Some(best), wanted, "{metric}");
    }
}

#[test]
fn an_unknown_best_model_metric_is_refused_with_the_known_ones() {
    let dir = tempfile::tempdir().unwrap();
    let settings =
        settings(dir.path()).with(|s| s.evaluation.metric_for_best_model = "eval/acuracy".into());
    assert_eq!(
        run(&settings, None).unwrap_err().to_string(),
        "unknown metric `eval/acuracy` in `metric_for_best_model`; available: eval/accuracy, \
         eval/format, eval/completions/mean_length, eval/completions/clipped_ratio, eval/n, \
         eval/accuracy/even, eval/accuracy/odd"
    );
}

#[test]
fn an_evaluation_reports_exactly_the_known_metrics() {
    let dir = tempfile::tempdir().unwrap();
    run(&settings(dir.path()), None).unwrap();
    let eval = of_kind(&events(dir.path()), "eval").remove(0);
    let given = eval.as_object().unwrap().keys().filter(|key| key.starts_with("eval/"));
    let mut given: Vec<String> = given.cloned().collect();
    let mut known = evaluate::metric_names(&questions(2), false);
    given.sort();
    known.sort();
    assert_eq!(given, known);
}

#[test]
fn changed_training_data_is_warned_about_on_resume() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path());
    run(&settings, Some(3)).unwrap();
    let path = dir.path().join("checkpoint-3");
    let mut checkpoint = Checkpoint::open(&path).unwrap();
    let recorded = || {
        let mut warnings = of_kind(&events(dir.path()), "warning");
        warnings.retain(|warning| warning["concern"] == "other_data");
        warnings.iter().map(|warning| warning["step"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(recorded(), [0; 0]);
    checkpoint.state.data = "what another file had".into();
    std::fs::write(path.join("trainer_state.json"), serde_json::to_vec(&checkpoint.state).unwrap())
        .unwrap();
    let stop = AtomicBool::new(false);
    let base = dir.path().join("base");
    let inputs = inputs(&settings, &base, &stop);
    GrpoTrainer::<Bigram>::resume(&checkpoint, inputs, Vec::new()).unwrap().run().unwrap();
    assert_eq!(recorded(), [3]);
}

#[test]
fn a_damaged_checkpoint_is_skipped() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path());
    run(&settings, Some(6)).unwrap();
    let moments = dir.path().join("checkpoint-6/optimizer.safetensors");
    let bytes = std::fs::read(&moments).unwrap();
    std::fs::write(&moments, &bytes[..bytes.len() - 4]).unwrap();
    let last = Checkpoints::new(dir.path(), 1).latest_intact().unwrap();
    assert_eq!(last.checkpoint.unwrap().state.step, 4);
    let error = run(&settings, None).unwrap_err().to_string();
    assert!(
        error.contains("checkpoint-6` is a later checkpoint"),
        "it must be set aside first: {error}"
    );
    Checkpoints::new(dir.path(), 1).set_aside(&last.damaged).unwrap();
    run(&settings, None).unwrap();
    let whole = tempfile::tempdir().unwrap();
    run(&settings.with(|s| s.run.output = whole.path().into()), None).unwrap();
    let mut differences = differences(whole.path(), dir.path());
    differences.retain(|name| !name.starts_with("checkpoint-6.damaged/"));
    let none: [&str; 0] = [];
    assert_eq!(differences, none);
}

#[test]
fn resuming_from_before_a_later_checkpoint_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path());
    run(&settings, None).unwrap();
    let checkpoints = Checkpoints::new(dir.path(), 2);
    let early = Checkpoint::open(&checkpoints.path(4)).unwrap();
    let error = checkpoints.refuse_later(&early).unwrap_err().to_string();
    assert!(error.contains("checkpoint-8` is a later checkpoint"), "{error}");
}
