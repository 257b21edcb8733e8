//! LoRA on decoder and vision encoder, compared with `peft` (`scripts/parity/make_vision_lora_fixtures.py`).

use std::path::{Path, PathBuf};

use embodied_r_grpo::estimate::memory_plan::{PromptImages, VisionLoad};
use embodied_r_grpo::images::ReferenceTower;
use embodied_r_grpo::inspect::loss;
use embodied_r_grpo::model::{Model as _, Trainable, VisionPolicy, WriterRank};
use embodied_r_grpo::settings::{LossSettings, VisionSettings};
use embodied_r_media::table::ImageTable;
use embodied_r_policy::lora::{CONFIG_FILE, LoraConfig, Module, WEIGHTS_FILE};
use embodied_r_vision::{FrozenParts, Grid, VisionModule, VisionProcessor};
use serde_json::Value;

use crate::model::{Batch, TRAINED, batch, folder, policy, policy_of};

fn adapter() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/vision_lora")
}

fn expected() -> Value {
    serde_json::from_slice(&std::fs::read(adapter().join("expected.json")).unwrap()).unwrap()
}

/// The settings of the adapter, for those layers of the vision encoder that `is_adapted`.
pub(crate) fn settings(is_adapted: impl Fn(&VisionModule) -> bool) -> LoraConfig {
    let modules = VisionModule::all().iter().filter(|module| is_adapted(module));
    LoraConfig {
        r: 3,
        lora_alpha: 6,
        lora_dropout: 0.0,
        target_modules: Module::ALL.to_vec(),
        encoder_modules: modules.map(|module| module.layer().clone()).collect(),
        use_rslora: false,
        base_model_name_or_path: Some("base".into()),
        base_fingerprint: None,
    }
}

/// The model with the adapter in `dir`, a new one if that is the base model.
fn adapted(batch: &Batch, dir: &Path) -> VisionPolicy {
    policy_of(batch, dir, Trainable::Lora(settings(|_| true)), TRAINED, 1 << 30).0
}

/// The name in an adapter's file of a parameter.
fn in_file(name: &str) -> String {
    let name = match name.strip_prefix("model.visual.").or_else(|| name.strip_prefix("visual.")) {
        Some(rest) => format!("model.visual.{rest}"),
        None => name.replacen("model.", "model.language_model.", 1),
    };
    format!("base_model.model.{name}")
}

fn values(policy: &VisionPolicy) -> Vec<(String, Vec<f32>)> {
    let parameters = policy.parameters().into_iter();
    parameters.map(|(name, it)| (name, it.flatten_all().unwrap().to_vec1().unwrap())).collect()
}

#[test]
fn loss_and_the_gradient_norm_of_every_adapter_tensor_match_peft() {
    let (batch, lora) = (batch(), Trainable::Lora(settings(|_| true)));
    for activation_bytes in [0, 1 << 30] {
        let (policy, prompts) =
            policy_of(&batch, &adapter(), lora.clone(), TRAINED, activation_bytes);
        for case in expected()["cases"].as_array().unwrap() {
            let settings: LossSettings = serde_json::from_value(case["settings"].clone()).unwrap();
            let report = loss(&policy, (&batch.file, &prompts), &settings, &[]).unwrap();
            let wanted = case["loss"].as_f64().unwrap();
            assert!((report.loss - wanted).abs() < 1e-5, "{} and {wanted}", report.loss);
            let norms = case["grad_norms"].as_object().unwrap();
            assert_eq!(report.grad_norms.len(), norms.len());
            for (name, found) in &report.grad_norms {
                let wanted = norms[&in_file(name)].as_f64().unwrap();
                assert!((found - wanted).abs() < 1e-4 * wanted, "`{name}`: {found}, {wanted}");
            }
            let total = case["grad_norm"].as_f64().unwrap();
            assert!((report.grad_norm - total).abs() < 1e-4 * total);
        }
    }
}

#[test]
fn an_adapter_that_is_loaded_is_merged_into_decoder_and_vision_encoder() {
    let batch = batch();
    let (merged, prompts) = policy_of(&batch, &adapter(), Trainable::All, None, 1 << 30);
    let (plain, _) = policy(&batch, None, 1 << 30);
    let wanted: Vec<Vec<f32>> = serde_json::from_value(expected()["logprobs"].clone()).unwrap();
    for (prompt, wanted) in prompts.iter().zip(&wanted) {
        let found = merged.score_prompt(prompt).unwrap();
        let without = plain.score_prompt(prompt).unwrap();
        let apart = |from: &[f32]| {
            from.iter().zip(wanted).map(|(a, b)| (a - b).abs()).fold(0.0f32, f32::max)
        };
        assert!(apart(&found) < 1e-4 && apart(&without) > 0.1, "{}", apart(&found));
    }
    // It can be trained further as a whole, and is saved merged.
    let (whole, _) = policy_of(&batch, &adapter(), Trainable::All, TRAINED, 1 << 30);
    for policy in [whole, merged] {
        let dir = tempfile::tempdir().unwrap();
        for name in ["config.json", "preprocessor_config.json", "tokenizer.json"] {
            std::fs::copy(folder().join(name), dir.path().join(name)).unwrap();
        }
        policy.save(dir.path(), WriterRank::SINGLE).unwrap();
        let (saved, _) = policy_of(&batch, dir.path(), Trainable::All, None, 1 << 30);
        for (prompt, wanted) in prompts.iter().zip(&wanted) {
            let found = saved.score_prompt(prompt).unwrap();
            let apart = found.iter().zip(wanted).map(|(a, b)| (a - b).abs());
            assert!(apart.fold(0.0f32, f32::max) < 1e-4);
        }
    }
}

#[test]
fn a_new_adapter_has_no_effect_and_covers_every_linear_layer() {
    let (batch, settings) = (batch(), LossSettings::default());
    let (plain, prompts) = policy(&batch, None, 1 << 30);
    let before = loss(&plain, (&batch.file, &prompts), &settings, &[]).unwrap().loss;
    let policy = adapted(&batch, &folder());
    let report = loss(&policy, (&batch.file, &prompts), &settings, &[]).unwrap();
    assert!((report.loss - before).abs() < 1e-6, "{} and {before}", report.loss);
    assert_eq!(report.grad_norms.len(), 2 * (3 * 5 + 2) + 2 * 2 * 7);
    for (name, norm) in &report.grad_norms {
        assert_eq!(*norm == 0.0, name.ends_with("lora_A.weight"), "`{name}`: {norm}");
    }
    // As in `peft`: `A` is uniform within ±1/√inputs; every tensor has random numbers of its own.
    let values = values(&policy);
    let a = |end: &str| &values.iter().find(|(name, _)| name.ends_with(end)).unwrap().1;
    let first = a("visual.blocks.0.attn.qkv.lora_A.weight");
    let largest = first.iter().fold(0.0f32, |max, x| max.max(x.abs()));
    let bound = 1.0 / 32.0f32.sqrt();
    assert!(largest <= bound && largest > 0.8 * bound, "{largest}");
    assert_ne!(first, a("visual.blocks.1.attn.qkv.lora_A.weight"));
    assert_ne!(first, a("model.layers.0.self_attn.q_proj.lora_A.weight"));
}

#[test]
fn an_adapter_goes_on_with_the_bits_that_were_saved() {
    let batch = batch();
    let policy = adapted(&batch, &adapter());
    let dir = tempfile::tempdir().unwrap();
    policy.save(dir.path(), WriterRank::SINGLE).unwrap();
    let config: Value =
        serde_json::from_slice(&std::fs::read(dir.path().join(CONFIG_FILE)).unwrap()).unwrap();
    let fixture: Value =
        serde_json::from_slice(&std::fs::read(adapter().join(CONFIG_FILE)).unwrap()).unwrap();
    // PEFT resolves this to every linear layer but the LM head.
    assert_eq!(config["target_modules"], fixture["target_modules"]);
    assert!(dir.path().join(WEIGHTS_FILE).is_file());
    assert_eq!(values(&adapted(&batch, dir.path())), values(&policy));
}

#[test]
fn frozen_parts_have_no_adapters() {
    let batch = batch();
    for (vision_tower, aligner) in [(false, true), (true, false)] {
        let lora = Trainable::Lora(settings(|module| module.is_of_merger() != aligner));
        let frozen = FrozenParts { vision_tower, aligner };
        let (policy, _) = policy_of(&batch, &folder(), lora, Some(frozen), 1 << 30);
        let names = policy.parameters().into_iter().map(|(name, _)| name);
        let names: Vec<String> = names.filter(|name| name.contains("visual.")).collect();
        assert_eq!(names.len(), if aligner { 2 * 3 * 5 } else { 2 * 2 });
        assert!(names.iter().all(|name| name.contains("visual.merger.") != aligner), "{names:?}");
    }
}

#[test]
fn an_adapter_of_other_layers_or_another_rank_is_refused() {
    let batch = batch();
    let refused = |lora: LoraConfig| {
        let load = || policy_of(&batch, &adapter(), Trainable::Lora(lora), TRAINED, 0);
        let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(load)).err().unwrap();
        panic.downcast_ref::<String>().unwrap().clone()
    };
    let fewer = refused(settings(|module| module.name() != "mlp.down_proj"));
    assert!(fewer.contains("down_proj.lora_A.weight") && fewer.contains("not in the run's"));
    let rank = refused(LoraConfig { r: 4, ..settings(|_| true) });
    assert!(rank.contains("ShapeMismatch"), "{rank}");
}

#[test]
fn the_memory_of_an_adapter_is_that_of_its_tensors() {
    let batch = batch();
    let mut table = ImageTable::new(VisionProcessor::of_model(&folder()).unwrap());
    batch.file.prompts(Some(&mut table), batch.dir.path()).unwrap();
    let policy = adapted(&batch, &folder());
    let visual = policy.parameters().into_iter().filter(|(name, _)| name.contains("visual."));
    let elements: usize = visual.map(|(_, tensor)| tensor.elem_count()).sum();
    let config = table.processor().config();
    let grids: Vec<Grid> = table.grids().collect();
    let images = PromptImages::of_grids(&grids).unwrap();
    let trained = VisionSettings {
        freeze_vision_tower: false,
        freeze_aligner: false,
        ..VisionSettings::default()
    };
    let whole = VisionLoad::new(config, images, &trained);
    let lora = Trainable::Lora(settings(|_| true));
    let load = whole.trained_as(config, &lora, ReferenceTower::Base);
    let mut expected = whole;
    expected.trainable = elements;
    expected.parameters += elements;
    assert_eq!(load, expected);
    // The reference has an adapter of its own.
    let own = whole.trained_as(config, &lora, ReferenceTower::Own);
    expected.reference = elements;
    assert_eq!(own, expected);
    // A frozen tower has no adapter.
    let frozen = VisionLoad::new(config, images, &VisionSettings::default());
    assert_eq!(frozen.trained_as(config, &lora, ReferenceTower::Base), frozen);
}

#[test]
fn dropout_is_that_of_the_update_alone() {
    let batch = batch();
    let with = |lora_dropout: f64| {
        let lora = LoraConfig { lora_dropout, ..settings(|_| true) };
        policy_of(&batch, &adapter(), Trainable::Lora(lora), TRAINED, 1 << 30)
    };
    let ((plain, prompts), (policy, _)) = (with(0.0), with(0.3));
    let inspected = |policy: &VisionPolicy| {
        loss(policy, (&batch.file, &prompts), &LossSettings::default(), &[]).unwrap()
    };
    let scored = |policy: &VisionPolicy| -> Vec<Vec<f32>> {
        prompts.iter().map(|prompt| policy.score_prompt(prompt).unwrap()).collect()
    };
    let scores = scored(&plain);
    assert_eq!(scored(&policy), scores);
    let dropped = inspected(&policy);
    assert!((dropped.loss - inspected(&plain).loss).abs() > 1e-3);
    // A second backward repeats the passes of the first with the same masks.
    assert_eq!(scored(&policy), scores);
    assert_eq!(inspected(&policy), dropped);
    assert_eq!(inspected(&policy), dropped);
    policy.parameters_changed();
    assert_eq!(inspected(&policy), dropped);
}
