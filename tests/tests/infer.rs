//! `embodied-r infer` on questions whose videos are not captioned yet.

use std::fs;
use std::path::Path;
use std::process::Command;

use assert_cmd::assert::OutputAssertExt as _;
use embodied_r_tests::{VisionModel, binary, stderr_of, stdout_of, tiny_model};
use serde_json::{Value, json};

fn embodied_r(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.current_dir(dir).args(arguments);
    command
}

/// A model, rooms, and two questions: one that starts with `<video>`, and one with its captions.
fn inputs(dir: &Path) {
    tiny_model::write(&dir.join("model"));
    let categories = "Landmark Position";
    let rooms = ["sim", "rooms", "--output", "rooms", "--rooms", "1", "--categories", categories];
    embodied_r(dir, &rooms).assert().code(0);
    let preprocess = ["preprocess", "--data", "rooms", "--output", "dataset"];
    embodied_r(dir, &preprocess).assert().code(0);
    let mut records = ["train", "val", "test"]
        .into_iter()
        .flat_map(|split| read(&dir.join(format!("dataset/complete/{split}_data.json"))));
    let mut with_video = records.next().unwrap();
    with_video["question"] =
        format!("<video>\n{}", with_video["question"].as_str().unwrap()).into();
    with_video["note"] = json!({"mine": [1, 2]});
    let with_captions =
        json!({"Question_id": 7, "question": "Frame 0: Observe: lamp left 30\nWhere?"});
    fs::write(dir.join("test.json"), json!([with_video, with_captions]).to_string()).unwrap();
}

fn read(file: &Path) -> Vec<Value> {
    serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
}

const INFER: [&str; 9] = [
    "infer",
    "--model",
    "model",
    "--data",
    "test.json",
    "--output",
    "answers.json",
    "--max-new-tokens",
    "4",
];

#[test]
fn videos_are_captioned_on_the_fly_and_other_fields_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    inputs(dir.path());
    embodied_r(dir.path(), &INFER).args(["--scenes", "rooms/scenes"]).assert().code(0);
    let (questions, answers) =
        (read(&dir.path().join("test.json")), read(&dir.path().join("answers.json")));
    assert_eq!(answers.len(), 2);
    let question = |record: &Value| record["question"].as_str().unwrap().to_owned();
    let prompt = question(&answers[0]);
    let expected = question(&questions[0]).replace("<video>\n", "");
    assert!(prompt.contains("Frame 0:") && prompt.contains(&expected), "{prompt}");
    assert_eq!(answers[0]["note"], questions[0]["note"]);
    assert_eq!(question(&answers[1]), question(&questions[1]));
    assert!(answers.iter().all(|answer| answer["content"].is_string()), "{answers:?}");
    assert!(dir.path().join("answers.json.perceived/prompts/questions.captions.jsonl").is_file());
}

#[test]
fn a_head_dim_that_contradicts_the_weights_is_named_before_videos_are_captioned() {
    let dir = tempfile::tempdir().unwrap();
    inputs(dir.path());
    tiny_model::set_size(&dir.path().join("model"), "head_dim", 12);
    let mut infer = embodied_r(dir.path(), &INFER);
    let stderr = stderr_of(infer.args(["--scenes", "rooms/scenes"]), 1);
    let fault = "`model.layers.0.self_attn.k_proj.weight` must have the shape [12, 16] by `num_key_value_heads` and \
                 `head_dim` in `config.json`, not [8, 16]";
    assert!(stderr.contains("the weights in `model` do not match"), "{stderr}");
    assert!(stderr.contains(fault), "{stderr}");
    assert!(!dir.path().join("answers.json.perceived").exists());
}

#[test]
fn questions_of_preprocess_are_captioned_if_a_captioner_is_given() {
    let dir = tempfile::tempdir().unwrap();
    inputs(dir.path());
    let mut question = read(&dir.path().join("test.json")).remove(0);
    let text = question["question"].as_str().unwrap().replace("<video>\n", "");
    question["question"] = text.clone().into();
    fs::write(dir.path().join("test.json"), json!([question]).to_string()).unwrap();
    let prompt = |more: &[&str]| {
        embodied_r(dir.path(), &INFER).args(more).assert().code(0);
        let answers = read(&dir.path().join("answers.json"));
        fs::remove_file(dir.path().join("answers.json")).unwrap();
        answers[0]["question"].as_str().unwrap().to_owned()
    };
    assert_eq!(prompt(&[]), text);
    assert!(prompt(&["--scenes", "rooms/scenes"]).contains("Frame 0:"));
}

#[test]
fn without_a_captioner_no_work_starts() {
    let dir = tempfile::tempdir().unwrap();
    inputs(dir.path());
    let stderr = stderr_of(&mut embodied_r(dir.path(), &INFER), 2);
    assert!(stderr.contains("some questions of `test.json` start with `<video>`"), "{stderr}");
    assert!(stderr.contains("`embodied-r perceive --data test.json`"), "{stderr}");
    assert!(
        stderr.contains("`--captioner MODEL`") && stderr.contains("`--scenes DIR`"),
        "{stderr}"
    );
    let entries = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(entries.into_iter().all(|name| !name.to_string_lossy().starts_with("answers")));
}

/// Options of a local captioner with short captions.
const CAPTIONER: [&str; 6] = ["--captioner", "vl", "--caption-tokens", "5", "--max-frames", "4"];

#[test]
fn a_local_captioner_captions_once_for_all_runs() {
    let dir = tempfile::tempdir().unwrap();
    inputs(dir.path());
    VisionModel::Nested.write(&dir.path().join("vl"));
    // The reasoner is not there yet: the captions are kept.
    let api = ["--base-url", "http://127.0.0.1:9/v1", "--max-retries", "0", "--device", "cpu"];
    let words = ["infer", "--data", "test.json", "--output", "answers.json", "--model", "absent"];
    let mut first = embodied_r(dir.path(), &words);
    let stderr = stderr_of(first.args(CAPTIONER).args(api), 1);
    assert!(stderr.contains("the connection to `http://127.0.0.1:9/v1/"), "{stderr}");
    let log = dir.path().join("answers.json.perceived/prompts/questions.captions.jsonl");
    let captions = fs::read_to_string(&log).unwrap();
    assert_eq!(captions.lines().count(), 1);
    let stdout = stdout_of(embodied_r(dir.path(), &INFER).args(CAPTIONER));
    assert!(stdout.contains("0 captioned, 1 cached, 0 failed"), "{stdout}");
    assert_eq!(fs::read_to_string(&log).unwrap(), captions);
    let answers = read(&dir.path().join("answers.json"));
    let frames = answers[0]["question"].as_str().unwrap().matches(": Observe: ").count();
    assert_eq!(frames, 4, "{}", answers[0]["question"]);
    assert!(answers.iter().all(|answer| answer["content"].is_string()), "{answers:?}");
    // Other options give other captions.
    let mut other = embodied_r(dir.path(), &INFER);
    let stdout = stdout_of(other.args(&CAPTIONER[..5]).arg("5"));
    assert!(stdout.contains("1 captioned, 0 cached, 0 failed"), "{stdout}");
}

#[test]
fn what_is_missing_is_reported_before_captioning() {
    let dir = tempfile::tempdir().unwrap();
    inputs(dir.path());
    VisionModel::Nested.write(&dir.path().join("vl"));
    let infer = ["infer", "--data", "test.json", "--output", "answers.json", "--model", "absent"];
    let stderr = stderr_of(embodied_r(dir.path(), &infer).args(CAPTIONER), 1);
    assert!(stderr.contains("`absent`"), "{stderr}");
    let mut elsewhere = embodied_r(dir.path(), &INFER);
    let stderr = stderr_of(elsewhere.args(CAPTIONER).args(["--video-dir", "model"]), 1);
    assert!(stderr.contains("hint: give the directory of the videos"), "{stderr}");
    let mut eval = embodied_r(dir.path(), &["eval", "--data", "test.json", "--model", "model"]);
    let stderr = stderr_of(eval.args(CAPTIONER), 2);
    assert!(stderr.contains("give `--output DIR` to keep the captions"), "{stderr}");
    assert!(!dir.path().join("answers.json.perceived").exists());
}

#[test]
fn videos_are_found_beside_the_data_file() {
    let dir = tempfile::tempdir().unwrap();
    inputs(dir.path());
    let mut questions = read(&dir.path().join("test.json"));
    let video = questions[0]["videos"].as_str().unwrap().to_owned();
    fs::create_dir_all(dir.path().join("own/videos")).unwrap();
    fs::rename(dir.path().join(&video), dir.path().join("own/videos/walk.mp4")).unwrap();
    // With the annotations of the same name.
    let stem = |path: &str| Path::new(path).file_stem().unwrap().to_str().unwrap().to_owned();
    let scene = format!("rooms/scenes/{}.json", stem(&video));
    fs::copy(dir.path().join(scene), dir.path().join("rooms/scenes/walk.json")).unwrap();
    questions[0]["videos"] = json!("videos/walk.mp4");
    questions[0]["video_id"] = json!("walk.mp4");
    fs::write(dir.path().join("own/test.json"), json!(questions).to_string()).unwrap();
    let words =
        ["infer", "--data", "own/test.json", "--output", "answers.json", "--model", "model"];
    let more = ["--scenes", "rooms/scenes", "--max-new-tokens", "4"];
    embodied_r(dir.path(), &words).args(more).assert().code(0);
}

/// Three questions, the second of which is longer than the context of the tiny model.
fn one_long_question(dir: &Path) {
    tiny_model::write(&dir.join("model"));
    let question = |id: u32, text: String| {
        json!({"Question_id": id, "video_id": "a.mp4", "question": text, "answer": "A",
            "question_category": "Causal"})
    };
    let long = "Frame 0: Observe: lamp left 30\n".repeat(1000);
    let questions = [(1, "Where?".to_owned()), (2, long), (3, "What?".to_owned())];
    let questions: Vec<Value> =
        questions.into_iter().map(|(id, text)| question(id, text)).collect();
    fs::write(dir.join("test.json"), json!(questions).to_string()).unwrap();
}

#[test]
fn an_overlong_question_is_named_and_skipped_and_the_others_are_answered() {
    let dir = tempfile::tempdir().unwrap();
    one_long_question(dir.path());
    let output = embodied_r(dir.path(), &INFER).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert!(
        stderr.contains("question `2` is skipped and counts as wrong: its prompt has "),
        "{stderr}"
    );
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(
        stdout.contains("wrote 2 answers to answers.json; 1 of 3 questions exceed"),
        "{stdout}"
    );
    let answers = read(&dir.path().join("answers.json"));
    let answered: Vec<bool> = answers.iter().map(|answer| answer["content"].is_string()).collect();
    assert_eq!(answered, [true, false, true]);
}

#[test]
fn an_overlong_question_counts_as_wrong_in_eval() {
    let dir = tempfile::tempdir().unwrap();
    one_long_question(dir.path());
    let words =
        ["eval", "--model", "model", "--data", "test.json", "--max-new-tokens", "4", "--json"];
    // Its official script skips missing answers.
    let protocol = ["--protocol", "urbanvideo-bench"];
    for sampled in [&[][..], &["--pass-at", "1,2"]] {
        let output = embodied_r(dir.path(), &words).args(protocol).args(sampled).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{stderr}");
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["n"], json!(3), "{report}");
        assert!(stderr.contains("1 question without an answer: counted as wrong"), "{stderr}");
    }
}

#[test]
fn a_set_of_overlong_questions_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    one_long_question(dir.path());
    let questions = read(&dir.path().join("test.json"));
    fs::write(dir.path().join("test.json"), json!([questions[1]]).to_string()).unwrap();
    let stderr = stderr_of(&mut embodied_r(dir.path(), &INFER), 1);
    assert!(stderr.contains("none of the 1 questions fits into the context length"), "{stderr}");
    assert!(!dir.path().join("answers.json").exists());
}

/// A journal of an interrupted run with the options of [`INFER`]: one completion, which no model would give.
fn interrupted(dir: &Path) {
    let server_absent = ["--base-url", "http://127.0.0.1:9/v1", "--max-retries", "0"];
    let mut command = embodied_r(dir, &INFER);
    command.args(server_absent).assert().code(1);
    let journal = dir.join("answers.json.partial.jsonl");
    let header = fs::read_to_string(&journal).unwrap();
    let done = json!({"index": 0, "question": "Where?", "completions": ["kept"]});
    fs::write(&journal, format!("{header}{done}\n")).unwrap();
}

#[test]
fn settings_that_cannot_change_answers_do_not_forbid_to_go_on_and_others_are_named() {
    let dir = tempfile::tempdir().unwrap();
    one_long_question(dir.path());
    interrupted(dir.path());
    let api = ["--base-url", "http://127.0.0.1:8/v1", "--max-retries", "0"];
    let run = |more: &[&str]| {
        let output = embodied_r(dir.path(), &INFER).args(api).args(more).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    // Another server, concurrency and, for greedy decoding, seed: it resumes, and fails for lack of a server.
    for more in [&["--concurrency", "3"][..], &["--seed", "7"], &["--timeout-s", "9"]] {
        let (code, stderr) = run(more);
        assert!(stderr.contains("resuming: 1 of 3 questions are answered already"), "{stderr}");
        assert_eq!(code, Some(1));
    }
    let (code, stderr) = run(&["--temperature", "0.5"]);
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("different settings: `temperature` was 0.0 and is 0.5"), "{stderr}");
}

#[test]
fn the_batch_size_of_a_local_model_can_change_at_a_resume() {
    let dir = tempfile::tempdir().unwrap();
    one_long_question(dir.path());
    let answers = |more: &[&str]| {
        embodied_r(dir.path(), &INFER).args(more).assert().code(0);
        fs::read(dir.path().join("answers.json")).unwrap()
    };
    let whole = answers(&[]);
    // An output that cannot be written leaves the journal.
    fs::remove_file(dir.path().join("answers.json")).unwrap();
    fs::create_dir(dir.path().join("answers.json")).unwrap();
    embodied_r(dir.path(), &INFER).args(["--batch", "1"]).assert().code(1);
    fs::remove_dir(dir.path().join("answers.json")).unwrap();
    let output = embodied_r(dir.path(), &INFER).args(["--batch", "2"]).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("resuming: 3 of 3 questions are answered already"), "{stderr}");
    assert_eq!(fs::read(dir.path().join("answers.json")).unwrap(), whole);
}

#[test]
fn questions_that_occur_twice_or_none_are_refused_and_nothing_is_created() {
    let dir = tempfile::tempdir().unwrap();
    tiny_model::write(&dir.path().join("model"));
    let question =
        |id: u32, video: &str| json!({"Question_id": id, "video_id": video, "question": "Where?"});
    let twice = json!([question(1, "a.mp4"), question(1, "b.mp4"), question(1, "a.mp4")]);
    for (questions, expected) in [
        (twice, "record 3 of `test.json` repeats record 1: `video_id` `a.mp4`, `Question_id` `1`"),
        (json!([]), "`test.json` has no questions"),
    ] {
        fs::write(dir.path().join("test.json"), questions.to_string()).unwrap();
        let error = stderr_of(&mut embodied_r(dir.path(), &INFER), 1);
        assert!(error.contains(expected), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}

#[test]
fn a_byte_order_mark_is_skipped() {
    let dir = tempfile::tempdir().unwrap();
    tiny_model::write(&dir.path().join("model"));
    let questions = json!([{"Question_id": 1, "question": "Where?"}]);
    fs::write(dir.path().join("test.json"), format!("\u{feff}{questions}")).unwrap();
    embodied_r(dir.path(), &INFER).assert().code(0);
    assert_eq!(read(&dir.path().join("answers.json")).len(), 1);
}
