//! Losses and gradients.

use embodied_r_grpo::inspect::{LossReport, loss};
use embodied_r_grpo::settings::LossSettings;
use embodied_r_vision::FrozenParts;

use crate::model::{Batch, TRAINED, batch, policy};

fn report(batch: &Batch, settings: &LossSettings, trained: Option<FrozenParts>) -> LossReport {
    let (policy, prompts) = policy(batch, trained, 1 << 30);
    loss(&policy, (&batch.file, &prompts), settings, &[]).unwrap()
}

/// The name of a tensor of `transformers` in a loss report.
fn canonical(name: &str) -> String {
    name.replace("model.language_model.", "model.").replace("model.visual.", "visual.")
}

#[test]
fn loss_and_every_gradient_norm_match_transformers() {
    let batch = batch();
    for case in &batch.fixture.cases {
        let settings: LossSettings = serde_json::from_value(case["settings"].clone()).unwrap();
        let report = report(&batch, &settings, TRAINED);
        let expected = case["loss"].as_f64().unwrap();
        assert!((report.loss - expected).abs() < 1e-5, "{} and {expected}", report.loss);
        let norms = case["grad_norms"].as_object().unwrap();
        assert_eq!(report.grad_norms.len(), norms.len());
        for (name, expected) in norms {
            let (found, expected) =
                (report.grad_norms[&canonical(name)], expected.as_f64().unwrap());
            let relative = (found - expected).abs() / expected;
            assert!(relative < 1e-4, "`{name}`: {found} and {expected}");
        }
        let total = case["grad_norm"].as_f64().unwrap();
        assert!((report.grad_norm - total).abs() < 1e-4 * total);
    }
}

#[test]
fn log_probabilities_of_prompts_match_transformers() {
    let batch = batch();
    let (policy, prompts) = policy(&batch, None, 1 << 30);
    for (prompt, expected) in prompts.iter().zip(&batch.fixture.logprobs) {
        let found = policy.score_prompt(prompt).unwrap();
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-4, "{found} and {expected}");
        }
    }
}

#[test]
fn frozen_parts_have_no_gradients_and_change_no_other() {
    let (batch, settings) = (batch(), LossSettings::default());
    let all = report(&batch, &settings, TRAINED);
    let is_aligner = |name: &str| name.contains("visual.merger.");
    let is_tower = |name: &str| name.contains("visual.") && !is_aligner(name);
    for (vision_tower, aligner) in [(true, false), (false, true), (true, true)] {
        let parts = FrozenParts { vision_tower, aligner };
        let found = report(&batch, &settings, (!(vision_tower && aligner)).then_some(parts));
        assert_eq!(found.loss, all.loss);
        let kept =
            |name: &&String| !(vision_tower && is_tower(name) || aligner && is_aligner(name));
        assert!(found.grad_norms.keys().eq(all.grad_norms.keys().filter(kept)));
        for (name, norm) in &found.grad_norms {
            assert_eq!(*norm, all.grad_norms[name], "`{name}`");
        }
    }
}

#[test]
fn recomputed_activations_change_nothing() {
    let (batch, settings) = (batch(), LossSettings::default());
    let all = report(&batch, &settings, TRAINED);
    let (policy, prompts) = policy(&batch, TRAINED, 0);
    assert_eq!(loss(&policy, (&batch.file, &prompts), &settings, &[]).unwrap(), all);
}
