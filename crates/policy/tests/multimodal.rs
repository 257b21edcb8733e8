//! Saving the trained decoder of a vision-language checkpoint.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::Tensor;
use embodied_r_kernels::memory;
use embodied_r_policy::weights::SaveOptions;
use embodied_r_policy::{Group, ModelConfig, Policy, WeightDtype};
use safetensors::SafeTensors;
use safetensors::tensor::Dtype;

/// The two checkpoint layouts of Qwen2.5-VL and that of Qwen3-VL, with the name of one decoder tensor.
const LAYOUTS: [(&str, &str); 3] = [
    ("qwen2_5_vl-flat", "model.norm.weight"),
    ("qwen2_5_vl-nested", "model.language_model.norm.weight"),
    ("qwen3_vl-nested", "model.language_model.norm.weight"),
];

const PROCESSOR: &str = r#"{"image_processor_type": "Qwen2VLImageProcessor",  "patch_size": 14}"#;

/// A copy of a fixture with an image processor.
fn checkpoint(name: &str) -> tempfile::TempDir {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models").join(name);
    let dir = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(root.join(file), dir.path().join(file)).unwrap();
    }
    std::fs::write(dir.path().join("preprocessor_config.json"), PROCESSOR).unwrap();
    dir
}

/// All tensors of a folder: dtype, shape and bytes by name.
fn stored(dir: &Path) -> BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|end| end == "safetensors"));
    let mut tensors = BTreeMap::new();
    for file in files {
        let bytes = std::fs::read(file).unwrap();
        for (name, view) in SafeTensors::deserialize(&bytes).unwrap().iter() {
            let tensor = (view.dtype(), view.shape().to_vec(), view.data().to_vec());
            assert!(tensors.insert(name.to_owned(), tensor).is_none(), "{name}");
        }
    }
    tensors
}

fn is_vision(name: &str) -> bool {
    name.contains("visual.")
}

/// An optimizer step.
fn step(policy: &Policy) {
    for (_, tensor) in policy.parameters().iter() {
        memory::update(tensor, "step", |values| values.iter_mut().for_each(|x| *x += 0.01))
            .unwrap();
    }
}

fn logps(policy: &Policy) -> Vec<f32> {
    let group = Group { prompt: vec![3, 1].into(), completions: vec![vec![4, 1, 5], vec![9]] };
    policy.score(&[group], 1.0).unwrap().logps
}

fn read(dir: &Path, file: &str) -> Vec<u8> {
    std::fs::read(dir.join(file)).unwrap()
}

#[test]
fn everything_but_the_decoder_weights_is_saved_unchanged() {
    for (name, norm) in LAYOUTS {
        let (source, saved) = (checkpoint(name), tempfile::tempdir().unwrap());
        let policy = Policy::load(source.path()).unwrap();
        step(&policy);
        policy.save(saved.path(), &SaveOptions::default()).unwrap();
        for file in ["config.json", "preprocessor_config.json"] {
            assert_eq!(read(saved.path(), file), read(source.path(), file), "{name}: {file}");
        }
        let (before, after) = (stored(source.path()), stored(saved.path()));
        assert!(after.keys().eq(before.keys()), "{name}: {:?}", after.keys());
        assert!(after.contains_key(norm) && after.keys().any(|tensor| is_vision(tensor)));
        for (tensor, after) in &after {
            let same = *after == before[tensor];
            assert_eq!(same, is_vision(tensor), "{name}: {tensor}");
        }
    }
}

#[test]
fn the_vision_tower_keeps_its_dtype() {
    let (source, saved) = (checkpoint("qwen2_5_vl-flat"), tempfile::tempdir().unwrap());
    let options = SaveOptions { dtype: WeightDtype::Bf16, max_shard_bytes: 4_000 };
    Policy::load(source.path()).unwrap().save(saved.path(), &options).unwrap();
    let before = stored(source.path());
    for (name, tensor) in stored(saved.path()) {
        match is_vision(&name) {
            true => assert_eq!(tensor, before[&name], "{name}"),
            false => assert_eq!(tensor.0, Dtype::BF16, "{name}"),
        }
    }
    let index: serde_json::Value =
        serde_json::from_slice(&read(saved.path(), "model.safetensors.index.json")).unwrap();
    let bytes: usize = stored(saved.path()).values().map(|(_, _, bytes)| bytes.len()).sum();
    assert_eq!(index["metadata"]["total_size"], bytes);
    assert_eq!(index["weight_map"].as_object().unwrap().len(), before.len());
}

#[test]
fn a_checkpoint_of_a_checkpoint_is_complete() {
    for (name, _) in LAYOUTS {
        let (source, first) = (checkpoint(name), tempfile::tempdir().unwrap());
        let policy = Policy::load(source.path()).unwrap();
        step(&policy);
        policy.save(first.path(), &SaveOptions::default()).unwrap();
        let resumed = Policy::load(first.path()).unwrap();
        assert_eq!(logps(&resumed), logps(&policy), "{name}");
        // Checkpoints are rotated while a run uses the one that it resumed from.
        let bytes = stored(first.path());
        std::fs::remove_dir_all(first.path()).unwrap();
        let second = tempfile::tempdir().unwrap();
        resumed.save(second.path(), &SaveOptions::default()).unwrap();
        assert_eq!(stored(second.path()), bytes, "{name}");
    }
}

#[test]
fn a_checkpoint_may_be_saved_over_itself() {
    let source = checkpoint("qwen2_5_vl-nested");
    let before = stored(source.path());
    let policy = Policy::load(source.path()).unwrap();
    policy.save(source.path(), &SaveOptions::default()).unwrap();
    assert_eq!(stored(source.path()), before);
}

#[test]
fn the_decoder_is_saved_alone_as_a_text_model() {
    let source = checkpoint("qwen2_5_vl-nested");
    let policy = Policy::load(source.path()).unwrap();
    let before = logps(&policy);
    let copy = policy.frozen_copy().unwrap();
    for alone in [policy.text_only(), copy] {
        let saved = tempfile::tempdir().unwrap();
        alone.save(saved.path(), &SaveOptions::default()).unwrap();
        let names = stored(saved.path());
        assert!(names.contains_key("model.norm.weight"));
        assert!(!names.keys().any(|name| is_vision(name)), "{:?}", names.keys());
        let config: serde_json::Value =
            serde_json::from_slice(&read(saved.path(), "config.json")).unwrap();
        assert_eq!(config["model_type"], "qwen2");
        assert!(ModelConfig::from_dir(saved.path()).is_ok());
        assert_eq!(logps(&Policy::load(saved.path()).unwrap()), before);
    }
}

#[test]
fn the_tensors_of_a_plain_text_model_keep_their_canonical_names() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models/qwen2-tied");
    let saved = tempfile::tempdir().unwrap();
    let policy = Policy::load(&root).unwrap();
    policy.save(saved.path(), &SaveOptions::default()).unwrap();
    let names: Vec<String> = stored(saved.path()).into_keys().collect();
    let mut want: Vec<String> =
        policy.parameters().iter().map(|(name, _): (&str, &Tensor)| name.to_owned()).collect();
    want.sort();
    assert_eq!(names, want);
}
