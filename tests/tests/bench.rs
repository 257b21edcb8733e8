//! `embodied-r bench` from outside: that it measures, not what.

mod tiny_model;

use std::path::Path;

use assert_cmd::Command;
use assert_cmd::assert::Assert;
use embodied_r_policy::tokenizer::{ChatMessage, Generation, Special, Tokenizer};
use embodied_r_policy::{Policy, Request, Sampling};
use embodied_r_tests::binary;
use serde_json::Value;

fn measured(what: &[&str]) -> Value {
    let folder = tempfile::tempdir().unwrap();
    tiny_model::write(folder.path());
    let made = Command::new(binary())
        .arg("bench")
        .args(what)
        .args(["--json", "--prompt", "9", "--new", "5", "--group-size", "2"])
        .args(["--groups", "2", "--runs", "1", "--model"])
        .arg(folder.path())
        .assert()
        .success();
    serde_json::from_slice(&made.get_output().stdout).unwrap()
}

#[test]
fn generation_is_timed() {
    let told = measured(&["generate"]);
    assert_eq!((&told["prompt"], &told["new"]), (&Value::from(9), &Value::from(5)));
    for figure in ["seconds", "new_tokens_per_s", "prefill_tokens_per_s"] {
        assert!(told[figure].as_f64().unwrap() > 0.0, "{figure}: {told}");
    }
    #[cfg(target_os = "linux")]
    assert!(told["peak_memory_gb"].as_f64().unwrap() > 0.0, "{told}");
}

#[test]
fn steps_are_timed_in_parts() {
    let told = measured(&["grpo"]);
    let of = |key: &str| told[key].as_f64().unwrap();
    assert!((of("step_s") - of("rollout_s") - of("update_s")).abs() < 0.002, "{told}");
}

fn make_model(preset: &str, out: &Path) -> Assert {
    let mut command = Command::new(binary());
    command.args(["bench", "make-model", "--seed", "3", "--json", "--preset", preset]);
    command.arg(out).assert()
}

#[test]
fn a_made_model_answers_and_its_text_can_be_read_back() {
    let folder = tempfile::tempdir().unwrap();
    for preset in ["tiny-qwen2", "tiny-qwen2-tied", "tiny-llama"] {
        let dir = folder.path().join(preset);
        let made = make_model(preset, &dir).success();
        let told: Value = serde_json::from_slice(&made.get_output().stdout).unwrap();
        assert_eq!((&told["preset"], &told["dtype"]), (&preset.into(), &"float32".into()));
        let policy = Policy::load(&dir).unwrap();
        assert_eq!(told["parameters"], policy.config().parameter_count());
        let tokenizer = Tokenizer::from_dir(&dir).unwrap();
        assert_eq!(tokenizer.len(), policy.config().vocab_size);
        assert_eq!(tokenizer.stop_ids(), policy.config().eos_token_ids);
        let chat = tokenizer.render(&[ChatMessage::user("a lamp?")], Generation::Prompt).unwrap();
        let request =
            Request { prompt: tokenizer.encode(&chat).unwrap().into(), samples: 1, stream: 1 };
        let sampling = Sampling { max_new_tokens: 8, ..Sampling::default() };
        let drawn = policy.generate(&[request], &sampling, &|_| {}).unwrap().remove(0).remove(0);
        let text = tokenizer.decode(&drawn.ids, Special::Keep).unwrap();
        assert!(!text.is_empty(), "{drawn:?}");
    }
}

#[test]
fn the_same_seed_makes_the_same_model_and_bf16_takes_half_the_room() {
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
fn a_folder_with_something_in_it_is_not_written_to() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("notes.txt"), "mine").unwrap();
    let refused = make_model("tiny-llama", folder.path()).code(2);
    let told = String::from_utf8_lossy(&refused.get_output().stderr).into_owned();
    assert!(told.contains("is not empty, want a new folder"), "{told}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

fn ops(arguments: &[&str]) -> Value {
    let mut command = Command::new(binary());
    let done = command.args(["bench", "ops", "--json"]).args(arguments).assert().success();
    serde_json::from_slice(&done.get_output().stdout).unwrap()
}

#[test]
fn every_operation_gives_what_its_plain_form_gives() {
    let told = ops(&["--check"]);
    let ops = told["ops"].as_array().unwrap();
    for name in ["linear", "attention", "paged attention", "rms_norm", "lm_head", "muon"] {
        assert!(ops.iter().any(|op| op["name"] == name && op["holds"] == true), "{name}: {told}");
    }
}

#[test]
fn an_operation_is_timed_beside_the_machines_limits() {
    let told = ops(&["--only", "swiglu"]);
    for figure in ["peak_gflops_f32", "read_gb_per_s", "copy_gb_per_s"] {
        assert!(told["machine"][figure].as_f64().unwrap() > 0.0, "{figure}: {told}");
    }
    let ops = told["ops"].as_array().unwrap();
    assert_eq!(ops.len(), 3, "{told}");
    for op in ops {
        assert_eq!(op["bound"], "memory");
        assert!(
            op["seconds"].as_f64().unwrap() > 0.0 && op["share_of_limit"].as_f64().unwrap() > 0.0
        );
    }
}

#[test]
fn the_type_of_the_products_is_told() {
    assert_eq!(measured(&["generate"])["dtype"], "float32");
    assert_eq!(measured(&["generate", "--precision", "bf16"])["dtype"], "bfloat16");
    assert_eq!(measured(&["grpo", "--precision", "bf16"])["dtype"], "bfloat16");
}
