//! `embodied-r quickstart` on a few rooms with minimal training.

use std::path::Path;

use assert_cmd::Command;
use embodied_r_sim::{Category, text_question};
use embodied_r_tests::{binary, stderr, stdout};

/// One step each of two stages, the second with the judge.
const STAGES: &str = "stage=[{steps = 1, weights = {format = 0.7, accuracy = 0.3}}, \
                      {steps = 1, weights = {format = 0.1, accuracy = 0.7, consistency = 0.2}}]";

/// The quickstart's standard output.
fn quickstart(out: &std::path::Path, more: &[&str]) -> String {
    let done = Command::new(binary())
        .args(["quickstart", "--examples", "8"])
        .args(if more.contains(&"--rooms") { [].as_slice() } else { &["--rooms", "10"] })
        .args(["--sft-set", "num_train_epochs=2", "--set", STAGES, "--set", "warmup_steps=0"])
        .args(["--set", "generation_batch_size=32"])
        .args(more)
        .arg("--output")
        .arg(out)
        .assert()
        .success();
    String::from_utf8(done.get_output().stdout.clone()).unwrap()
}

#[test]
fn a_run_ends_with_a_table_and_a_report_and_is_not_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("quickstart");
    let stdout = quickstart(&out, &[]);
    for row in ["| cold start |", "| trained |", "| captions shuffled |"] {
        assert!(stdout.contains(row), "{stdout}");
    }
    for step in ["sim rooms", "preprocess", "perceive", "sft", "train", "infer", "eval", "report"] {
        assert!(stdout.contains(&format!("$ embodied-r {step} ")), "{step}: {stdout}");
    }
    assert!(stdout.contains("the judge approves "), "{stdout}");
    assert!(stdout.contains("trained over cold start, accuracy of parsable replies: "), "{stdout}");
    let page = std::fs::read_to_string(out.join("train/report.html")).unwrap();
    assert!(page.contains("</html>"), "{page}");
    assert!(std::fs::read_to_string(out.join("curves.svg")).unwrap().contains("</svg>"));

    let model = |name: &str| std::fs::read(out.join(name).join("model.safetensors")).unwrap();
    let trained = model("train/final");
    Command::new(binary())
        .args(["merge".into(), "--model".into(), out.join("base"), "--adapter".into()])
        .args([out.join("sft/final"), "--output".into(), out.join("cold-start")])
        .args(["--dtype", "float32"])
        .assert()
        .success();
    let start = model("cold-start");
    assert_eq!(trained.len(), start.len());
    assert_ne!(trained, start, "GRPO changed nothing");
    let results = std::fs::read_to_string(out.join("results.json")).unwrap();
    let results: serde_json::Value = serde_json::from_str(&results).unwrap();
    let claims = results["claims"].as_array().unwrap();
    for claim in claims {
        let outcome = if claim["holds"] == true { "holds" } else { "FAILS" };
        let line = format!("{outcome}  {}\n", claim["text"].as_str().unwrap());
        assert!(stdout.contains(&line), "{line}{stdout}");
    }
    assert!(claims.iter().any(|claim| claim["holds"] == false), "two steps hold all: {stdout}");

    // Claims are about the default numbers and settings, so that one that fails here is no failure.
    let second = quickstart(&out, &["--strict"]);
    assert!(second.contains("with others `--strict` does not fail"), "{second}");
    let table = |stdout: &str| {
        stdout[stdout.find("| rooms never seen").unwrap()..]
            .lines()
            .take(5)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(table(&second), table(&stdout));
    assert_eq!(model("train/final"), trained);
}

#[test]
fn a_full_run_adds_baselines_and_json_prints_the_results_alone() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("quickstart");
    let stdout = quickstart(&out, &["--full", "--json", "--seed", "3"]);
    assert_eq!(std::fs::read_to_string(out.join("results.json")).unwrap(), stdout);
    let results: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(results["seed"], 3);
    assert!(results["seconds"].as_f64().unwrap() > 0.0);
    let rows = results["rows"].as_array().unwrap();
    let names: Vec<&str> = rows.iter().map(|row| row["name"].as_str().unwrap()).collect();
    let expected = [
        "cold start",
        "trained",
        "captions shuffled",
        "sft",
        "sft answers",
        "rejection sampling",
        "random rewards",
        "shuffled in training",
    ];
    assert_eq!(names, expected);
    for row in rows {
        for share in
            ["accuracy", "parsable", "accuracy_of_parsable", "reasons", "sound_at_1", "sound_at_8"]
        {
            let value = row[share].as_f64().unwrap();
            assert!((0.0..=100.0).contains(&value), "{share}: {row}");
        }
        let (accuracy, n) = (row["accuracy"].as_f64().unwrap(), row["n"].as_f64().unwrap());
        let stderr = (accuracy * (100.0 - accuracy) / n).sqrt();
        assert!((row["stderr"].as_f64().unwrap() - stderr).abs() < 1e-6, "{row}");
    }
    // Eight worked examples and twenty of the judge's task.
    let supervised = |name: &str| {
        let row = rows.iter().find(|row| row["name"] == name).unwrap();
        row["supervised_examples"].as_u64().unwrap()
    };
    assert_eq!(supervised("trained"), 28);
    let lines =
        |name: &str| std::fs::read_to_string(out.join(name)).unwrap().lines().count() as u64;
    assert_eq!(lines("conversations.jsonl"), 28);
    assert_eq!(supervised("sft answers"), lines("answers-only.jsonl"));
    assert_eq!(supervised("rejection sampling"), 28 + lines("accepted.jsonl"));
}

#[test]
fn a_run_from_frames_compares_the_model_with_three_that_do_not_see_them() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("quickstart");
    let stdout = quickstart(&out, &["--vision", "--full", "--rooms", "45", "--json"]);
    let results: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    let rows = results["rows"].as_array().unwrap();
    let names: Vec<&str> = rows.iter().map(|row| row["name"].as_str().unwrap()).collect();
    let blind = ["frames of other rooms", "grey frames", "no images"];
    assert_eq!(
        names,
        [&["cold start", "trained"][..], &blind, &["sft", "random rewards"]].concat()
    );
    assert!(rows.iter().all(|row| row["n"] == 15));
    assert!(std::fs::read_to_string(out.join("train/report.html")).unwrap().contains("</html>"));

    let questions = |name: &str| {
        let path = out.join("views").join(format!("test_{name}.json"));
        let text = std::fs::read_to_string(path).unwrap();
        serde_json::from_str::<Vec<serde_json::Value>>(&text).unwrap()
    };
    let own = questions("data");
    for (own, other) in own.iter().zip(questions("other")) {
        assert_eq!(own["question"], other["question"]);
        assert_ne!(own["images"], other["images"]);
    }
    for grey in questions("grey") {
        assert_eq!(grey["images"], serde_json::json!(vec!["grey.png"; 4]));
    }
    for none in questions("none") {
        assert!(none.get("images").is_none());
        let text = none["question"].as_str().unwrap();
        assert!(!text.contains("<image>") && text.contains(", Observe: "), "{text}");
    }
    let model = |name: &str| std::fs::read(out.join(name).join("model.safetensors")).unwrap();
    assert_ne!(model("train/final"), model("sft/final"), "GRPO changed nothing");
}

#[test]
fn unsupported_devices_are_refused_before_any_work() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("quickstart");
    for (arguments, code, reason) in [
        (["--device", "cuda"], 2, "`--features cuda`"),
        (["--gpus", "2"], 2, "`--gpus` needs CUDA, and this program was built without it"),
    ] {
        let mut command = Command::new(binary());
        let refused = command.arg("quickstart").args(arguments).arg("--output").arg(&out).assert();
        let refused = refused.code(code);
        let stderr = stderr(refused.get_output());
        assert!(stderr.contains(reason), "{stderr}");
    }
    assert!(!out.exists());
}

/// Questions of the quickstart's categories, each about a room of its own.
fn write_room_questions(path: &Path, seed: u64, count: u64) {
    let categories = [
        Category::AppearanceOrder,
        Category::LandmarkPosition,
        Category::ActionGeneration,
        Category::ProgressEvaluation,
    ];
    let questions: Vec<_> = (0..count)
        .map(|index| {
            let mut question = text_question(seed, index, &categories).unwrap().perceived();
            question.question_id = index.into();
            question
        })
        .collect();
    std::fs::write(path, serde_json::to_vec(&questions).unwrap()).unwrap();
}

#[test]
fn sft_on_answers_alone_leaves_the_base_at_chance() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    write_room_questions(&path("train.json"), 1, 60);
    write_room_questions(&path("test.json"), 2, 400);
    Command::new(binary())
        .args(["sim", "conversations", "--answers-only", "--judge-examples", "0", "--data"])
        .args([path("train.json"), "--output".into(), path("answers.jsonl")])
        .assert()
        .success();
    Command::new(binary())
        .args(["sft", "--config"])
        .args([root.join("configs/quickstart-sft.toml"), "--model".into()])
        .args([root.join("crates/cli/base"), "--data".into(), path("answers.jsonl")])
        .args(["--output".into(), path("sft")])
        .args(["--set", "num_train_epochs=32"])
        .assert()
        .success();
    let done = Command::new(binary())
        .args(["eval", "--json", "--model"])
        .args([path("sft/final"), "--data".into(), path("test.json")])
        .assert()
        .success();
    let scores: serde_json::Value = serde_json::from_str(stdout(done.get_output())).unwrap();
    // 25 % by chance, with a standard error of 2.2 points: at most 3.7 of them above.
    let accuracy = scores["micro"].as_f64().unwrap();
    assert!((10.0..33.0).contains(&accuracy), "{scores}");
}
