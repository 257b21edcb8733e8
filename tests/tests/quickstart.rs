//! `embodied-r quickstart` on a few rooms with minimal training.

use assert_cmd::Command;
use embodied_r_tests::{binary, stderr};

/// One step each of two stages, the second with the judge.
const STAGES: &str = "stage=[{steps = 1, weights = {format = 0.7, accuracy = 0.3}}, \
                      {steps = 1, weights = {format = 0.1, accuracy = 0.7, consistency = 0.2}}]";

fn quickstart(out: &std::path::Path) -> String {
    let done = Command::new(binary())
        .args(["quickstart", "--rooms", "10", "--sft-set", "num_train_epochs=4"])
        .args(["--set", STAGES, "--set", "warmup_steps=0"])
        .args(["--set", "generation_batch_size=32", "--output"])
        .arg(out)
        .assert()
        .success();
    String::from_utf8(done.get_output().stdout.clone()).unwrap()
}

#[test]
fn a_run_ends_with_a_table_and_a_report_and_is_not_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("quickstart");
    let stdout = quickstart(&out);
    for row in ["| cold start |", "| trained |", "| trained, captions shuffled |"] {
        assert!(stdout.contains(row), "{stdout}");
    }
    for step in ["sim rooms", "preprocess", "perceive", "sft", "train", "infer", "eval", "report"] {
        assert!(stdout.contains(&format!("$ embodied-r {step} ")), "{step}: {stdout}");
    }
    let page = std::fs::read_to_string(out.join("train/report.html")).unwrap();
    assert!(page.contains("</html>"), "{page}");

    let model = |name: &str| std::fs::read(out.join(name).join("model.safetensors")).unwrap();
    let trained = model("train/final");
    assert_ne!(trained, model("sft/final"), "GRPO changed nothing");
    let second = quickstart(&out);
    let table = |stdout: &str| {
        stdout[stdout.find("| held-out rooms").unwrap()..]
            .lines()
            .take(5)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(table(&second), table(&stdout));
    assert_eq!(model("train/final"), trained);
}

#[test]
fn unsupported_devices_are_refused_before_any_work() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("quickstart");
    for (arguments, code, reason) in [
        (["--device", "cuda"], 2, "`--features cuda`"),
        (["--gpus", "2"], 1, "`--gpus` needs CUDA, and this program was built without it"),
    ] {
        let mut command = Command::new(binary());
        let refused = command.arg("quickstart").args(arguments).arg("--output").arg(&out).assert();
        let refused = refused.code(code);
        let stderr = stderr(refused.get_output());
        assert!(stderr.contains(reason), "{stderr}");
    }
    assert!(!out.exists());
}
