//! `--data` with several files, folders of shards, glob patterns and IDs of the Hugging Face Hub.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use embodied_r_tests::{binary, events, small_run, stderr, stdout, tiny_model};
use polars::prelude::{
    BinaryChunked, Column, DataFrame, IntoColumn, NewChunkedArray, ParquetWriter, PlSmallStr,
};
use serde_json::{Value, json};

fn embodied_r(dir: &Path, words: &[&str]) -> Output {
    Command::new(binary()).current_dir(dir).args(words).output().unwrap()
}

fn question(id: usize) -> Value {
    json!({"Question_id": id, "question_category": "object_rel_distance", "answer": "A",
        "question": format!("Frame 0: Observe: lamp left {id}0\n>\nQuestion: where is the lamp?")})
}

fn write(dir: &Path, file: &str, questions: &[usize]) {
    let path = dir.join(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let questions: Vec<Value> = questions.iter().map(|id| question(*id)).collect();
    fs::write(path, json!(questions).to_string()).unwrap();
}

/// Two shards in `shards`, and a file of another kind of record beside them.
fn inputs() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    small_run::write(dir.path(), "");
    write(dir.path(), "shards/part-1.json", &[5, 6]);
    write(dir.path(), "shards/part-0.json", &[1, 2, 3, 4]);
    let trl = json!([{"prompt": "Where is the lamp?", "solution": "A"}, {"prompt": "And the sofa?", "solution": "B"}]);
    fs::write(dir.path().join("trl.json"), trl.to_string()).unwrap();
    dir
}

/// `train` on `data` into `run`.
fn train(dir: &Path, data: &[&str], more: &[&str]) -> Output {
    let start = ["train", "--config", "run.toml", "--model", "model", "--output", "run", "--data"];
    embodied_r(dir, &[&start[..], data, more].concat())
}

#[test]
fn train_reads_files_folders_and_patterns_as_one() {
    let dir = inputs();
    for (data, count) in [
        (&["shards"][..], 6),
        (&["shards/part-*.json"], 6),
        (&["shards/part-1.json", "train.json"], 10),
        (&["shards", "trl.json"], 8),
    ] {
        let found = train(dir.path(), data, &["--dry-run"]);
        let expected = format!("questions    {count} in total");
        assert!(
            stdout(&found).contains(&expected),
            "{data:?}: {} {}",
            stdout(&found),
            stderr(&found)
        );
    }
}

#[test]
fn a_run_on_several_files_keeps_them_and_resumes() {
    let dir = inputs();
    let data = ["shards", "train.json", "--eval-data", "shards/part-0.json", "shards/part-1.json"];
    let done = train(
        dir.path(),
        &data,
        &["--reward_funcs", "accuracy", "--max_steps", "2", "--eval_steps", "1"],
    );
    assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
    let run = dir.path().join("run");
    let evaluated: Vec<Value> = events(&run, "eval");
    assert!(!evaluated.is_empty());
    let settings = fs::read_dir(&run).unwrap().map(|entry| entry.unwrap().path());
    let checkpoint = settings.filter(|path| path.join("settings.toml").exists()).max().unwrap();
    let saved = fs::read_to_string(checkpoint.join("settings.toml")).unwrap();
    let lines: String = saved.split_whitespace().collect();
    let expected = "data=[\"shards\",\"train.json\",]eval_data=[\"shards/part-0.json\",\"shards/part-1.json\",]";
    assert!(lines.contains(expected), "{saved}");
    // The questions are those of the run, wherever their files are now.
    fs::rename(dir.path().join("shards"), dir.path().join("moved")).unwrap();
    let data = ["moved", "train.json", "--eval-data", "moved"];
    let more =
        ["--reward_funcs", "accuracy", "--max_steps", "3", "--eval_steps", "1", "--resume", "run"];
    let resumed = train(dir.path(), &data, &more);
    assert_eq!(resumed.status.code(), Some(0), "{}", stderr(&resumed));
    assert!(!stderr(&resumed).contains("questions have changed"), "{}", stderr(&resumed));
    assert_eq!(events(&run, "step").len(), 3);
}

#[test]
fn sft_reads_several_files() {
    let dir = inputs();
    let data = [
        "sft",
        "--model",
        "model",
        "--output",
        "run",
        "--dry-run",
        "--data",
        "train.jsonl",
        "shards",
    ];
    let found = embodied_r(dir.path(), &data);
    assert!(stdout(&found).contains("examples     22, "), "{}{}", stdout(&found), stderr(&found));
}

#[test]
fn infer_and_eval_answer_the_questions_of_all_shards_in_order() {
    let dir = inputs();
    let limits = ["--model", "model", "--max-new-tokens", "3"];
    let infer = ["infer", "--data", "shards", "--output", "answers.json"];
    let done = embodied_r(dir.path(), &[&infer[..], &limits].concat());
    assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
    let answers: Vec<Value> =
        serde_json::from_slice(&fs::read(dir.path().join("answers.json")).unwrap()).unwrap();
    let ids: Vec<u64> = answers.iter().map(|one| one["Question_id"].as_u64().unwrap()).collect();
    assert_eq!(ids, [1, 2, 3, 4, 5, 6]);
    let eval = [
        "eval",
        "--json",
        "--protocol",
        "accuracy",
        "--data",
        "shards/part-0.json",
        "shards/part-1.json",
    ];
    let scored = embodied_r(dir.path(), &[&eval[..], &limits].concat());
    let report: Value = serde_json::from_str(stdout(&scored)).unwrap();
    assert_eq!(report["n"], 6, "{}", stderr(&scored));
}

#[test]
fn what_names_no_files_is_an_error_that_says_what_to_give() {
    let dir = inputs();
    write(dir.path(), "splits/train_data.json", &[1]);
    write(dir.path(), "splits/test_data.json", &[2]);
    write(dir.path(), "twice/a.json", &[1]);
    write(dir.path(), "twice/b.json", &[1]);
    for (data, expected) in [
        (
            "splits",
            "`splits` has files of different splits, such as `test_data.json` and `train_data.json`; pass the files to \
             read, or a pattern such as `'splits/train*'`",
        ),
        ("nothing-*.json", "`nothing-*.json` matches no file"),
        (
            "nyu-visionx/VSI-Bench",
            "`hf download nyu-visionx/VSI-Bench --repo-type dataset --local-dir DIR`",
        ),
        (
            "twice",
            "record 1 of `twice/b.json` repeats record 1 of `twice/a.json`: no `video_id`, `Question_id` `1`",
        ),
    ] {
        let infer = ["infer", "--model", "model", "--output", "answers.json", "--data", data];
        let failed = embodied_r(dir.path(), &infer);
        assert_eq!(failed.status.code(), Some(1), "{data}");
        assert!(stderr(&failed).contains(expected), "{data}: {}", stderr(&failed));
        assert!(!dir.path().join("answers.json").exists());
    }
}

#[test]
fn binary_columns_that_no_reward_gets_are_named() {
    let dir = inputs();
    let text = |name: &str, values: [&str; 2]| Column::new(name.into(), values);
    let depth = BinaryChunked::from_slice(PlSmallStr::from("depth"), &[&b"\x01"[..], b"\x02"]);
    let columns = vec![
        text("problem", ["Where is the lamp?", "Where is the sofa?"]),
        text("answer", ["A", "B"]),
        depth.into_column(),
    ];
    let mut table = DataFrame::new(2, columns).unwrap();
    let file = fs::File::create(dir.path().join("table.parquet")).unwrap();
    ParquetWriter::new(file).finish(&mut table).unwrap();
    let found = train(dir.path(), &["table.parquet"], &["--dry-run"]);
    assert_eq!(found.status.code(), Some(0), "{}", stderr(&found));
    let expected = "the columns `depth` are binary and do not reach reward commands";
    assert!(stderr(&found).contains(expected), "{}", stderr(&found));
}

#[test]
fn infer_keeps_the_tag_that_the_prompt_opens() {
    let dir = tempfile::tempdir().unwrap();
    tiny_model::write(&dir.path().join("model"));
    let template = "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n\
                    {% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}";
    fs::write(dir.path().join("model/chat_template.jinja"), template).unwrap();
    write(dir.path(), "data.json", &[1, 2]);
    let infer = ["infer", "--model", "model", "--data", "data.json", "--output", "answers.json"];
    let done = embodied_r(dir.path(), &[&infer[..], &["--max-new-tokens", "4"]].concat());
    assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
    let answers: Vec<Value> =
        serde_json::from_slice(&fs::read(dir.path().join("answers.json")).unwrap()).unwrap();
    for answer in answers {
        let content = answer["content"].as_str().unwrap();
        assert!(content.starts_with("<think>\n"), "{content:?}");
        assert_eq!(content.matches("<think>").count(), 1, "{content:?}");
    }
}
