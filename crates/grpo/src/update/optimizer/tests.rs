//! Tests of the optimizer on one and several ranks, with a bigram model.

use std::time::{Duration, Instant};

use embodied_r_dist::{Communicator, Operation, Reduce};
use embodied_r_policy::weights::TensorFile;

use super::*;
use crate::estimate::roofline::{InterNodeLink, IntraNodeLink, Network};
use crate::model::tests::toy::Bigram;
use crate::model::{Group, NamedGradients, TokenScores};

fn settings() -> OptimizerSettings {
    OptimizerSettings {
        optim: Optim::Adamw,
        adam_beta1: 0.9,
        adam_beta2: 0.95,
        adam_epsilon: 1e-8,
        weight_decay: 0.5,
        max_grad_norm: 1.0,
    }
}

/// Gradients of `scale` times the log-probability of one token.
fn gradients(model: &Bigram, scale: f32) -> <Bigram as Model>::Gradients {
    let mut gradients = model.zero_gradients().unwrap();
    let group = Group { prompt: vec![1].into(), completions: vec![vec![2]] };
    let mut derivative = |_: &TokenScores| Ok(vec![scale]);
    let training =
        crate::model::TrainingPass { temperature: 1.0, dropout_seed: 0, activation_cache: None };
    model.backward(&[group], &training, &mut gradients, &mut derivative, &mut |_| ()).unwrap();
    gradients
}

fn optimizer(settings: OptimizerSettings, model: &Bigram) -> Optimizer {
    Optimizer::new(settings, model, &ProcessGroup::default()).unwrap()
}

fn step(
    optimizer: &mut Optimizer,
    model: &Bigram,
    gradients: &<Bigram as Model>::Gradients,
) -> StepResult {
    let summed = optimizer.reduction(model, gradients).unwrap().finish(gradients).unwrap();
    optimizer.step(model, &summed, 0.1).unwrap()
}

#[test]
fn matrices_decay_and_vectors_do_not() {
    let model = Bigram::new(3, 1);
    let before = model.values();
    let zero = model.zero_gradients().unwrap();
    step(&mut optimizer(settings(), &model), &model, &zero);
    let after = model.values();
    for (before, after) in before[..9].iter().zip(&after[..9]) {
        assert!((after - before * (1.0 - 0.1 * 0.5)).abs() < 1e-7);
    }
    assert_eq!(before[9..], after[9..]);
}

#[test]
fn a_gradient_is_clipped_to_the_largest_norm_allowed() {
    let moment = |scale: f32| {
        let model = Bigram::new(3, 1);
        let mut optimizer = optimizer(settings(), &model);
        let applied = step(&mut optimizer, &model, &gradients(&model, scale));
        let Moments::Replicated(whole) = &optimizer.moments else { panic!("of one rank") };
        let pieces = whole.named_tensors();
        let firsts = pieces.iter().filter(|(name, _)| name.starts_with("exp_avg."));
        let squares: f32 = firsts
            .map(|(_, first)| first.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap())
            .sum();
        (applied.grad_norm, f64::from(squares.sqrt()))
    };
    let (norm, moment_of_large) = moment(100.0);
    assert!(norm > 50.0, "{norm}");
    assert!((moment_of_large - 0.1).abs() < 1e-5, "0.1 of the norm 1: {moment_of_large}");
    let (norm, moment_of_small) = moment(0.1);
    assert!((moment_of_small - 0.1 * norm).abs() < 1e-6, "not clipped: {moment_of_small}");
}

#[test]
fn a_non_finite_gradient_changes_nothing() {
    let model = Bigram::new(3, 1);
    let before = model.values();
    let mut optimizer = optimizer(settings(), &model);
    let infinite = gradients(&model, f32::INFINITY);
    assert!(!infinite.norm().unwrap().is_finite());
    let applied = step(&mut optimizer, &model, &infinite);
    assert!(!applied.taken);
    assert_eq!((model.values(), optimizer.steps()), (before, 0));
}

#[test]
fn a_saved_optimizer_resumes_identically() {
    for optim in [Optim::Adamw, Optim::Muon] {
        let settings = OptimizerSettings { optim, ..settings() };
        let dir = tempfile::tempdir().unwrap();
        let move_on = |optimizer: &mut Optimizer, model: &Bigram| {
            step(optimizer, model, &gradients(model, 0.3));
        };
        let model = Bigram::new(3, 1);
        let mut first = optimizer(settings, &model);
        move_on(&mut first, &model);
        first.save(&model, dir.path()).unwrap();
        let copy = model.frozen_copy().unwrap();
        let written = (first.files(), first.steps());
        let alone = ProcessGroup::default();
        let loaded = Optimizer::load(settings, &copy, &alone, dir.path(), written);
        move_on(&mut first, &model);
        move_on(&mut loaded.unwrap(), &copy);
        assert_eq!(model.values(), copy.values(), "{optim:?}");
    }
}

#[test]
fn muon_is_for_matrices_between_embedding_and_head() {
    let dir = tempfile::tempdir().unwrap();
    let settings = OptimizerSettings { optim: Optim::Muon, ..settings() };
    let model = Bigram::new(3, 1);
    optimizer(settings, &model).save(&model, dir.path()).unwrap();
    let found = TensorFile::open(&dir.path().join(file_name(0, 1))).unwrap();
    for (name, tensor) in model.parameters() {
        let kind = if tensor.rank() == 2 { "momentum_buffer" } else { "exp_avg" };
        assert!(found.shape(&format!("{kind}.{name}")).is_some(), "{name}");
    }
}

#[test]
fn state_of_another_model_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let model = Bigram::new(3, 1);
    optimizer(settings(), &model).save(&model, dir.path()).unwrap();
    let (other, alone) = (Bigram::new(4, 1), ProcessGroup::default());
    let error = Optimizer::load(settings(), &other, &alone, dir.path(), (1, 1));
    let error = error.unwrap_err().to_string();
    assert!(error.contains("exp_avg.bigram."), "{error}");
}

/// Runs several ranks with different gradients, marking elements as final from each of `final_from` on before
/// finishing. Returns the weights, the norm and the reductions started before the end; waits for `sent` of them.
fn of_ranks(
    ranks: usize,
    optim: Optim,
    final_from: &[usize],
    sent: u64,
) -> Vec<(Vec<f32>, f64, u64)> {
    let settings = OptimizerSettings { optim, ..settings() };
    let rank = |communicator: Communicator| {
        let process_group = ProcessGroup::new(communicator.clone());
        let model = Bigram::new(5, 1);
        let mut optimizer = Optimizer::new(settings, &model, &process_group).unwrap();
        let gradients = gradients(&model, 1.0 + process_group.rank() as f32);
        let reduction = optimizer.reduction(&model, &gradients).unwrap();
        final_from.iter().for_each(|from| reduction.final_from(*from));
        let calls = || {
            let traffic = communicator.traffic();
            let of = |operation: Operation| traffic.get(&operation).map_or(0, |one| one.calls);
            of(Operation::ReduceScatter) + of(Operation::AllReduce(Reduce::Sum))
        };
        let began = Instant::now();
        while calls() < sent && began.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(1));
        }
        let early = calls();
        let summed = reduction.finish(&gradients).unwrap();
        let applied = optimizer.step(&model, &summed, 0.1).unwrap();
        optimizer.all_gather_weights(&model, || ()).unwrap();
        communicator.finish().unwrap();
        (model.values(), applied.grad_norm, early)
    };
    Communicator::on_threads(ranks, rank).unwrap()
}

#[test]
fn buckets_are_sent_as_soon_as_they_are_final_and_change_no_bit() {
    // 30 elements: for AdamW two buckets of 16, the last one partial; for Muon two tensors of 25 and 5.
    let cases: [(&[usize], _); 3] = [(&[28], [0, 0]), (&[28, 16, 3], [1, 1]), (&[25, 0], [2, 2])];
    for (column, optim) in [Optim::Adamw, Optim::Muon].into_iter().enumerate() {
        let at_once = of_ranks(2, optim, &[], 0);
        assert!(at_once.iter().all(|(weights, _, early)| (weights, *early) == (&at_once[0].0, 0)));
        for (final_from, sent) in cases {
            for ((weights, norm, early), (wanted, wanted_norm, _)) in
                of_ranks(2, optim, final_from, sent[column]).iter().zip(&at_once)
            {
                let what = format!("{optim:?} {final_from:?}");
                assert_eq!((weights, norm), (wanted, wanted_norm), "{what}");
                assert_eq!(*early, sent[column], "{what}");
            }
        }
    }
}

#[test]
fn ranks_step_along_the_sum_of_their_gradients() {
    for (ranks, sum) in [(2, 3.0), (3, 6.0)] {
        let model = Bigram::new(5, 1);
        step(&mut optimizer(settings(), &model), &model, &gradients(&model, sum));
        for (weights, ..) in of_ranks(ranks, Optim::Adamw, &[16], 1) {
            for (found, wanted) in weights.iter().zip(model.values()) {
                assert!((found - wanted).abs() < 1e-6, "{ranks} ranks: {found}, not {wanted}");
            }
        }
    }
}

#[test]
fn a_step_sends_the_estimated_number_of_bytes() {
    for ranks in [2, 3] {
        let model = Bigram::new(40, 1);
        let elements: usize =
            model.parameters().iter().map(|(_, tensor)| tensor.elem_count()).sum();
        let network =
            Network::new(ranks, IntraNodeLink::pcie(1.0), 1, InterNodeLink::ethernet(1.0));
        let estimated = network.ring_bytes(4.0 * elements as f64);
        let sent = |communicator: Communicator| {
            let process_group = ProcessGroup::new(communicator.clone());
            let model = Bigram::new(40, 1);
            let mut optimizer = Optimizer::new(settings(), &model, &process_group).unwrap();
            let gradients = gradients(&model, 1.0);
            let reduction = optimizer.reduction(&model, &gradients).unwrap();
            optimizer.step(&model, &reduction.finish(&gradients).unwrap(), 0.1).unwrap();
            optimizer.all_gather_weights(&model, || ()).unwrap();
            communicator.finish().unwrap();
            let traffic = communicator.traffic();
            [Operation::ReduceScatter, Operation::AllGather].map(|operation| traffic[&operation])
        };
        for traffic in Communicator::on_threads(ranks, sent).unwrap().into_iter().flatten() {
            // Each call also sends a 32-byte header to every other rank, and the last bucket is padded.
            let headers = (32 * (ranks - 1) * traffic.calls as usize) as f64;
            let padding = traffic.bytes_sent as f64 - headers - estimated;
            assert_eq!(traffic.calls, elements.div_ceil(16) as u64);
            assert!(
                (0.0..=4.0 * (ranks * ranks) as f64 * traffic.calls as f64).contains(&padding),
                "{padding}"
            );
        }
    }
}
