//! `embodied-r merge`.

use std::fs;
use std::path::Path;
use std::process::Command;

use assert_cmd::assert::OutputAssertExt as _;
use embodied_r_policy::Policy;
use embodied_r_policy::tokenizer::Tokenizer;
use embodied_r_tests::{binary, stderr_of, tiny_model};
use serde_json::{Value, json};

const HIDDEN: usize = 16;
const CHANGED: &str = "model.layers.1.self_attn.o_proj.weight";

/// A rank-1 adapter of one module: `A` is all ones, `B` counts up, and the scale is 0.5.
pub(crate) fn write_adapter(dir: &Path, target: &str) {
    fs::create_dir_all(dir).unwrap();
    let config = json!({
        "peft_type": "LORA", "r": 1, "lora_alpha": 0.5, "target_modules": [target],
        "layers_to_transform": [1], "base_model_name_or_path": "model",
    });
    fs::write(dir.join("adapter_config.json"), config.to_string()).unwrap();
    let values = vec![1.0; HIDDEN].into_iter().chain((0..HIDDEN).map(|i| i as f32));
    let bytes = HIDDEN * size_of::<f32>();
    let stem = "base_model.model.model.layers.1.self_attn.o_proj";
    let header = json!({
        format!("{stem}.lora_A.weight"):
            { "dtype": "F32", "shape": [1, HIDDEN], "data_offsets": [0, bytes] },
        format!("{stem}.lora_B.weight"):
            { "dtype": "F32", "shape": [HIDDEN, 1], "data_offsets": [bytes, 2 * bytes] },
    });
    let mut file = (header.to_string().len() as u64).to_le_bytes().to_vec();
    file.extend(header.to_string().bytes());
    file.extend(values.flat_map(f32::to_le_bytes));
    fs::write(dir.join("adapter_model.safetensors"), file).unwrap();
}

/// A folder with a model and an adapter.
fn workspace() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    tiny_model::write(&dir.path().join("model"));
    write_adapter(&dir.path().join("adapter"), "o_proj");
    dir
}

fn merge(dir: &Path) -> Command {
    let mut command = Command::new(binary());
    command.current_dir(dir).args(["merge", "--model", "model", "--adapter", "adapter"]);
    command.args(["--output", "out/merged"]);
    command
}

fn weight(dir: &Path, name: &str) -> Vec<Vec<f32>> {
    Policy::load(dir).unwrap().parameters().get(name).unwrap().to_vec2().unwrap()
}

fn entries(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn merging_changes_only_the_adapted_weight() {
    let dir = workspace();
    merge(dir.path()).assert().code(0);
    let (model, merged) = (dir.path().join("model"), dir.path().join("out/merged"));
    let (before, after) = (weight(&model, CHANGED), weight(&merged, CHANGED));
    for (i, (before, after)) in before.iter().zip(&after).enumerate() {
        for (before, after) in before.iter().zip(after) {
            assert!((after - before - 0.5 * i as f32).abs() < 1e-5, "row {i}: {before} {after}");
        }
    }
    let other = "model.layers.0.self_attn.o_proj.weight";
    assert_eq!(weight(&merged, other), weight(&model, other));
}

#[test]
fn the_output_is_a_complete_model_with_its_tokenizer() {
    let dir = workspace();
    merge(dir.path())
        .assert()
        .code(0)
        .stdout("merged 1 weights, saved the model to out/merged (float32)\n");
    let merged = dir.path().join("out/merged");
    assert_eq!(
        entries(&merged),
        [
            "config.json",
            "generation_config.json",
            "model.safetensors",
            "tokenizer.json",
            "tokenizer_config.json",
        ]
    );
    assert_eq!(entries(&dir.path().join("out")), ["merged"]);
    let text = "where is the lamp";
    let ids = |folder: &str| Tokenizer::from_dir(&dir.path().join(folder)).unwrap().encode(text);
    assert_eq!(ids("out/merged").unwrap(), ids("model").unwrap());
}

#[test]
fn the_json_reports_the_output_and_its_dtype() {
    let dir = workspace();
    let output = merge(dir.path()).args(["--dtype", "bfloat16", "--json"]).assert().code(0);
    let report: Value = serde_json::from_slice(&output.get_output().stdout).unwrap();
    let expected = json!({
        "output": "out/merged", "weights": 1, "dtype": "bfloat16", "base_model": "model",
    });
    assert_eq!(report, expected);
    let config = fs::read(dir.path().join("out/merged/config.json")).unwrap();
    let config: Value = serde_json::from_slice(&config).unwrap();
    assert_eq!(config["torch_dtype"], "bfloat16");
}

#[test]
fn an_output_that_is_not_empty_is_left_alone() {
    let dir = workspace();
    fs::create_dir_all(dir.path().join("out/merged")).unwrap();
    fs::write(dir.path().join("out/merged/notes.txt"), "mine").unwrap();
    let stderr = stderr_of(&mut merge(dir.path()), 1);
    assert!(stderr.contains("`out/merged` is not empty") && stderr.contains("hint:"), "{stderr}");
    assert_eq!(entries(&dir.path().join("out/merged")), ["notes.txt"]);
}

#[test]
fn a_mismatched_adapter_is_reported_by_tensor_and_leaves_no_output() {
    let dir = workspace();
    write_adapter(&dir.path().join("adapter"), "q_proj");
    let stderr = stderr_of(&mut merge(dir.path()), 1);
    assert!(stderr.contains("o_proj.lora_A.weight` is unexpected"), "{stderr}");
    assert!(!dir.path().join("out").exists());
}

#[test]
fn an_adapter_is_not_merged_into_an_adapter() {
    let dir = workspace();
    write_adapter(&dir.path().join("other"), "o_proj");
    let words = ["merge", "--model", "other", "--adapter", "adapter", "--output", "out/merged"];
    let mut command = Command::new(binary());
    let stderr = stderr_of(command.current_dir(dir.path()).args(words), 2);
    assert!(
        stderr.contains("`--model other` is an adapter: merge it into its base model first"),
        "{stderr}"
    );
    assert!(!dir.path().join("out").exists());
}
