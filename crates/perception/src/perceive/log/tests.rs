use std::path::PathBuf;
use std::sync::Mutex;

use serde_json::json;

use super::*;

/// Collects warnings.
#[derive(Default)]
struct Warnings(Mutex<Vec<String>>);

impl Progress for Warnings {
    fn start(&self, _: &str, _: Option<u64>) {}
    fn advance(&self, _: u64) {}
    fn message(&self, _: &str) {}
    fn warn(&self, text: &str) {
        self.0.lock().unwrap().push(text.to_owned());
    }
    fn finish(&self) {}
}

struct Fixture {
    _folder: tempfile::TempDir,
    path: PathBuf,
    warnings: Warnings,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("train.captions.jsonl");
        Self { _folder: folder, path, warnings: Warnings::default() }
    }

    fn open_with(
        &self,
        settings: &Map<String, Value>,
        changed: ChangedSettings,
    ) -> Result<CaptionLog> {
        CaptionLog::open(&self.path, ExpectedSettings::Exactly(settings, changed), &self.warnings)
    }

    fn open(&self) -> CaptionLog {
        self.open_with(&settings(0.5), ChangedSettings::Reject).unwrap()
    }

    fn text(&self) -> String {
        std::fs::read_to_string(&self.path).unwrap()
    }
}

fn settings(threshold: f64) -> Map<String, Value> {
    Map::from_iter([
        ("backend".to_owned(), json!("scene")),
        ("threshold".to_owned(), json!(threshold)),
    ])
}

fn question(id: u32) -> Question {
    serde_json::from_value(json!({
        "Question_id": id, "video_id": "a.mp4", "question": format!("q{id}")
    }))
    .unwrap()
}

fn captions(view: &str) -> Outcome {
    Outcome::Frames(vec![Caption {
        index: 0,
        time_s: Some(0.0),
        action: None,
        view: view.to_owned(),
        prompt_tokens: None,
        completion_tokens: Some(3),
        attempts: 1,
        elapsed_s: 0.25,
        fault: None,
        from_cache: false,
    }])
}

#[test]
fn a_line_holds_question_frames_tokens_time_and_settings() {
    let fixture = Fixture::new();
    fixture.open().append(&question(7), &settings(0.5), captions("a door")).unwrap();
    let line: Value = serde_json::from_str(fixture.text().trim_end()).unwrap();
    assert_eq!(
        line,
        json!({"id": 7, "video": "a.mp4", "frames": [{"index": 0, "time_s": 0.0, "action": null,
            "view": "a door", "prompt_tokens": null, "completion_tokens": 3, "attempts": 1,
            "elapsed_s": 0.25}], "question": "q7",
            "settings": {"backend": "scene", "threshold": 0.5}})
    );
}

#[test]
fn appended_lines_are_there_without_closing() {
    let fixture = Fixture::new();
    fixture.open().append(&question(1), &settings(0.5), captions("a door")).unwrap();
    let log = fixture.open();
    assert_eq!(log.finished(&question(1)).unwrap()[0].view, "a door");
    assert_eq!(log.finished(&question(2)), None);
}

#[test]
fn a_truncated_log_keeps_every_line_before_the_cut() {
    let fixture = Fixture::new();
    let mut log = fixture.open();
    for id in 0..3 {
        log.append(&question(id), &settings(0.5), captions("ein Gemälde")).unwrap();
    }
    drop(log);
    let whole = std::fs::read(&fixture.path).unwrap();
    let ends: Vec<usize> =
        (0..whole.len()).filter(|&at| whole[at] == b'\n').map(|at| at + 1).collect();
    for cut in 0..=whole.len() {
        std::fs::write(&fixture.path, &whole[..cut]).unwrap();
        let mut log = fixture.open();
        // A line that lacks only its line feed is complete.
        let kept = ends.iter().filter(|&&end| end <= cut + 1).count();
        let finished = (0..3).filter(|&id| log.finished(&question(id)).is_some()).count();
        assert_eq!(finished, kept, "cut at {cut}");
        log.append(&question(9), &settings(0.5), captions("next")).unwrap();
        drop(log);
        assert!(fixture.open().finished(&question(9)).is_some(), "cut at {cut}");
    }
    assert_eq!(*fixture.warnings.0.lock().unwrap(), Vec::<String>::new());
}

#[test]
fn a_broken_line_is_skipped_with_a_warning() {
    let fixture = Fixture::new();
    fixture.open().append(&question(1), &settings(0.5), captions("a")).unwrap();
    let good = fixture.text();
    std::fs::write(&fixture.path, format!("{good}{{\"id\": 2, \n{}", good.replace("q1", "q3")))
        .unwrap();
    let log = fixture.open();
    assert!(log.finished(&question(1)).is_some());
    assert_eq!(log.lines.len(), 2);
    assert!(fixture.warnings.0.lock().unwrap()[0].contains("line 2"));
}

#[test]
fn a_failed_question_is_not_finished() {
    let fixture = Fixture::new();
    let mut log = fixture.open();
    log.append(&question(1), &settings(0.5), Outcome::Error("no video".into())).unwrap();
    drop(log);
    assert_eq!(fixture.open().finished(&question(1)), None);
    assert!(fixture.text().contains(r#""error":"no video""#));
}

#[test]
fn a_reworded_question_is_not_finished() {
    let fixture = Fixture::new();
    fixture.open().append(&question(1), &settings(0.5), captions("a")).unwrap();
    let reworded = Question { question: "q1, again".into(), ..question(1) };
    assert_eq!(fixture.open().finished(&reworded), None);
}

#[test]
fn captions_of_other_settings_are_rejected_naming_the_difference() {
    let fixture = Fixture::new();
    fixture.open().append(&question(1), &settings(0.5), captions("a")).unwrap();
    let error = fixture.open_with(&settings(0.4), ChangedSettings::Reject).unwrap_err().to_string();
    assert!(
        error.contains("line 1") && error.contains("`threshold` was 0.5 and is 0.4"),
        "{error}"
    );
    assert!(!error.contains("backend` was"), "{error}");
}

#[test]
fn captions_of_other_settings_are_recaptioned_on_demand() {
    let fixture = Fixture::new();
    fixture.open().append(&question(1), &settings(0.5), captions("a lamp")).unwrap();
    let mut log = fixture.open_with(&settings(0.4), ChangedSettings::Recaption).unwrap();
    assert_eq!(log.finished(&question(1)), None);
    log.append(&question(1), &settings(0.4), captions("a door")).unwrap();
    log.close(&[question(1)]).unwrap();
    assert!(!fixture.text().contains("a lamp") && fixture.text().contains("a door"));
}

#[test]
fn failures_of_other_settings_do_not_matter() {
    let fixture = Fixture::new();
    let failure = Outcome::Error("no video".into());
    fixture.open().append(&question(1), &settings(0.5), failure).unwrap();
    assert!(fixture.open_with(&settings(0.4), ChangedSettings::Reject).is_ok());
}

#[test]
fn closing_sorts_the_lines_and_drops_superseded_ones() {
    let fixture = Fixture::new();
    let mut log = fixture.open();
    let failure = || Outcome::Error("busy".into());
    log.append(&question(3), &settings(0.5), captions("c")).unwrap();
    log.append(&question(1), &settings(0.5), failure()).unwrap();
    log.append(&question(8), &settings(0.5), captions("another file's")).unwrap();
    log.append(&question(1), &settings(0.5), captions("a")).unwrap();
    log.append(&question(2), &settings(0.5), failure()).unwrap();
    log.close(&[question(1), question(2), question(3)]).unwrap();
    let ids: Vec<Value> = fixture
        .text()
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].clone())
        .collect();
    assert_eq!(ids, [json!(1), json!(2), json!(3), json!(8)]);
}

#[test]
fn two_runs_cannot_open_the_same_log() {
    let fixture = Fixture::new();
    let held = fixture.open();
    let error = fixture.open_with(&settings(0.5), ChangedSettings::Reject).unwrap_err();
    assert!(matches!(error, Error::LogInUse { .. }), "{error}");
    drop(held);
    fixture.open();
}
