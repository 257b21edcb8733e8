use std::collections::BTreeMap;

use super::*;

/// All files of a run that must be the same, by name.
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

/// What differs between two runs that must be the same. The state tells the length of the file of
/// events, which tells of the clock.
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
        a.get(name) == b.get(name)
    };
    names.into_iter().filter(|name| name != "events.jsonl" && !same(name)).collect()
}

/// Settings that use all that a resume must bring back.
fn demanding(output: &Path) -> Train {
    let mut settings = Train { num_iterations: 2, warmup_ratio: 0.2, ..settings(output) };
    settings.stage[1].restart_schedule = true;
    settings.stage[1].reset_reference = true;
    settings
}

#[test]
fn a_stopped_and_resumed_run_is_byte_for_byte_the_run_that_never_stopped() {
    let whole = tempfile::tempdir().unwrap();
    run(&demanding(whole.path()), None).unwrap();
    // Before, at and after the boundary of epoch and stage, which is at step 4.
    for stop_after in [1, 3, 4, 5, 7] {
        let cut = tempfile::tempdir().unwrap();
        let settings = demanding(cut.path());
        let outcome = run(&settings, Some(stop_after)).unwrap();
        let checkpoint = cut.path().join(format!("checkpoint-{stop_after}"));
        assert_eq!(outcome, Outcome::Stopped(checkpoint.clone()));
        run(&settings, None).unwrap();
        // The stop itself is the one thing that differs: a checkpoint that the whole run lacks, or
        // has later, after the evaluation of the same step.
        let stopped_at = format!("checkpoint-{stop_after}");
        let mut differences = differences(whole.path(), cut.path());
        differences.retain(|name| !name.starts_with(&stopped_at));
        let none: [&str; 0] = [];
        assert_eq!(differences, none, "stopped after {stop_after}");
        let told = |output: &Path| {
            let mut events = events(output);
            events.retain(|event| event["folder"] != stopped_at.as_str());
            events
        };
        assert_eq!(told(whole.path()), told(cut.path()), "stopped after {stop_after}");
    }
}

#[test]
fn a_run_killed_after_a_checkpoint_tells_the_lost_steps_once() {
    let whole = tempfile::tempdir().unwrap();
    run(&settings(whole.path()), None).unwrap();
    let killed = tempfile::tempdir().unwrap();
    run(&settings(killed.path()), Some(6)).unwrap();
    // What a kill at step 6 leaves behind: the checkpoint of step 4 and the events up to 6.
    std::fs::remove_dir_all(killed.path().join("checkpoint-6")).unwrap();
    run(&settings(killed.path()), None).unwrap();
    assert_eq!(events(whole.path()), events(killed.path()));
    let none: [&str; 0] = [];
    assert_eq!(differences(whole.path(), killed.path()), none);
}

#[test]
fn the_same_seed_gives_the_same_run_and_another_one_another() {
    let rewards = |seed: u64| {
        let dir = tempfile::tempdir().unwrap();
        run(&Train { seed, ..settings(dir.path()) }, None).unwrap();
        events(dir.path())
    };
    assert_eq!(rewards(1), rewards(1));
    assert_ne!(rewards(1), rewards(2));
}

#[test]
fn an_output_folder_with_a_run_in_it_is_not_written_over() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path());
    run(&settings, None).unwrap();
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
        verify_packing: true,
        stop: &stop,
    };
    let error = Trainer::start(Bigram::new(6, 3), job, Vec::new()).err().unwrap();
    assert!(matches!(error, Error::OutputTaken { .. }), "{error}");
}

#[test]
fn only_the_last_checkpoints_and_the_best_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Train {
        stage: vec![stage(4.0, 0.5, 0.5)],
        save_steps: 2,
        save_total_limit: 2,
        eval_steps: 3,
        ..settings(dir.path())
    };
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
fn a_step_without_a_finite_gradient_is_left_out_and_written_down() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Train { max_steps: Some(8), ..settings(dir.path()) };
    let poisoned = Bigram::poisoned(6);
    let error = run_from(poisoned, &settings, None).unwrap_err();
    let Error::NotFinite { steps: 5, dump: Some(dump) } = error else { panic!("{error}") };
    let dump: serde_json::Value = serde_json::from_slice(&std::fs::read(dump).unwrap()).unwrap();
    assert_eq!(dump["groups"][0]["prompt_ids"], serde_json::json!([5, 5, 4]));
    assert!(dump["groups"][0]["completions"][0]["advantage"].is_number());
    let events = events(dir.path());
    assert_eq!(of_kind(&events, "skipped").len(), 5);
    assert_eq!(of_kind(&events, "step")[4]["skipped_steps"], 5.0);
}

#[test]
fn a_checkpoint_with_broken_moments_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path());
    run(&settings, Some(3)).unwrap();
    let moments = dir.path().join("checkpoint-3/optimizer.safetensors");
    let bytes = std::fs::read(&moments).unwrap();
    std::fs::write(&moments, &bytes[..bytes.len() - 4]).unwrap();
    assert!(run(&settings, None).is_err());
}

#[test]
fn resuming_behind_a_later_checkpoint_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path());
    run(&settings, None).unwrap();
    let checkpoints = Checkpoints::new(dir.path(), 2);
    let early = Checkpoint::open(&checkpoints.path(4)).unwrap();
    let error = checkpoints.refuse_later(&early).unwrap_err().to_string();
    assert!(error.contains("checkpoint-8` is later"), "{error}");
}
