//! `embodied-r rewards score` on saved outputs, with and without a judge.

use std::process::{Command, Output};

use embodied_r_test_server::{Response, Server};
use embodied_r_tests::{binary, stderr, stdout, tiny_model};
use serde_json::{Value, json};

/// Three outputs: correct and well formed, wrong, and correct without reasoning.
fn outputs() -> String {
    let question = "Frame 0: Observe: a purple elephant\n>\nQuestion: Where is the lamp?\n\n\
                    Choices:\nA. Left\nB. Right";
    [
        "<think>Past the door.</think>\n<answer>B. Right</answer>",
        "<think>Before the door.</think><answer>A or B</answer>",
        "<answer>$\\boxed{b}$</answer>",
    ]
    .map(|completion| {
        json!({"question": question, "solution": "B", "completion": completion}).to_string() + "\n"
    })
    .concat()
}

/// Runs `rewards score` on a file with `text`.
fn score(text: &str, arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("outputs.jsonl"), text).unwrap();
    Command::new(binary())
        .args(["rewards", "score", "outputs.jsonl"])
        .args(arguments)
        .current_dir(folder.path())
        .env_remove("OPENAI_API_KEY")
        .output()
        .unwrap()
}

#[test]
fn each_output_is_one_json_line_with_reasons() {
    let output = score(&outputs(), &["--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    insta::assert_snapshot!(stdout(&output), @r#"
    {"accuracy":1.0,"format":1.0,"consistency":null,"answer":"B","why":{}}
    {"accuracy":0.0,"format":1.0,"consistency":null,"answer":null,"why":{"accuracy":"the answer names several options: A, B"}}
    {"accuracy":1.0,"format":0.0,"consistency":null,"answer":"B","why":{"format":"`<think>` is missing"}}
    "#);
}

#[test]
fn the_table_ends_with_the_means() {
    let output = score(&outputs(), &[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    insta::assert_snapshot!(stdout(&output), @r"
       # accuracy format consistency answer  why
       1     1.00   1.00           –      B
       2     0.00   1.00           –      –  accuracy: the answer names several options: A, B
       3     1.00   0.00           –      B  format: `<think>` is missing
    mean    0.667  0.667           –
    ");
}

#[test]
fn the_official_format_is_scored_alike() {
    let record = json!([{"Question_id": 1, "question": "Question: how many?", "answer": "10",
        "content": "<think>many</think><answer>9 chairs</answer>", "response": null}]);
    let output = score(&record.to_string(), &["--json"]);
    let line: Value = serde_json::from_str(stdout(&output)).unwrap();
    assert_eq!((&line["accuracy"], &line["answer"]), (&json!(0.9), &json!("9")));
}

#[test]
fn the_judge_gets_only_question_and_reasoning_of_correct_answers() {
    let judge = Server::chat(|_| Response::completion("B."));
    let url = judge.base_url();
    let output = score(&outputs(), &["--json", "--judge-base-url", &url, "--judge-model", "ref"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let scores: Vec<Value> = stdout(&output)
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["consistency"].clone())
        .collect();
    assert_eq!(scores, [json!(1.0), json!(0.0), json!(0.0)]);

    let requests = judge.bodies();
    assert_eq!(requests.len(), 1);
    let request = &requests[0];
    assert_eq!(request["model"], "ref");
    assert_eq!((&request["temperature"], &request["max_tokens"]), (&json!(0.1), &json!(10)));
    let text = request["messages"].to_string();
    assert!(text.contains("Where is the lamp?") && text.contains("Past the door."), "{text}");
    assert!(!text.contains("elephant") && !text.contains("<answer>"), "{text}");
}

#[test]
fn a_judge_that_chooses_another_answer_makes_the_score_0() {
    let judge = Server::chat(|_| Response::completion("A"));
    let url = judge.base_url();
    let output = score(&outputs(), &["--json", "--judge-base-url", &url, "--judge-model", "ref"]);
    let first: Value = serde_json::from_str(stdout(&output).lines().next().unwrap()).unwrap();
    assert_eq!(first["consistency"], json!(0.0));
    assert_eq!(first["why"]["consistency"], "the judge chose A, the answer is B");
}

#[test]
fn a_request_that_the_judge_refuses_has_no_score_and_is_reported() {
    let judge = Server::chat(|_| Response::new(400, "too long"));
    let url = judge.base_url();
    let output = score(&outputs(), &["--json", "--judge-base-url", &url, "--judge-model", "ref"]);
    assert_eq!(output.status.code(), Some(1));
    let first: Value = serde_json::from_str(stdout(&output).lines().next().unwrap()).unwrap();
    assert_eq!(first["consistency"], Value::Null);
    assert!(stderr(&output).contains("the judge failed on 1 of "));
}

#[test]
fn a_judge_without_the_model_ends_the_run() {
    let judge = Server::chat(|_| Response::new(404, "no such model"));
    let url = judge.base_url();
    let output = score(&outputs(), &["--judge-base-url", &url, "--judge-model", "ref"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("returned 404: no such model"), "{}", stderr(&output));
    assert_eq!(stdout(&output), "");
}

#[test]
fn a_local_model_judges_in_process() {
    let folder = tempfile::tempdir().unwrap();
    tiny_model::write(folder.path());
    let output = score(&outputs(), &["--json", "--judge-model", folder.path().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let lines: Vec<Value> =
        stdout(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    // The weights are random, so its reply names no option.
    let why = lines[0]["why"]["consistency"].as_str().unwrap();
    assert_eq!(lines[0]["consistency"], json!(0.0));
    assert!(why.starts_with("the judge"), "{why}");
    assert_eq!(lines[1]["why"]["consistency"], "the answer is wrong");
}

#[test]
fn a_wrong_record_is_one_error_with_its_line_and_field() {
    let text = format!("{}{}", outputs(), json!({"question": "q", "solution": "B"}));
    let output = score(&text, &[]);
    assert_eq!(output.status.code(), Some(1));
    insta::assert_snapshot!(stderr(&output), @r"
    error: `completion` in line 4 of `outputs.jsonl` is missing
    hint: records need `question`, `answer` and `content`, or `question`, `solution` and `completion`
    ");
}

#[test]
fn wrong_usage_exits_with_two() {
    for arguments in [
        &["--judge-base-url", "http://localhost:1/v1"][..],
        &["--judge-base-url", "nowhere", "--judge-model", "ref"],
        &["--judge-api-key-env", "KEY"],
        &["--xml"],
    ] {
        let output = score(&outputs(), arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
    }
}
