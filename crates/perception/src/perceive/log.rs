//! The log of captions: one line of JSON per question, written as soon as it is finished.

mod adopt;

use std::collections::{BTreeMap, HashMap};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use embodied_r_data::write::write_atomic;
use embodied_r_data::{Progress, Question};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Changed, file_name};
use crate::captioner::Caption;
use crate::error::{Error, Result};

/// What became of a question.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    /// Its captions, one per key frame.
    Frames(Vec<Caption>),
    /// Why it failed.
    Error(String),
}

/// One line. The question's text belongs to what a line is about: identifiers repeat between
/// benchmarks, and a question that was reworded was not captioned yet.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Line {
    id: Value,
    video: Option<String>,
    #[serde(flatten)]
    outcome: Outcome,
    question: String,
    settings: Map<String, Value>,
}

/// Which settings a log's captions must have been made with.
#[derive(Debug, Clone, Copy)]
pub(super) enum Expected<'a> {
    /// These; what to do about others.
    These(&'a Map<String, Value>, Changed),
    /// The same for all lines, whatever they are.
    AnyOne,
}

/// What a line is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    id: String,
    video: Option<String>,
    question: String,
}

impl Key {
    fn of(question: &Question) -> Self {
        Self {
            id: question.question_id.to_string(),
            video: video(question).cloned(),
            question: question.question.clone(),
        }
    }
}

impl Line {
    fn key(&self) -> Key {
        let Self { id, video, question, .. } = self;
        Key { id: id.to_string(), video: video.clone(), question: question.clone() }
    }
}

fn video(question: &Question) -> Option<&String> {
    question.video_id.as_ref().or(question.videos.as_ref())
}

/// The log of one data file, held by one run at a time.
#[derive(Debug)]
pub(super) struct CaptionLog {
    path: PathBuf,
    file: File,
    lines: HashMap<Key, Line>,
    /// Keys in the order of their first line.
    order: Vec<Key>,
    /// Keeps other runs away until it is dropped.
    _lock: Lock,
}

/// A locked file.
#[derive(Debug)]
struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing is not enough: a child process that is just being started holds the file too.
        let _ = self.0.unlock();
    }
}

impl CaptionLog {
    /// Opens or makes the log at `path` and reads what it holds. A line that was cut off at the end
    /// is taken away; other lines that cannot be read are passed over with a warning.
    ///
    /// # Errors
    /// Another run holds the log, it cannot be read or written, or its captions were made with
    /// other settings than expected, and that is to be refused.
    pub(super) fn open(
        path: &Path,
        expected: Expected<'_>,
        progress: &dyn Progress,
    ) -> Result<Self> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        }
        let lock = lock(path)?;
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .map_err(Error::io("open", path))?;
        let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
        let whole = mend(&mut file, &bytes).map_err(Error::io("write", path))?;
        let mut log =
            Self { path: path.into(), file, lines: HashMap::new(), order: vec![], _lock: lock };
        let mut first = None;
        for (number, text) in whole.split(|&byte| byte == b'\n').enumerate() {
            if text.is_empty() {
                continue;
            }
            let number = number + 1;
            let line = match serde_json::from_slice::<Line>(text) {
                Ok(line) => line,
                Err(error) => {
                    let path = path.display();
                    progress.warn(&format!("`{path}` line {number} is passed over: {error}"));
                    continue;
                }
            };
            let captioned = matches!(line.outcome, Outcome::Frames(_));
            let (settings, changed) = match expected {
                Expected::These(settings, changed) => (settings, changed),
                Expected::AnyOne if !captioned => (&line.settings, Changed::Refuse),
                Expected::AnyOne => {
                    (&*first.get_or_insert_with(|| line.settings.clone()), Changed::Refuse)
                }
            };
            if captioned && line.settings != *settings {
                if changed == Changed::Redo {
                    continue;
                }
                let difference = difference(&line.settings, settings);
                return Err(Error::SettingsChanged { path: path.into(), line: number, difference });
            }
            log.keep(line);
        }
        Ok(log)
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// A question's captions, where it has them.
    pub(super) fn finished(&self, question: &Question) -> Option<&[Caption]> {
        match &self.lines.get(&Key::of(question))?.outcome {
            Outcome::Frames(captions) => Some(captions),
            Outcome::Error(_) => None,
        }
    }

    /// What became of a question, where it was tried.
    pub(super) fn outcome(&self, question: &Question) -> Option<&Outcome> {
        Some(&self.lines.get(&Key::of(question))?.outcome)
    }

    /// The settings that the captions were made with; `None` where there are none yet.
    pub(super) fn settings(&self) -> Option<&Map<String, Value>> {
        let captioned = |line: &&Line| matches!(line.outcome, Outcome::Frames(_));
        self.lines.values().find(captioned).map(|line| &line.settings)
    }

    /// Adds a question's line; when this returns, a kill of the process no longer loses it.
    pub(super) fn append(
        &mut self,
        question: &Question,
        settings: &Map<String, Value>,
        outcome: Outcome,
    ) -> Result<()> {
        let line = Line {
            id: question.question_id.clone(),
            video: video(question).cloned(),
            outcome,
            question: question.question.clone(),
            settings: settings.clone(),
        };
        let text = text(&self.path, &line)?;
        // One write, so that a kill cannot leave a line without its end unless the disk is full.
        self.file.write_all(&text).map_err(Error::io("write", &self.path))?;
        self.keep(line);
        Ok(())
    }

    /// Writes the log anew: one line per question, in their order, then what belongs to others.
    pub(super) fn close(self, questions: &[Question]) -> Result<()> {
        let mut rank: BTreeMap<usize, Vec<u8>> = BTreeMap::new();
        let mut place: HashMap<Key, usize> = HashMap::new();
        for (i, key) in questions.iter().map(Key::of).chain(self.order.iter().cloned()).enumerate()
        {
            place.entry(key).or_insert(i);
        }
        for (key, line) in &self.lines {
            rank.insert(place[key], text(&self.path, line)?);
        }
        Ok(write_atomic(&self.path, &rank.into_values().collect::<Vec<_>>().concat())?)
    }

    /// Takes a line in; a later one replaces an earlier one about the same question, but a failure
    /// never replaces captions.
    fn keep(&mut self, line: Line) {
        let key = line.key();
        let failed = matches!(line.outcome, Outcome::Error(_));
        match self.lines.get(&key) {
            Some(Line { outcome: Outcome::Frames(_), .. }) if failed => return,
            Some(_) => {}
            None => self.order.push(key.clone()),
        }
        self.lines.insert(key, line);
    }
}

fn text(path: &Path, line: &Line) -> Result<Vec<u8>> {
    let mut text = serde_json::to_vec(line)
        .map_err(|source| embodied_r_data::Error::Json { path: path.into(), source })?;
    text.push(b'\n');
    Ok(text)
}

/// Claims the log through a file beside it, as the log itself is replaced at the end.
fn lock(path: &Path) -> Result<Lock> {
    let lock = path.with_file_name(format!(".{}.lock", file_name(path)));
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&lock)
        .map_err(Error::io("open", &lock))?;
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => Err(Error::LogInUse { path: path.into() }),
        // Some network file systems cannot lock; two runs at once are the user's care there.
        Ok(()) | Err(TryLockError::Error(_)) => Ok(Lock(file)),
    }
}

/// Ends the log's last line: a whole one gets its line feed, a cut off one is taken away. Returns
/// what is left.
fn mend<'a>(file: &mut File, bytes: &'a [u8]) -> std::io::Result<&'a [u8]> {
    let end = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
    let tail = &bytes[end..];
    if tail.is_empty() {
        return Ok(bytes);
    }
    if serde_json::from_slice::<Line>(tail).is_ok() {
        file.write_all(b"\n")?;
        return Ok(bytes);
    }
    file.set_len(end as u64)?;
    file.seek(SeekFrom::End(0))?;
    Ok(&bytes[..end])
}

/// What differs between two settings, such as "`threshold` was 0.5 and is 0.4".
pub(super) fn difference(before: &Map<String, Value>, now: &Map<String, Value>) -> String {
    let mut names: Vec<&String> = before.keys().chain(now.keys()).collect();
    names.sort();
    names.dedup();
    let value = |settings: &Map<String, Value>, name: &str| {
        settings.get(name).map_or_else(|| "unset".to_owned(), Value::to_string)
    };
    let differs = names.into_iter().filter(|name| before.get(*name) != now.get(*name));
    let told = differs
        .map(|name| format!("`{name}` was {} and is {}", value(before, name), value(now, name)));
    told.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use serde_json::json;

    use super::*;

    /// Keeps warnings.
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

    struct Place {
        _folder: tempfile::TempDir,
        path: PathBuf,
        warnings: Warnings,
    }

    impl Place {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("train.captions.jsonl");
            Self { _folder: folder, path, warnings: Warnings::default() }
        }

        fn open_with(&self, settings: &Map<String, Value>, changed: Changed) -> Result<CaptionLog> {
            CaptionLog::open(&self.path, Expected::These(settings, changed), &self.warnings)
        }

        fn open(&self) -> CaptionLog {
            self.open_with(&settings(0.5), Changed::Refuse).unwrap()
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
        let place = Place::new();
        place.open().append(&question(7), &settings(0.5), captions("a door")).unwrap();
        let line: Value = serde_json::from_str(place.text().trim_end()).unwrap();
        assert_eq!(
            line,
            json!({"id": 7, "video": "a.mp4", "frames": [{"index": 0, "time_s": 0.0, "action": null,
                "view": "a door", "prompt_tokens": null, "completion_tokens": 3, "attempts": 1,
                "elapsed_s": 0.25}], "question": "q7",
                "settings": {"backend": "scene", "threshold": 0.5}})
        );
    }

    #[test]
    fn what_was_appended_is_there_without_closing() {
        let place = Place::new();
        place.open().append(&question(1), &settings(0.5), captions("a door")).unwrap();
        let log = place.open();
        assert_eq!(log.finished(&question(1)).unwrap()[0].view, "a door");
        assert_eq!(log.finished(&question(2)), None);
    }

    #[test]
    fn a_log_cut_off_anywhere_keeps_every_line_before_the_cut() {
        let place = Place::new();
        let mut log = place.open();
        for id in 0..3 {
            log.append(&question(id), &settings(0.5), captions("ein Gemälde")).unwrap();
        }
        drop(log);
        let whole = std::fs::read(&place.path).unwrap();
        let ends: Vec<usize> =
            (0..whole.len()).filter(|&at| whole[at] == b'\n').map(|at| at + 1).collect();
        for cut in 0..=whole.len() {
            std::fs::write(&place.path, &whole[..cut]).unwrap();
            let mut log = place.open();
            // A line that lacks its line feed alone is whole.
            let kept = ends.iter().filter(|&&end| end <= cut + 1).count();
            let finished = (0..3).filter(|&id| log.finished(&question(id)).is_some()).count();
            assert_eq!(finished, kept, "cut at {cut}");
            log.append(&question(9), &settings(0.5), captions("next")).unwrap();
            drop(log);
            assert!(place.open().finished(&question(9)).is_some(), "cut at {cut}");
        }
        assert_eq!(*place.warnings.0.lock().unwrap(), Vec::<String>::new());
    }

    #[test]
    fn a_broken_line_in_between_is_told_and_costs_only_itself() {
        let place = Place::new();
        place.open().append(&question(1), &settings(0.5), captions("a")).unwrap();
        let good = place.text();
        std::fs::write(&place.path, format!("{good}{{\"id\": 2, \n{}", good.replace("q1", "q3")))
            .unwrap();
        let log = place.open();
        assert!(log.finished(&question(1)).is_some());
        assert_eq!(log.lines.len(), 2);
        assert!(place.warnings.0.lock().unwrap()[0].contains("line 2"));
    }

    #[test]
    fn a_failure_leaves_the_question_to_be_done() {
        let place = Place::new();
        let mut log = place.open();
        log.append(&question(1), &settings(0.5), Outcome::Error("no video".into())).unwrap();
        drop(log);
        assert_eq!(place.open().finished(&question(1)), None);
        assert!(place.text().contains(r#""error":"no video""#));
    }

    #[test]
    fn a_reworded_question_is_another_one() {
        let place = Place::new();
        place.open().append(&question(1), &settings(0.5), captions("a")).unwrap();
        let reworded = Question { question: "q1, again".into(), ..question(1) };
        assert_eq!(place.open().finished(&reworded), None);
    }

    #[test]
    fn captions_of_other_settings_are_refused_by_name() {
        let place = Place::new();
        place.open().append(&question(1), &settings(0.5), captions("a")).unwrap();
        let error = place.open_with(&settings(0.4), Changed::Refuse).unwrap_err().to_string();
        assert!(
            error.contains("line 1") && error.contains("`threshold` was 0.5 and is 0.4"),
            "{error}"
        );
        assert!(!error.contains("backend` was"), "{error}");
    }

    #[test]
    fn captions_of_other_settings_are_made_anew_on_demand() {
        let place = Place::new();
        place.open().append(&question(1), &settings(0.5), captions("a lamp")).unwrap();
        let mut log = place.open_with(&settings(0.4), Changed::Redo).unwrap();
        assert_eq!(log.finished(&question(1)), None);
        log.append(&question(1), &settings(0.4), captions("a door")).unwrap();
        log.close(&[question(1)]).unwrap();
        assert!(!place.text().contains("a lamp") && place.text().contains("a door"));
    }

    #[test]
    fn failures_of_other_settings_do_not_matter() {
        let place = Place::new();
        let failure = Outcome::Error("no video".into());
        place.open().append(&question(1), &settings(0.5), failure).unwrap();
        assert!(place.open_with(&settings(0.4), Changed::Refuse).is_ok());
    }

    #[test]
    fn closing_sorts_the_lines_and_drops_what_is_superseded() {
        let place = Place::new();
        let mut log = place.open();
        let failure = || Outcome::Error("busy".into());
        log.append(&question(3), &settings(0.5), captions("c")).unwrap();
        log.append(&question(1), &settings(0.5), failure()).unwrap();
        log.append(&question(8), &settings(0.5), captions("another file's")).unwrap();
        log.append(&question(1), &settings(0.5), captions("a")).unwrap();
        log.append(&question(2), &settings(0.5), failure()).unwrap();
        log.close(&[question(1), question(2), question(3)]).unwrap();
        let ids: Vec<Value> = place
            .text()
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].clone())
            .collect();
        assert_eq!(ids, [json!(1), json!(2), json!(3), json!(8)]);
    }

    #[test]
    fn two_runs_do_not_write_the_same_log() {
        let place = Place::new();
        let held = place.open();
        let error = place.open_with(&settings(0.5), Changed::Refuse).unwrap_err();
        assert!(matches!(error, Error::LogInUse { .. }), "{error}");
        drop(held);
        place.open();
    }
}
