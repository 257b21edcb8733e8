use std::path::Path;
use std::sync::atomic::AtomicBool;

use super::*;
use crate::checkpoint::Checkpoints;
use crate::model::tests::toy::Bigram;
use crate::trainer::tests::{StopAfter, run_inputs};

fn examples(n: usize) -> Vec<Example> {
    (0..n).map(|i| Example::new(vec![5, 4].into(), vec![1, 2 + (i % 4 == 0) as u32, 0])).collect()
}

fn settings(output: &Path) -> SftSettings {
    SftSettings::default().with(|s| {
        s.run.output = output.into();
        s.supervised.train_batch_size = 3;
        s.supervised.num_train_epochs = 4;
        s.lr.learning_rate = 0.1;
        s.run.save_total_limit = 10;
    })
}

/// Thirteen examples, without evaluation.
fn inputs<'a>(settings: &'a SftSettings, stop: &'a AtomicBool) -> SftInputs<'a> {
    let run = run_inputs(Path::new(""), stop);
    let examples = SftExamples { examples: examples(13), too_long: 0 };
    SftInputs { settings, data: SftData::new(settings, examples, Vec::new()).unwrap(), run }
}

fn run(settings: &SftSettings, stop_after: Option<u64>) -> RunOutcome {
    let stop = AtomicBool::new(false);
    let mut sinks: Vec<Box<dyn Sink + '_>> = Vec::new();
    if let Some(step) = stop_after {
        sinks.push(Box::new(StopAfter(step, &stop)));
    }
    let mut inputs = inputs(settings, &stop);
    inputs.data.eval = examples(4);
    match Checkpoints::new(&settings.run.output, 1).last().unwrap() {
        Some(checkpoint) => SftTrainer::<Bigram>::resume(&checkpoint, inputs, sinks).unwrap().run(),
        None => SftTrainer::start(Bigram::new(6, 1), inputs, sinks).unwrap().run(),
    }
    .unwrap()
}

fn evals(output: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(output.join("events.jsonl")).unwrap();
    let events = text.lines().map(|line| serde_json::from_str(line).unwrap());
    events.filter(|event: &serde_json::Value| event["event"] == "eval").collect()
}

#[test]
fn the_validation_loss_falls_and_is_logged_after_every_epoch() {
    let dir = tempfile::tempdir().unwrap();
    run(&settings(dir.path()), None);
    let evals = evals(dir.path());
    assert_eq!(
        evals.iter().map(|e| e["step"].as_u64().unwrap()).collect::<Vec<_>>(),
        [0, 4, 8, 12, 16]
    );
    let loss = |i: usize| evals[i]["eval/loss"].as_f64().unwrap();
    assert!(loss(4) < 0.5 * loss(0), "{} then {}", loss(0), loss(4));
    assert_eq!(evals[4]["eval/epochs_since_best"], 0.0);
}

#[test]
fn a_stopped_and_resumed_run_ends_with_the_same_model() {
    let whole = tempfile::tempdir().unwrap();
    run(&settings(whole.path()), None);
    for stop_after in [3, 4, 5] {
        let cut = tempfile::tempdir().unwrap();
        let stopped = run(&settings(cut.path()), Some(stop_after));
        assert!(matches!(stopped, RunOutcome::Stopped(_)));
        run(&settings(cut.path()), None);
        for file in ["final/model.safetensors", "checkpoint-16/optimizer.safetensors"] {
            let read = |dir: &Path| std::fs::read(dir.join(file)).unwrap();
            assert!(read(whole.path()) == read(cut.path()), "{file} after a stop at {stop_after}");
        }
    }
}

#[test]
fn non_finite_steps_are_skipped_dumped_and_abort_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path()).with(|s| s.run.max_skipped_steps = 3);
    let stop = AtomicBool::new(false);
    let mut inputs = inputs(&settings, &stop);
    inputs.run.base = dir.path();
    let trainer = SftTrainer::start(Bigram::poisoned(6), inputs, Vec::new()).unwrap();
    let error = trainer.run().unwrap_err();
    let Error::NotFinite { steps: 3, diagnosis } = error else { panic!("{error}") };
    assert!(diagnosis.found.loss, "{diagnosis}");
    assert_eq!(diagnosis.checkpoint, Some(dir.path().join("checkpoint-3")), "no step was taken");
    let dump = std::fs::read(diagnosis.dump.unwrap()).unwrap();
    let dump: serde_json::Value = serde_json::from_slice(&dump).unwrap();
    assert_eq!(dump["groups"].as_array().unwrap().len(), 3, "the batch");
    assert_eq!(dump["groups"][0]["prompt_ids"], serde_json::json!([5, 4]));
    assert_eq!(dump["groups"][0]["completions"][0]["advantage"], 1.0);
    let text = std::fs::read_to_string(dir.path().join("events.jsonl")).unwrap();
    assert_eq!(text.matches(r#""event":"skipped""#).count(), 3);
}

#[test]
fn milestone_checkpoints_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path()).with(|s| {
        s.supervised.save_steps = Some(3);
        s.run.save_total_limit = 1;
        s.run.keep_every_epochs = Some(2.0);
    });
    run(&settings, None);
    let steps = Checkpoints::new(dir.path(), 1).steps().unwrap();
    assert_eq!(steps, [8, 16], "16 is the last, and the best so far");
}

#[test]
fn non_finite_weights_replace_no_checkpoint_and_become_no_final_model() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path()).with(|s| {
        s.supervised.save_steps = Some(1);
        s.run.save_total_limit = 1;
    });
    run(&settings, Some(2));
    let last = Checkpoints::new(dir.path(), 1).last().unwrap().unwrap();
    let diverging = settings.with(|s| s.lr.learning_rate = 1e300);
    let stop = AtomicBool::new(false);
    let inputs = inputs(&diverging, &stop);
    let error = SftTrainer::<Bigram>::resume(&last, inputs, Vec::new()).unwrap().run().unwrap_err();
    let Error::NonFinitePolicy { checkpoint, .. } = error else { panic!("{error}") };
    assert_eq!(checkpoint.as_ref(), Some(&last.path));
    assert_eq!(Checkpoints::new(dir.path(), 1).steps().unwrap(), [last.state.step]);
    assert!(!dir.path().join("final").exists());
}
