//! `embodied-r eval`: predictions by each protocol, and the out-of-domain benchmarks.

use std::path::Path;
use std::process::{Command, Output};

use embodied_r_tests::{binary, stderr, stdout, tiny_model};
use serde_json::{Value, json};

/// Runs `eval` on a file of predictions.
fn eval(predictions: &str, arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    eval_in(folder.path(), predictions, arguments)
}

fn eval_in(folder: &Path, predictions: &str, arguments: &[&str]) -> Output {
    std::fs::write(folder.join("answers.jsonl"), predictions).unwrap();
    Command::new(binary())
        .args(["eval", "--predictions", "answers.jsonl"])
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap()
}

/// JSONL of `(category, solution, prediction)`.
fn lines(rows: &[(&str, Value, Value)]) -> String {
    let line = |(id, (category, solution, prediction)): (usize, &(&str, Value, Value))| {
        json!({"id": id, "category": category, "solution": solution, "prediction": prediction})
            .to_string()
            + "\n"
    };
    rows.iter().enumerate().map(line).collect()
}

#[test]
fn categories_of_no_benchmark_are_warned_of() {
    let row = |category| (category, json!("A"), json!("A"));
    let warned = |categories: &[&'static str], more: &[&str]| {
        let rows: Vec<_> = categories.iter().copied().map(row).collect();
        stderr(&eval(&lines(&rows), more)).to_owned()
    };
    let text = warned(&["Landmark Positon", "d", "", "b", "d", "c"], &[]);
    assert!(text.contains("(`Landmark Positon`, `b`, `c`, …): they are scored"), "{text}");
    assert_eq!(warned(&["", ""], &[]), "");
    assert_eq!(warned(&["b"], &["--protocol", "accuracy"]), "");
    assert_eq!(warned(&["Landmark Position"], &[]), "");
}

/// Answers in every kind of VSI-Bench category.
fn vsi_rows() -> String {
    lines(&[
        ("object_rel_direction_easy", json!("A"), json!("a.")),
        ("object_rel_direction_easy", json!("B"), json!("B")),
        ("object_rel_direction_medium", json!("B"), json!("A")),
        ("object_rel_direction_hard", json!("D"), json!("D. back-left")),
        ("route_planning", json!("C"), json!("The answer is C")),
        ("object_counting", json!(10), json!("9 chairs")),
        ("room_size_estimation", json!("20.0"), json!("about 20")),
    ])
}

#[test]
fn vsi_bench_follows_the_official_rules_and_means() {
    let output = eval(&vsi_rows(), &["--protocol", "vsi-bench", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let report: Value = serde_json::from_str(stdout(&output)).unwrap();
    let direction = 100.0 * (1.0 + 0.0 + 1.0) / 3.0;
    let overall = (90.0 + 0.0 + direction + 0.0) / 4.0;
    assert_eq!(report["n"], json!(7));
    assert_eq!(report["by_category"]["object_rel_direction"]["n"], json!(4));
    for (value, expected) in [
        (&report["by_category"]["object_rel_direction"]["score"], direction),
        (&report["by_category"]["object_counting"]["score"], 90.0),
        (&report["overall"], overall),
        (&report["macro"], overall),
        (&report["micro"], 100.0 * 3.9 / 7.0),
    ] {
        assert!((value.as_f64().unwrap() - expected).abs() < 1e-9, "{value} {expected}");
    }
}

#[test]
fn the_json_has_its_fields_and_no_other() {
    let rows = lines(&[
        ("object_rel_direction_easy", json!("A"), json!("A")),
        ("object_rel_direction_hard", json!("A"), json!("A")),
        ("object_rel_direction_hard", json!("A"), json!("B")),
        ("Counterfactual", json!("A"), json!("(A)")),
    ]);
    let output = eval(&rows, &["--json"]);
    insta::assert_snapshot!(stdout(&output), @r#"{"benchmark":"embodied-r","protocol":"embodied-r","scorer":"official","prompt":null,"frames":null,"data_sha256":null,"n":4,"answered":4,"missing":0,"unparsed":0,"partial":true,"overall":75.0,"micro":75.0,"macro":83.33333333333334,"by_category":{"Counterfactual":{"score":100.0,"n":1},"object_rel_direction":{"score":66.66666666666667,"n":3}},"questions":[{"id":"0","extracted":"A","score":1.0},{"id":"1","extracted":"A","score":1.0},{"id":"2","extracted":"B","score":0.0},{"id":"3","extracted":"A","score":1.0}]}"#);
}

#[test]
fn questions_about_robots_are_scored_by_kind() {
    let record = |id: u32, kind: &str, answer: &str| {
        let content = format!("<think>x</think><answer>{answer}</answer>");
        json!({"Question_id": id, "kind": kind, "question": "?", "answer": "B", "content": content})
    };
    let rows = [
        record(1, "waypoint", "[[B]]"),
        record(2, "state", "(A)"),
        record(3, "movement", "B"),
        record(4, "state", "[[B]] [0.1, 0.2, 0.3]"),
    ];
    let output = eval(&json!(rows).to_string(), &["--json"]);
    insta::assert_snapshot!(stdout(&output), @r#"{"benchmark":"robot-r1","protocol":"robot-r1","scorer":"official","prompt":null,"frames":null,"data_sha256":null,"n":4,"answered":4,"missing":0,"unparsed":0,"partial":false,"overall":75.0,"micro":75.0,"macro":83.33333333333333,"by_category":{"waypoint":{"score":100.0,"n":1},"state":{"score":50.0,"n":2},"movement":{"score":100.0,"n":1}},"questions":[{"id":"1","extracted":"B","score":1.0},{"id":"2","extracted":"A","score":0.0},{"id":"3","extracted":"B","score":1.0},{"id":"4","extracted":"B","score":1.0}]}"#);
    assert_eq!(stderr(&output), "");
}

#[test]
fn urbanvideo_bench_reads_the_option_line_and_skips_missing_answers() {
    let rows = lines(&[
        ("Causal", json!("B"), json!("Option: [B]; Reason: [the road is closed]")),
        ("Causal", json!("B"), Value::Null),
        ("Duration", json!("A"), json!("Option: a")),
    ]);
    let output = eval(&rows, &["--protocol", "urbanvideo-bench", "--json"]);
    let report: Value = serde_json::from_str(stdout(&output)).unwrap();
    assert_eq!((&report["n"], &report["overall"]), (&json!(2), &json!(50.0)));
    assert!(
        stderr(&output).contains("1 question without a prediction: skipped"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn the_answer_tag_of_official_records_is_scored() {
    let record = |id: u32, content: Value| {
        json!({"Question_id": id, "question_category": "route_planning", "question": "q",
            "answer": "B", "content": content, "response": null})
    };
    let records = json!([
        record(1, json!("<think>A. is wrong</think><answer> B. left </answer>")),
        record(2, json!("<think>so</think> B")),
        record(3, Value::Null),
    ]);
    for protocol in ["embodied-r", "vsi-bench"] {
        let output = eval(&records.to_string(), &["--protocol", protocol, "--json"]);
        let report: Value = serde_json::from_str(stdout(&output)).unwrap();
        assert_eq!(report["n"], json!(3));
        assert!((report["overall"].as_f64().unwrap() - 100.0 / 3.0).abs() < 1e-9);
        assert!(stderr(&output).contains("no closed `<answer>` tag: counted as wrong"));
        assert!(stderr(&output).contains("without a prediction: counted as wrong"));
    }
}

#[test]
fn the_table_includes_the_published_rows() {
    let output = eval(
        &lines(&[("Causal", json!("B"), json!("B"))]),
        &["--protocol", "urbanvideo-bench", "--name", "mine"],
    );
    let text = stdout(&output);
    assert!(text.contains("| Causal "), "{text}");
    assert!(text.contains("| **mine** (1 of 5355 questions) "), "{text}");
    assert!(text.contains("| GPT-4o (32 frames) "), "{text}");
    assert_eq!(stderr(&output), "");
}

#[test]
fn right_answers_repeated_are_refused_and_do_not_raise_the_score() {
    let record = |id: u32, video: &str, content: &str| {
        json!({"Question_id": id, "video_id": video, "question_category": "Causal",
            "question": "q", "answer": "B", "content": format!("<answer>{content}</answer>")})
    };
    // Identifiers repeat across the benchmarks.
    let records = [record(1, "a.mp4", "B"), record(2, "a.mp4", "A"), record(1, "b.mp4", "B")];
    let score = eval(&json!(records).to_string(), &["--protocol", "urbanvideo-bench", "--json"]);
    assert_eq!(score.status.code(), Some(0), "{}", stderr(&score));
    let repeated = json!([&records[..], &records[..1]].concat());
    let output = eval(&repeated.to_string(), &["--protocol", "urbanvideo-bench", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        stderr(&output),
        "error: question `1` about `a.mp4` is in record 1 of `answers.jsonl` and again in record 4 of `answers.jsonl`: a \
         question counts once\nhint: remove the repeated records\n"
    );
    assert_eq!(stdout(&output), "");
}

#[test]
fn answers_that_a_file_leaves_out_count_as_wrong_against_the_question_set() {
    let dir = tempfile::tempdir().unwrap();
    let question = |id: u32| {
        json!({"Question_id": id, "video_id": "a.mp4", "question_category": "Causal",
            "question": "q", "answer": "B"})
    };
    let questions = json!([question(1), question(2), question(3), question(4)]);
    std::fs::write(dir.path().join("test.json"), questions.to_string()).unwrap();
    // Only the right answers, one of them by a forged reference answer.
    let rows = lines(&[
        ("other", json!("A"), json!("Option: A")),
        ("Causal", json!("A"), json!("Option: A")),
        ("Causal", json!("B"), json!("Option: B")),
    ]);
    let words = ["--protocol", "urbanvideo-bench", "--json"];
    let alone = eval_in(dir.path(), &rows, &words);
    let report: Value = serde_json::from_str(stdout(&alone)).unwrap();
    assert_eq!((&report["n"], &report["overall"]), (&json!(2), &json!(100.0)));
    let expected = "5353 of the benchmark's 5355 questions have no record and are not in the scores; with `--data FILE`";
    assert!(stderr(&alone).contains(expected), "{}", stderr(&alone));

    let matched = eval_in(dir.path(), &rows, &[&words[..], &["--data", "test.json"]].concat());
    assert_eq!(matched.status.code(), Some(0), "{}", stderr(&matched));
    let report: Value = serde_json::from_str(stdout(&matched)).unwrap();
    assert_eq!((&report["n"], &report["overall"]), (&json!(4), &json!(25.0)));
    for expected in [
        "2 questions without an answer: counted as wrong",
        "records of questions that are not in `--data` are left out: 1",
        "whose reference answer is not that of `--data`, which is used: 1",
    ] {
        assert!(stderr(&matched).contains(expected), "{}", stderr(&matched));
    }
    assert!(!stderr(&matched).contains("have no record"), "{}", stderr(&matched));
}

#[test]
fn predictions_of_other_questions_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let question =
        json!([{"Question_id": 77, "question_category": "Causal", "question": "q", "answer": "B"}]);
    std::fs::write(dir.path().join("test.json"), question.to_string()).unwrap();
    let rows = lines(&[("Causal", json!("B"), json!("B"))]);
    let output = eval_in(dir.path(), &rows, &["--data", "test.json"]);
    assert_eq!(output.status.code(), Some(1));
    let expected = "error: none of the 1 records is of a question in the question set\nhint: ";
    assert!(stderr(&output).starts_with(expected), "{}", stderr(&output));
}

#[test]
fn the_report_is_saved_as_json_and_markdown() {
    let folder = tempfile::tempdir().unwrap();
    let output = eval_in(
        folder.path(),
        &vsi_rows(),
        &["--protocol", "vsi-bench", "--json", "--output", "results/eval"],
    );
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let read = |name: &str| std::fs::read_to_string(folder.path().join("results/eval").join(name));
    assert_eq!(read("vsi-bench.json").unwrap(), stdout(&output));
    assert!(read("vsi-bench.md").unwrap().starts_with("# vsi-bench\n"));
}

#[test]
fn categories_of_other_benchmarks_are_skipped_with_a_warning() {
    let rows = lines(&[
        ("route_planning", json!("B"), json!("B")),
        ("object_counting", json!("4"), json!("4")),
    ]);
    let output = eval(&rows, &["--json"]);
    let report: Value = serde_json::from_str(stdout(&output)).unwrap();
    assert_eq!(report["n"], json!(1));
    assert!(stderr(&output).contains("skipped: `object_counting` (1)"), "{}", stderr(&output));
}

#[test]
fn bad_records_are_one_error_each() {
    let question = json!([{"Question_id": 1, "question_category": "Causal", "question": "q",
        "answer": "B"}])
    .to_string();
    for (text, message) in [
        (
            "{\"id\": 1, \"category\": \"Causal\", \"prediction\": \"B\"}".to_owned(),
            "error: `solution` in line 1 of `answers.jsonl` is missing\n",
        ),
        ("{\"id\": 1,\n".to_owned(), "error: cannot parse line 1 of `answers.jsonl`: "),
        (String::new(), "error: `answers.jsonl` has no records\n"),
        (question, "error: none of the 1 records has a `content` or a `prediction`\n"),
        (
            lines(&[("Causal", json!("B"), json!("B"))]),
            "error: `vsi-bench` scores none of the records' categories: Causal\n",
        ),
        (
            lines(&[("object_counting", json!("four"), json!("4"))]),
            "error: the solution `four` of question `0` in `object_counting` is not a number\n",
        ),
    ] {
        let output = eval(&text, &["--protocol", "vsi-bench"]);
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
        assert!(stderr(&output).starts_with(message), "{}", stderr(&output));
        assert_eq!(stdout(&output), "");
    }
}

#[test]
fn wrong_usage_exits_with_two() {
    let no_input = Command::new(binary()).arg("eval").output().unwrap();
    assert_eq!(no_input.status.code(), Some(2));
    let unknown = eval(&vsi_rows(), &["--protocol", "vsi"]);
    assert_eq!(unknown.status.code(), Some(2));
}

/// EgoSchema's questions: one about the built-in room with the video `Room_0_0.mp4`, and one without a
/// published answer.
fn egoschema(folder: &Path) {
    let question = |id: &str| {
        json!({"q_uid": id, "question": "What is ahead at the end?", "option 0": "a bed",
            "option 1": "a lamp", "option 2": "a sofa", "option 3": "a plant", "option 4": "a desk"})
    };
    std::fs::create_dir_all(folder.join("ego")).unwrap();
    let write = |name: &str, value: Value| {
        std::fs::write(folder.join("ego").join(name), value.to_string()).unwrap();
    };
    write("questions.json", json!([question("unknown"), question("Room_0_0")]));
    write("subset_answers.json", json!({"Room_0_0": 2}));
}

fn embodied_r(folder: &Path, words: &[&str]) -> Output {
    Command::new(binary()).current_dir(folder).args(words).output().unwrap()
}

#[test]
fn egoschema_is_captioned_answered_and_scored_in_one_command() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    tiny_model::write(&folder.join("model"));
    egoschema(folder);
    let rooms = ["sim", "rooms", "--output", "rooms", "--rooms", "1"];
    let simulated =
        embodied_r(folder, &[&rooms[..], &["--categories", "Landmark Position"]].concat());
    assert_eq!(simulated.status.code(), Some(0), "{}", stderr(&simulated));
    let words = ["eval", "--data", "ego", "--model", "model", "--max-new-tokens", "4", "--json"];
    let captioner = ["--scenes", "rooms/scenes", "--video-dir", "rooms/UrbanVideo-Bench/videos"];
    let output = embodied_r(folder, &[&words[..], &captioner, &["--output", "out"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stderr(&output).contains("skipping 1 of 2 questions without a published answer"));
    let last = stdout(&output).lines().last().unwrap();
    let report: Value = serde_json::from_str(last).unwrap();
    assert_eq!((&report["protocol"], &report["n"]), (&json!("egoschema"), &json!(1)));
    let answers = std::fs::read(folder.join("out/answers.json")).unwrap();
    let answers: Vec<Value> = serde_json::from_slice(&answers).unwrap();
    let prompt = answers[0]["question"].as_str().unwrap();
    let question = "Question: What is ahead at the end?\n\nChoices:\nA. a bed\nB. a lamp\nC. a sofa\n\
                 D. a plant\nE. a desk";
    assert!(prompt.contains("Frame 0:") && prompt.ends_with(question), "{prompt}");
    assert_eq!(answers[0]["answer"], json!("C"));
}

#[test]
fn a_benchmark_without_captions_is_refused_with_the_command_that_makes_them() {
    let folder = tempfile::tempdir().unwrap();
    egoschema(folder.path());
    let output = embodied_r(folder.path(), &["eval", "--data", "ego", "--model", "model"]);
    assert_eq!(output.status.code(), Some(2));
    let stderr = stderr(&output);
    assert!(stderr.contains("`embodied-r perceive --data ego/questions.json`"), "{stderr}");
    assert_eq!(stdout(&output), "");
}

#[test]
fn captioned_out_of_domain_benchmarks_select_their_own_protocol() {
    for (category, protocol) in [("egoschema", "egoschema"), ("egocentric_navigation", "mvbench")] {
        let rows =
            lines(&[(category, json!("E"), json!("e.")), (category, json!("A"), json!("B"))]);
        let output = eval(&rows, &["--json"]);
        let report: Value = serde_json::from_str(stdout(&output)).unwrap();
        assert_eq!((&report["protocol"], &report["overall"]), (&json!(protocol), &json!(50.0)));
        let table = eval(&rows, &[]);
        assert!(stdout(&table).contains("| Embodied-R after RL "), "{}", stdout(&table));
    }
}

#[test]
fn an_invalid_benchmark_is_one_error_with_record_and_field() {
    let folder = tempfile::tempdir().unwrap();
    let record = |answer: &str| json!({"video": "a.mp4", "question": "q", "candidates": ["Stop", "Go"], "answer": answer});
    let records = json!([record("Stop"), record("Fly")]).to_string();
    std::fs::write(folder.path().join("moves.json"), records).unwrap();
    let output = embodied_r(folder.path(), &["eval", "--data", "moves.json", "--model", "model"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        stderr(&output),
        "error: `answer` in record 2 of `moves.json`: `Fly` is not one of the candidates: Stop, Go\n"
    );
}
