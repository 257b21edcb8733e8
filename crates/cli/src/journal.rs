//! The file in which a command records finished questions, so that an interrupted run resumes.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::exit::{self, Usage};

/// Maximum length of a changed setting's value in a message.
const MAX_VALUE_CHARS: usize = 40;

/// A line of the settings that completions depend on, then one line per question. One process at a time has it open.
pub(crate) struct JournalFile {
    path: PathBuf,
    file: File,
}

#[derive(Serialize, Deserialize)]
struct Header {
    settings: Map<String, Value>,
}

impl JournalFile {
    /// Opens the file, or creates it with `settings`, and returns its lines.
    ///
    /// # Errors
    /// Another process has it open, it cannot be read or written, a line is not a `T`, or it has lines of other settings;
    /// the error names these.
    pub(crate) fn open<T: DeserializeOwned>(
        path: &Path,
        settings: &Map<String, Value>,
    ) -> anyhow::Result<(Self, Vec<T>)> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)
                .with_context(|| format!("cannot create `{}`", folder.display()))?;
        }
        let file = locked(path)?;
        let bytes =
            std::fs::read(path).with_context(|| format!("cannot read `{}`", path.display()))?;
        let text = String::from_utf8_lossy(&bytes);
        // Text after the last newline was interrupted while being written.
        let mut whole = text.rfind('\n').map_or("", |end| &text[..=end]);
        let mut lines = whole.lines();
        if let Some(header) = lines.next() {
            let cannot = || format!("cannot parse `{}`, remove it to start over", path.display());
            let header: Header = serde_json::from_str(header).with_context(cannot)?;
            match lines.clone().next() {
                Some(_) => refuse_changed(path, &header.settings, settings)?,
                // Nothing is lost: an earlier run failed before its first completion.
                None => whole = "",
            }
        }
        let parsed = lines.enumerate().map(|(index, line)| {
            let line = serde_json::from_str(line);
            line.with_context(|| format!("cannot parse line {} of `{}`", index + 2, path.display()))
        });
        let parsed = parsed.collect::<anyhow::Result<Vec<T>>>()?;
        let mut journal = Self { path: path.to_owned(), file };
        let cannot = journal.cannot_write();
        journal.file.set_len(whole.len() as u64).with_context(|| cannot.clone())?;
        journal.file.seek(SeekFrom::End(0)).with_context(|| cannot)?;
        if whole.is_empty() {
            journal.add(&Header { settings: settings.clone() })?;
        }
        Ok((journal, parsed))
    }

    /// The path of the file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Appends a line.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn add(&mut self, value: &impl Serialize) -> anyhow::Result<()> {
        let mut line = serde_json::to_vec(value)?;
        line.push(b'\n');
        self.file.write_all(&line).with_context(|| self.cannot_write())
    }

    /// Removes the file, once the output is complete.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub(crate) fn remove(self) -> anyhow::Result<()> {
        std::fs::remove_file(&self.path)
            .with_context(|| format!("cannot remove `{}`", self.path.display()))
    }

    fn cannot_write(&self) -> String {
        format!("cannot write `{}`", self.path.display())
    }
}

/// Opens and locks the file. The operating system releases the lock when the process ends, however it ends.
fn locked(path: &Path) -> anyhow::Result<File> {
    loop {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)
            .with_context(|| format!("cannot write `{}`", path.display()))?;
        match file.try_lock() {
            // The process that held the lock may have removed or replaced the file since.
            Ok(()) if is_at(&file, path) => return Ok(file),
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(exit::hint(
                    format!("another process writes `{}`", path.display()),
                    "wait until it is done, or choose another `--output`",
                ));
            }
            // The file system has no locks.
            Err(TryLockError::Error(_)) => return Ok(file),
        }
    }
}

/// Whether `file` is still the file at `path`.
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let [own, there] =
        [file.metadata(), path.metadata()].map(|of| of.ok().map(|of| (of.dev(), of.ino())));
    own.is_some() && own == there
}

/// Fails if completions were generated with other settings, and names the differences.
fn refuse_changed(
    path: &Path,
    before: &Map<String, Value>,
    now: &Map<String, Value>,
) -> Result<(), Usage> {
    let changed: Vec<String> = now
        .iter()
        .filter(|(name, value)| before.get(*name) != Some(value))
        .map(|(name, value)| {
            let (old, new) =
                (before.get(name).unwrap_or(&Value::Null).to_string(), value.to_string());
            match old.len().max(new.len()) <= MAX_VALUE_CHARS {
                true => format!("`{name}` was {old} and is {new}"),
                false => format!("`{name}` differs"),
            }
        })
        .collect();
    match changed.is_empty() {
        true => Ok(()),
        false => Err(Usage(format!(
            "`{}` has completions generated with different settings: {}; use the original settings, choose another `--output`, \
             or remove the file to start over",
            path.display(),
            changed.join(", ")
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

    fn open(path: &Path, temperature: f64) -> anyhow::Result<(JournalFile, Vec<u32>)> {
        JournalFile::open(path, &settings(temperature, "p"))
    }

    #[test]
    fn a_torn_line_is_dropped_and_the_rest_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/journal");
        let (mut journal, lines) = open(&path, 1.0).unwrap();
        assert!(lines.is_empty());
        [10u32, 11].iter().for_each(|line| journal.add(line).unwrap());
        drop(journal);
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        let (mut journal, lines) = open(&path, 1.0).unwrap();
        assert_eq!(lines, [10]);
        journal.add(&12u32).unwrap();
        drop(journal);
        assert_eq!(open(&path, 1.0).unwrap().1, [10, 12]);
    }

    #[test]
    fn changed_settings_are_named_with_both_values_where_they_are_short() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        open(&path, 1.0).unwrap().0.add(&1u32).unwrap();
        let other = settings(0.5, &"x".repeat(100));
        let error = JournalFile::open::<u32>(&path, &other).err().unwrap().to_string();
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
        open(&path, 2.0).unwrap().0.add(&1u32).unwrap();
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

    #[test]
    fn a_lock_on_a_replaced_file_is_not_a_lock_on_the_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let file = locked(&path).unwrap();
        assert!(is_at(&file, &path));
        std::fs::remove_file(&path).unwrap();
        assert!(!is_at(&file, &path));
        std::fs::write(&path, "other").unwrap();
        assert!(!is_at(&file, &path));
    }
}
