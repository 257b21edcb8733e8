//! Losses and gradients beside TRL's `_compute_loss` (`scripts/parity/make_loss_fixtures.py`).

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use embodied_r_grpo::batch_file::BatchFile;
use embodied_r_grpo::inspect::{LossReport, loss};
use embodied_r_grpo::settings::LossSettings;
use embodied_r_policy::Policy;
use serde::Deserialize;

/// What TRL made of the batch.
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

/// The batch with what the case uses of it: the rest would change the loss.
fn batch_of(folder: &Path, case: &Case) -> BatchFile {
    let mut batch = BatchFile::read(&folder.join("batch.json")).unwrap();
    let settings = serde_json::to_value(&case.settings).unwrap();
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
            other => panic!("no figure `{other}`"),
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
        compare(case, &loss(&policy, &batch, &case.settings, &[EOS]).unwrap());
    }
}

#[test]
fn every_loss_level_and_mask_is_trls_with_tied_embeddings() {
    compare_all("tied");
}

#[test]
fn every_loss_level_and_mask_is_trls_with_untied_embeddings() {
    compare_all("untied");
}
