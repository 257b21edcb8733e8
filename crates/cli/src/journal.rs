//! The journal in which a command records finished questions, so that an interrupted run resumes: a line of the settings
//! that completions depend on, then one line per question.

use std::path::Path;

use anyhow::Context as _;
use embodied_r_files::journal::{self, Journal, TornLine};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::exit::{self, Usage};

#[derive(Serialize, Deserialize)]
struct Header {
    settings: Map<String, Value>,
}

/// Opens the journal, or creates it with `settings`, and returns its records.
///
/// # Errors
/// Another process has it open, it cannot be read or written, a line is not a `T`, or it has lines of other settings;
/// the error names these.
pub(crate) fn open<T: DeserializeOwned>(
    path: &Path,
    settings: &Map<String, Value>,
) -> anyhow::Result<(Journal, Vec<T>)> {
    let Some((mut journal, text)) = Journal::lock(path, TornLine::Cut)? else {
        return Err(exit::hint(
            format!("another process writes `{}`", path.display()),
            "wait until it is done, or choose another `--output`",
        ));
    };
    let mut lines = journal::lines(&text);
    let header = lines.next().map(|line| line.parse::<Header>()).transpose();
    let header = header
        .with_context(|| format!("cannot parse `{}`, remove it to start over", path.display()))?;
    let records = lines.map(|line| {
        let cannot = || format!("cannot parse line {} of `{}`", line.number, path.display());
        line.parse().with_context(cannot)
    });
    let mut records = records.peekable();
    match header {
        Some(header) if records.peek().is_some() => {
            refuse_changed(path, &header.settings, settings)?
        }
        // Nothing is lost: an earlier run failed before its first completion.
        _ => {
            journal.clear()?;
            journal.append(&Header { settings: settings.clone() })?;
        }
    }
    Ok((journal, records.collect::<anyhow::Result<_>>()?))
}

/// Fails if completions were generated with other settings, and names the differences.
fn refuse_changed(
    path: &Path,
    before: &Map<String, Value>,
    now: &Map<String, Value>,
) -> Result<(), Usage> {
    let changes = journal::changes(before, now);
    match changes.is_empty() {
        true => Ok(()),
        false => Err(Usage(format!(
            "`{}` has completions generated with different settings: {changes}; use the original settings, choose another \
             `--output`, or remove the file to start over",
            path.display()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn settings(temperature: f64, prompt: &str) -> Map<String, Value> {
        let settings = json!({"temperature": temperature, "system_prompt": prompt});
        settings.as_object().unwrap().clone()
    }

    fn open(path: &Path, temperature: f64) -> anyhow::Result<(Journal, Vec<u32>)> {
        super::open(path, &settings(temperature, "p"))
    }

    #[test]
    fn a_torn_line_is_dropped_and_the_rest_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/journal");
        let (mut journal, lines) = open(&path, 1.0).unwrap();
        assert!(lines.is_empty());
        for line in [10u32, 11] {
            journal.append(&line).unwrap();
        }
        drop(journal);
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        let (mut journal, lines) = open(&path, 1.0).unwrap();
        assert_eq!(lines, [10]);
        journal.append(&12u32).unwrap();
        drop(journal);
        assert_eq!(open(&path, 1.0).unwrap().1, [10, 12]);
    }

    #[test]
    fn changed_settings_are_named_with_both_values_where_they_are_short() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        open(&path, 1.0).unwrap().0.append(&1u32).unwrap();
        let other = settings(0.5, &"x".repeat(100));
        let error = super::open::<u32>(&path, &other).err().unwrap().to_string();
        let expected =
            "different settings: `temperature` was 1.0 and is 0.5, `system_prompt` differs;";
        assert!(error.contains(expected), "{error}");
        assert_eq!(open(&path, 1.0).unwrap().1, [1]);
    }

    #[test]
    fn settings_can_change_before_the_first_completion() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        drop(open(&path, 1.0).unwrap());
        open(&path, 2.0).unwrap().0.append(&1u32).unwrap();
        assert!(open(&path, 1.0).is_err());
    }

    #[test]
    fn a_second_process_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let (journal, _) = open(&path, 1.0).unwrap();
        let error = open(&path, 1.0).err().unwrap().to_string();
        assert!(error.starts_with("another process writes `"), "{error}");
        journal.remove().unwrap();
        assert!(open(&path, 1.0).unwrap().1.is_empty());
    }
}
