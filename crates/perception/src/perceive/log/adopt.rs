//! What other logs say of the same questions.

use std::collections::HashMap;
use std::path::Path;

use embodied_r_data::{Progress, Question};
use serde_json::{Map, Value};

use super::{CaptionLog, Changed, Key, Line, Outcome, difference};
use crate::error::{Error, Result};

impl CaptionLog {
    /// Takes in what the log at `other` says of those of `questions` that have no captions here. That log may be written
    /// meanwhile, and need not be there.
    ///
    /// # Errors
    /// It cannot be read, or its captions were made with other settings, and that is to be refused.
    pub(in crate::perceive) fn adopt(
        &mut self,
        other: &Path,
        questions: &[Question],
        (settings, changed): (&Map<String, Value>, Changed),
        progress: &dyn Progress,
    ) -> Result<()> {
        let bytes = match std::fs::read(other) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            bytes => bytes.map_err(Error::io("read", other))?,
        };
        let ours: HashMap<Key, &Question> =
            questions.iter().map(|question| (Key::of(question), question)).collect();
        // What stands behind the last line feed is still being written.
        let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        for (number, text) in bytes[..whole].split(|&byte| byte == b'\n').enumerate() {
            let Ok(line) = serde_json::from_slice::<Line>(text) else {
                if !text.is_empty() {
                    let (path, number) = (other.display(), number + 1);
                    progress.warn(&format!("`{path}` line {number} is passed over"));
                }
                continue;
            };
            let Some(question) = ours.get(&line.key()) else { continue };
            if self.finished(question).is_some() {
                continue;
            }
            if matches!(line.outcome, Outcome::Frames(_)) && line.settings != *settings {
                if changed == Changed::Redo {
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
