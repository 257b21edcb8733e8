//! `embodied-r show`: completions in the terminal.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use embodied_r_data::parquet::{Column, write_table};
use embodied_r_tests::{binary, stderr, stdout, tiny_model};
use serde_json::{Value, json};

/// A run with completions of steps 4 and 8: two questions of two completions each.
fn workspace() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for step in [4i64, 8] {
        let texts = |texts: [&str; 4]| Column::Strings(texts.map(str::to_owned).to_vec());
        let right = "<think>so</think><answer>B</answer>";
        let columns = vec![
            ("step", Column::Integers(vec![step; 4])),
            ("question_id", texts(["q1", "q1", "q2", "q2"])),
            ("prompt", texts(["Frame 0: x\nQuestion: one?"; 4])),
            ("completion", texts([right, "<answer>A</answer>", right, "\u{1b}[2Jnothing"])),
            ("length", Column::Integers(vec![30, 10, 20, 40])),
            ("finish_reason", texts(["stop", "stop", "stop", "length"])),
            ("solution", texts(["B"; 4])),
            ("reward", Column::OptionalFloats(vec![Some(0.75), Some(0.25), Some(1.0), None])),
            ("advantage", Column::Floats(vec![1.0, -1.0, 0.5, 0.0])),
            ("accuracy", Column::OptionalFloats(vec![Some(1.0), Some(0.0), Some(1.0), None])),
            (
                "accuracy_why",
                Column::OptionalStrings(vec![None, Some("answered A".to_owned()), None, None]),
            ),
        ];
        let path = format!("run/completions/completions_{step:05}.parquet");
        write_table(&folder.path().join(path), columns).unwrap();
    }
    folder
}

fn show(folder: &Path, words: &[&str]) -> Output {
    Command::new(binary()).current_dir(folder).args(["show", "run"]).args(words).output().unwrap()
}

/// Question id and length of each shown completion.
fn shown(folder: &Path, words: &[&str]) -> Vec<(String, u64)> {
    let output = show(folder, &[words, &["--json"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let lines = stdout(&output).lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines
        .map(|line| {
            (
                line["question_id"].as_str().unwrap().to_owned(),
                line["length"].as_f64().unwrap() as u64,
            )
        })
        .collect()
}

#[test]
fn the_last_step_is_shown_with_rewards_reasons_and_text() {
    let folder = workspace();
    let output = show(folder.path(), &["--limit", "2"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(
        stdout(&output),
        "step 8 of run: 4 completions to 2 questions, showing 2\n\n\
         question q1, solution B\n  Question: one?\n\n\
         ── reward 0.75, advantage +1, 30 tokens, stop\n  accuracy 1\n  \
         <think>so</think><answer>B</answer>\n\n\n\
         ── reward 0.25, advantage -1, 10 tokens, stop\n  accuracy 0 (answered A)\n  \
         <answer>A</answer>\n\n"
    );
}

#[test]
fn completions_are_filtered_and_sorted() {
    let folder = workspace();
    let folder = folder.path();
    let lengths = |words: &[&str]| {
        shown(folder, words).into_iter().map(|(_, length)| length).collect::<Vec<_>>()
    };
    assert_eq!(lengths(&[]), [30, 10, 20, 40]);
    assert_eq!(lengths(&["--sort", "reward"]), [20, 30, 10, 40]);
    assert_eq!(lengths(&["--sort", "length"]), [40, 30, 20, 10]);
    assert_eq!(lengths(&["--sort", "length", "--reverse", "--limit", "1"]), [10]);
    assert_eq!(lengths(&["--failed"]), [10, 40]);
    assert_eq!(lengths(&["--question", "q2", "--step", "4"]), [20, 40]);
}

#[test]
fn as_json_a_completion_has_its_raw_rewards_with_reasons() {
    let folder = workspace();
    let output = show(folder.path(), &["--json", "--question", "q1", "--failed"]);
    let line: Value = serde_json::from_str(stdout(&output)).unwrap();
    assert_eq!(
        line,
        json!({"step": 8, "question_id": "q1", "solution": "B", "reward": 0.25, "advantage": -1.0,
            "length": 10.0, "finish_reason": "stop",
            "rewards": {"accuracy": {"value": 0.0, "why": "answered A"}},
            "prompt": "Frame 0: x\nQuestion: one?", "completion": "<answer>A</answer>"})
    );
}

#[test]
fn colors_are_optional_and_escape_codes_of_a_model_are_removed() {
    let folder = workspace();
    let folder = folder.path();
    assert!(!stdout(&show(folder, &[])).contains('\u{1b}'));
    let colors = show(folder, &["--color", "always"]);
    assert!(stdout(&colors).contains("\u{1b}[1;32mB\u{1b}[0m"));
    assert!(!stdout(&colors).contains("\u{1b}[2J"));
}

#[test]
fn missing_steps_and_questions_are_named_with_the_available_ones() {
    let folder = workspace();
    for (words, error) in [
        (
            &["--step", "5"][..],
            "error: step 5 of `run` has no completions\nhint: nearest: 4 and 8; 2 steps from 4 to \
             8 have completions\n",
        ),
        (
            &["--question", "q9"],
            "error: step 8 has no question `q9`\nhint: its questions are q1, q2\n",
        ),
    ] {
        let output = show(folder.path(), words);
        assert_eq!((output.status.code(), stderr(&output)), (Some(1), error));
    }
    let missing = Command::new(binary()).args(["show", "nowhere"]).output().unwrap();
    assert_eq!(missing.status.code(), Some(1));
    assert!(stderr(&missing).starts_with("error: no completions in `nowhere`\nhint: "));
    assert_eq!(show(folder.path(), &["--sort", "luck"]).status.code(), Some(2));
}

#[test]
fn a_damaged_file_is_one_error_that_names_it() {
    let folder = workspace();
    let file = folder.path().join("run/completions/completions_00008.parquet");
    let whole = std::fs::read(&file).unwrap();
    std::fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    let output = show(folder.path(), &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("completions_00008.parquet"), "{}", stderr(&output));
}

#[test]
fn a_closed_output_pipe_is_no_error() {
    let folder = workspace();
    let mut command = Command::new(binary());
    command.current_dir(folder.path()).args(["show", "run"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), stderr(&output)), (Some(0), ""));
}

#[test]
fn the_runs_of_train_can_be_listed_shown_and_compared() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    tiny_model::write(&folder.join("model"));
    let question = |id: u32| {
        json!({"Question_id": id, "question_category": "object_rel_distance",
            "question": "Frame 0: Observe: a lamp\nQuestion: where is the lamp?", "answer": "A"})
    };
    let questions: Vec<Value> = (0..2).map(question).collect();
    std::fs::write(folder.join("train.json"), json!(questions).to_string()).unwrap();
    let run = |words: &[&str]| {
        let output = Command::new(binary()).current_dir(folder).args(words).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{words:?}: {}", stderr(&output));
        stdout(&output).to_owned()
    };
    for (name, beta) in [("a", "beta=0.0"), ("b", "beta=0.5")] {
        let output = format!("runs/{name}");
        let mut words =
            vec!["train", "--model", "model", "--data", "train.json", "--output", &output];
        for set in [
            beta,
            "num_generations=2",
            "generation_batch_size=4",
            "max_completion_length=4",
            "num_train_epochs=1",
            "reward_weights={accuracy=1.0,format=0.5}",
        ] {
            words.extend(["--set", set]);
        }
        run(&words);
    }
    let list: Vec<Value> = serde_json::from_str(&run(&["runs", "runs", "--json"])).unwrap();
    assert_eq!(list.len(), 2);
    for listed in &list {
        assert_eq!((&listed["state"], &listed["kind"]), (&json!("finished"), &json!("train")));
        assert_eq!((&listed["step"], &listed["steps"]), (&json!(1), &json!(1)));
    }
    let text = run(&["show", "runs/a"]);
    assert!(text.contains("4 completions to 2 questions"), "{text}");
    assert!(text.contains("format 0 (") && text.contains("Question: where is the lamp?"), "{text}");
    let page = run(&["report", "--run", "runs/a", "runs/b"]);
    assert_eq!(page, "runs/a/comparison.html\n");
    let html = std::fs::read_to_string(folder.join("runs/a/comparison.html")).unwrap();
    assert!(html.contains("<td>beta</td><td>0.0</td><td>0.5</td>"));
    assert!(html.contains("<code>completions/mean_length</code>"));
}
