//! Importing results from other logs.

use std::collections::HashMap;
use std::path::Path;

use embodied_r_data::{Progress, Question};
use embodied_r_files::journal::{self, changes};
use serde_json::{Map, Value};

use super::{CaptionLog, ChangedSettings, Key, Line, Outcome};
use crate::error::{Error, Result};

impl CaptionLog {
    /// Imports the results of those of `questions` that have no captions here from the log at `other`. That log may be
    /// written concurrently, and need not exist.
    ///
    /// # Errors
    /// It cannot be read, or its captions were made with other settings and [`ChangedSettings::Reject`] applies.
    pub(in crate::perceive) fn import_from(
        &mut self,
        other: &Path,
        questions: &[Question],
        (settings, changed): (&Map<String, Value>, ChangedSettings),
        progress: &dyn Progress,
    ) -> Result<()> {
        let text = match std::fs::read(other) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            text => text.map_err(Error::io("read", other))?,
        };
        let by_key: HashMap<Key, &Question> =
            questions.iter().map(|question| (Key::of(question), question)).collect();
        for entry in journal::lines(&text) {
            let number = entry.number;
            let Ok(line) = entry.parse::<Line>() else {
                progress.warn(&format!("`{}` line {number} is skipped", other.display()));
                continue;
            };
            let Some(question) = by_key.get(&line.key()) else { continue };
            if self.finished(question).is_some() {
                continue;
            }
            if matches!(line.outcome, Outcome::Frames(_)) && line.settings != *settings {
                if changed == ChangedSettings::Recaption {
                    continue;
                }
                let (path, difference) = (other.into(), changes(&line.settings, settings));
                return Err(Error::SettingsChanged { path, line: number, difference });
            }
            self.append(question, &line.settings, line.outcome)?;
        }
        Ok(())
    }
}
