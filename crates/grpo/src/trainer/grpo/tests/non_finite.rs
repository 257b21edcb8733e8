//! Steps and weights that are not finite.

use std::path::PathBuf;

use embodied_r_dist::Communicator;

use super::*;
use crate::model::Model as _;

#[test]
fn a_step_with_non_finite_gradients_is_skipped_and_dumped() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path()).with(|s| s.stages.max_steps = Some(8));
    let poisoned = Bigram::poisoned(6);
    let error = run_from(poisoned, &settings, None).unwrap_err();
    let Error::NotFinite { steps: 5, diagnosis } = error else { panic!("{error}") };
    assert_eq!(diagnosis.found.gradients, ["bigram.weight", "bigram.bias"]);
    assert!(diagnosis.found.logps > 0 && diagnosis.found.loss && diagnosis.reference);
    assert_eq!(diagnosis.model, None);
    assert_eq!(diagnosis.checkpoint, Some(dir.path().join("checkpoint-5")), "no step was taken");
    let dump = std::fs::read(diagnosis.dump.unwrap()).unwrap();
    let dump: serde_json::Value = serde_json::from_slice(&dump).unwrap();
    assert_eq!(dump["groups"][0]["prompt_ids"], serde_json::json!([5, 5, 4]));
    assert!(dump["groups"][0]["completions"][0]["advantage"].is_number());
    let events = events(dir.path());
    assert_eq!(of_kind(&events, "skipped").len(), 5);
    assert_eq!(of_kind(&events, "step")[4]["skipped_steps"], 5.0);
}

#[test]
fn a_non_finite_reference_skips_steps_without_corrupting_the_policy() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path()).with(|s| s.run.max_skipped_steps = 2);
    run(&settings, Some(3)).unwrap();
    let before = Checkpoint::open_verified(&dir.path().join("checkpoint-3")).unwrap();
    let good = Bigram::read(&before.path).unwrap().values();
    // The KL is clamped, so NaN is in the loss but in no gradient.
    Bigram::poisoned(6).save(&dir.path().join("base"), WriterRank::SINGLE).unwrap();
    let error = run(&settings, None).unwrap_err();
    let Error::NotFinite { steps: 2, diagnosis } = error else { panic!("{error}") };
    assert!(diagnosis.reference && diagnosis.found.loss, "{diagnosis}");
    assert_eq!((diagnosis.found.logps, diagnosis.found.gradients.len()), (0, 0), "{diagnosis}");
    let last = diagnosis.checkpoint.unwrap();
    assert_eq!(last, dir.path().join("checkpoint-5"));
    assert_eq!(Bigram::read(&last).unwrap().values(), good);
    let state = Checkpoint::open_verified(&last).unwrap().state;
    assert_eq!((state.skipped_steps, state.skipped_in_a_row), (2, 0), "counting restarts");
}

/// A run's folders of models, by name.
fn folders(run: &Path) -> Vec<String> {
    let names = std::fs::read_dir(run).unwrap().map(|entry| entry.unwrap().file_name());
    let names = names.map(|name| name.into_string().unwrap());
    let mut names: Vec<String> =
        names.filter(|name| name.starts_with("checkpoint") || name == "final").collect();
    names.sort();
    names
}

/// The tensors and the last checkpoint of a run that ended because its weights are not finite.
fn non_finite_weights(result: Result<RunOutcome>) -> (Vec<String>, Option<PathBuf>) {
    match result.unwrap_err() {
        Error::NonFinitePolicy { found, checkpoint } => (found.weights, checkpoint),
        error => panic!("{error}"),
    }
}

#[test]
fn non_finite_weights_replace_no_checkpoint_and_become_no_final_model() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path()).with(|s| {
        s.stages.stage = vec![stage(2.0, 0.5, 0.5)];
        s.evaluation.save_steps = 1;
        s.run.save_total_limit = 1;
    });
    run(&settings, Some(3)).unwrap();
    assert_eq!(folders(dir.path()), ["checkpoint-3"]);
    let good = Bigram::read(&dir.path().join("checkpoint-3")).unwrap().values();
    // Too large for f32, in which weights are updated.
    let diverging = settings.with(|s| s.lr.learning_rate = 1e300);
    let (weights, checkpoint) = non_finite_weights(run(&diverging, None));
    assert_eq!(weights, ["bigram.weight", "bigram.bias"]);
    assert_eq!(checkpoint, Some(dir.path().join("checkpoint-3")));
    assert_eq!(folders(dir.path()), ["checkpoint-3"]);
    let kept = Checkpoint::open_verified(&dir.path().join("checkpoint-3")).unwrap();
    assert_eq!(Bigram::read(&kept.path).unwrap().values(), good);
    let reported = of_kind(&events(dir.path()), "checkpoint");
    assert!(reported.iter().all(|event| event["step"] != 4), "{reported:?}");
}

#[test]
fn a_run_whose_last_step_makes_the_weights_non_finite_has_no_final_model() {
    let dir = tempfile::tempdir().unwrap();
    let last_only = settings(dir.path()).with(|s| {
        s.stages.max_steps = Some(1);
        s.lr.learning_rate = 1e300;
        s.evaluation.save_steps = 100;
        s.stages.stage = vec![stage(1.0, 0.5, 0.5)];
    });
    assert_eq!(non_finite_weights(run(&last_only, None)).1, None);
    assert_eq!(folders(dir.path()), [""; 0]);
}

#[test]
fn a_run_with_non_finite_weights_ends_at_its_first_skipped_step() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path()).with(|s| {
        s.lr.learning_rate = 1e300;
        s.evaluation.save_steps = 100;
        s.evaluation.eval_steps = 100;
        s.stages.stage = vec![stage(2.0, 0.5, 0.5)];
    });
    let Error::NotFinite { steps: 1, diagnosis } = run(&settings, None).unwrap_err() else {
        panic!("other steps were tried");
    };
    assert_eq!(diagnosis.model.unwrap().weights, ["bigram.weight", "bigram.bias"]);
    assert_eq!((diagnosis.checkpoint, folders(dir.path()).len()), (None, 0));
}

#[test]
fn a_model_with_a_nan_weight_is_refused_before_the_first_step() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path());
    let error = run_from(Bigram::with_a_nan(6), &settings, None).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the model's weights are not finite: `bigram.bias`; it cannot be trained"
    );
    assert!(!dir.path().join("events.jsonl").exists());
}

#[test]
fn a_checkpoint_with_a_nan_weight_is_not_resumed() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path());
    run(&settings, Some(3)).unwrap();
    let path = dir.path().join("checkpoint-3");
    let checkpoint = Checkpoint::open(&path).unwrap();
    Bigram::with_a_nan(6).save(&path, WriterRank::SINGLE).unwrap();
    let stop = AtomicBool::new(false);
    let inputs = inputs(&settings, dir.path(), &stop);
    let error = GrpoTrainer::<Bigram>::resume(&checkpoint, inputs, Vec::new()).err().unwrap();
    let error = error.to_string();
    assert!(error.contains("the model's weights are not finite: `bigram.bias`"), "{error}");
}

#[test]
fn finite_weights_whose_logits_overflow_are_neither_saved_nor_trained() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path()).with(|s| s.evaluation.save_steps = 1);
    let error = run_from(Bigram::overflowing(6), &settings, None).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the model's log-probabilities are not finite: its weights are too large; it cannot be trained"
    );
    // The largest update that leaves f32 weights.
    let diverging = settings.with(|s| {
        s.lr.learning_rate = 3e38;
        s.optimizer.adam_beta1 = 0.0;
        s.optimizer.weight_decay = 0.0;
        s.stages.max_steps = Some(1);
        s.stages.stage = vec![stage(1.0, 0.5, 0.5)];
    });
    assert_eq!(non_finite_weights(run(&diverging, None)), (Vec::new(), None));
    assert_eq!(folders(dir.path()), [""; 0]);
}

#[test]
fn a_step_skipped_in_a_later_iteration_says_that_the_first_update_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    // After the first update the logits overflow.
    let settings = settings(dir.path()).with(|s| {
        s.lr.learning_rate = 3e38;
        s.optimizer.adam_beta1 = 0.0;
        s.rollout.num_iterations = 2;
        s.optimizer.weight_decay = 0.0;
    });
    let Error::NotFinite { steps: 1, diagnosis } = run(&settings, None).unwrap_err() else {
        panic!("no step was skipped");
    };
    assert_eq!((diagnosis.kept_iterations, &diagnosis.checkpoint), (1, &None));
    assert!(
        diagnosis.to_string().contains("; the update of its first optimizer step is kept; "),
        "{diagnosis}"
    );
    let skipped = of_kind(&events(dir.path()), "skipped").remove(0);
    assert_eq!(skipped["kept_iterations"], 1);
}

/// How two ranks fail, each starting from its `model`.
fn failures_of_two_ranks(
    settings: &GrpoSettings,
    model: impl Fn(usize) -> Bigram + Sync,
) -> Vec<Error> {
    let rank = |communicator: Communicator| {
        let stop = AtomicBool::new(false);
        let process_group = ProcessGroup::new(communicator.clone());
        let mut inputs = inputs(settings, &settings.run.output, &stop);
        inputs.run.process_group = process_group;
        let run = GrpoTrainer::start(model(communicator.rank()), inputs, Vec::new());
        let error = run.and_then(GrpoTrainer::run).unwrap_err();
        communicator.finish().unwrap();
        error
    };
    Communicator::on_threads(2, rank).unwrap()
}

#[test]
fn all_ranks_refuse_non_finite_weights_even_if_one_rank_has_them() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path()).with(|s| s.evaluation.save_steps = 1);
    let of_rank_one = |rank| match rank {
        0 => Bigram::new(6, 3),
        _ => Bigram::with_a_nan(6),
    };
    for error in failures_of_two_ranks(&settings, of_rank_one) {
        assert!(
            matches!(&error, Error::NonFiniteBase { found } if found.weights == ["bigram.bias"])
        );
    }
    let diverging = settings.with(|s| s.lr.learning_rate = 1e300);
    for error in failures_of_two_ranks(&diverging, |_| Bigram::new(6, 3)) {
        assert!(matches!(error, Error::NonFinitePolicy { checkpoint: None, .. }), "{error}");
    }
    assert_eq!(folders(dir.path()), [""; 0]);
}
