//! The caption log (JSONL): one line per question, written as soon as it is finished.

mod import;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use embodied_r_data::{Progress, Question};
use embodied_r_files::journal::{self, Journal, TornLine, changes};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

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

/// The log of one data file, written by one run at a time.
#[derive(Debug)]
pub(super) struct CaptionLog {
    journal: Journal,
    lines: HashMap<Key, Line>,
    /// Keys in the order of their first line.
    order: Vec<Key>,
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
        let Some((journal, text)) = Journal::lock(path, TornLine::CutUnlessWhole)? else {
            return Err(Error::LogInUse { path: path.into() });
        };
        let mut log = Self { journal, lines: HashMap::new(), order: vec![] };
        let mut first = None;
        for line in journal::lines(&text) {
            let number = line.number;
            let line = match line.parse::<Line>() {
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
                let difference = changes(&line.settings, settings);
                return Err(Error::SettingsChanged { path: path.into(), line: number, difference });
            }
            log.record(line);
        }
        Ok(log)
    }

    /// The log's path.
    pub(super) fn path(&self) -> &Path {
        self.journal.path()
    }

    /// A question's captions, if it is finished.
    pub(super) fn finished(&self, question: &Question) -> Option<&[Caption]> {
        match &self.lines.get(&Key::of(question))?.outcome {
            Outcome::Frames(captions) => Some(captions),
            Outcome::Error(_) => None,
        }
    }

    /// A question's captions and their settings, if it is finished.
    pub(super) fn captions(
        &self,
        question: &Question,
    ) -> Option<(&[Caption], &Map<String, Value>)> {
        Some((self.finished(question)?, &self.lines.get(&Key::of(question))?.settings))
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
        self.journal.append(&line)?;
        self.record(line);
        Ok(())
    }

    /// Rewrites the log: one line per question, in their order, then the lines of other questions.
    pub(super) fn close(self, questions: &[Question]) -> Result<()> {
        let mut position: HashMap<Key, usize> = HashMap::new();
        for (i, key) in questions.iter().map(Key::of).chain(self.order.iter().cloned()).enumerate()
        {
            position.entry(key).or_insert(i);
        }
        let sorted: BTreeMap<usize, &Line> =
            self.lines.iter().map(|(key, line)| (position[key], line)).collect();
        Ok(self.journal.rewrite(sorted.values())?)
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
