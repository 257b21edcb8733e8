//! `embodied-r bench` measures; the results themselves are not checked.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Stdio;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use assert_cmd::Command;
use assert_cmd::assert::Assert;
use embodied_r_policy::WeightFormat;
use embodied_r_policy::tokenizer::{ChatMessage, GenerationPrompt, SpecialTokens, Tokenizer};
use embodied_r_policy::{GenerationRequest, Policy, SamplingParams};
use embodied_r_tests::{VisionModel, binary, stderr, tiny_model};
use embodied_r_vision::{MultimodalMessage, VisionLanguageModel};
use serde_json::Value;

use crate::images::test_image::test_image;

fn bench(arguments: &[&str]) -> Value {
    let folder = tempfile::tempdir().unwrap();
    tiny_model::write(folder.path());
    let done = Command::new(binary())
        .arg("bench")
        .args(arguments)
        .args(["--json", "--prompt", "9", "--new", "5", "--group-size", "2"])
        .args(["--groups", "2", "--runs", "1", "--model"])
        .arg(folder.path())
        .assert()
        .success();
    serde_json::from_slice(&done.get_output().stdout).unwrap()
}

#[test]
fn generation_is_timed() {
    let report = bench(&["generate"]);
    assert_eq!((&report["prompt"], &report["new"]), (&Value::from(9), &Value::from(5)));
    for metric in ["seconds", "new_tokens_per_s", "prefill_tokens_per_s", "decode_tokens_per_s"] {
        assert!(report[metric].as_f64().unwrap() > 0.0, "{metric}: {report}");
    }
    #[cfg(target_os = "linux")]
    assert!(report["peak_memory_gb"].as_f64().unwrap() > 0.0, "{report}");
}

#[test]
fn a_step_is_timed_in_parts_that_add_up() {
    let report = bench(&["grpo"]);
    let of = |key: &str| report[key].as_f64().unwrap();
    let parts = ["rollout_s", "reference_s", "update_s", "optimizer_s"].map(of);
    assert!(parts.iter().all(|part| *part > 0.0), "{report}");
    // With one measured step, the parts belong to it. Packing and rewards are not among them.
    assert!(parts.iter().sum::<f64>() <= of("step_s") * 1.001, "{report}");
    // 2 prompts of 9 tokens, and 2 groups of 2 completions of 5.
    let near = |rate: f64, tokens: f64| (rate * of("step_s") / tokens - 1.0).abs() < 0.02;
    assert!(near(of("tokens_per_s"), 38.0), "{report}");
    assert!(near(of("completion_tokens_per_s"), 20.0), "{report}");
    assert!(of("estimated_memory_gb") > 0.0 && of("matmul_share") > 0.0, "{report}");
    assert!(of("mfu") >= of("matmul_share") && of("update_matmul_share") > 0.0, "{report}");
}

#[test]
fn the_phases_of_a_step_are_printed_as_they_end() {
    let report = bench(&["grpo"]);
    let phases = report["phases"].as_array().unwrap();
    let names = phases.iter().map(|phase| (phase["run"].as_u64(), phase["phase"].as_str()));
    let of_step =
        |run| ["rollout", "reference", "update", "gather"].map(|phase| (Some(run), Some(phase)));
    assert_eq!(names.collect::<Vec<_>>(), [of_step(0), of_step(1)].concat());
    let longest = phases[4]["seconds"].as_f64().unwrap();
    assert!(longest <= report["step_s"].as_f64().unwrap(), "{report}");
    #[cfg(target_os = "linux")]
    assert!(phases.iter().all(|phase| phase["peak_memory_gb"].as_f64().unwrap() > 0.0), "{report}");

    // A run that does not end.
    let folder = tempfile::tempdir().unwrap();
    tiny_model::write(folder.path());
    let mut endless = std::process::Command::new(binary())
        .args(["bench", "grpo", "--json", "--prompt", "9", "--new", "5", "--group-size", "2"])
        .args(["--groups", "2", "--runs", "100000000", "--model"])
        .arg(folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(endless.stdout.take().unwrap()).lines().map(Result::unwrap);
    let (send, received) = mpsc::channel();
    let reader = thread::spawn(move || lines.take(3).for_each(|line| send.send(line).unwrap()));
    let head: Vec<String> =
        (0..3).map_while(|_| received.recv_timeout(Duration::from_secs(120)).ok()).collect();
    endless.kill().unwrap();
    endless.wait().unwrap();
    reader.join().unwrap();
    assert_eq!(head.len(), 3, "{head:?}");
    assert!(head[0].ends_with("\"phases\":["), "{head:?}");
    let phase = |line: &str| serde_json::from_str::<Value>(line.trim_start_matches(',')).unwrap();
    assert_eq!(phase(&head[1])["phase"], "rollout");
    assert_eq!(phase(&head[2])["phase"], "reference");
}

#[test]
fn a_step_with_images_counts_their_tokens_and_times_encoded_ones_apart() {
    let dir = tempfile::tempdir().unwrap();
    VisionModel::Nested.write(&dir.path().join("model"));
    let report = |more: &[&str]| -> Value {
        let mut command = Command::new(binary());
        command.current_dir(dir.path()).args(["bench", "grpo", "--model", "model", "--json"]);
        command.args(["--image", "84", "--prompt", "5", "--new", "4", "--group-size", "2"]);
        command.args(["--groups", "2", "--runs", "1"]).args(more);
        let done = command.assert().success();
        serde_json::from_slice(&done.get_output().stdout).unwrap()
    };
    let frozen = report(&[]);
    // Three tokens of 28 pixels along each side.
    assert_eq!(frozen["prompt_tokens"], 5.0 + 9.0);
    assert!(frozen["cached_step_s"].as_f64().unwrap() > 0.0, "{frozen}");
    let trained = report(&["--set", "freeze_vision_tower=false"]);
    assert!(trained.get("cached_step_s").is_none(), "{trained}");
    let mut text = Command::new(binary());
    tiny_model::write(&dir.path().join("text"));
    text.current_dir(dir.path()).args(["bench", "grpo", "--model", "text", "--image", "84"]);
    let message = stderr(text.assert().code(1).get_output()).to_owned();
    assert!(message.contains("text model"), "{message}");
}

#[test]
fn a_random_vision_language_model_can_be_loaded() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("model");
    make_model("shape-v", &model).success();
    let loaded = VisionLanguageModel::load(&model, &WeightFormat::F32.into()).unwrap();
    let count = loaded.vision_encoder().config().parameter_count();
    assert!((12_000_000..13_000_000).contains(&count), "{count}");
    let tokenizer = Tokenizer::from_dir(&model).unwrap();
    let message = MultimodalMessage::user(1, "what?");
    let chat = tokenizer.apply_chat_template(&[message], GenerationPrompt::Append).unwrap();
    let ids = tokenizer.encode_chat(&chat).unwrap();
    let image = test_image((504, 504), 1);
    let embeddings = loaded.vision_encoder().encode_image(&image).unwrap();
    let prompt = loaded.vision_encoder().expand_placeholders(&ids, &[embeddings]).unwrap();
    assert_eq!(prompt.len(), ids.len() - 1 + 324);
}

fn make_model(preset: &str, out: &Path) -> Assert {
    let mut command = Command::new(binary());
    command.args(["bench", "make-model", "--seed", "3", "--json", "--preset", preset]);
    command.arg(out).assert()
}

#[test]
fn a_random_model_generates_text_that_its_tokenizer_decodes() {
    let folder = tempfile::tempdir().unwrap();
    for preset in ["tiny-qwen2", "tiny-qwen2-tied", "tiny-qwen3", "tiny-llama"] {
        let dir = folder.path().join(preset);
        let done = make_model(preset, &dir).success();
        let report: Value = serde_json::from_slice(&done.get_output().stdout).unwrap();
        assert_eq!((&report["preset"], &report["dtype"]), (&preset.into(), &"float32".into()));
        let policy = Policy::load(&dir).unwrap();
        assert_eq!(report["parameters"], policy.config().parameter_count());
        let tokenizer = Tokenizer::from_dir(&dir).unwrap();
        assert_eq!(tokenizer.len(), policy.config().vocab_size);
        assert_eq!(tokenizer.stop_ids(), policy.config().eos_token_ids);
        let messages = [ChatMessage::user("a lamp?")];
        let prompt = tokenizer.apply_chat_template(&messages, GenerationPrompt::Append).unwrap();
        let request = GenerationRequest {
            prompt: tokenizer.encode_chat(&prompt).unwrap().into(),
            samples: 1,
            stream: 1,
            first_sample: 0,
        };
        let sampling = SamplingParams { max_new_tokens: 8, ..SamplingParams::default() };
        let sample = policy.generate(&[request], &sampling, &|_| {}).unwrap().remove(0).remove(0);
        let text = tokenizer.decode(&sample.ids, SpecialTokens::Keep).unwrap();
        assert!(!text.is_empty(), "{sample:?}");
    }
}

#[test]
fn doctor_names_the_field_of_a_configuration_that_contradicts_the_weights() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("model");
    make_model("tiny-qwen3", &dir).success();
    let head_dim = Policy::load(&dir).unwrap().config().head_dim;
    tiny_model::set_size(&dir, "head_dim", 2 * head_dim);
    let mut doctor = Command::new(binary());
    let output = doctor.args(["doctor", "--model"]).arg(&dir).output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    let fault = format!(
        "`model.layers.0.self_attn.q_norm.weight` must have the shape [{}] by `head_dim` in `config.json`, not \
         [{head_dim}]",
        2 * head_dim
    );
    assert!(stdout.contains(&fault), "{stdout}");
}

#[test]
fn the_same_seed_makes_the_same_model_and_bf16_halves_its_size() {
    let folder = tempfile::tempdir().unwrap();
    let weights = |name: &str, dtype: &[&str]| {
        let dir = folder.path().join(name);
        let mut command = Command::new(binary());
        command.args(["bench", "make-model", "--preset", "tiny-qwen2", "--seed", "5"]);
        command.args(dtype).arg(&dir).assert().success();
        std::fs::read(dir.join("model.safetensors")).unwrap()
    };
    let full = weights("a", &[]);
    assert_eq!(full, weights("b", &["--dtype", "float32"]));
    let half = weights("c", &["--dtype", "bfloat16"]).len() as f64;
    assert!((half / full.len() as f64 - 0.5).abs() < 0.01, "{half}");
}

#[test]
fn a_folder_that_is_not_empty_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("notes.txt"), "mine").unwrap();
    let refused = make_model("tiny-llama", folder.path()).code(2);
    let stderr = stderr(refused.get_output());
    assert!(stderr.contains("is not empty: give a new directory"), "{stderr}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

fn ops(arguments: &[&str]) -> Value {
    let mut command = Command::new(binary());
    let done = command.args(["bench", "ops", "--json"]).args(arguments).assert().success();
    serde_json::from_slice(&done.get_output().stdout).unwrap()
}

#[test]
fn every_operation_matches_its_reference_implementation() {
    let report = ops(&["--check"]);
    let ops = report["ops"].as_array().unwrap();
    for name in ["linear", "attention", "paged attention", "rms_norm", "lm_head", "muon"] {
        assert!(ops.iter().any(|op| op["name"] == name && op["holds"] == true), "{name}: {report}");
    }
}

#[test]
fn an_operation_is_compared_with_the_machines_limits() {
    let report = ops(&["--only", "swiglu"]);
    for metric in ["peak_gflops_f32", "read_gb_per_s", "copy_gb_per_s"] {
        assert!(report["machine"][metric].as_f64().unwrap() > 0.0, "{metric}: {report}");
    }
    let ops = report["ops"].as_array().unwrap();
    assert_eq!(ops.len(), 3, "{report}");
    for op in ops {
        assert_eq!(op["bound"], "memory");
        assert!(
            op["seconds"].as_f64().unwrap() > 0.0 && op["share_of_limit"].as_f64().unwrap() > 0.0
        );
    }
}

#[test]
fn the_dtype_of_the_matrix_products_is_reported() {
    assert_eq!(bench(&["generate"])["dtype"], "float32");
    assert_eq!(bench(&["generate", "--precision", "bf16"])["dtype"], "bfloat16");
    assert_eq!(bench(&["grpo", "--precision", "bf16"])["dtype"], "bfloat16");
}
