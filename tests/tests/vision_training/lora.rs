//! LoRA on decoder and vision encoder.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use assert_cmd::assert::OutputAssertExt as _;
use embodied_r_tests::{VisionModel, binary, stderr_of, stdout_of};
use serde_json::{Value, json};

use super::{
    TRAINED, scored_workspace, scored_workspace_of, tensors, train, workspace, workspace_of,
};
use crate::images::{caption, data_url, request};
use crate::serve::client::Server;

/// An adapter of decoder, vision tower and aligner, with an effect after a few steps.
const LORA: [&str; 10] = [
    TRAINED[0],
    TRAINED[1],
    TRAINED[2],
    TRAINED[3],
    "--set",
    "use_peft=true",
    "--set",
    "lora_r=4",
    "--set",
    "learning_rate=0.05",
];

fn embodied_r(dir: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.current_dir(dir).args(words);
    command
}

fn merge(dir: &Path) {
    let words = ["merge", "--model", "model", "--adapter", "run/final", "--output", "merged"];
    embodied_r(dir, &words).assert().code(0);
}

/// Answers from images of a model.
fn answers(dir: &Path, model: &str) -> Vec<Value> {
    let words = ["infer", "--direct", "--model", model, "--data", "train.jsonl"];
    let mut infer = embodied_r(dir, &words);
    let output = format!("{}.json", model.replace('/', "-"));
    infer.args(["--output", &output, "--max-new-tokens", "12"]).assert().code(0);
    let records: Vec<Value> = serde_json::from_slice(&fs::read(dir.join(output)).unwrap()).unwrap();
    records.into_iter().map(|record| record["content"].clone()).collect()
}

#[test]
fn an_adapter_of_the_vision_encoder_is_trained_merged_and_resumed_byte_for_byte() {
    let dir = scored_workspace();
    let run = dir.path().join("run");
    // 2 layers of the decoder, 3 blocks, and the aligner.
    let decoder = 2 * 4 * ((32 + 32) + 2 * (32 + 16) + (32 + 32) + 3 * (32 + 48));
    let tower = 3 * 4 * ((32 + 96) + (32 + 32) + 3 * (32 + 40)) + 4 * (2 * 128 + (128 + 32));
    let plan = stdout_of(train(dir.path(), "run", &LORA).arg("--dry-run"));
    assert!(plan.contains(&format!("\ntrainable    {} of ", decoder + tower)), "{plan}");
    train(dir.path(), "run", &LORA).args(["--verify-packing"]).assert().code(0);
    let adapter = tensors(&run.join("final"));
    assert_eq!(adapter.len(), 2 * (2 * 7 + 3 * 5 + 2));
    for (name, bytes) in adapter.iter().filter(|(name, _)| name.ends_with("lora_B.weight")) {
        assert!(bytes.iter().any(|byte| *byte != 0), "{name} stayed 0");
    }
    for name in ["blocks.0.attn.qkv", "blocks.2.mlp.down_proj", "merger.mlp.0", "merger.mlp.2"] {
        let name = format!("base_model.model.model.visual.{name}.lora_A.weight");
        assert!(adapter.contains_key(&name), "{name}");
    }
    let merged_changes = {
        merge(dir.path());
        super::changed(&dir.path().join("model"), &dir.path().join("merged"))
    };
    assert_eq!(merged_changes.len(), 2 * 7 + 3 * 5 + 2, "{merged_changes:?}");
    assert_eq!(answers(dir.path(), "run/final"), answers(dir.path(), "merged"));
    assert_ne!(answers(dir.path(), "merged"), answers(dir.path(), "model"));

    let part = dir.path().join("part");
    train(dir.path(), "part", &LORA).assert().code(0);
    fs::remove_dir_all(part.join("checkpoint-4")).unwrap();
    fs::remove_dir_all(part.join("final")).unwrap();
    embodied_r(dir.path(), &["train", "--resume", "part"]).assert().code(0);
    assert_eq!(tensors(&part.join("final")), adapter);
    let fixed = ["train", "--resume", "part", "--set", "freeze_aligner=true", "--dry-run"];
    let message = stderr_of(&mut embodied_r(dir.path(), &fixed), 2);
    assert!(message.contains("`freeze_aligner` cannot change on resume"), "{message}");
}

#[test]
fn an_adapter_of_qwen3_vl_has_the_layers_of_all_mergers() {
    let dir = scored_workspace_of(VisionModel::Qwen3Vl);
    train(dir.path(), "run", &LORA).args(["--verify-packing"]).assert().code(0);
    let adapter = tensors(&dir.path().join("run/final"));
    // 3 layers of the decoder, 4 blocks, and 3 mergers.
    assert_eq!(adapter.len(), 2 * (3 * 7 + 4 * 4 + 3 * 2));
    for name in
        ["blocks.3.mlp.linear_fc2", "merger.linear_fc1", "deepstack_merger_list.1.linear_fc2"]
    {
        let name = format!("base_model.model.model.visual.{name}.lora_B.weight");
        assert!(adapter[&name].iter().any(|byte| *byte != 0), "{name} stayed 0");
    }
    merge(dir.path());
    let merged_changes = super::changed(&dir.path().join("model"), &dir.path().join("merged"));
    assert_eq!(merged_changes.len(), 3 * 7 + 4 * 4 + 3 * 2, "{merged_changes:?}");
    assert_eq!(answers(dir.path(), "run/final"), answers(dir.path(), "merged"));
    assert_ne!(answers(dir.path(), "merged"), answers(dir.path(), "model"));
}

#[test]
fn target_modules_of_another_family_are_refused() {
    let dir = workspace_of(VisionModel::Qwen3Vl);
    let more = ["--set", "lora_target_modules=['q_proj', 'merger.mlp.0']"];
    let settings = [&LORA[2..], &more].concat();
    let message = stderr_of(&mut train(dir.path(), "run", &settings), 2);
    assert!(
        message.contains("`lora_target_modules`: names no layer of this model's aligner"),
        "{message}"
    );
}

#[test]
fn an_adapter_is_served_with_its_vision_encoder() {
    let dir = scored_workspace();
    train(dir.path(), "run", &LORA).assert().code(0);
    merge(dir.path());
    let names = ["images/0.png".to_owned(), "images/1.png".to_owned()];
    let urls: Vec<String> = names.iter().map(|name| data_url(&dir.path().join(name))).collect();
    // `caption` and the server use the model in `model`.
    fs::rename(dir.path().join("model"), dir.path().join("base")).unwrap();
    let said = |model: &str| {
        let link = dir.path().join("model");
        fs::rename(dir.path().join(model), &link).unwrap();
        let shown = stdout_of(&mut caption(dir.path(), &names, &[]));
        let server = Server::of(dir.path(), &[], None);
        let answer = server.post("/v1/chat/completions", &request(&urls));
        assert_eq!(answer.status, 200, "{answer:?}");
        drop(server);
        fs::rename(link, dir.path().join(model)).unwrap();
        let text = answer.json()["choices"][0]["message"]["content"].clone();
        (shown.split_once("tokens\n").unwrap().1.to_owned(), text)
    };
    let merged = said("merged");
    assert_ne!(merged, said("base"));
    // The adapter names its base model by a path that has moved.
    let config = dir.path().join("run/final/adapter_config.json");
    let mut settings: Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
    settings["base_model_name_or_path"] = json!(dir.path().join("base"));
    fs::write(&config, settings.to_string()).unwrap();
    assert_eq!(said("run/final"), merged);
}

#[test]
fn sft_trains_the_adapters_of_unfrozen_parts_only() {
    let dir = workspace();
    let record = json!({"images": ["images/0.png"], "messages": [
        {"role": "user", "content": "<image>What is it?"},
        {"role": "assistant", "content": "cup"},
    ]});
    fs::write(dir.path().join("sft.jsonl"), format!("{record}\n").repeat(2)).unwrap();
    for (setting, part, count) in [
        ("freeze_vision_tower=false", "visual.blocks.", 2 * 3 * 5),
        ("freeze_aligner=false", "visual.merger.", 2 * 2),
        ("freeze_aligner=true", "none", 0),
    ] {
        let words = ["sft", "--model", "model", "--data", "sft.jsonl", "--output", setting];
        let mut sft = embodied_r(dir.path(), &words);
        sft.args(["--set", setting, "--set", "use_peft=true", "--set", "train_batch_size=2"]);
        sft.assert().code(0);
        let saved = tensors(&dir.path().join(setting).join("final"));
        let visual: Vec<&String> = saved.keys().filter(|name| name.contains("visual.")).collect();
        assert_eq!(visual.len(), count, "{visual:?}");
        assert!(visual.iter().all(|name| name.contains(part)), "{visual:?}");
        let config = dir.path().join(setting).join("final/adapter_config.json");
        let config: Value = serde_json::from_slice(&fs::read(config).unwrap()).unwrap();
        let targets = config["target_modules"].as_str().unwrap();
        assert_eq!(targets.contains("visual"), count > 0, "{targets}");
    }
}

#[test]
fn an_inspected_loss_has_the_gradient_norm_of_every_adapter_tensor() {
    let dir = workspace();
    let image = json!([5, 259, 261, 261, 261, 261, 261, 261, 260, 7]);
    let batch = json!({"groups": [{"prompt_ids": image, "images": ["images/0.png"],
        "completions": [{"ids": [5, 9], "advantage": 1.0}, {"ids": [8], "advantage": -1.0}]}]});
    fs::write(dir.path().join("batch.json"), batch.to_string()).unwrap();
    let norms = |more: &[&str]| -> BTreeMap<String, f64> {
        let words = ["inspect", "loss", "--model", "model", "--batch", "batch.json", "--json"];
        let mut inspect = embodied_r(dir.path(), &words);
        inspect.args(["--set", "beta=0", "--set", "use_peft=true"]).args(more);
        let report: Value = serde_json::from_str(&stdout_of(&mut inspect)).unwrap();
        serde_json::from_value(report["grad_norms"].clone()).unwrap()
    };
    let all = norms(&TRAINED);
    assert_eq!(all.len(), 2 * (2 * 7 + 3 * 5 + 2));
    for (name, norm) in &all {
        assert_eq!(*norm > 0.0, name.ends_with("lora_B.weight"), "{name}: {norm}");
    }
    let tower = norms(&TRAINED[..2]);
    assert_eq!(tower.len(), 2 * (2 * 7 + 3 * 5));
    assert!(tower.iter().all(|(name, norm)| all[name] == *norm));
    let mut dropout = embodied_r(dir.path(), &["inspect", "loss", "--model", "model"]);
    dropout.args(["--batch", "batch.json", "--set", "use_peft=true", "--set", "lora_dropout=0.1"]);
    let message = stderr_of(&mut dropout, 2);
    assert!(message.contains("`lora_dropout`"), "{message}");
}

#[cfg(feature = "mpi")]
#[test]
fn two_ranks_give_the_adapter_of_one() {
    let dir = scored_workspace();
    for (output, ranks) in [("one", "1"), ("two", "2")] {
        let mut run = train(dir.path(), output, &LORA);
        run.args(["--set", "lora_dropout=0.0", "--set", "learning_rate=1e-3"]);
        run.args(["--ranks", ranks, "--set", "max_steps=2"]).assert().code(0);
    }
    super::assert_close(&dir.path().join("one/final"), &dir.path().join("two/final"));
}
