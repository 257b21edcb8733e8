//! Weights that compute in bf16 on a device and are moved in f32, through the GPU's kernels on the host
//! (`EMBODIED_R_CUDA_HOST=1`).

#![cfg(feature = "cuda-host")]
#![allow(clippy::unwrap_used)]

use std::path::Path;

use candle_core::{DType, Device};
use embodied_r_dist::{Communicator, Options};
use embodied_r_grpo::optimizer::{Optim, Optimizer, OptimizerSettings};
use embodied_r_grpo::team::Team;
use embodied_r_kernels::device::has_kernels;
use embodied_r_kernels::memory;
use embodied_r_policy::{Policy, Precision};

/// Far below half of what separates neighbouring bf16 of the model's weights: alone, a step moves none of them.
const LR: f64 = 2e-6;

fn policy(precision: Precision) -> Policy {
    assert!(has_kernels(&Device::Cpu), "set EMBODIED_R_CUDA_HOST=1");
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/loss/untied");
    Policy::load(&dir).unwrap().with_precision(precision).to_device(&Device::Cpu).unwrap()
}

fn settings(optim: Optim) -> OptimizerSettings {
    OptimizerSettings {
        optim,
        beta1: 0.9,
        beta2: 0.95,
        epsilon: 1e-8,
        weight_decay: 0.1,
        max_grad_norm: 1e9,
    }
}

/// So many steps along gradients of which all numbers sum up to the same over the ranks.
fn steps(optimizer: &mut Optimizer, policy: &Policy, count: usize) {
    let gradients = policy.zero_gradients().unwrap();
    for _ in 0..count {
        let share = 1.0 / optimizer.team().size() as f32;
        let numbers = vec![share; gradients.buffer().elem_count()];
        memory::set(gradients.buffer(), &numbers).unwrap();
        let summed = optimizer.reduction(policy, &gradients).unwrap().finish(&gradients).unwrap();
        assert!(optimizer.step(policy, &summed, LR).unwrap().taken);
        optimizer.hand_round(policy, || ()).unwrap();
    }
}

/// The weights, as bf16 rounds them.
fn rounded(policy: &Policy) -> Vec<(String, Vec<f32>)> {
    let numbers = |(name, tensor): (&str, &candle_core::Tensor)| {
        let held = if tensor.rank() == 2 { DType::BF16 } else { DType::F32 };
        let tensor = tensor.to_dtype(held).and_then(|tensor| tensor.to_dtype(DType::F32));
        let numbers = tensor.and_then(|tensor| tensor.flatten_all()?.to_vec1());
        (name.to_owned(), numbers.unwrap())
    };
    policy.parameters().iter().map(numbers).collect()
}

/// A policy in f32 with the numbers that one in bf16 begins with, after so many steps.
fn in_f32(optim: Optim, count: usize) -> Vec<(String, Vec<f32>)> {
    let policy_f32 = policy(Precision::F32);
    policy_f32.parameters().copy_from(policy(Precision::Bf16).parameters()).unwrap();
    let mut optimizer = Optimizer::new(settings(optim), &policy_f32, &Team::default()).unwrap();
    steps(&mut optimizer, &policy_f32, count);
    rounded(&policy_f32)
}

#[test]
fn steps_too_small_for_bf16_add_up_in_the_masters_and_go_on_from_a_checkpoint() {
    for optim in [Optim::Adamw, Optim::Muon] {
        let of = policy(Precision::Bf16);
        for (name, tensor) in of.parameters().iter() {
            let held = if tensor.rank() == 2 { DType::BF16 } else { DType::F32 };
            assert_eq!(tensor.dtype(), held, "{name}");
        }
        let before = rounded(&of);
        let mut optimizer = Optimizer::new(settings(optim), &of, &Team::default()).unwrap();
        steps(&mut optimizer, &of, 40);
        let dir = tempfile::tempdir().unwrap();
        optimizer.save(&of, dir.path()).unwrap();
        let copy = of.frozen_copy().unwrap();
        let written = (optimizer.files(), optimizer.steps());
        let loaded = Optimizer::load(settings(optim), &copy, &Team::default(), dir.path(), written);
        steps(&mut loaded.unwrap(), &copy, 40);
        steps(&mut optimizer, &of, 40);
        assert_eq!(rounded(&copy), rounded(&of), "{optim:?}");
        assert_eq!(in_f32(optim, 80), rounded(&of), "{optim:?}");
        let moved = before.iter().zip(rounded(&of)).filter(|(before, after)| before.1 != after.1);
        // Muon moves a small matrix by less than bf16 tells apart.
        assert!(moved.count() + 1 >= before.len(), "{optim:?}");
    }
}

#[test]
fn ranks_share_the_masters_out() {
    let communicators = Communicator::threads(2, &Options::default()).unwrap();
    let moved = std::thread::scope(|scope| {
        let rank = |communicator: Communicator| {
            let (of, team) = (policy(Precision::Bf16), Team::new(communicator));
            let mut optimizer = Optimizer::new(settings(Optim::Adamw), &of, &team).unwrap();
            steps(&mut optimizer, &of, 40);
            let dir = tempfile::tempdir().unwrap();
            optimizer.save(&of, dir.path()).unwrap();
            let file = std::fs::read_dir(dir.path()).unwrap().next().unwrap().unwrap();
            let bytes = file.metadata().unwrap().len();
            team.communicator().finish().unwrap();
            (rounded(&of), bytes)
        };
        let threads: Vec<_> = communicators
            .into_iter()
            .map(|communicator| scope.spawn(move || rank(communicator)))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    let (numbers, matrices) = {
        let of = policy(Precision::Bf16);
        let matrices = of.parameters().iter().filter(|(_, tensor)| tensor.rank() == 2);
        let matrices: usize = matrices.map(|(_, tensor)| tensor.elem_count()).sum();
        (of.parameters().numbers(), matrices)
    };
    let alone = in_f32(Optim::Adamw, 40);
    for (weights, bytes) in moved {
        assert_eq!(weights, alone);
        // Half of two moments and a master, and of masters for the few vectors that lie beside matrices; names besides.
        let least = 4 * (2 * numbers + matrices) as u64 / 2;
        assert!((least..least + least / 4).contains(&bytes), "{bytes} bytes, at least {least}");
    }
}
