//! The reference model of a run that trains its vision tower.

use embodied_r_grpo::model::{Group, Model as _, Prompt, Trainable, VisionPolicy, WriterRank};
use embodied_r_kernels::memory;
use embodied_r_policy::lora::LoraConfig;

use crate::lora::settings;
use crate::model::{TRAINED, batch, folder, policy, policy_of};

/// Log-probabilities of a completion after each prompt.
fn scores(policy: &VisionPolicy, prompts: &[Prompt]) -> Vec<f32> {
    let group = |prompt: &Prompt| Group { prompt: prompt.clone(), completions: vec![vec![9, 40]] };
    let groups: Vec<Group> = prompts.iter().map(group).collect();
    policy.score(&groups, 1.0).unwrap().logps
}

/// Changes all trained tensors, as an optimizer does.
fn step(policy: &VisionPolicy, factor: f64) {
    for (_, tensor) in policy.parameters() {
        memory::scale(&tensor, factor as f32).unwrap();
    }
    policy.parameters_changed();
}

fn apart(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn a_reference_keeps_the_tower_of_its_copy_until_it_is_mixed() {
    let batch = batch();
    let (policy, prompts) = policy(&batch, TRAINED, 1 << 30);
    step(&policy, 1.1);
    let reference = policy.frozen_copy().unwrap();
    let copied = scores(&reference, &prompts);
    assert_eq!(copied, scores(&policy, &prompts));
    step(&policy, 1.2);
    assert_eq!(scores(&reference, &prompts), copied);
    let moved = scores(&policy, &prompts);
    assert!(apart(&moved, &copied) > 1e-2);
    // The images are encoded again after each sync.
    let trained = policy.parameters();
    let own: std::collections::HashMap<_, _> = reference.all_tensors().into_iter().collect();
    assert!(trained.iter().any(|(name, _)| name.contains("visual.")));
    for (name, from) in &trained {
        memory::lerp(&own[name], from, 1.0).unwrap();
    }
    assert_eq!(own.len(), policy.all_tensors().len());
    reference.parameters_changed();
    assert_eq!(scores(&reference, &prompts), moved);
    assert_eq!(scores(&policy, &prompts), moved);
}

#[test]
fn a_saved_reference_is_read_with_its_tower() {
    let batch = batch();
    let (policy, prompts) = policy(&batch, TRAINED, 1 << 30);
    step(&policy, 1.1);
    let reference = policy.frozen_copy().unwrap();
    let copied = scores(&reference, &prompts);
    step(&policy, 1.2);
    // Saved by a sync, or as the policy that becomes the reference.
    for (saved, expected) in [(&reference, copied), (&policy, scores(&policy, &prompts))] {
        let dir = tempfile::tempdir().unwrap();
        saved.save(dir.path(), WriterRank::SINGLE).unwrap();
        let read = policy.load_frozen(dir.path()).unwrap();
        assert_eq!(scores(&read, &prompts), expected);
    }
}

#[test]
fn a_reference_has_the_adapters_of_its_copy() {
    let batch = batch();
    let lora = LoraConfig { r: 2, lora_alpha: 4, ..settings(|_| true) };
    let lora = Trainable::Lora(lora);
    let (policy, prompts) = policy_of(&batch, &folder(), lora, TRAINED, 1 << 30);
    let base = scores(&policy, &prompts);
    for (name, tensor) in policy.parameters() {
        if name.ends_with("lora_B.weight") {
            memory::add(&tensor, &(tensor.ones_like().unwrap() * 0.1).unwrap()).unwrap();
        }
    }
    policy.parameters_changed();
    let reference = policy.frozen_copy().unwrap();
    let copied = scores(&reference, &prompts);
    assert!(apart(&copied, &base) > 1e-2);
    assert_eq!(copied, scores(&policy, &prompts));
    step(&policy, 1.2);
    assert_eq!(scores(&reference, &prompts), copied);
    for (saved, expected) in [(&reference, copied), (&policy, scores(&policy, &prompts))] {
        let dir = tempfile::tempdir().unwrap();
        saved.save(dir.path(), WriterRank::SINGLE).unwrap();
        let read = policy.load_frozen(dir.path()).unwrap();
        assert_eq!(scores(&read, &prompts), expected);
    }
    // The base model is the reference until then.
    let read = policy.load_frozen(&folder()).unwrap();
    assert!(apart(&scores(&read, &prompts), &base) < 1e-5);
}
