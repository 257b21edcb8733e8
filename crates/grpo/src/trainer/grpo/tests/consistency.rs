//! The consistency reward while it has no weight, and on evaluation questions.

use embodied_r_dist::Communicator;

use super::*;
use crate::advantages::AdvantageEstimator;

/// Four steps without weight for consistency, then four with it.
fn late(output: &Path, log_unweighted_rewards: bool) -> GrpoSettings {
    let consistency = |weight: f64| {
        let mut stage = stage(1.0, 0.5, 0.5);
        stage.weights.insert("consistency".into(), weight);
        stage
    };
    settings(output).with(|s| {
        s.stages.stage = vec![consistency(0.0), consistency(0.5)];
        s.rewards.log_unweighted_rewards = log_unweighted_rewards;
        s.rollout.dynamic_sample = true;
        s.loss.temperature = 3.0;
        s.loss.beta = 0.0;
    })
}

/// A model that usually reasons and answers A, also as the judge.
fn usually_right() -> Bigram {
    Bigram::saying(6, &[1, 2, 0])
}

/// The named metric of each event of `kind`.
fn metric(events: &[serde_json::Value], kind: &str, name: &str) -> Vec<Option<f64>> {
    of_kind(events, kind).iter().map(|event| event[name].as_f64()).collect()
}

/// The events without those metrics that only a run with `log_unweighted_rewards` has.
fn without_consistency(mut events: Vec<serde_json::Value>) -> Vec<serde_json::Value> {
    let is_of = |key: &str| key.contains("consistency") && !key.starts_with("reward_weights/");
    for event in events.iter_mut().filter_map(serde_json::Value::as_object_mut) {
        event.retain(|key, _| !is_of(key));
    }
    events
}

#[test]
fn logging_an_unweighted_judge_from_the_first_step_on_does_not_change_training() {
    for estimator in [AdvantageEstimator::Grpo, AdvantageEstimator::Gdpo] {
        let [logged, usual] = [true, false].map(|log_unweighted_rewards| {
            let dir = tempfile::tempdir().unwrap();
            let settings = late(dir.path(), log_unweighted_rewards)
                .with(|s| s.advantages.advantage_estimator = estimator);
            run_from(usually_right(), &settings, None).unwrap();
            let weights = std::fs::read(dir.path().join("final/model.safetensors")).unwrap();
            (weights, events(dir.path()))
        });
        let judged = |events: &[serde_json::Value]| -> Vec<bool> {
            let means = metric(events, "step", "rewards/consistency/mean");
            means.iter().map(Option::is_some).collect()
        };
        assert_eq!(judged(&logged.1), [true; 8]);
        assert_eq!(judged(&usual.1), [false, false, false, false, true, true, true, true]);
        let unweighted = &metric(&logged.1, "step", "rewards/consistency/std")[..4];
        assert!(unweighted.iter().any(|std| *std > Some(0.0)), "all scores are equal");
        assert!(logged.0 == usual.0, "{estimator:?}: the weights differ");
        assert_eq!(without_consistency(logged.1), without_consistency(usual.1), "{estimator:?}");
    }
}

#[test]
fn an_evaluation_has_the_consistency_while_training_computes_it() {
    let consistency = |log_unweighted_rewards: bool| {
        let dir = tempfile::tempdir().unwrap();
        let settings = late(dir.path(), log_unweighted_rewards);
        run_from(usually_right(), &settings, None).unwrap();
        let events = events(dir.path());
        assert_eq!(metric(&events, "eval", "eval/accuracy"), [Some(1.0); 3]);
        metric(&events, "eval", "eval/consistency")
    };
    assert_eq!(consistency(true), [Some(1.0); 3]);
    assert_eq!(consistency(false), [None, None, Some(1.0)], "before steps 1 and 5, after step 8");
}

#[test]
fn the_accuracy_beside_the_consistency_leaves_out_numeric_questions() {
    let dir = tempfile::tempdir().unwrap();
    // All questions at every step.
    let settings = late(dir.path(), true).with(|s| {
        s.rollout.generation_batch_size = 32;
        s.loss.temperature = 1.0;
    });
    let settings = settings.with(|s| s.rollout.dynamic_sample = false);
    let stop = AtomicBool::new(false);
    let numeric = |mut questions: Vec<TokenizedQuestion>| {
        questions.iter_mut().step_by(2).for_each(|one| one.question.answer = "7".into());
        questions
    };
    let mut inputs = inputs(&settings, dir.path(), &stop);
    inputs.data.eval.questions = numeric(questions(2));
    inputs.data.questions.questions = numeric(questions(8));
    GrpoTrainer::start(usually_right(), inputs, Vec::new()).unwrap().run().unwrap();
    let events = events(dir.path());
    for (kind, accuracy, consistency) in [
        ("eval", "eval/accuracy", "eval/consistency"),
        ("step", "rewards/accuracy/mean", "rewards/consistency/mean"),
    ] {
        let beside = consistency.trim_end_matches("/mean").to_owned() + "/accuracy";
        let value = |name: &str| metric(&events, kind, name)[0].unwrap();
        assert!(value(accuracy) < 0.6, "numeric questions are answered with a letter");
        assert!(value(&beside) > 0.8 && value(consistency) <= value(&beside), "{kind}");
    }
}

#[test]
fn a_resumed_run_logs_the_unweighted_judge_like_the_uninterrupted_one() {
    let [whole, cut] = [None, Some(2)].map(|stop_after| {
        let dir = tempfile::tempdir().unwrap();
        let settings = late(dir.path(), true);
        run_from(usually_right(), &settings, stop_after).unwrap();
        if stop_after.is_some() {
            run_from(usually_right(), &settings, None).unwrap();
        }
        let events = events(dir.path());
        [("step", "rewards/consistency/mean"), ("eval", "eval/consistency")]
            .map(|(kind, name)| metric(&events, kind, name))
    });
    assert_eq!(whole, cut);
}

#[test]
fn ranks_judge_their_own_completions_and_log_the_same() {
    let logged = |ranks: usize| {
        let dir = tempfile::tempdir().unwrap();
        let settings = late(dir.path(), true);
        let rank = |communicator: Communicator| {
            let stop = AtomicBool::new(false);
            let process_group = ProcessGroup::new(communicator.clone());
            let mut inputs = inputs(&settings, dir.path(), &stop);
            inputs.run.process_group = process_group;
            let trainer = GrpoTrainer::start(usually_right(), inputs, Vec::new()).unwrap();
            trainer.run().unwrap();
            communicator.finish().unwrap();
        };
        Communicator::on_threads(ranks, rank).unwrap();
        let events = events(dir.path());
        // At identical weights the scores are identical.
        [("step", "rewards/consistency/mean"), ("eval", "eval/consistency")]
            .map(|(kind, name)| metric(&events, kind, name)[0].unwrap())
    };
    assert_eq!(logged(2), logged(1));
}
