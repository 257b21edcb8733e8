//! Runs over files of questions: outputs, resumption and rejected inputs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use embodied_r_data::progress::Silent;
use embodied_r_perception::Error;
use embodied_r_perception::captioner::{Caption, CaptionRequest, Captioner, VideoFrames};
use embodied_r_perception::perceive::{
    ChangedSettings, MergeOptions, PerceiveOptions, PerceiveSummary, Scope, Shard, merge, run,
};
use futures_util::future::{BoxFuture, FutureExt as _};
use serde_json::{Map, Value, json};

mod scenes;

/// Captions a question with its own text, fails those in `broken`, and records the requests.
#[derive(Default)]
struct Echo {
    broken: BTreeSet<String>,
    requests: Mutex<Vec<String>>,
}

impl Captioner for Echo {
    fn settings(&self) -> Map<String, Value> {
        Map::from_iter([("backend".to_owned(), json!("echo"))])
    }

    fn caption<'a>(
        &'a self,
        request: CaptionRequest<'a>,
        _: &'a VideoFrames,
    ) -> BoxFuture<'a, embodied_r_perception::Result<Vec<Caption>>> {
        let text = request.text.unwrap_or("everything");
        self.requests.lock().unwrap().push(text.to_owned());
        let result = match self.broken.contains(text) {
            true => Err(Error::EmptyCompletion { index: 0, reason: None }),
            false => Ok(["left of", "right of"].map(|side| caption(side, text)).into()),
        };
        async move { result }.boxed()
    }
}

fn caption(side: &str, text: &str) -> Caption {
    Caption {
        index: 0,
        time_s: None,
        action: Some("move forward".into()),
        view: format!("{side} {text}"),
        prompt_tokens: Some(5),
        completion_tokens: Some(2),
        attempts: 1,
        elapsed_s: 0.0,
        fault: None,
        from_cache: false,
    }
}

struct Fixture {
    folder: tempfile::TempDir,
}

impl Fixture {
    fn new(files: &[(&str, Value)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, value) in files {
            std::fs::write(folder.path().join(name), value.to_string()).unwrap();
        }
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn options(&self, names: &[&str]) -> PerceiveOptions {
        let data_paths = names.iter().map(|name| self.path(name)).collect();
        PerceiveOptions { concurrency: 2, ..PerceiveOptions::new(data_paths, self.path("inter")) }
    }

    fn output(&self, name: &str) -> Vec<Value> {
        serde_json::from_slice(&std::fs::read(self.path("inter").join(name)).unwrap()).unwrap()
    }
}

fn question(id: u32) -> Value {
    json!({"Question_id": id, "video_id": "a.mp4", "question_category": "c",
        "question": format!("Question: q{id}?"), "answer": "A", "difficulty": id * 10})
}

fn questions(ids: std::ops::Range<u32>) -> Value {
    ids.map(question).collect()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

async fn summaries(options: &PerceiveOptions, captioner: &dyn Captioner) -> Vec<PerceiveSummary> {
    run(options, captioner, &Silent).await.unwrap()
}

#[tokio::test]
async fn every_question_becomes_a_prompt_in_its_own_file_and_order() {
    let fixture = Fixture::new(&[("a.json", questions(0..3)), ("b.json", questions(3..4))]);
    summaries(&fixture.options(&["a.json", "b.json"]), &Echo::default()).await;
    let a = fixture.output("a.json");
    assert_eq!(a.iter().map(|q| q["Question_id"].as_u64().unwrap()).collect::<Vec<_>>(), [0, 1, 2]);
    let prompt = a[1]["question"].as_str().unwrap();
    assert!(prompt.contains("\nFrame 0: Observe: left of Question: q1?\n"), "{prompt}");
    assert!(prompt.contains("\nFrame 1: After move forward, Observe: right of"), "{prompt}");
    assert!(prompt.ends_with("\nQuestion: q1?"), "{prompt}");
    assert_eq!(a[1]["original_question"], "Question: q1?");
    assert_eq!((&a[1]["answer"], &a[1]["difficulty"]), (&json!("A"), &json!(10)));
    assert_eq!(fixture.output("b.json").len(), 1);
}

#[tokio::test]
async fn a_second_run_captions_only_failed_and_new_questions() {
    let fixture = Fixture::new(&[("a.json", questions(0..3))]);
    let options = fixture.options(&["a.json"]);
    let broken = BTreeSet::from(["Question: q1?".to_owned()]);
    let first = &summaries(&options, &Echo { broken, ..Echo::default() }).await[0];
    assert_eq!((first.finished, first.failed, first.remaining()), (2, 1, 0));
    assert_eq!(fixture.output("a.json").len(), 2);

    std::fs::write(fixture.path("a.json"), questions(0..4).to_string()).unwrap();
    let echo = Echo::default();
    let second = &summaries(&options, &echo).await[0];
    assert_eq!((second.already_finished, second.finished, second.failed), (2, 2, 0));
    let requests = echo.requests.into_inner().unwrap();
    assert_eq!(
        BTreeSet::from_iter(requests),
        BTreeSet::from(["Question: q1?".into(), "Question: q3?".into()])
    );
    assert_eq!(fixture.output("a.json").len(), 4);
}

#[tokio::test]
async fn a_resumed_run_writes_the_same_files_as_an_uninterrupted_one() {
    let fixture = Fixture::new(&[("a.json", questions(0..4))]);
    let options = fixture.options(&["a.json"]);
    summaries(&options, &Echo::default()).await;
    let files = ["a.json", "a.captions.jsonl"].map(|name| fixture.path("inter").join(name));
    let whole = files.clone().map(|file| std::fs::read(file).unwrap());

    // Killed while writing a line, before the prompts were written.
    std::fs::remove_file(&files[0]).unwrap();
    std::fs::write(&files[1], &whole[1][..whole[1].len() * 3 / 5]).unwrap();
    let echo = Echo::default();
    summaries(&options, &echo).await;
    assert_eq!(echo.requests.into_inner().unwrap().len(), 2);
    assert_eq!(files.map(|file| std::fs::read(file).unwrap()), whole);
}

#[tokio::test]
async fn a_limit_leaves_the_remaining_questions_for_later() {
    let fixture = Fixture::new(&[("a.json", questions(0..3))]);
    let mut options = fixture.options(&["a.json"]);
    options.limit = Some(2);
    let first = &summaries(&options, &Echo::default()).await[0];
    assert_eq!((first.finished, first.remaining()), (2, 1));
    let second = &summaries(&options, &Echo::default()).await[0];
    assert_eq!((second.already_finished, second.finished, second.remaining()), (2, 1, 0));
    assert_eq!(fixture.output("a.json").len(), 3);
}

#[tokio::test]
async fn changed_settings_are_rejected_before_any_request() {
    let fixture = Fixture::new(&[("a.json", questions(0..2))]);
    let mut options = fixture.options(&["a.json"]);
    options.limit = Some(1);
    summaries(&options, &Echo::default()).await;
    options.keyframes.threshold = 0.25;
    let echo = Echo::default();
    let error = run(&options, &echo, &Silent).await.unwrap_err().to_string();
    assert!(error.contains("`threshold` was 0.5 and is 0.25"), "{error}");
    assert!(echo.requests.lock().unwrap().is_empty());

    options.changed_settings = ChangedSettings::Recaption;
    options.limit = None;
    let redone = &summaries(&options, &echo).await[0];
    assert_eq!((redone.already_finished, redone.finished), (0, 2));
}

#[tokio::test]
async fn all_data_files_are_checked_before_any_request() {
    let fixture =
        Fixture::new(&[("a.json", questions(0..2)), ("b.json", json!({"not": "a list"}))]);
    let echo = Echo::default();
    let error = run(&fixture.options(&["a.json", "b.json"]), &echo, &Silent).await.unwrap_err();
    assert!(error.to_string().contains("b.json"), "{error}");
    assert!(echo.requests.into_inner().unwrap().is_empty());
}

fn of_video(id: u32, video: &str) -> Value {
    let mut question = question(id);
    question["video_id"] = json!(video);
    question
}

/// Two questions about each of five videos.
fn five_videos() -> Value {
    (0..10).map(|id| of_video(id, &format!("{}.mp4", id / 2))).collect()
}

/// A fixture with that file, and empty files as its videos.
fn five_video_fixture() -> Fixture {
    let fixture = Fixture::new(&[("a.json", five_videos())]);
    std::fs::create_dir(fixture.path("videos")).unwrap();
    for video in 0..5 {
        std::fs::write(fixture.path(&format!("videos/{video}.mp4")), "").unwrap();
    }
    fixture
}

#[tokio::test]
async fn captions_per_video_are_generated_once_for_all_questions() {
    let fixture = five_video_fixture();
    let mut options = fixture.options(&["a.json"]);
    options.scope = Scope::Video;
    let echo = Echo::default();
    let summary = &summaries(&options, &echo).await[0];
    assert_eq!((summary.finished, summary.failed), (10, 0));
    assert_eq!(*echo.requests.lock().unwrap(), ["everything"; 5]);
    let prompts = fixture.output("a.json");
    for (id, prompt) in prompts.iter().enumerate() {
        let prompt = prompt["question"].as_str().unwrap();
        assert!(prompt.contains("left of everything"), "{prompt}");
        assert!(prompt.ends_with(&format!("\nQuestion: q{id}?")), "{prompt}");
    }
}

#[tokio::test]
async fn captions_per_video_are_reused_from_finished_questions() {
    let fixture = five_video_fixture();
    let mut options = fixture.options(&["a.json"]);
    options.scope = Scope::Video;
    options.limit = Some(1);
    summaries(&options, &Echo::default()).await;
    let echo = Echo::default();
    summaries(&options, &echo).await;
    assert!(
        echo.requests.lock().unwrap().is_empty(),
        "the second question has the first one's video"
    );
}

#[tokio::test]
async fn captions_per_video_and_per_question_are_not_mixed() {
    let fixture = Fixture::new(&[("a.json", questions(0..2))]);
    let mut options = fixture.options(&["a.json"]);
    summaries(&options, &Echo::default()).await;
    options.scope = Scope::Video;
    let error = run(&options, &Echo::default(), &Silent).await.unwrap_err().to_string();
    assert!(error.contains("`scope` was unset and is \"video\""), "{error}");
}

fn merge_options(fixture: &Fixture) -> MergeOptions {
    MergeOptions {
        data_paths: vec![fixture.path("a.json")],
        answers: None,
        save_path: fixture.path("inter"),
        shards: vec![],
    }
}

async fn run_shard(fixture: &Fixture, index: usize, count: usize, echo: &Echo) -> PerceiveSummary {
    let mut options = fixture.options(&["a.json"]);
    options.shard = Shard::new(index, count);
    summaries(&options, echo).await.remove(0)
}

#[tokio::test]
async fn merged_shards_are_byte_identical_to_a_run_without_shards() {
    let whole = five_video_fixture();
    let broken = || BTreeSet::from(["Question: q3?".to_owned()]);
    summaries(&whole.options(&["a.json"]), &Echo { broken: broken(), ..Echo::default() }).await;

    let fixture = five_video_fixture();
    let mut sizes = Vec::new();
    for index in 1..=3 {
        let echo = Echo { broken: broken(), ..Echo::default() };
        sizes.push(run_shard(&fixture, index, 3, &echo).await.questions);
    }
    assert_eq!(sizes, [4, 4, 2]);
    let merged = merge(&merge_options(&fixture), &Silent).unwrap().remove(0);
    assert_eq!((merged.questions, merged.finished, merged.failed), (10, 9, 1));
    for name in ["inter/a.json", "inter/a.captions.jsonl"] {
        assert_eq!(read(&fixture.path(name)), read(&whole.path(name)), "{name}");
    }
    // A run without shards finishes the failed question, and merging again keeps its captions.
    let echo = Echo::default();
    summaries(&fixture.options(&["a.json"]), &echo).await;
    assert_eq!(*echo.requests.lock().unwrap(), ["Question: q3?"]);
    assert_eq!(merge(&merge_options(&fixture), &Silent).unwrap()[0].finished, 10);
}

#[tokio::test]
async fn a_missing_shard_is_named() {
    let fixture = five_video_fixture();
    run_shard(&fixture, 1, 3, &Echo::default()).await;
    run_shard(&fixture, 3, 3, &Echo::default()).await;
    let error = merge(&merge_options(&fixture), &Silent).unwrap_err().to_string();
    assert!(error.contains("shard-2-of-3` is missing"), "{error}");
}

#[tokio::test]
async fn unfinished_questions_are_named_with_their_shard() {
    let fixture = five_video_fixture();
    run_shard(&fixture, 1, 2, &Echo::default()).await;
    let mut options = fixture.options(&["a.json"]);
    options.shard = Shard::new(2, 2);
    options.limit = Some(1);
    summaries(&options, &Echo::default()).await;
    let error = merge(&merge_options(&fixture), &Silent).unwrap_err().to_string();
    assert!(error.contains("3 questions of"), "{error}");
    assert!(error.contains("are in no shard (`3`, `6`, `7`): complete `--shard 2/2`"), "{error}");
    assert!(!fixture.path("inter/a.json").exists());
}

#[tokio::test]
async fn a_question_captioned_in_two_shards_is_rejected() {
    let fixture = five_video_fixture();
    run_shard(&fixture, 1, 2, &Echo::default()).await;
    // For the second shard the last video has more questions, which changes the assignment.
    let mut more = five_videos().as_array().unwrap().clone();
    more.extend((10..16).map(|id| of_video(id, "4.mp4")));
    std::fs::write(fixture.path("a.json"), json!(more).to_string()).unwrap();
    run_shard(&fixture, 2, 2, &Echo::default()).await;
    std::fs::write(fixture.path("a.json"), five_videos().to_string()).unwrap();
    let error = merge(&merge_options(&fixture), &Silent).unwrap_err().to_string();
    assert!(error.contains("has captions in") && error.contains("shard-2-of-2`"), "{error}");
}

#[tokio::test]
async fn shards_of_different_counts_are_rejected() {
    let fixture = five_video_fixture();
    run_shard(&fixture, 1, 2, &Echo::default()).await;
    run_shard(&fixture, 2, 3, &Echo::default()).await;
    let error = merge(&merge_options(&fixture), &Silent).unwrap_err();
    assert!(matches!(error, Error::ShardsOverlap { .. }), "{error}");
}

#[tokio::test]
async fn shards_of_different_settings_are_rejected_naming_the_difference() {
    let fixture = five_video_fixture();
    run_shard(&fixture, 1, 2, &Echo::default()).await;
    let mut options = fixture.options(&["a.json"]);
    options.shard = Shard::new(2, 2);
    options.keyframes.threshold = 0.25;
    summaries(&options, &Echo::default()).await;
    let error = merge(&merge_options(&fixture), &Silent).unwrap_err().to_string();
    assert!(error.contains("`threshold` was 0.5 and is 0.25"), "{error}");
}
