use super::*;

const LENGTHS: [usize; 4] = [3, 2, 1, 3];
const LOGPS: [f64; 9] = [-0.5, -1.2, -0.3, -2.0, -0.1, -0.7, -1.5, -0.4, -0.9];
const OLD: [f64; 9] = [-0.8, -1.15, -0.35, -1.6, -0.12, -0.7, -1.1, -0.95, -0.9];
const REFERENCE: [f64; 9] = [-0.6, -1.0, -0.45, -1.9, -0.15, -0.9, -1.4, -0.8, -1.0];
const ADVANTAGES: [f64; 4] = [1.2, -0.8, 0.5, -0.9];
const COUNTS: LossNormalizer =
    LossNormalizer { sequences: 4.0, tokens: 9.0, max_completion_length: 8.0 };

fn settings(loss_type: LossType) -> LossSettings {
    LossSettings {
        loss_type,
        importance_sampling_level: ImportanceSamplingLevel::Token,
        epsilon: 0.2,
        epsilon_high: Some(if loss_type == LossType::Cispo { 5.0 } else { 0.28 }),
        beta: 0.04,
        use_bias_correction_kl: false,
        importance_sampling_correction: false,
        ..LossSettings::default()
    }
}

fn batch(logps: &[f64]) -> LossBatch<'_> {
    LossBatch {
        logps,
        old: Some(&OLD),
        reference: Some(&REFERENCE),
        sampling: None,
        selected: None,
        lengths: &LENGTHS,
        unmasked: &[true; 4],
        advantages: &ADVANTAGES,
    }
}

fn golden(settings: &LossSettings, expected: f64) {
    let found = loss(settings, &batch(&LOGPS), &COUNTS).loss;
    assert!((found - expected).abs() < 5e-9, "{found} instead of {expected} for {settings:?}");
}

#[test]
fn grpo_gives_the_golden_value() {
    golden(&settings(LossType::Grpo), -0.00562571);
}

#[test]
fn bnpo_and_dapo_give_the_golden_value() {
    golden(&settings(LossType::Bnpo), 0.02253161);
    golden(&settings(LossType::Dapo), 0.02253161);
}

#[test]
fn dr_grpo_gives_the_golden_value() {
    golden(&settings(LossType::DrGrpo), 0.00633701);
}

#[test]
fn sapo_gives_the_golden_value() {
    golden(&settings(LossType::Sapo), -0.0774245);
}

#[test]
fn cispo_gives_the_golden_value() {
    golden(&settings(LossType::Cispo), -0.06435464);
}

#[test]
fn the_sequence_level_gives_the_golden_value() {
    let sequence = LossSettings {
        importance_sampling_level: ImportanceSamplingLevel::Sequence,
        ..settings(LossType::Grpo)
    };
    golden(&sequence, -0.05401322);
}

#[test]
fn delta_gives_the_golden_value() {
    golden(&LossSettings { delta: Some(1.25), ..settings(LossType::Grpo) }, -0.03661969);
}

#[test]
fn without_beta_the_loss_is_the_golden_value() {
    golden(&LossSettings { beta: 0.0, ..settings(LossType::Grpo) }, -0.00623594);
}

#[test]
fn the_derivative_of_grpo_is_the_golden_one() {
    let expected = [
        0.000317, -0.095861, -0.104663, -0.000526, 0.102264, -0.123187, -0.000351, 0.131093,
        0.075317,
    ];
    let found = loss(&settings(LossType::Grpo), &batch(&LOGPS), &COUNTS).dlogps;
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() < 6e-7, "{found} instead of {expected}");
    }
}

#[test]
fn the_logged_statistics_are_the_golden_ones() {
    let stats = loss(&settings(LossType::Grpo), &batch(&LOGPS), &COUNTS).stats;
    assert!((stats.kl().unwrap() - 0.01582307).abs() < 5e-9);
    assert!((stats.clip_low_mean() - 2.0 / 9.0).abs() < 1e-12);
    assert!((stats.clip_high_mean() - 1.0 / 9.0).abs() < 1e-12);
    assert_eq!(stats.clip_low_min(), 0.0);
    assert!((stats.clip_high_max() - 1.0 / 3.0).abs() < 1e-12);
}

/// All loss formulations, at both levels, with and without `delta`.
fn variants() -> Vec<LossSettings> {
    let types = [
        LossType::Grpo,
        LossType::Bnpo,
        LossType::DrGrpo,
        LossType::Dapo,
        LossType::Cispo,
        LossType::Sapo,
    ];
    let mut all = Vec::new();
    for loss_type in types {
        for importance_sampling_level in
            [ImportanceSamplingLevel::Token, ImportanceSamplingLevel::Sequence]
        {
            for delta in [None, Some(1.25)] {
                for use_bias_correction_kl in [false, true] {
                    all.push(LossSettings {
                        importance_sampling_level,
                        delta,
                        use_bias_correction_kl,
                        ..settings(loss_type)
                    });
                }
            }
        }
    }
    all
}

#[test]
fn every_derivative_agrees_with_finite_differences() {
    // `cispo` detaches its weight, so finite differences do not apply; it has a test of its own.
    for settings in variants().iter().filter(|o| o.loss_type != LossType::Cispo) {
        let analytic = loss(settings, &batch(&LOGPS), &COUNTS).dlogps;
        for t in 0..LOGPS.len() {
            let at = |shift: f64| {
                let mut logps = LOGPS;
                logps[t] += shift;
                loss(settings, &batch(&logps), &COUNTS).loss
            };
            let numeric = (at(1e-6) - at(-1e-6)) / 2e-6;
            assert!(
                (analytic[t] - numeric).abs() < 1e-8,
                "token {t} of {settings:?}: {} instead of {numeric}",
                analytic[t]
            );
        }
    }
}

#[test]
fn the_derivative_of_cispo_is_its_bounded_weight() {
    let settings = LossSettings { beta: 0.0, epsilon_high: Some(1.3), ..settings(LossType::Cispo) };
    let found = loss(&settings, &batch(&LOGPS), &COUNTS).dlogps;
    let bounded = (-0.5f64 + 0.8).exp().min(1.3);
    assert!((found[0] + bounded * 1.2 / 9.0).abs() < 1e-12);
    let free = (-1.2f64 + 1.15).exp();
    assert!((found[1] + free * 1.2 / 9.0).abs() < 1e-12);
}

#[test]
fn on_policy_every_token_gets_its_advantage() {
    let settings = LossSettings { beta: 0.0, ..settings(LossType::Dapo) };
    let found = loss(&settings, &LossBatch { old: None, ..batch(&LOGPS) }, &COUNTS);
    let expected = [1.2, 1.2, 1.2, -0.8, -0.8, 0.5, -0.9, -0.9, -0.9].map(|a: f64| -a / 9.0);
    for (found, expected) in found.dlogps.iter().zip(expected) {
        assert!((found - expected).abs() < 1e-12);
    }
}

#[test]
fn micro_batches_add_up_to_the_whole_batch() {
    for settings in variants() {
        let whole = loss(&settings, &batch(&LOGPS), &COUNTS);
        let mut sum = 0.0;
        let mut dlogps = Vec::new();
        let mut stats = LossStats::default();
        for (completions, tokens) in [(0..1, 0..3), (1..4, 3..9)] {
            let part = LossBatch {
                logps: &LOGPS[tokens.clone()],
                old: Some(&OLD[tokens.clone()]),
                reference: Some(&REFERENCE[tokens]),
                sampling: None,
                selected: None,
                lengths: &LENGTHS[completions.clone()],
                unmasked: &[true; 4][completions.clone()],
                advantages: &ADVANTAGES[completions],
            };
            let out = loss(&settings, &part, &COUNTS);
            sum += out.loss;
            dlogps.extend(out.dlogps);
            stats.merge(&out.stats);
        }
        assert!((sum - whole.loss).abs() < 1e-14);
        assert_eq!(dlogps, whole.dlogps);
        assert!((stats.kl().unwrap() - whole.stats.kl().unwrap()).abs() < 1e-14);
        assert_eq!(stats.clip_high_max(), whole.stats.clip_high_max());
    }
}

#[test]
fn a_masked_completion_changes_nothing_but_the_mean() {
    let unmasked = [true, false, true, true];
    let found = loss(
        &settings(LossType::Grpo),
        &LossBatch { unmasked: &unmasked, ..batch(&LOGPS) },
        &COUNTS,
    );
    assert_eq!(found.dlogps[3..5], [0.0, 0.0]);
    let whole = loss(&settings(LossType::Grpo), &batch(&LOGPS), &COUNTS);
    assert_eq!(found.dlogps[..3], whole.dlogps[..3]);
}

#[test]
fn an_overflowing_kl_is_clamped_and_counted() {
    let reference = [0.0; 9];
    let mut logps = LOGPS;
    logps[0] = -2000.0;
    let found = loss(
        &LossSettings { beta: 1.0, ..settings(LossType::Grpo) },
        &LossBatch { old: None, reference: Some(&reference), ..batch(&logps) },
        &COUNTS,
    );
    assert!(found.loss.is_finite());
    assert_eq!(found.stats.kl_bounded(), 1.0);
    assert!((found.dlogps[0] + 1.2 / 12.0).abs() < 1e-12, "the clamped token has no KL gradient");
}

#[test]
fn an_unselected_token_keeps_its_kl_alone() {
    let selected = [true, false, true, true, true, true, true, true, true];
    let settings = settings(LossType::Grpo);
    let found = loss(&settings, &LossBatch { selected: Some(&selected), ..batch(&LOGPS) }, &COUNTS);
    let whole = loss(&settings, &batch(&LOGPS), &COUNTS);
    let kl_only = loss(&settings, &LossBatch { advantages: &[0.0; 4], ..batch(&LOGPS) }, &COUNTS);
    assert_eq!(found.dlogps[0], whole.dlogps[0]);
    assert!((found.dlogps[1] - kl_only.dlogps[1]).abs() < 1e-15);
    assert!((found.dlogps[1] - whole.dlogps[1]).abs() > 1e-3);
}

#[test]
fn off_policy_completions_with_negative_advantages_are_masked() {
    // The last completion has a negative advantage and is less likely than when it was sampled.
    let mut settings = LossSettings { beta: 0.0, ..settings(LossType::Grpo) };
    let logps = LOGPS.map(|logp| logp - 0.1);
    let log_ratio: f64 = (6..9).map(|t| OLD[t] - logps[t]).sum::<f64>() / 3.0;
    for (threshold, learned) in [(log_ratio - 1e-6, false), (log_ratio + 1e-6, true)] {
        settings.off_policy_mask_threshold = Some(threshold);
        let found = loss(&settings, &batch(&logps), &COUNTS).dlogps;
        assert_eq!(found[6..9].iter().any(|d| *d != 0.0), learned, "{threshold}");
        assert!(found[0..3].iter().any(|d| *d != 0.0), "a positive advantage is never masked");
    }
}

#[test]
fn importance_correction_scales_the_policy_loss_alone() {
    let sampling = OLD.map(|logp| logp - 0.01);
    let settings = LossSettings {
        importance_sampling_correction: true,
        importance_sampling_mode: ImportanceSamplingMode::TokenTruncate,
        ..settings(LossType::Dapo)
    };
    let with =
        loss(&settings, &LossBatch { sampling: Some(&sampling), ..batch(&LOGPS) }, &COUNTS).loss;
    let whole = loss(&settings, &batch(&LOGPS), &COUNTS).loss;
    let kl_only =
        loss(&settings, &LossBatch { advantages: &[0.0; 4], ..batch(&LOGPS) }, &COUNTS).loss;
    let expected = (whole - kl_only) * 0.01f64.exp() + kl_only;
    assert!((with - expected).abs() < 1e-12, "{with} instead of {expected}");
}

#[test]
fn at_the_sequence_level_a_clipped_completion_counts_once() {
    let settings = LossSettings {
        importance_sampling_level: ImportanceSamplingLevel::Sequence,
        ..settings(LossType::Grpo)
    };
    let stats = loss(&settings, &batch(&LOGPS), &COUNTS).stats;
    // Mean log-ratios: 0.1, -0.19, 0, 0.05 -- none is beyond 0.2.
    assert_eq!((stats.clip_low_mean(), stats.clip_high_mean()), (0.0, 0.0));
    let narrow = LossSettings { epsilon: 0.1, epsilon_high: Some(0.08), ..settings };
    let stats = loss(&narrow, &batch(&LOGPS), &COUNTS).stats;
    assert_eq!((stats.clip_low_mean(), stats.clip_high_mean()), (0.25, 0.25));
}
