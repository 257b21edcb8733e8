//! Answers that point: scored, trained on and drawn.

use std::fs;
use std::path::Path;
use std::process::Command;

use assert_cmd::assert::OutputAssertExt as _;
use embodied_r_tests::{VisionModel, binary, events, stderr_of, stdout_of};
use serde_json::{Value, json};

/// A short run.
const SETTINGS: &str = "
learning_rate = 1e-3
warmup_ratio = 0.0
max_steps = 1
generation_batch_size = 8
num_generations = 4
max_completion_length = 8
reward_weights = { accuracy = 0.5, format = 0.5, repetition = 0.1 }
point_reward = { full = 60, recall = true }
";

fn command(dir: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.current_dir(dir).args(words);
    command
}

/// The scores of records.
fn scored(records: &[Value]) -> Vec<Value> {
    let dir = tempfile::tempdir().unwrap();
    let lines: String = records.iter().map(|record| format!("{record}\n")).collect();
    fs::write(dir.path().join("outputs.jsonl"), lines).unwrap();
    let printed =
        stdout_of(&mut command(dir.path(), &["rewards", "score", "outputs.jsonl", "--json"]));
    printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn saved_answers_that_point_have_accuracy_format_and_a_reason() {
    let record = |kind: &str, solution: &str, answer: &str| {
        json!({
            "question": "Where is the mug?", "solution": solution, "answer_type": kind,
            "coordinates": "pixels", "width": 640, "height": 480,
            "completion": format!("<think>so</think><answer>{answer}</answer>"),
        })
    };
    let found = scored(&[
        record(
            "points",
            r#"[{"point_2d": [320, 240]}]"#,
            "```json\n[{\"point_2d\": [320, 240]}]\n```",
        ),
        record("box", "[0, 0, 320, 240]", "(0, 0, 320, 480)"),
        record("trace", "[[0, 0], [320, 240]]", "[[0, 0], [320, 240], [320, 240]]"),
        record("point", "[320, 240]", "[320, 481]"),
    ]);
    let values = |name: &str| found.iter().map(|line| line[name].clone()).collect::<Vec<_>>();
    assert_eq!(values("format"), [json!(1.0), json!(1.0), json!(1.0), json!(1.0)]);
    assert_eq!(values("accuracy")[..2], [json!(1.0), json!(0.5)]);
    assert_eq!(values("accuracy")[3], json!(0.0));
    let reasons = values("reason");
    assert_eq!(reasons[0], Value::Null);
    assert_eq!(reasons[1], "an intersection over union of 0.500");
    assert!(reasons[2].as_str().unwrap().ends_with("; 3 points for 2"), "{}", reasons[2]);
    assert_eq!(reasons[3], "a coordinate is outside of the image: (320, 481)");
}

#[test]
fn embodied_r15s_records_are_scored_as_they_are() {
    let record = |answer: Value, completion: &str| {
        json!({
            "problem_id": 1, "problem": "Point at the mugs.", "problem_type": "point", "data_type": "image",
            "data_source": "x", "images": ["a.png"], "answer": answer, "completion": completion,
        })
    };
    let truth = json!([{"point_2d": [500, 500], "count": 1}]);
    let found = scored(&[
        record(truth.clone(), r#"so <answer>[{"point_2d": [500, 595]}]</answer>"#),
        record(truth, "so <answer>[500, 500]</answer>"),
        record(
            json!("[{\"segmentation\": [[0, 0, 10, 0, 10, 10, 0, 10]]}]"),
            r#"<answer>{"point_2d": [5, 5]}</answer>"#,
        ),
    ]);
    let line =
        |of: &Value| ["accuracy", "format", "overall"].map(|name| of[name].as_f64().unwrap());
    assert_eq!(line(&found[0])[..2], [0.5, 1.0]);
    assert!((line(&found[0])[2] - 0.55).abs() < 1e-9, "{}", found[0]);
    assert_eq!(line(&found[1]), [0.0; 3]);
    assert_eq!(line(&found[2]), [1.0; 3]);
}

#[test]
fn a_run_on_questions_that_point_shows_their_answers_on_the_frames() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    VisionModel::Nested.write(&dir.join("model"));
    fs::write(dir.join("run.toml"), SETTINGS).unwrap();
    let views = ["sim", "views", "--output", "views", "--answers", "point,box", "--seed", "3"];
    let counts = ["--train", "4", "--val", "0", "--test", "2"];
    command(dir, &views).args(counts).assert().success();
    let both = command(dir, &views).args(["--categories", "Action Generation"]).assert().code(2);
    assert!(String::from_utf8_lossy(&both.get_output().stderr).contains("cannot be used with"));

    let data = ["--data", "views/train_data.json"];
    let written = ["--questions", "2", "--judge-examples", "0", "--output", "views/worked.jsonl"];
    command(dir, &["sim", "conversations"]).args(data).args(written).assert().success();
    let worked = fs::read_to_string(dir.join("views/worked.jsonl")).unwrap();
    let worked: Vec<Value> = worked.lines().map(|it| serde_json::from_str(it).unwrap()).collect();
    for example in &worked {
        assert_eq!(example["images"].as_array().unwrap().len(), 1);
        let reply = example["messages"][2]["content"].as_str().unwrap();
        assert!(reply.contains(" m.</think><answer>["), "{reply}");
    }

    let train = ["train", "--config", "run.toml", "--model", "model", "--output", "run"];
    command(dir, &train).args(data).assert().success();
    let step = events(&dir.join("run"), "step").remove(0);
    assert!(step["rewards/accuracy/mean"].is_number(), "{step}");
    let settings = fs::read_to_string(dir.join("run/settings.toml")).unwrap();
    assert!(settings.contains("zero = 150.0"), "{settings}");
    let shown = stdout_of(&mut command(dir, &["show", "run", "--no-pager"]));
    assert!(shown.contains("o reference answer, x answer"), "{shown}");
    command(dir, &["report", "--run", "run"]).assert().success();
    let page = fs::read_to_string(dir.join("run/report.html")).unwrap();
    assert!(page.contains("<image href=\"data:image/jpeg;base64,"), "no image");
    assert!(page.contains("class=\"truth\""), "no reference answer");

    let questions: Vec<Value> =
        serde_json::from_slice(&fs::read(dir.join("views/test_data.json")).unwrap()).unwrap();
    let answers: String = questions
        .iter()
        .map(|question| {
            let prediction = &question["answer"];
            format!("{}\n", json!({"id": question["Question_id"], "prediction": prediction}))
        })
        .collect();
    fs::write(dir.join("answers.jsonl"), answers).unwrap();
    let eval =
        ["eval", "--predictions", "answers.jsonl", "--data", "views/test_data.json", "--json"];
    let scores: Value =
        serde_json::from_str(&stdout_of(command(dir, &eval).args(["--output", "scores"]))).unwrap();
    assert_eq!((&scores["overall"], &scores["n"]), (&json!(100.0), &json!(2)));
    let page = fs::read_to_string(dir.join("scores/accuracy.html")).unwrap();
    assert_eq!(page.matches("<image href").count(), 2);
}

#[test]
fn what_cannot_be_scored_is_named_before_the_first_step() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    VisionModel::Nested.write(&dir.join("model"));
    fs::write(dir.join("run.toml"), SETTINGS).unwrap();
    let train = ["train", "--config", "run.toml", "--model", "model", "--output", "run"];
    for (record, message) in [
        (
            json!({"answer": "B", "answer_type": "point"}),
            "the solution `B` is neither points nor regions",
        ),
        (json!({"answer": {"boxes": [1, 2, 3]}, "answer_type": "box"}), "is not one box"),
        (
            json!({"answer": [1, 2], "answer_type": "point", "coordinates": "pixels", "width": 3}),
            "`height` must be",
        ),
    ] {
        let mut record = record;
        record["problem"] = "Where is it?".into();
        fs::write(dir.join("train.jsonl"), format!("{record}\n")).unwrap();
        let mut run = command(dir, &train);
        let stderr = stderr_of(run.args(["--data", "train.jsonl"]), 1);
        assert!(stderr.contains(message) && stderr.contains("`accuracy` cannot score"), "{stderr}");
    }
    let setting = ["--data", "train.jsonl", "--set", "point_reward.full=200"];
    let stderr = stderr_of(command(dir, &train).args(setting), 2);
    assert!(stderr.contains("`point_reward`: needs 0 ≤ full < zero"), "{stderr}");
}

/// A file of answers has the grid of each question, so that it is scored alike without `--data`.
#[test]
fn saved_answers_keep_their_grid() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let record = |coordinates: &str| {
        json!([{
            "Question_id": 1, "question_category": "point", "question": "Question: where?", "answer": "[64, 48]",
            "answer_type": "point", "coordinates": coordinates, "width": 64, "height": 48,
            "content": "<answer>[32, 24]</answer>",
        }])
    };
    let score = |coordinates: &str| -> Value {
        fs::write(dir.join("answers.json"), record(coordinates).to_string()).unwrap();
        let words = ["eval", "--predictions", "answers.json", "--json", "--output", "scores"];
        serde_json::from_str(&stdout_of(&mut command(dir, &words))).unwrap()
    };
    assert_eq!(score("pixels")["overall"], 0.0);
    assert_eq!(score("norm1000")["overall"], 100.0);
    let page = fs::read_to_string(dir.join("scores/accuracy.html")).unwrap();
    assert!(page.contains("<div class=\"question\">Question: where?</div>"), "{page}");
}

/// Identifiers repeat across benchmarks; each answer keeps its own score.
#[test]
fn questions_of_one_name_have_scores_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let record = |video: &str, answer: &str| {
        json!({
            "Question_id": 1, "question_category": "point", "question": "Question: where?", "answer": "[0, 0]",
            "answer_type": "point", "video_id": video, "content": format!("<answer>{answer}</answer>"),
        })
    };
    let records = json!([record("a.mp4", "[0, 0]"), record("b.mp4", "[900, 900]")]);
    fs::write(dir.join("answers.json"), records.to_string()).unwrap();
    let words = ["eval", "--predictions", "answers.json", "--json", "--output", "scores"];
    stdout_of(&mut command(dir, &words));
    let page = fs::read_to_string(dir.join("scores/accuracy.html")).unwrap();
    assert!(page.contains("mean score 0.5"), "{page}");
    for score in ["chip poor\">score 0<", "chip good\">score 1<"] {
        assert_eq!(page.matches(score).count(), 1, "{score}: {page}");
    }
}
