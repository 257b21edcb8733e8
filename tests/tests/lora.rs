//! `embodied-r train` and `sft` with a LoRA adapter or frozen parameters.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use assert_cmd::assert::OutputAssertExt as _;
use embodied_r_policy::lora::{LoraConfig, Module};
use embodied_r_policy::{Group, ModelType, Policy, Trainable};
use embodied_r_tests::{binary, events, stderr_of, stdout_of, tiny_model, write_questions};
use serde_json::{Value, json};

const QUESTION: &str = "Frame 0: Observe: lamp left\n>\nQuestion: where is the lamp?";

/// As [`inputs`], with a model that sometimes answers in the format, so that rewards differ.
fn answering_inputs(dir: &Path) {
    inputs(dir);
    fs::rename(dir.join("model"), dir.join("random")).unwrap();
    let conversation = json!({"messages": [
        {"role": "system", "content": "answer"},
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": "<think>left</think><answer>A</answer>"},
    ]});
    fs::write(dir.join("tune.jsonl"), vec![conversation.to_string(); 12].join("\n")).unwrap();
    let arguments = ["sft", "--model", "random", "--data", "tune.jsonl", "--output", "tuned"];
    let mut tune = embodied_r(dir, &arguments);
    for setting in ["train_batch_size=4", "learning_rate=0.02", "num_train_epochs=25"] {
        tune.args(["--set", setting]);
    }
    tune.assert().code(0);
    fs::rename(dir.join("tuned/final"), dir.join("model")).unwrap();
}

/// A model, eight questions, and twelve conversations.
fn inputs(dir: &Path) {
    tiny_model::write(&dir.join("model"));
    write_questions(dir, 8, |_| QUESTION.to_owned());
    let conversation = json!({"messages": [
        {"role": "user", "content": "Question: where is the lamp?"},
        {"role": "assistant", "content": "<think>left</think><answer>A</answer>"},
    ]});
    fs::write(dir.join("train.jsonl"), vec![conversation.to_string(); 12].join("\n")).unwrap();
    fs::write(
        dir.join("grpo.toml"),
        "system_prompt = 'answer'
num_generations = 4
generation_batch_size = 8
max_completion_length = 40
learning_rate = 1e-2
warmup_ratio = 0.0
beta = 0.1
save_steps = 1
use_peft = true
lora_r = 4
lora_target_modules = ['q_proj', 'down_proj']
stage = [
    { epochs = 0.5, weights = { accuracy = 0.5, format = 0.5 } },
    { epochs = 0.5, weights = { accuracy = 1.0 }, reset_reference = true },
]
",
    )
    .unwrap();
}

fn embodied_r(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.current_dir(dir).args(arguments);
    command
}

fn train(dir: &Path) -> Command {
    let arguments = ["train", "--config", "grpo.toml", "--model", "model", "--data", "train.json"];
    let mut command = embodied_r(dir, &arguments);
    command.args(["--output", "run"]);
    command
}

fn sft(dir: &Path, settings: &[&str]) -> Command {
    let arguments = ["sft", "--model", "model", "--data", "train.jsonl", "--output", "run"];
    let mut command = embodied_r(dir, &arguments);
    for setting in ["train_batch_size=4", "learning_rate=0.01", "num_train_epochs=2"] {
        command.args(["--set", setting]);
    }
    for setting in settings {
        command.args(["--set", setting]);
    }
    command
}

fn files(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// The names of the tensors in a safetensors file.
fn tensors(file: &Path) -> BTreeSet<String> {
    let bytes = fs::read(file).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let names = header.as_object().unwrap().keys().cloned();
    names.filter(|name| name != "__metadata__").collect()
}

/// The base model with the adapter that a run saved in `folder`.
fn policy(dir: &Path, folder: &str, modules: &[Module]) -> Policy {
    let config = LoraConfig {
        r: 4,
        lora_alpha: 32,
        lora_dropout: 0.05,
        target_modules: modules.to_vec(),
        encoder_modules: Vec::new(),
        use_rslora: false,
        base_model_name_or_path: None,
        base_fingerprint: None,
    };
    let (folder, base) = (dir.join(folder), dir.join("model"));
    Policy::load_trainable(&folder, &base, &Trainable::Lora(config), 0).unwrap()
}

fn logps(policy: &Policy) -> Vec<f32> {
    let group =
        Group { prompt: vec![5, 60, 7].into(), completions: vec![vec![40, 8, 90], vec![100, 3]] };
    policy.score(&[group], 1.0).unwrap().logps
}

#[track_caller]
fn assert_near(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() < 1e-4, "{found}, not {expected}");
    }
}

const MODULES: [Module; 2] = [Module::Q, Module::Down];

#[test]
fn grpo_trains_an_adapter_and_saves_no_base_model() {
    let dir = tempfile::tempdir().unwrap();
    answering_inputs(dir.path());
    let stdout = stdout_of(train(dir.path()).arg("--dry-run"));
    // 2 layers x rank 4 x ((16 + 16) + (32 + 16)) parameters.
    assert!(stdout.contains("\ntrainable    640 of "), "{stdout}");
    train(dir.path()).assert().code(0);
    let run = dir.path().join("run");
    for folder in ["checkpoint-4", "final"] {
        let files = files(&run.join(folder));
        for file in ["adapter_config.json", "adapter_model.safetensors", "tokenizer.json"] {
            assert!(files.contains(file), "{folder}: {files:?}");
        }
        assert!(!files.contains("model.safetensors") && !files.contains("config.json"));
    }
    let adapter = tensors(&run.join("final/adapter_model.safetensors"));
    assert_eq!(adapter.len(), 2 * 2 * 2);
    assert!(
        adapter.contains("base_model.model.model.layers.1.mlp.down_proj.lora_B.weight"),
        "{adapter:?}"
    );
    let moments = tensors(&run.join("checkpoint-4/optimizer.safetensors"));
    assert_eq!(moments.len(), 2 * adapter.len());
    assert!(moments.iter().all(|name| name.contains(".lora_")), "{moments:?}");
    let config = fs::read(run.join("final/adapter_config.json")).unwrap();
    let config: Value = serde_json::from_slice(&config).unwrap();
    let base = dir.path().join("model").canonicalize().unwrap();
    assert_eq!(config["base_model_name_or_path"], base.to_str().unwrap());
    assert_eq!((&config["r"], &config["lora_alpha"]), (&json!(4), &json!(32)));
    assert_eq!(config["target_modules"], json!(["q_proj", "down_proj"]));
    // The reference is the base model, so the KL is above 0 after the first step.
    let kl: Vec<f64> =
        events(&run, "step").iter().map(|step| step["kl"].as_f64().unwrap()).collect();
    assert!(kl.len() == 4 && kl[1] > 0.0, "{kl:?}");
    let base = Policy::load(&dir.path().join("model")).unwrap();
    assert_ne!(logps(&policy(dir.path(), "run/final", &MODULES)), logps(&base));
}

#[test]
fn an_adapters_run_resumes_bit_identically() {
    let (whole, cut) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for dir in [whole.path(), cut.path()] {
        answering_inputs(dir);
        train(dir).assert().code(0);
    }
    // As after a kill at step 3: in the second stage, whose reference is the adapter at its start.
    for folder in ["checkpoint-4", "final"] {
        fs::remove_dir_all(cut.path().join("run").join(folder)).unwrap();
    }
    assert!(cut.path().join("run/reference-2/adapter_model.safetensors").exists());
    embodied_r(cut.path(), &["train", "--resume", "run"]).assert().code(0);
    for file in [
        "final/adapter_model.safetensors",
        "checkpoint-4/optimizer.safetensors",
        "checkpoint-4/adapter_model.safetensors",
    ] {
        let read = |dir: &Path| fs::read(dir.join("run").join(file)).unwrap();
        assert!(read(whole.path()) == read(cut.path()), "{file}");
    }
    let metrics = |dir: &Path| -> Vec<(Value, Value)> {
        let steps = events(&dir.join("run"), "step");
        steps.into_iter().map(|step| (step["kl"].clone(), step["grad_norm"].clone())).collect()
    };
    assert!(metrics(whole.path())[3].0.as_f64().unwrap() > 0.0, "{:?}", metrics(whole.path()));
    assert_eq!(metrics(whole.path()), metrics(cut.path()));
}

#[test]
fn a_tuned_adapter_answers_alike_merged_and_unmerged() {
    tiny_model::FAMILIES.into_iter().for_each(answers_alike_merged);
}

fn answers_alike_merged(family: ModelType) {
    let dir = tempfile::tempdir().unwrap();
    inputs(dir.path());
    tiny_model::write_family(&dir.path().join("model"), family);
    sft(dir.path(), &["use_peft=true", "lora_r=4"]).assert().code(0);
    let merge = ["merge", "--model", "model", "--adapter", "run/final", "--output", "merged"];
    let stdout = stdout_of(&mut embodied_r(dir.path(), &merge));
    assert!(stdout.starts_with("merged 14 weights"), "{stdout}");
    let trained = policy(dir.path(), "run/final", &Module::ALL);
    let merged = Policy::load(&dir.path().join("merged")).unwrap();
    assert_near(&logps(&merged), &logps(&trained));
    let base = logps(&Policy::load(&dir.path().join("model")).unwrap());
    let difference =
        base.iter().zip(logps(&trained)).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(difference > 0.01, "training changed too little: {difference}");
    // The adapter's folder answers like the merged model.
    let questions =
        json!([{"Question_id": 7, "question": "Frame 0: Observe: lamp left 30\nWhere?"}]);
    fs::write(dir.path().join("test.json"), questions.to_string()).unwrap();
    let answer = |model: &str| {
        let output = format!("{model}.json").replace('/', "-");
        let arguments = ["infer", "--model", model, "--data", "test.json", "--output", &output];
        let mut command = embodied_r(dir.path(), &arguments);
        command.args(["--max-new-tokens", "6", "--temperature", "0"]).assert().code(0);
        fs::read_to_string(dir.path().join(output)).unwrap()
    };
    assert_eq!(answer("run/final"), answer("merged"));
    let doctor = embodied_r(dir.path(), &["doctor", "--model", "run/final"]).output().unwrap();
    let stdout = String::from_utf8(doctor.stdout).unwrap();
    let base = dir.path().join("model").canonicalize().unwrap();
    let expected = format!("adapts 14 weights of `{}`", base.display());
    assert!(stdout.contains(&expected), "{stdout}");
}

#[test]
fn a_tuned_adapters_run_resumes_bit_identically() {
    let (whole, cut) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let settings = ["use_peft=true", "lora_dropout=0.3", "save_steps=1", "save_total_limit=9"];
    for dir in [whole.path(), cut.path()] {
        inputs(dir);
        sft(dir, &settings).assert().code(0);
    }
    for folder in ["checkpoint-4", "checkpoint-5", "checkpoint-6", "final"] {
        fs::remove_dir_all(cut.path().join("run").join(folder)).unwrap();
    }
    embodied_r(cut.path(), &["sft", "--resume", "run"]).assert().code(0);
    for file in ["final/adapter_model.safetensors", "checkpoint-6/optimizer.safetensors"] {
        let read = |dir: &Path| fs::read(dir.join("run").join(file)).unwrap();
        assert!(read(whole.path()) == read(cut.path()), "{file}");
    }
}

#[test]
fn frozen_parameters_have_no_moments_and_never_change() {
    let dir = tempfile::tempdir().unwrap();
    inputs(dir.path());
    let pattern = r"freeze_parameters_regex=['embed_tokens', 'layers\.0\.']";
    sft(dir.path(), &[pattern]).assert().code(0);
    let run = dir.path().join("run");
    let (before, after) = (
        Policy::load(&dir.path().join("model")).unwrap(),
        Policy::load(&run.join("final")).unwrap(),
    );
    let moments = tensors(&run.join("checkpoint-6/optimizer.safetensors"));
    for (name, _) in before.weights().iter() {
        let values = |policy: &Policy| {
            let tensor = policy.weights().get(name).unwrap().flatten_all().unwrap();
            tensor.to_vec1::<f32>().unwrap()
        };
        let same = values(&before) == values(&after);
        let frozen = name.contains("embed_tokens") || name.contains("layers.0.");
        assert_eq!(same, frozen, "{name}");
        assert_eq!(!moments.contains(&format!("exp_avg.{name}")), frozen, "{name}");
    }
}

#[test]
fn a_pattern_that_freezes_nothing_is_reported_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    inputs(dir.path());
    let stderr = stderr_of(&mut sft(dir.path(), &["freeze_parameters_regex=vision"]), 2);
    assert!(stderr.contains("`freeze_parameters_regex` has `vision`"), "{stderr}");
    assert!(!dir.path().join("run").exists());
}

#[test]
fn an_adapter_without_its_base_model_names_the_missing_model() {
    let dir = tempfile::tempdir().unwrap();
    inputs(dir.path());
    sft(dir.path(), &["use_peft=true", "num_train_epochs=1"]).assert().code(0);
    let nested = ["sft", "--model", "run/final", "--data", "train.jsonl", "--output", "second"];
    let mut nested = embodied_r(dir.path(), &nested);
    nested.args(["--set", "use_peft=true", "--set", "train_batch_size=4"]);
    let stderr = stderr_of(&mut nested, 1);
    assert!(stderr.contains("`run/final` is an adapter, merge it"), "{stderr}");
    let base = dir.path().join("model").canonicalize().unwrap();
    fs::rename(&base, dir.path().join("elsewhere")).unwrap();
    let arguments = ["infer", "--model", "run/final", "--data", "train.json", "--output", "a.json"];
    let stderr = stderr_of(&mut embodied_r(dir.path(), &arguments), 1);
    let expected =
        format!("cannot load the base model `{}` of the adapter `run/final`", base.display());
    assert!(stderr.contains(&expected), "{stderr}");
}

/// A short run that trains an adapter on `model`, given as a path relative to `dir`.
fn adapter(dir: &Path) {
    inputs(dir);
    sft(dir, &["use_peft=true", "lora_r=4"]).assert().code(0);
}

fn generate(dir: &Path, model: &Path) -> std::process::Output {
    let question = json!([{"Question_id": 1, "question": QUESTION}]);
    fs::write(dir.join("q.json"), question.to_string()).unwrap();
    let words = ["infer", "--data", "q.json", "--output", "a.json", "--max-new-tokens", "2"];
    embodied_r(dir, &words).arg("--model").arg(model).output().unwrap()
}

#[test]
fn an_adapter_finds_its_base_from_every_folder_and_no_other_model_of_the_same_shape() {
    let dir = tempfile::tempdir().unwrap();
    adapter(dir.path());
    let elsewhere = dir.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let final_folder = dir.path().join("run/final");
    let output = generate(&elsewhere, &final_folder);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    // A model of the same shape and the name that was typed, where the next command runs.
    tiny_model::write(&elsewhere.join("model"));
    let output = generate(&elsewhere, &final_folder);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    // One bit of the base model.
    let weights = dir.path().join("model/model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    let last = bytes.len() - 2;
    bytes[last] ^= 1;
    fs::write(&weights, bytes).unwrap();
    let output = generate(&elsewhere, &final_folder);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("are not those that the adapter was trained on"), "{stderr}");
    // The way out.
    let words = ["merge", "--model", "model", "--adapter", "run/final", "--output", "merged"];
    let stderr = stderr_of(&mut embodied_r(dir.path(), &words), 1);
    assert!(stderr.contains("`--force` to merge into this one"), "{stderr}");
    embodied_r(dir.path(), &words).arg("--force").assert().code(0);
    // Nor does a run resume on it.
    let stderr = stderr_of(&mut embodied_r(dir.path(), &["sft", "--resume", "run"]), 1);
    assert!(stderr.contains("is not the one that the run in `run` started from"), "{stderr}");
}

#[test]
fn a_rank_beyond_the_model_is_refused_before_anything_is_allocated() {
    let dir = tempfile::tempdir().unwrap();
    inputs(dir.path());
    for rank in ["1000000000000000", "18446744073709551615", "33"] {
        for dry_run in [true, false] {
            let mut command = train(dir.path());
            command.args(["--set", &format!("lora_r={rank}")]);
            if dry_run {
                command.arg("--dry-run");
            }
            let stderr = stderr_of(&mut command, 2);
            assert!(stderr.contains("lora_r"), "{rank}: {stderr}");
            assert!(!stderr.contains("panicked"), "{stderr}");
        }
    }
    assert!(!dir.path().join("run").exists());
}
