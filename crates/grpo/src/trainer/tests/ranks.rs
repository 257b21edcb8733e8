//! Several ranks, as threads of this process, make the run that one makes.

use embodied_r_dist::{Communicator, Options};

use std::time::{Duration, Instant};

use super::*;
use crate::loss::LossType;
use crate::optimizer::Optim;

/// What a run has made: the completions of its steps, and the weights at its end.
struct Made {
    completions: Vec<Vec<Rollout>>,
    weights: Vec<f32>,
}

/// A run of so many ranks in `settings.output`, new or resumed, which each `stop_after` so many steps, if that is given.
fn ranks(n: usize, settings: &Train, model: fn() -> Bigram, stop_after: Option<u64>) -> Made {
    let communicators = match n {
        1 => vec![Communicator::single()],
        _ => Communicator::threads(n, &Options::default()).unwrap(),
    };
    ranks_of(communicators, settings, |_| model(), stop_after)
}

/// The same of the ranks of `communicators`, of which each begins with its `model`.
fn ranks_of(
    communicators: Vec<Communicator>,
    settings: &Train,
    model: impl Fn(usize) -> Bigram + Sync,
    stop_after: Option<u64>,
) -> Made {
    let base = settings.output.join("base");
    std::fs::create_dir_all(&base).unwrap();
    let last = Checkpoints::new(&settings.output, 1).last().unwrap();
    if last.is_none() {
        model(0).save(&base, Share::ALL).unwrap();
    }
    let keep = Keep::default();
    let rank = |communicator: Communicator| {
        let stop = AtomicBool::new(false);
        let team = Team::new(communicator.clone());
        let mut sinks: Vec<Box<dyn Sink + '_>> = Vec::new();
        if team.is_first() {
            sinks.push(Box::new(keep.clone()));
            sinks.extend(stop_after.map(|step| Box::new(StopAfter(step, &stop)) as Box<dyn Sink>));
        }
        let job = Job { team, ..job(settings, &base, &stop) };
        let outcome = match &last {
            Some(checkpoint) => Trainer::<Bigram>::resume(checkpoint, job, sinks),
            None => Trainer::start(model(communicator.rank()), job, sinks),
        }
        .and_then(Trainer::run);
        match outcome {
            Ok(outcome) => {
                communicator.finish().unwrap();
                outcome
            }
            Err(error) => panic!("{error}: {}", communicator.fail(&error.to_string())),
        }
    };
    let outcomes: Vec<Outcome> = std::thread::scope(|scope| {
        let threads: Vec<_> = communicators
            .into_iter()
            .map(|communicator| scope.spawn(|| rank(communicator)))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(outcomes.iter().all(|outcome| *outcome == outcomes[0]), "{outcomes:?}");
    let (Outcome::Finished(folder) | Outcome::Stopped(folder)) = &outcomes[0];
    let completions = std::mem::take(&mut *keep.0.lock().unwrap());
    Made { completions, weights: Bigram::read(folder).unwrap().numbers() }
}

/// Asserts that two runs drew the same to the bit and learnt the same but for rounding.
fn assert_same(found: &Made, wanted: &Made, what: &str) {
    assert_eq!(found.completions.len(), wanted.completions.len(), "{what}");
    for (step, (found, wanted)) in found.completions.iter().zip(&wanted.completions).enumerate() {
        let drawn = |rollouts: &[Rollout]| -> Vec<(usize, Vec<Vec<u32>>)> {
            let ids = |rollout: &Rollout| {
                rollout.completions.iter().map(|completion| completion.ids.clone()).collect()
            };
            rollouts.iter().map(|rollout| (rollout.index, ids(rollout))).collect()
        };
        assert_eq!(drawn(found), drawn(wanted), "{what}, step {step}");
        // From the same weights also the log-probabilities, rewards and advantages.
        if step == 0 {
            assert_eq!(found, wanted, "{what}");
        }
    }
    for (index, (found, wanted)) in found.weights.iter().zip(&wanted.weights).enumerate() {
        assert!((found - wanted).abs() < 1e-5, "{what}, {index}: {found}, not {wanted}");
    }
}

fn of_ranks(n: usize, change: impl Fn(&mut Train), model: fn() -> Bigram) -> Made {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = settings(dir.path());
    change(&mut settings);
    ranks(n, &settings, model, None)
}

#[test]
fn two_and_four_ranks_make_the_run_of_one() {
    // Three groups do not go evenly into two or four; with four one rank has nothing to do.
    let uneven = |settings: &mut Train| settings.generation_batch_size = 12;
    let model = || Bigram::new(6, 3);
    let one = of_ranks(1, uneven, model);
    assert!(one.weights != model().numbers());
    for n in [2, 4] {
        assert_same(&of_ranks(n, uneven, model), &one, &format!("{n} ranks"));
    }
}

#[test]
fn ranks_resample_the_same_questions() {
    let dynamic = |settings: &mut Train| {
        settings.dynamic_sample = true;
        settings.num_generations = 2;
        settings.generation_batch_size = 6;
        settings.stage = vec![stage(1.0, 0.5, 0.5)];
        settings.max_steps = Some(2);
    };
    let one = of_ranks(1, dynamic, || Bigram::thinking(6));
    for n in [2, 3] {
        assert_same(&of_ranks(n, dynamic, || Bigram::thinking(6)), &one, &format!("{n} ranks"));
    }
}

#[test]
fn the_loss_of_a_rank_is_that_of_all_completions() {
    for loss_type in [LossType::Grpo, LossType::Dapo, LossType::DrGrpo] {
        let change = |settings: &mut Train| {
            settings.loss_type = loss_type;
            settings.generation_batch_size = 12;
            settings.top_entropy_quantile = 0.5;
            settings.max_tokens_per_batch = 12;
            settings.num_iterations = 2;
            settings.stage = vec![stage(1.0, 0.5, 0.5)];
        };
        let model = || Bigram::new(6, 3);
        let one = of_ranks(1, change, model);
        assert_same(&of_ranks(3, change, model), &one, &format!("{loss_type:?}"));
    }
}

#[test]
fn muon_moves_the_same_matrices_on_every_rank() {
    let muon = |settings: &mut Train| settings.optim = Optim::Muon;
    let model = || Bigram::new(6, 3);
    let one = of_ranks(1, muon, model);
    assert_same(&of_ranks(2, muon, model), &one, "Muon");
}

#[test]
fn a_rank_that_generates_for_longer_than_the_deadline_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Train {
        max_steps: Some(1),
        stage: vec![stage(1.0, 0.5, 0.5)],
        generation_batch_size: 8,
        ..settings(dir.path())
    };
    let deadline = Duration::from_millis(500);
    let options = Options { deadline, ..Options::default() };
    let communicators = Communicator::threads(2, &options).unwrap();
    // Up to 20 tokens and an evaluation, each token a fifth of the deadline.
    let model = |rank: usize| match rank {
        1 => Bigram::endless(6).slow(deadline / 5),
        _ => Bigram::endless(6),
    };
    let began = Instant::now();
    let made = ranks_of(communicators, &settings, model, None);
    assert_eq!(made.completions.len(), 1);
    assert!(began.elapsed() > 3 * deadline, "the other had nothing to wait for");
}

#[test]
fn a_rank_that_computes_for_longer_than_the_deadline_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Train {
        max_steps: Some(1),
        stage: vec![stage(1.0, 0.5, 0.5)],
        generation_batch_size: 8,
        ..settings(dir.path())
    };
    let deadline = Duration::from_millis(500);
    let options = Options { deadline, ..Options::default() };
    let communicators = Communicator::threads(2, &options).unwrap();
    // The reference and the policy score four completions each, in one pass.
    let model = |rank: usize| match rank {
        1 => Bigram::new(6, 3).slow_to_score(2 * deadline / 5),
        _ => Bigram::new(6, 3),
    };
    let began = Instant::now();
    let made = ranks_of(communicators, &settings, model, None);
    assert_eq!(made.completions.len(), 1);
    assert!(began.elapsed() > 3 * deadline, "the other had nothing to wait for");
}

#[test]
fn another_number_of_ranks_goes_on_from_a_checkpoint() {
    let model = || Bigram::new(6, 3);
    let whole = of_ranks(1, |_| {}, model);
    for (before, after) in [(3, 1), (1, 2), (2, 4)] {
        let dir = tempfile::tempdir().unwrap();
        let settings = settings(dir.path());
        let first = ranks(before, &settings, model, Some(3));
        let rest = ranks(after, &settings, model, None);
        let completions = [first.completions, rest.completions].concat();
        let made = Made { completions, weights: rest.weights };
        assert_same(&made, &whole, &format!("{before} ranks, then {after}"));
    }
}

#[test]
fn a_rank_that_fails_ends_the_run_of_all() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path());
    let base = dir.path().join("base");
    std::fs::create_dir_all(&base).unwrap();
    let communicators = Communicator::threads(2, &Options::default()).unwrap();
    let rank = |communicator: Communicator| {
        let stop = AtomicBool::new(false);
        let team = Team::new(communicator.clone());
        let second = !team.is_first();
        let mut job = Job { team, ..job(&settings, &base, &stop) };
        // The second has nothing to learn from.
        if second {
            job.questions.clear();
        }
        let model = Bigram::new(6, 3);
        let error = Trainer::start(model, job, Vec::new()).and_then(Trainer::run).unwrap_err();
        communicator.fail(&error.to_string());
        error.to_string()
    };
    let told: Vec<String> = std::thread::scope(|scope| {
        let rank = &rank;
        let threads: Vec<_> =
            communicators.into_iter().map(|one| scope.spawn(move || rank(one))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(told[0].contains("rank 1 on") && told[0].contains(&told[1]), "{told:?}");
}
