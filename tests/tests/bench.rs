//! `embodied-r bench` from outside: that it measures, not what.

mod tiny_model;

use assert_cmd::Command;
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

#[test]
fn the_type_of_the_products_is_told() {
    assert_eq!(measured(&["generate"])["dtype"], "float32");
    assert_eq!(measured(&["generate", "--precision", "bf16"])["dtype"], "bfloat16");
    assert_eq!(measured(&["grpo", "--precision", "bf16"])["dtype"], "bfloat16");
}
