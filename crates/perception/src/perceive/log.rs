//! The caption log (JSONL): one line per question, written as soon as it is finished.

mod import;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use embodied_r_data::{Progress, Question};
use embodied_r_files::write_atomic;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::input::file_name;
use super::options::ChangedSettings;
use crate::captioner::Caption;
use crate::error::{Error, Result};

/// A question's result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    /// Its captions, one per key frame.
    Frames(Vec<Caption>),
    /// Why it failed.
    Error(String),
}

/// One line. The question's text is part of its key: identifiers repeat between benchmarks, and a
/// reworded question needs new captions.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Line {
    id: Value,
    video: Option<String>,
    #[serde(flatten)]
    outcome: Outcome,
    question: String,
    settings: Map<String, Value>,
}

/// The settings that a log's captions must have been made with.
#[derive(Debug, Clone, Copy)]
pub(super) enum ExpectedSettings<'a> {
    /// These settings; what to do about others.
    Exactly(&'a Map<String, Value>, ChangedSettings),
    /// Any settings, but the same for all lines.
    Uniform,
}

/// Identifies a question.
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

/// The log of one data file, locked by one run at a time.
#[derive(Debug)]
pub(super) struct CaptionLog {
    path: PathBuf,
    file: File,
    lines: HashMap<Key, Line>,
    /// Keys in the order of their first line.
    order: Vec<Key>,
    /// Excludes other runs until dropped.
    _lock: Lock,
}

/// A locked file.
#[derive(Debug)]
struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing is not enough: a child process being spawned may hold the file descriptor too.
        let _ = self.0.unlock();
    }
}

impl CaptionLog {
    /// Opens or creates the log at `path` and reads it. A truncated last line is removed; other lines
    /// that cannot be parsed are skipped with a warning.
    ///
    /// # Errors
    /// Another run holds the log, it cannot be read or written, or its captions were made with
    /// unexpected settings and [`ChangedSettings::Reject`] applies.
    pub(super) fn open(
        path: &Path,
        expected: ExpectedSettings<'_>,
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
        let whole = repair_tail(&mut file, &bytes).map_err(Error::io("write", path))?;
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
                    progress.warn(&format!("`{path}` line {number} is skipped: {error}"));
                    continue;
                }
            };
            let captioned = matches!(line.outcome, Outcome::Frames(_));
            let (settings, changed) = match expected {
                ExpectedSettings::Exactly(settings, changed) => (settings, changed),
                ExpectedSettings::Uniform if !captioned => {
                    (&line.settings, ChangedSettings::Reject)
                }
                ExpectedSettings::Uniform => {
                    (&*first.get_or_insert_with(|| line.settings.clone()), ChangedSettings::Reject)
                }
            };
            if captioned && line.settings != *settings {
                if changed == ChangedSettings::Recaption {
                    continue;
                }
                let difference = difference(&line.settings, settings);
                return Err(Error::SettingsChanged { path: path.into(), line: number, difference });
            }
            log.record(line);
        }
        Ok(log)
    }

    /// The log's path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// A question's captions, if it is finished.
    pub(super) fn finished(&self, question: &Question) -> Option<&[Caption]> {
        match &self.lines.get(&Key::of(question))?.outcome {
            Outcome::Frames(captions) => Some(captions),
            Outcome::Error(_) => None,
        }
    }

    /// A question's result, if it was tried.
    pub(super) fn outcome(&self, question: &Question) -> Option<&Outcome> {
        Some(&self.lines.get(&Key::of(question))?.outcome)
    }

    /// The settings of the captions; `None` if there are none yet.
    pub(super) fn settings(&self) -> Option<&Map<String, Value>> {
        let captioned = |line: &&Line| matches!(line.outcome, Outcome::Frames(_));
        self.lines.values().find(captioned).map(|line| &line.settings)
    }

    /// Appends a question's line; once this returns, it survives a kill of the process.
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
        let text = to_jsonl(&self.path, &line)?;
        // One write, so that a kill cannot truncate a line unless the disk is full.
        self.file.write_all(&text).map_err(Error::io("write", &self.path))?;
        self.record(line);
        Ok(())
    }

    /// Rewrites the log: one line per question, in their order, then the lines of other questions.
    pub(super) fn close(self, questions: &[Question]) -> Result<()> {
        let mut sorted: BTreeMap<usize, Vec<u8>> = BTreeMap::new();
        let mut position: HashMap<Key, usize> = HashMap::new();
        for (i, key) in questions.iter().map(Key::of).chain(self.order.iter().cloned()).enumerate()
        {
            position.entry(key).or_insert(i);
        }
        for (key, line) in &self.lines {
            sorted.insert(position[key], to_jsonl(&self.path, line)?);
        }
        Ok(write_atomic(&self.path, &sorted.into_values().collect::<Vec<_>>().concat())?)
    }

    /// Records a line. A later line replaces an earlier one of the same question, but a failure never
    /// replaces captions.
    fn record(&mut self, line: Line) {
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

fn to_jsonl(path: &Path, line: &Line) -> Result<Vec<u8>> {
    let mut text = serde_json::to_vec(line)
        .map_err(|source| embodied_r_data::Error::Json { path: path.into(), source })?;
    text.push(b'\n');
    Ok(text)
}

/// Locks the log through a lock file next to it, since the log itself is replaced at the end.
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
        // Some network file systems cannot lock; there the user must not start two runs.
        Ok(()) | Err(TryLockError::Error(_)) => Ok(Lock(file)),
    }
}

/// Repairs the log's last line: a complete one gets its line feed, a truncated one is removed.
/// Returns the remaining bytes.
fn repair_tail<'a>(file: &mut File, bytes: &'a [u8]) -> std::io::Result<&'a [u8]> {
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

/// The difference between two settings, such as "`threshold` was 0.5 and is 0.4".
pub(super) fn difference(before: &Map<String, Value>, now: &Map<String, Value>) -> String {
    let mut names: Vec<&String> = before.keys().chain(now.keys()).collect();
    names.sort();
    names.dedup();
    let value = |settings: &Map<String, Value>, name: &str| {
        settings.get(name).map_or_else(|| "unset".to_owned(), Value::to_string)
    };
    let differs = names.into_iter().filter(|name| before.get(*name) != now.get(*name));
    let changes = differs
        .map(|name| format!("`{name}` was {} and is {}", value(before, name), value(now, name)));
    changes.collect::<Vec<_>>().join(", ")
}
