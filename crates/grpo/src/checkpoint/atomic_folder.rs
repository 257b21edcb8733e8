//! Folders that are written atomically, even if the process is killed.
//!
//! A folder is filled under a hidden name and renamed. A folder that it replaces is first moved to another hidden name
//! and removed last, so that a kill between the renames leaves the old one for [`recover`] to put back.

use std::fs;
use std::path::Path;

use super::manifest;
use crate::error::{Error, Result};
use embodied_r_dist::ProcessGroup;

/// Suffixes of the hidden names: a folder being filled, being replaced, and being removed.
const FILLED: &str = ".tmp";
const REPLACED: &str = ".old.tmp";
const REMOVED: &str = ".removed.tmp";

/// Whether a folder gets a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manifested {
    /// With a manifest, to detect damage.
    Yes,
    /// Without: the final model has the standard layout.
    No,
}

fn hidden(name: &str, end: &str) -> String {
    format!(".{name}{end}")
}

/// Fills a hidden folder in `parent`, flushes it to disk and renames it to `name`, replacing what is there. All ranks
/// of `process_group` fill it with their shards; rank 0 does the rest.
///
/// # Errors
/// A rank cannot write a file; the previous folder is unaffected.
pub(super) fn write(
    parent: &Path,
    name: &str,
    sealed: Manifested,
    process_group: &ProcessGroup,
    fill: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    let filled = parent.join(hidden(name, FILLED));
    let finish = || match (sealed, process_group.is_rank_zero()) {
        (Manifested::Yes, _) => manifest::seal(&filled, process_group),
        (Manifested::No, true) => flush_files(&filled),
        (Manifested::No, false) => Ok(()),
    };
    if process_group.is_rank_zero() {
        let fill = || {
            process_group.barrier()?;
            all_succeeded(fill(&filled), process_group)
        };
        write_first(parent, name, &filled, fill, finish)?;
    } else {
        process_group.barrier()?;
        if !filled.is_dir() {
            return Err(Error::NotShared { folder: filled, rank: process_group.rank() });
        }
        all_succeeded(fill(&filled), process_group)?;
        finish()?;
    }
    // No rank continues before the folder has its name.
    Ok(process_group.barrier()?)
}

/// Waits for all ranks and fails on all of them if any failed.
fn all_succeeded(done: Result<()>, process_group: &ProcessGroup) -> Result<()> {
    let errors = process_group.all_gather(done.as_ref().err().map(ToString::to_string))?;
    done?;
    let failed = errors.into_iter().enumerate().find_map(|(rank, what)| Some((rank, what?)));
    failed.map_or(Ok(()), |(rank, what)| Err(Error::RankFailed { rank, what }))
}

/// Rank 0's part: create the folder, fill it with the others, rename it.
fn write_first(
    parent: &Path,
    name: &str,
    filled: &Path,
    fill: impl FnOnce() -> Result<()>,
    finish: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let path = parent.join(name);
    let replaced = parent.join(hidden(name, REPLACED));
    remove_hidden(filled)?;
    remove_hidden(&replaced)?;
    // Not with its parents: a run whose folder was moved must not write another.
    fs::create_dir(filled).map_err(Error::io("create", filled))?;
    if let Err(error) = fill().and_then(|()| finish()).and_then(|()| flush(filled)) {
        // Report the first error only.
        let _ = fs::remove_dir_all(filled);
        return Err(error);
    }
    if path.exists() {
        fs::rename(&path, &replaced).map_err(Error::io("replace", &path))?;
    }
    fs::rename(filled, &path).map_err(Error::io("rename to", &path))?;
    flush(parent)?;
    remove_hidden(&replaced)
}

/// Removes the folder `name` of `parent`; it is renamed first, so that a partial folder is never visible.
pub(super) fn remove(parent: &Path, name: &str) -> Result<()> {
    let (path, removed) = (parent.join(name), parent.join(hidden(name, REMOVED)));
    remove_hidden(&removed)?;
    fs::rename(&path, &removed).map_err(Error::io("remove", &path))?;
    remove_hidden(&removed)
}

/// Cleans up hidden folders in `parent` after a kill, for the folder names that `ours` accepts: a replaced folder
/// without a successor is put back, all others are removed.
pub(super) fn recover(parent: &Path, ours: impl Fn(&str) -> bool) -> Result<()> {
    let names = super::names(parent)?;
    let of = |end: &str| -> Vec<(String, String)> {
        let name = |hidden: &String| {
            Some((hidden.clone(), hidden.strip_prefix('.')?.strip_suffix(end)?.to_owned()))
        };
        names.iter().filter_map(name).filter(|(_, name)| ours(name)).collect()
    };
    for (hidden, name) in of(REPLACED) {
        let path = parent.join(&name);
        if !path.exists() {
            fs::rename(parent.join(hidden), &path).map_err(Error::io("rename to", &path))?;
            flush(parent)?;
        }
    }
    for (hidden, _) in [REPLACED, REMOVED, FILLED].into_iter().flat_map(of) {
        remove_hidden(&parent.join(hidden))?;
    }
    Ok(())
}

fn remove_hidden(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io("remove", folder)(error))
        }
        _ => Ok(()),
    }
}

fn flush_files(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder).map_err(Error::io("read", folder))? {
        flush(&entry.map_err(Error::io("read", folder))?.path())?;
    }
    Ok(())
}

/// Flushes a file or a directory entry to disk.
fn flush(path: &Path) -> Result<()> {
    let file = fs::File::open(path).map_err(Error::io("open", path))?;
    file.sync_all().map_err(Error::io("flush", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(parent: &Path, name: &str) -> String {
        fs::read_to_string(parent.join(name).join("file")).unwrap()
    }

    fn put(parent: &Path, name: &str, text: &str) {
        fs::create_dir_all(parent.join(name)).unwrap();
        fs::write(parent.join(name).join("file"), text).unwrap();
    }

    fn filled(text: &'static str) -> impl FnOnce(&Path) -> Result<()> {
        move |folder| fs::write(folder.join("file"), text).map_err(Error::io("write", folder))
    }

    fn names(parent: &Path) -> Vec<String> {
        let mut names = super::super::names(parent).unwrap();
        names.sort();
        names
    }

    #[test]
    fn a_failed_write_leaves_the_previous_folder_alone() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "final", Manifested::No, &ProcessGroup::default(), filled("old"))
            .unwrap();
        let failed =
            write(dir.path(), "final", Manifested::Yes, &ProcessGroup::default(), |folder| {
                filled("half")(folder)?;
                Err(Error::io("write", folder)(std::io::Error::other("no space left")))
            });
        assert!(failed.unwrap_err().to_string().contains("no space left"));
        assert_eq!((text(dir.path(), "final").as_str(), names(dir.path()).len()), ("old", 1));
    }

    #[test]
    fn a_folder_is_replaced_as_a_whole() {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), "final", "old");
        fs::write(dir.path().join("final/other"), "").unwrap();
        write(dir.path(), "final", Manifested::No, &ProcessGroup::default(), filled("new"))
            .unwrap();
        assert_eq!(text(dir.path(), "final"), "new");
        assert!(!dir.path().join("final/other").exists());
        assert_eq!(names(dir.path()), ["final"]);
    }

    #[test]
    fn a_kill_between_the_two_renames_leaves_the_old_folder() {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), ".checkpoint-4.old.tmp", "old");
        put(dir.path(), ".checkpoint-4.tmp", "new");
        recover(dir.path(), |name| name == "checkpoint-4").unwrap();
        assert_eq!(text(dir.path(), "checkpoint-4"), "old");
        assert_eq!(names(dir.path()), ["checkpoint-4"]);
    }

    #[test]
    fn a_kill_after_both_renames_leaves_the_new_folder() {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), ".checkpoint-4.old.tmp", "old");
        put(dir.path(), "checkpoint-4", "new");
        recover(dir.path(), |name| name == "checkpoint-4").unwrap();
        assert_eq!(text(dir.path(), "checkpoint-4"), "new");
        assert_eq!(names(dir.path()), ["checkpoint-4"]);
    }

    #[test]
    fn partial_folders_are_removed_and_foreign_ones_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        for name in [".checkpoint-4.tmp", ".checkpoint-2.removed.tmp", ".cache.tmp", "checkpoint-2"]
        {
            put(dir.path(), name, "");
        }
        recover(dir.path(), |name| name.starts_with("checkpoint-")).unwrap();
        assert_eq!(names(dir.path()), [".cache.tmp", "checkpoint-2"]);
    }
}
