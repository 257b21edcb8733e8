//! Several ranks, as threads of one process, reproduce the run of one rank.

use std::time::{Duration, Instant};

use embodied_r_dist::{Communicator, CommunicatorOptions};
use embodied_r_rewards::ExternalRewardConfig;
use embodied_r_rewards::external::RewardBackend;

use super::*;
use crate::advantages::AdvantageEstimator;
use crate::loss::LossType;
use crate::rollout::expected_lengths::ExpectedLengths;
use crate::settings::Optim;

/// The results of a run: the completions of its steps, and the final weights.
struct RunResult {
    completions: Vec<Vec<Rollout>>,
    weights: Vec<f32>,
}

/// Runs `n` ranks in `settings.run.output`, new or resumed, optionally stopped after a step.
fn ranks(
    n: usize,
    settings: &GrpoSettings,
    model: fn() -> Bigram,
    stop_after: Option<u64>,
) -> RunResult {
    let communicators = match n {
        1 => vec![Communicator::single()],
        _ => Communicator::threads(n, &CommunicatorOptions::default()).unwrap(),
    };
    ranks_of(communicators, settings, |_| model(), stop_after)
}

/// The same for the ranks of `communicators`, each starting from its `model`.
fn ranks_of(
    communicators: Vec<Communicator>,
    settings: &GrpoSettings,
    model: impl Fn(usize) -> Bigram + Sync,
    stop_after: Option<u64>,
) -> RunResult {
    let base = settings.run.output.join("base");
    std::fs::create_dir_all(&base).unwrap();
    let last = Checkpoints::new(&settings.run.output, 1).last().unwrap();
    if last.is_none() {
        model(0).save(&base, WriterRank::SINGLE).unwrap();
    }
    let keep = Keep::default();
    let rank = |communicator: Communicator| {
        let stop = AtomicBool::new(false);
        let process_group = ProcessGroup::new(communicator.clone());
        let mut sinks: Vec<Box<dyn Sink + '_>> = Vec::new();
        if process_group.is_rank_zero() {
            sinks.push(Box::new(keep.clone()));
            sinks.extend(stop_after.map(|step| Box::new(StopAfter(step, &stop)) as Box<dyn Sink>));
        }
        let mut inputs = inputs(settings, &base, &stop);
        inputs.run.process_group = process_group;
        let outcome = match &last {
            Some(checkpoint) => GrpoTrainer::<Bigram>::resume(checkpoint, inputs, sinks),
            None => GrpoTrainer::start(model(communicator.rank()), inputs, sinks),
        }
        .and_then(GrpoTrainer::run);
        match outcome {
            Ok(outcome) => {
                communicator.finish().unwrap();
                outcome
            }
            Err(error) => panic!("{error}: {}", communicator.fail(&error.to_string())),
        }
    };
    let outcomes = Communicator::on_each(communicators, rank);
    assert!(outcomes.iter().all(|outcome| *outcome == outcomes[0]), "{outcomes:?}");
    let (RunOutcome::Finished(folder) | RunOutcome::Stopped(folder)) = &outcomes[0];
    let completions = std::mem::take(&mut *keep.0.lock().unwrap());
    RunResult { completions, weights: Bigram::read(folder).unwrap().values() }
}

/// Asserts that two runs sampled bit-identical completions and learned the same up to rounding.
fn assert_same(found: &RunResult, wanted: &RunResult, what: &str) {
    assert_eq!(found.completions.len(), wanted.completions.len(), "{what}");
    for (step, (found, wanted)) in found.completions.iter().zip(&wanted.completions).enumerate() {
        let sampled = |rollouts: &[Rollout]| -> Vec<(usize, Vec<Vec<u32>>)> {
            let ids = |rollout: &Rollout| {
                rollout.completions.iter().map(|completion| completion.ids.clone()).collect()
            };
            rollouts.iter().map(|rollout| (rollout.index, ids(rollout))).collect()
        };
        assert_eq!(sampled(found), sampled(wanted), "{what}, step {step}");
        // At identical weights, log-probabilities, rewards and advantages are identical too.
        if step == 0 {
            assert_eq!(found, wanted, "{what}");
        }
    }
    for (index, (found, wanted)) in found.weights.iter().zip(&wanted.weights).enumerate() {
        assert!((found - wanted).abs() < 1e-5, "{what}, {index}: {found}, not {wanted}");
    }
}

fn of_ranks(n: usize, change: impl Fn(&mut GrpoSettings), model: fn() -> Bigram) -> RunResult {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = settings(dir.path());
    change(&mut settings);
    ranks(n, &settings, model, None)
}

/// Two and three ranks reproduce the run of one.
fn assert_independent_of_ranks(change: impl Fn(&mut GrpoSettings), model: fn() -> Bigram) {
    let one = of_ranks(1, &change, model);
    for n in [2, 3] {
        assert_same(&of_ranks(n, &change, model), &one, &format!("{n} ranks"));
    }
}

#[test]
fn two_and_four_ranks_reproduce_the_run_of_one() {
    // Three groups do not divide evenly over two or four ranks, so some are split.
    let uneven = |settings: &mut GrpoSettings| settings.rollout.generation_batch_size = 12;
    let model = || Bigram::new(6, 3);
    let one = of_ranks(1, uneven, model);
    assert!(one.weights != model().values());
    for n in [2, 4] {
        assert_same(&of_ranks(n, uneven, model), &one, &format!("{n} ranks"));
    }
}

#[test]
fn with_two_questions_four_ranks_share_the_work() {
    let two_groups = |settings: &mut GrpoSettings| {
        settings.rollout.generation_batch_size = 8;
        settings.rollout.num_generations = 4;
        settings.run.max_tokens_per_batch = 10;
    };
    let model = || Bigram::new(6, 3);
    let one = of_ranks(1, two_groups, model);
    let dir = tempfile::tempdir().unwrap();
    let mut settings = settings(dir.path());
    two_groups(&mut settings);
    let four = ranks(4, &settings, model, None);
    assert_same(&four, &one, "4 ranks");
    let lines = std::fs::read_to_string(settings.run.output.join("events.jsonl")).unwrap();
    let all: Vec<Event> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let steps = all.iter().filter_map(|event| match event {
        Event::Step { ranks, metrics, .. } => Some((ranks, metrics)),
        _ => None,
    });
    assert_eq!(steps.clone().count(), four.completions.len());
    for (ranks, metrics) in steps {
        assert_eq!(ranks.completions_per_rank, [2, 2, 2, 2]);
        assert_eq!(ranks.busy_share_per_rank.len(), 4);
        assert!(metrics.contains_key("reward"));
    }
}

#[test]
fn ranks_resume_bit_for_bit_with_the_expected_lengths_of_the_checkpoint() {
    let run = |stops: &[Option<u64>]| {
        let dir = tempfile::tempdir().unwrap();
        let settings = settings(dir.path()).with(|s| s.rollout.generation_batch_size = 12);
        let run = |stop: &Option<u64>| ranks(2, &settings, || Bigram::new(6, 3), *stop);
        let results: Vec<RunResult> = stops.iter().map(run).collect();
        let last = results.last().unwrap();
        let bits: Vec<u32> = last.weights.iter().map(|weight| weight.to_bits()).collect();
        let checkpoint = Checkpoints::new(&settings.run.output, 1).last().unwrap().unwrap();
        (bits, checkpoint.state.expected_lengths)
    };
    let (whole, resumed) = (run(&[None]), run(&[Some(3), None]));
    assert_eq!(resumed, whole);
    assert_ne!(whole.1, ExpectedLengths::default());
}

#[test]
fn ranks_resample_the_same_questions() {
    let dynamic = |settings: &mut GrpoSettings| {
        settings.rollout.dynamic_sample = true;
        settings.rollout.num_generations = 2;
        settings.rollout.generation_batch_size = 6;
        settings.stages.stage = vec![stage(1.0, 0.5, 0.5)];
        settings.stages.max_steps = Some(2);
    };
    assert_independent_of_ranks(dynamic, || Bigram::thinking(6));
}

#[test]
fn the_loss_is_normalized_over_the_completions_of_all_ranks() {
    for loss_type in [LossType::Grpo, LossType::Dapo, LossType::DrGrpo] {
        let change = |settings: &mut GrpoSettings| {
            settings.loss.loss_type = loss_type;
            settings.rollout.generation_batch_size = 12;
            settings.loss.top_entropy_quantile = 0.5;
            settings.run.max_tokens_per_batch = 12;
            settings.rollout.num_iterations = 2;
            settings.stages.stage = vec![stage(1.0, 0.5, 0.5)];
        };
        let model = || Bigram::new(6, 3);
        let one = of_ranks(1, change, model);
        assert_same(&of_ranks(3, change, model), &one, &format!("{loss_type:?}"));
    }
}

#[test]
fn every_mini_batch_is_shared_among_the_ranks() {
    let change = |settings: &mut GrpoSettings| {
        settings.loss.loss_type = LossType::Dapo;
        settings.rollout.generation_batch_size = 16;
        settings.rollout.num_mini_batches = 2;
        settings.rollout.num_iterations = 2;
        settings.run.max_tokens_per_batch = 12;
        settings.stages.stage = vec![stage(1.0, 0.5, 0.5)];
    };
    assert_independent_of_ranks(change, || Bigram::new(6, 3));
}

#[test]
fn reinforce_plus_plus_whitens_over_the_tokens_of_all_ranks() {
    let change = |settings: &mut GrpoSettings| {
        settings.advantages.advantage_estimator = AdvantageEstimator::ReinforcePlusPlus;
        settings.rollout.num_generations = 1;
        settings.rollout.generation_batch_size = 4;
        settings.loss.loss_type = LossType::Dapo;
        settings.stages.stage = vec![stage(1.0, 0.5, 0.5)];
    };
    assert_independent_of_ranks(change, || Bigram::thinking(6));
}

#[test]
fn muon_updates_the_same_matrices_on_every_rank() {
    let muon = |settings: &mut GrpoSettings| settings.optimizer.optim = Optim::Muon;
    let model = || Bigram::new(6, 3);
    let one = of_ranks(1, muon, model);
    assert_same(&of_ranks(2, muon, model), &one, "Muon");
}

/// Trains two ranks for one step, in which rank 1's `model` takes longer than the deadline.
fn waited_for(deadline: Duration, model: impl Fn(usize) -> Bigram + Sync) {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path()).with(|s| {
        s.stages.max_steps = Some(1);
        s.stages.stage = vec![stage(1.0, 0.5, 0.5)];
        s.rollout.generation_batch_size = 8;
    });
    let options = CommunicatorOptions { deadline, ..CommunicatorOptions::default() };
    let communicators = Communicator::threads(2, &options).unwrap();
    let began = Instant::now();
    let result = ranks_of(communicators, &settings, model, None);
    assert_eq!(result.completions.len(), 1);
    assert!(began.elapsed() > 3 * deadline, "the other rank did not have to wait");
}

#[test]
fn a_rank_that_generates_for_longer_than_the_deadline_is_waited_for() {
    let deadline = Duration::from_millis(500);
    // Up to 20 tokens and an evaluation; each token takes a fifth of the deadline.
    waited_for(deadline, |rank| match rank {
        1 => Bigram::endless(6).slow(deadline / 5),
        _ => Bigram::endless(6),
    });
}

#[test]
fn a_rank_that_computes_for_longer_than_the_deadline_is_waited_for() {
    let deadline = Duration::from_millis(500);
    // The reference and the policy score four completions each, in one pass.
    waited_for(deadline, |rank| match rank {
        1 => Bigram::new(6, 3).slow_to_score(2 * deadline / 5),
        _ => Bigram::new(6, 3),
    });
}

#[test]
fn any_number_of_ranks_resumes_from_a_checkpoint_of_any() {
    let model = || Bigram::new(6, 3);
    let whole = of_ranks(1, |_| {}, model);
    let counts = [1, 2, 3, 4, 7];
    let pairs = counts.into_iter().flat_map(|before| counts.map(|after| (before, after)));
    for (before, after) in pairs.filter(|(before, after)| before != after) {
        let dir = tempfile::tempdir().unwrap();
        let settings = settings(dir.path());
        let first = ranks(before, &settings, model, Some(3));
        let rest = ranks(after, &settings, model, None);
        let completions = [first.completions, rest.completions].concat();
        let result = RunResult { completions, weights: rest.weights };
        assert_same(&result, &whole, &format!("{before} ranks, then {after}"));
    }
}

#[test]
fn a_failed_rank_aborts_the_run_on_all_ranks() {
    let dir = tempfile::tempdir().unwrap();
    // Rank 1 lacks the program of a reward.
    let settings = [0, 1].map(|rank| {
        let program = if rank == 0 { "true" } else { "no-such-program" };
        let backend = RewardBackend::Command(vec![program.into()]);
        settings(dir.path()).with(|s| {
            s.rewards.reward = vec![ExternalRewardConfig::new("style", backend)];
            s.stages.stage[0].weights.insert("style".into(), 0.5);
        })
    });
    let base = dir.path().join("base");
    std::fs::create_dir_all(&base).unwrap();
    let rank = |communicator: Communicator| {
        let stop = AtomicBool::new(false);
        let mut inputs = inputs(&settings[communicator.rank()], &base, &stop);
        inputs.run.process_group = ProcessGroup::new(communicator.clone());
        let model = Bigram::new(6, 3);
        let error =
            GrpoTrainer::start(model, inputs, Vec::new()).and_then(GrpoTrainer::run).unwrap_err();
        communicator.fail(&error.to_string());
        error.to_string()
    };
    let errors = Communicator::on_threads(2, rank).unwrap();
    assert!(errors[0].contains("rank 1 on") && errors[0].contains(&errors[1]), "{errors:?}");
}
