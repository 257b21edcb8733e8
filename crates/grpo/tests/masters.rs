//! bf16 weights with f32 master weights, through the CPU emulation of the CUDA kernels. Skipped without
//! `EMBODIED_R_CUDA_HOST=1`.

#![cfg(feature = "cuda-host")]
#![allow(clippy::unwrap_used)]

use std::io::Write as _;
use std::path::Path;

use candle_core::{DType, Device};
use embodied_r_dist::ProcessGroup;
use embodied_r_dist::{Communicator, CommunicatorOptions};
use embodied_r_grpo::settings::{Optim, OptimizerSettings};
use embodied_r_grpo::update::optimizer::Optimizer;
use embodied_r_kernels::device::has_kernels;
use embodied_r_kernels::memory;
use embodied_r_policy::lora::Module;
use embodied_r_policy::{LoraConfig, Policy, Precision, Trainable};

/// Far below half the spacing of most bf16 weights: a single step would be lost without master weights, but 80 of them
/// move some weights of every matrix. Muon's direction is constant in a matrix of equal gradients, 0.7 / √(rows ×
/// columns) per weight, so that its steps are smaller than AdamW's at the same learning rate.
fn learning_rate(optim: Optim) -> f64 {
    match optim {
        Optim::Adamw => 2e-6,
        Optim::Muon => 1e-5,
    }
}

/// Whether the CUDA kernels are emulated; otherwise reports that `test` is skipped.
fn is_emulated(test: &str) -> bool {
    let is_on = has_kernels(&Device::Cpu);
    if !is_on {
        // Unlike `eprintln!`, this is not captured by the test harness.
        let mut stderr = std::io::stderr();
        writeln!(stderr, "skipped: `{test}` needs EMBODIED_R_CUDA_HOST=1").unwrap();
    }
    is_on
}

fn policy(precision: Precision) -> Policy {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/loss/untied");
    Policy::load(&dir).unwrap().with_precision(precision).to_device(&Device::Cpu).unwrap()
}

/// A model with an adapter on all modules.
fn adapted(precision: Precision) -> Policy {
    let lora = LoraConfig {
        r: 2,
        lora_alpha: 4,
        lora_dropout: 0.0,
        target_modules: Module::ALL.to_vec(),
        encoder_modules: Vec::new(),
        use_rslora: false,
        base_model_name_or_path: None,
        base_fingerprint: None,
    };
    let policy = policy(Precision::F32).with_trainable(&Trainable::Lora(lora), 1).unwrap();
    policy.with_precision(precision).to_device(&Device::Cpu).unwrap()
}

fn settings(optim: Optim) -> OptimizerSettings {
    OptimizerSettings {
        optim,
        adam_beta1: 0.9,
        adam_beta2: 0.95,
        adam_epsilon: 1e-8,
        weight_decay: 0.1,
        max_grad_norm: 1e9,
    }
}

/// Takes `count` steps with the learning rate of `optim` along gradients whose elements sum to the same value over the
/// ranks.
fn steps(optim: Optim, optimizer: &mut Optimizer, policy: &Policy, count: usize) {
    let gradients = policy.zero_gradients().unwrap();
    for _ in 0..count {
        let share = 1.0 / optimizer.process_group().world_size() as f32;
        let values = vec![share; gradients.buffer().elem_count()];
        memory::write_slice(gradients.buffer(), &values).unwrap();
        let summed = optimizer.reduction(policy, &gradients).unwrap().finish(&gradients).unwrap();
        assert!(optimizer.step(policy, &summed, learning_rate(optim)).unwrap().taken);
        optimizer.all_gather_weights(policy, || ()).unwrap();
    }
}

/// The weights, rounded to bf16.
fn rounded(policy: &Policy) -> Vec<(String, Vec<f32>)> {
    let rounded = |(name, tensor): (&str, &candle_core::Tensor)| {
        let held = if tensor.rank() == 2 { DType::BF16 } else { DType::F32 };
        let tensor = tensor.to_dtype(held).and_then(|tensor| tensor.to_dtype(DType::F32));
        let values = tensor.and_then(|tensor| tensor.flatten_all()?.to_vec1());
        (name.to_owned(), values.unwrap())
    };
    policy.parameters().iter().map(rounded).collect()
}

/// An f32 policy initialized from the bf16 one, after `count` steps.
fn in_f32(policy: fn(Precision) -> Policy, optim: Optim, count: usize) -> Vec<(String, Vec<f32>)> {
    let policy_f32 = policy(Precision::F32);
    for (name, from) in policy(Precision::Bf16).parameters().iter() {
        let to = policy_f32.parameters().get(name).unwrap();
        to.slice_set(&from.to_dtype(to.dtype()).unwrap(), 0, 0).unwrap();
    }
    let mut optimizer =
        Optimizer::new(settings(optim), &policy_f32, &ProcessGroup::default()).unwrap();
    steps(optim, &mut optimizer, &policy_f32, count);
    rounded(&policy_f32)
}

/// Muon's iteration is bf16 where the policy is: its steps differ by a few per cent, 1e-6 over 80 steps, and weights may
/// round to a neighbor.
fn assert_close(a: &[(String, Vec<f32>)], b: &[(String, Vec<f32>)], optim: Optim) {
    let (spacing, moved) = match optim {
        Optim::Adamw => (0.0, 0.0),
        Optim::Muon => (1.0 / 128.0, 1e-6),
    };
    assert_eq!(a.len(), b.len());
    for ((name, a), (_, b)) in a.iter().zip(b) {
        assert_eq!(a.len(), b.len());
        let far = a.iter().zip(b).find(|(a, b)| (**a - **b).abs() > spacing * a.abs() + moved);
        assert_eq!(far, None, "{optim:?} `{name}`");
    }
}

#[test]
fn steps_below_bf16_resolution_accumulate_in_the_master_weights_across_a_checkpoint() {
    if !is_emulated(
        "steps_below_bf16_resolution_accumulate_in_the_master_weights_across_a_checkpoint",
    ) {
        return;
    }
    for optim in [Optim::Adamw, Optim::Muon] {
        let of = policy(Precision::Bf16);
        for (name, tensor) in of.parameters().iter() {
            let held = if tensor.rank() == 2 { DType::BF16 } else { DType::F32 };
            assert_eq!(tensor.dtype(), held, "{name}");
        }
        let before = rounded(&of);
        let mut optimizer = Optimizer::new(settings(optim), &of, &ProcessGroup::default()).unwrap();
        steps(optim, &mut optimizer, &of, 40);
        let dir = tempfile::tempdir().unwrap();
        optimizer.save(&of, dir.path()).unwrap();
        let copy = of.frozen_copy().unwrap();
        let written = (optimizer.files(), optimizer.steps());
        let loaded =
            Optimizer::load(settings(optim), &copy, &ProcessGroup::default(), dir.path(), written);
        steps(optim, &mut loaded.unwrap(), &copy, 40);
        steps(optim, &mut optimizer, &of, 40);
        assert_eq!(rounded(&copy), rounded(&of), "{optim:?}");
        assert_close(&in_f32(policy, optim, 80), &rounded(&of), optim);
        for ((name, before), (_, after)) in before.iter().zip(&rounded(&of)) {
            assert_ne!(before, after, "{optim:?} has not moved `{name}`");
        }
    }
}

#[test]
fn an_adapter_is_bf16_with_f32_master_weights() {
    if !is_emulated("an_adapter_is_bf16_with_f32_master_weights") {
        return;
    }
    let of = adapted(Precision::Bf16);
    assert!(of.parameters().iter().all(|(_, tensor)| tensor.dtype() == DType::BF16));
    let mut optimizer =
        Optimizer::new(settings(Optim::Adamw), &of, &ProcessGroup::default()).unwrap();
    let before = rounded(&of);
    steps(Optim::Adamw, &mut optimizer, &of, 80);
    assert_eq!(rounded(&of), in_f32(adapted, Optim::Adamw, 80));
    for ((name, before), (_, after)) in before.iter().zip(&rounded(&of)) {
        assert_ne!(before, after, "`{name}` has not moved");
    }
}

#[test]
fn ranks_shard_the_master_weights() {
    if !is_emulated("ranks_shard_the_master_weights") {
        return;
    }
    let communicators = Communicator::threads(2, &CommunicatorOptions::default()).unwrap();
    let moved = std::thread::scope(|scope| {
        let rank = |communicator: Communicator| {
            let (of, process_group) = (policy(Precision::Bf16), ProcessGroup::new(communicator));
            let mut optimizer =
                Optimizer::new(settings(Optim::Adamw), &of, &process_group).unwrap();
            steps(Optim::Adamw, &mut optimizer, &of, 40);
            let dir = tempfile::tempdir().unwrap();
            optimizer.save(&of, dir.path()).unwrap();
            let file = std::fs::read_dir(dir.path()).unwrap().next().unwrap().unwrap();
            let bytes = file.metadata().unwrap().len();
            process_group.communicator().finish().unwrap();
            (rounded(&of), bytes)
        };
        let threads: Vec<_> = communicators
            .into_iter()
            .map(|communicator| scope.spawn(move || rank(communicator)))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    let (elements, matrices) = {
        let of = policy(Precision::Bf16);
        let matrices = of.parameters().iter().filter(|(_, tensor)| tensor.rank() == 2);
        let matrices: usize = matrices.map(|(_, tensor)| tensor.elem_count()).sum();
        (of.parameters().elem_count(), matrices)
    };
    let alone = in_f32(policy, Optim::Adamw, 40);
    for (weights, bytes) in moved {
        assert_eq!(weights, alone);
        // Half of two moments and the master weights, including those of vectors in segments with matrices; names add a
        // little.
        let least = 4 * (2 * elements + matrices) as u64 / 2;
        assert!((least..least + least / 4).contains(&bytes), "{bytes} bytes, at least {least}");
    }
}
