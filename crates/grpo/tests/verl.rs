//! Advantages and losses compared with verl's and EasyR1's formulas (`scripts/parity/make_verl_fixtures.py`).

#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::Path;

use embodied_r_grpo::advantages::{ScaleRewards, reinforce_plus_plus, rloo};
use embodied_r_grpo::loss::{LossBatch, LossNormalizer, LossType, loss};
use embodied_r_grpo::settings::LossSettings;
use serde::Deserialize;

#[derive(Deserialize)]
struct Fixtures {
    advantages: Vec<AdvantageCase>,
    losses: Vec<LossCase>,
}

#[derive(Deserialize)]
struct AdvantageCase {
    rewards: Vec<f64>,
    lengths: Vec<usize>,
    group_size: usize,
    rloo: Vec<f64>,
    reinforce_plus_plus: Vec<f64>,
}

#[derive(Deserialize)]
struct LossCase {
    lengths: Vec<usize>,
    logps: Vec<f64>,
    old: Vec<f64>,
    reference: Vec<f64>,
    advantages: Vec<f64>,
    epsilon: f64,
    epsilon_high: f64,
    delta: f64,
    beta: f64,
    loss: f64,
    dlogps: Vec<f64>,
}

fn fixtures() -> Fixtures {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/verl.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn assert_close(found: &[f64], expected: &[f64], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (found, expected) in found.iter().zip(expected) {
        let error = (found - expected).abs();
        assert!(error <= 1e-9 * expected.abs().max(1.0), "{what}: {found} instead of {expected}");
    }
}

#[test]
fn advantages_are_those_of_verl() {
    for case in fixtures().advantages {
        let rewards: Vec<Option<f64>> = case.rewards.iter().copied().map(Some).collect();
        let found = rloo(&rewards, case.group_size, ScaleRewards::None).values;
        assert_close(&found, &case.rloo, "rloo");
        let found = reinforce_plus_plus(&rewards, &case.lengths, case.group_size).values;
        assert_close(&found, &case.reinforce_plus_plus, "reinforce_plus_plus");
    }
}

/// `delta` is EasyR1's `clip_ratio_dual`, `loss_type = "dapo"` its token mean.
#[test]
fn the_dual_clipped_loss_is_that_of_easyr1() {
    for case in fixtures().losses {
        let settings = LossSettings {
            loss_type: LossType::Dapo,
            epsilon: case.epsilon,
            epsilon_high: Some(case.epsilon_high),
            delta: Some(case.delta),
            beta: case.beta,
            use_bias_correction_kl: false,
            importance_sampling_correction: false,
            ..LossSettings::default()
        };
        let batch = LossBatch {
            logps: &case.logps,
            old: Some(&case.old),
            reference: (case.beta > 0.0).then_some(&case.reference),
            sampling: None,
            selected: None,
            lengths: &case.lengths,
            unmasked: &vec![true; case.lengths.len()],
            advantages: &case.advantages,
        };
        let normalizer = LossNormalizer {
            sequences: case.lengths.len() as f64,
            tokens: case.logps.len() as f64,
            max_completion_length: 2048.0,
        };
        let found = loss(&settings, &batch, &normalizer);
        assert_close(&[found.loss], &[case.loss], "loss");
        assert_close(&found.dlogps, &case.dlogps, "dlogps");
    }
}
