//! Importing results from other logs.

use std::collections::HashMap;
use std::path::Path;

use embodied_r_data::{Progress, Question};
use serde_json::{Map, Value};

use super::{CaptionLog, ChangedSettings, Key, Line, Outcome, difference};
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
        let bytes = match std::fs::read(other) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            bytes => bytes.map_err(Error::io("read", other))?,
        };
        let by_key: HashMap<Key, &Question> =
            questions.iter().map(|question| (Key::of(question), question)).collect();
        // Bytes after the last line feed are still being written.
        let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        for (number, text) in bytes[..whole].split(|&byte| byte == b'\n').enumerate() {
            let Ok(line) = serde_json::from_slice::<Line>(text) else {
                if !text.is_empty() {
                    let (path, number) = (other.display(), number + 1);
                    progress.warn(&format!("`{path}` line {number} is skipped"));
                }
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
                let (path, difference) = (other.into(), difference(&line.settings, settings));
                return Err(Error::SettingsChanged { path, line: number + 1, difference });
            }
            self.append(question, &line.settings, line.outcome)?;
        }
        Ok(())
    }
}
