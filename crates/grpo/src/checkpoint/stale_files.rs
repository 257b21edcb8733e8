//! Stale files of a killed run, from steps that will be repeated.

use std::fs;
use std::path::Path;

use super::names;
use crate::error::{Error, Result};
use crate::events::skipped::{SKIPPED_FOLDER, step_of_dump};
use crate::events::{COMPLETIONS_FOLDER, step_of_completions};

/// Removes the completions and dumps of steps after `done`, and unfinished temporary files, from the run's folder
/// `run`.
///
/// # Errors
/// A file cannot be removed.
pub(crate) fn sweep(run: &Path, done: u64) -> Result<()> {
    for (folder, step_of) in [
        (COMPLETIONS_FOLDER, step_of_completions as fn(&str) -> Option<u64>),
        (SKIPPED_FOLDER, step_of_dump),
    ] {
        sweep_folder(&run.join(folder), |name| {
            let whole = name.strip_prefix('.').and_then(|name| name.strip_suffix(".tmp"));
            match whole {
                // A temporary file has the final name plus a suffix.
                Some(name) => {
                    name.rsplit_once('.').is_some_and(|(name, _)| step_of(name).is_some())
                }
                None => step_of(name).is_some_and(|step| step > done),
            }
        })?;
    }
    sweep_folder(run, |name| {
        name.strip_prefix(".settings.toml.").is_some_and(|rest| rest.ends_with(".tmp"))
    })
}

fn sweep_folder(folder: &Path, goes: impl Fn(&str) -> bool) -> Result<()> {
    for name in names(folder)?.into_iter().filter(|name| goes(name)) {
        let path = folder.join(name);
        fs::remove_file(&path).map_err(Error::io("remove", &path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_of_later_steps_and_unfinished_files_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let files = [
            ("completions/completions_00002.parquet", true),
            ("completions/completions_00003.parquet", false),
            ("completions/.completions_00002.parquet.12-0.tmp", false),
            ("completions/notes.txt", true),
            ("skipped/step-000002.json", true),
            ("skipped/step-000003.json", false),
            ("skipped/.step-000003.json.12-3.tmp", false),
            (".settings.toml.12-0.tmp", false),
            (".other.12-0.tmp", true),
        ];
        for (name, _) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        sweep(dir.path(), 2).unwrap();
        for (name, stays) in files {
            assert_eq!(dir.path().join(name).exists(), stays, "{name}");
        }
    }
}
