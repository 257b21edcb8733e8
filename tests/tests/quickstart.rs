//! `embodied-r quickstart` from outside, on a handful of rooms and with hardly any training.

use assert_cmd::Command;
use embodied_r_tests::binary;

/// A step of each kind of stage, with the judge in the second.
const STAGES: &str = "stage=[{steps = 1, weights = {format = 0.7, accuracy = 0.3}}, \
                      {steps = 1, weights = {format = 0.1, accuracy = 0.7, consistency = 0.2}}]";

fn quickstart(out: &std::path::Path) -> String {
    let made = Command::new(binary())
        .args(["quickstart", "--rooms", "10", "--sft-set", "num_train_epochs=10"])
        .args(["--set", STAGES, "--set", "warmup_steps=0"])
        .args(["--set", "generation_batch_size=32", "--out"])
        .arg(out)
        .assert()
        .success();
    String::from_utf8(made.get_output().stdout.clone()).unwrap()
}

#[test]
fn the_whole_way_ends_with_a_table_and_a_page_and_is_not_gone_twice() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("quickstart");
    let told = quickstart(&out);
    for row in ["| cold start |", "| trained |", "| trained, captions shuffled |"] {
        assert!(told.contains(row), "{told}");
    }
    for step in ["sim rooms", "preprocess", "perceive", "sft", "train", "infer", "eval", "report"] {
        assert!(told.contains(&format!("$ embodied-r {step} ")), "{step}: {told}");
    }
    let page = std::fs::read_to_string(out.join("train/report.html")).unwrap();
    assert!(page.contains("</html>"), "{page}");

    let model = |name: &str| std::fs::read(out.join(name).join("model.safetensors")).unwrap();
    let trained = model("train/final");
    assert_ne!(trained, model("sft/final"), "GRPO changed nothing");
    let again = quickstart(&out);
    let table = |told: &str| {
        told[told.find("| rooms never seen").unwrap()..]
            .lines()
            .take(5)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(table(&again), table(&told));
    assert_eq!(model("train/final"), trained);
}

#[test]
fn what_the_program_cannot_do_is_refused_before_any_work() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("quickstart");
    for (asked, code, says) in [
        (["--device", "cuda"], 2, "`--features cuda`"),
        (["--gpus", "2"], 1, "this program was built without CUDA, and `--gpus` needs it"),
    ] {
        let mut command = Command::new(binary());
        let refused = command.arg("quickstart").args(asked).arg("--out").arg(&out).assert();
        let told = refused.code(code).get_output().stderr.clone();
        let told = String::from_utf8(told).unwrap();
        assert!(told.contains(says), "{told}");
    }
    assert!(!out.exists());
}
