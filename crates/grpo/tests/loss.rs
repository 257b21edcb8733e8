//! Losses and gradients compared with TRL's `_compute_loss` (`scripts/parity/make_loss_fixtures.py`), and with TRL's
//! normalization over several micro-batches.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use embodied_r_dist::ProcessGroup;
use embodied_r_dist::{Communicator, CommunicatorOptions};
use embodied_r_grpo::inspect::batch_file::BatchFile;
use embodied_r_grpo::inspect::{LossReport, loss};
use embodied_r_grpo::loss::LossType;
use embodied_r_grpo::model::{Group, TokenScores};
use embodied_r_grpo::settings::LossSettings;
use embodied_r_grpo::update::micro_batch::{
    MicroBatch, TokenSelection, UpdateStats, loss_normalizers,
};
use embodied_r_policy::Policy;
use serde::Deserialize;

/// TRL's results for the batch.
#[derive(Deserialize)]
struct Case {
    settings: LossSettings,
    old: bool,
    loss: f64,
    metrics: BTreeMap<String, f64>,
    grad_norms: BTreeMap<String, f64>,
}

const EOS: u32 = 47;

fn folder(model: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/loss").join(model)
}

/// The batch with only the inputs that the case uses; the others would change the loss.
fn batch_of(folder: &Path, case: &Case) -> BatchFile {
    let mut batch = BatchFile::read(&folder.join("batch.json")).unwrap();
    let settings = serde_json::to_value(case.settings).unwrap();
    let corrected = settings["importance_sampling_clip_min"].is_number();
    for completion in batch.groups.iter_mut().flat_map(|group| &mut group.completions) {
        if !case.old {
            completion.old_logps = None;
        }
        if !corrected {
            completion.sampling_logps = None;
        }
        if case.settings.beta == 0.0 {
            completion.ref_logps = None;
        }
    }
    batch
}

/// Both sides compute in f32 from the same weights; the sums have some hundred terms.
fn close(found: f64, expected: f64, scale: f64) -> bool {
    (found - expected).abs() <= 1e-4 * expected.abs() + 1e-6 * scale
}

fn compare(case: &Case, found: &LossReport) {
    let of = |what: &str| format!("{what} of {:?} (old: {})", case.settings, case.old);
    let name = of("the loss");
    assert!(close(found.loss, case.loss, 1.0), "{name}: {} instead of {}", found.loss, case.loss);
    let clip = &found.clip_ratio;
    for (name, expected) in &case.metrics {
        let value = match name.as_str() {
            "kl" => found.kl.unwrap(),
            "entropy" => found.entropy,
            "clip_ratio/low_mean" => clip.low_mean,
            "clip_ratio/low_min" => clip.low_min,
            "clip_ratio/high_mean" => clip.high_mean,
            "clip_ratio/high_max" => clip.high_max,
            "clip_ratio/region_mean" => clip.region_mean,
            other => panic!("no metric `{other}`"),
        };
        assert!(close(value, *expected, 1.0), "{}: {value} instead of {expected}", of(name));
    }
    let names: Vec<&String> = found.grad_norms.keys().collect();
    assert_eq!(names.len(), case.grad_norms.len(), "{names:?}");
    for (name, expected) in &case.grad_norms {
        let value = found.grad_norms[name];
        let scale = found.grad_norm;
        assert!(close(value, *expected, scale), "{}: {value} instead of {expected}", of(name));
    }
}

fn compare_all(model: &str) {
    let folder = folder(model);
    let policy = Policy::load(&folder).unwrap();
    let cases = std::fs::read(folder.join("expected.json")).unwrap();
    let cases: Vec<Case> = serde_json::from_slice(&cases).unwrap();
    assert!(cases.len() > 80);
    for case in &cases {
        let batch = batch_of(&folder, case);
        compare(
            case,
            &loss(
                &policy,
                (&batch, &batch.prompts(None, &folder).unwrap()),
                &case.settings,
                &[EOS],
            )
            .unwrap(),
        );
    }
}

#[test]
fn every_loss_level_and_mask_matches_trl_with_tied_embeddings() {
    compare_all("tied");
}

#[test]
fn every_loss_level_and_mask_matches_trl_with_untied_embeddings() {
    compare_all("untied");
}

const LENGTHS: [usize; 4] = [3, 2, 1, 3];
const LOGPS: [f32; 9] = [-0.5, -1.2, -0.3, -2.0, -0.1, -0.7, -1.5, -0.4, -0.9];
const OLD: [f64; 9] = [-0.8, -1.15, -0.35, -1.6, -0.12, -0.7, -1.1, -0.95, -0.9];
const REFERENCE: [f64; 9] = [-0.6, -1.0, -0.45, -1.9, -0.15, -0.9, -1.4, -0.8, -1.0];
const ADVANTAGES: [f64; 4] = [1.2, -0.8, 0.5, -0.9];
const MAX_COMPLETION_LENGTH: usize = 8;

/// `LossSettings` of these tests: clip ranges 0.2 and 0.28, beta 0.04.
fn settings(loss_type: LossType) -> LossSettings {
    LossSettings {
        loss_type,
        epsilon: 0.2,
        epsilon_high: Some(0.28),
        beta: 0.04,
        use_bias_correction_kl: false,
        importance_sampling_correction: false,
        ..LossSettings::default()
    }
}

/// The four completions as one micro-batch, and split into several with different numbers of tokens.
fn splits() -> [Vec<Range<usize>>; 3] {
    // A list of ranges, not of their elements.
    #[allow(clippy::single_range_in_vec_init)]
    let whole = vec![0..4];
    [whole, vec![0..1, 1..4], vec![0..2, 2..3, 3..4]]
}

/// The tokens of these completions.
fn tokens(completions: &Range<usize>) -> Range<usize> {
    let until = |completion: usize| -> usize { LENGTHS[..completion].iter().sum() };
    until(completions.start)..until(completions.end)
}

fn micro_batch(completions: &Range<usize>, unmasked: [bool; 4]) -> MicroBatch {
    let (range, tokens) = (completions.clone(), tokens(completions));
    let ids = LENGTHS[range.clone()].iter().map(|length| vec![1; *length]).collect();
    MicroBatch {
        groups: [Group { prompt: vec![2].into(), completions: ids }].into(),
        unmasked: unmasked[range.clone()].to_vec(),
        advantages: ADVANTAGES[range].to_vec(),
        old: OLD[tokens.clone()].to_vec(),
        reference: REFERENCE[tokens].to_vec(),
        sampling: Vec::new(),
    }
}

/// A loss and its derivatives by the log-probabilities.
type LossAndGradient = (f64, Vec<f64>);

/// Accumulates the loss and gradients of the micro-batches of one rank.
fn accumulated(
    loss_type: LossType,
    split: &[Range<usize>],
    unmasked: [bool; 4],
    ranks: &ProcessGroup,
) -> LossAndGradient {
    let batches: Vec<MicroBatch> = split.iter().map(|it| micro_batch(it, unmasked)).collect();
    let normalizers = loss_normalizers(&batches, loss_type, MAX_COMPLETION_LENGTH, ranks).unwrap();
    assert_eq!(normalizers.len(), split.len());
    let (mut total, mut dlogps) = (0.0, Vec::new());
    for ((batch, normalizer), completions) in batches.iter().zip(&normalizers).zip(split) {
        let logps = LOGPS[tokens(completions)].to_vec();
        let scores = TokenScores { entropies: vec![0.0; logps.len()], logps };
        let (settings, all) = (settings(loss_type), TokenSelection::All);
        let totals = &mut UpdateStats::default();
        let found = batch.derivative(&settings, normalizer, &scores, all, totals).unwrap();
        total += found.loss;
        dlogps.extend(found.dlogps.into_iter().map(f64::from));
    }
    (total, dlogps)
}

/// The clipped loss of token `t` with its KL, and the derivative by its log-probability.
fn token_loss(t: usize, advantage: f64) -> (f64, f64) {
    let logp = f64::from(LOGPS[t]);
    let (ratio, to_reference) = ((logp - OLD[t]).exp(), REFERENCE[t] - logp);
    let (free, clipped) = (ratio * advantage, ratio.clamp(0.8, 1.28) * advantage);
    let kl = to_reference.exp() - to_reference - 1.0;
    let slope = if free <= clipped { -free } else { 0.0 };
    (-free.min(clipped) + 0.04 * kl, slope + 0.04 * (1.0 - to_reference.exp()))
}

/// TRL's `bnpo` with gradient accumulation: `Σ l·m / max(Σ m, 1)` over the tokens of each micro-batch, divided by the
/// number of micro-batches of the step, `micro_batches`.
fn bnpo_by_hand(
    split: &[Range<usize>],
    unmasked: [bool; 4],
    micro_batches: usize,
) -> LossAndGradient {
    let (mut total, mut dlogps) = (0.0, Vec::new());
    for completions in split {
        let learned: usize = completions.clone().filter(|i| unmasked[*i]).map(|i| LENGTHS[i]).sum();
        let weight = 1.0 / (learned.max(1) * micro_batches) as f64;
        for i in completions.clone() {
            let weight = if unmasked[i] { weight } else { 0.0 };
            for t in tokens(&(i..i + 1)) {
                let (loss, derivative) = token_loss(t, ADVANTAGES[i]);
                total += weight * loss;
                dlogps.push(weight * derivative);
            }
        }
    }
    (total, dlogps)
}

fn assert_equal(found: &LossAndGradient, expected: &LossAndGradient, what: &str) {
    let close = |a: f64, b: f64| (a - b).abs() < 1e-7;
    assert!(close(found.0, expected.0), "{what}: {} instead of {}", found.0, expected.0);
    assert_eq!(found.1.len(), expected.1.len(), "{what}");
    for (t, (found, expected)) in found.1.iter().zip(&expected.1).enumerate() {
        assert!(close(*found, *expected), "{what}, token {t}: {found} instead of {expected}");
    }
}

#[test]
fn bnpo_normalizes_each_micro_batch_by_its_own_tokens_as_trl_does() {
    let [whole, two, three] = splits();
    let all = [true; 4];
    // The formula gives TRL's loss for one micro-batch, and another one for several.
    let trl = bnpo_by_hand(&whole, all, 1).0;
    assert!((trl - 0.02253161).abs() < 1e-7, "{trl}");
    for split in [&two, &three] {
        assert!((bnpo_by_hand(split, all, split.len()).0 - trl).abs() > 1e-4);
    }
    // The second mask leaves a micro-batch of `three` without a token.
    for unmasked in [all, [true, true, false, true], [false, true, true, true]] {
        for split in [&whole, &two, &three] {
            let found = accumulated(LossType::Bnpo, split, unmasked, &ProcessGroup::default());
            let expected = bnpo_by_hand(split, unmasked, split.len());
            assert_equal(&found, &expected, &format!("{split:?} {unmasked:?}"));
        }
    }
}

#[test]
fn bnpo_averages_over_the_micro_batches_of_all_ranks() {
    let [_, two, _] = splits();
    let communicators = Communicator::threads(2, &CommunicatorOptions::default()).unwrap();
    std::thread::scope(|scope| {
        for (communicator, own) in communicators.into_iter().zip(two.chunks(1)) {
            scope.spawn(move || {
                let ranks = ProcessGroup::new(communicator);
                let found = accumulated(LossType::Bnpo, own, [true; 4], &ranks);
                ranks.communicator().finish().unwrap();
                assert_equal(&found, &bnpo_by_hand(own, [true; 4], 2), &format!("{own:?}"));
            });
        }
    });
}

#[test]
fn every_other_loss_is_independent_of_the_split_into_micro_batches() {
    use LossType::{Cispo, Dapo, DrGrpo, Grpo, Sapo};
    let [whole, two, three] = splits();
    for loss_type in [Grpo, DrGrpo, Dapo, Cispo, Sapo] {
        for unmasked in [[true; 4], [true, true, false, true]] {
            let of = |split: &[Range<usize>]| {
                accumulated(loss_type, split, unmasked, &ProcessGroup::default())
            };
            let (expected, dlogps) = of(&whole);
            for split in [&two, &three] {
                let found = of(split);
                assert!((found.0 - expected).abs() < 1e-14, "{loss_type:?} {split:?}");
                assert_eq!(found.1, dlogps, "{loss_type:?} {split:?}");
            }
        }
    }
}
