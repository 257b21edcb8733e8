//! Folders that either are whole or are not there, whenever the process is killed.
//!
//! A folder is filled under a hidden name and renamed. One that it replaces is moved to another
//! hidden name first and removed last, so that a kill between the two renames leaves the old one,
//! which [`recover`] puts back.

use std::fs;
use std::path::Path;

use super::manifest;
use crate::error::{Error, Result};
use crate::team::Team;

/// Ends of the hidden names: a folder that is being filled, one that is being replaced, and one that
/// is being removed.
const FILLED: &str = ".tmp";
const REPLACED: &str = ".old.tmp";
const REMOVED: &str = ".removed.tmp";

/// Whether a folder gets a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sealed {
    /// It does, so that damage is found.
    Yes,
    /// It does not: a model for others holds what others know.
    No,
}

fn hidden(name: &str, end: &str) -> String {
    format!(".{name}{end}")
}

/// Fills a hidden folder in `parent`, flushes it to disk and renames it to `name`, in place of what
/// is there. All ranks of `team` fill it, each with its share; the first one does the rest.
///
/// # Errors
/// A file cannot be written, by whichever rank; what was there before is still there then.
pub(super) fn write(
    parent: &Path,
    name: &str,
    sealed: Sealed,
    team: &Team,
    fill: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    let filled = parent.join(hidden(name, FILLED));
    let finish = || match (sealed, team.is_first()) {
        (Sealed::Yes, _) => manifest::seal(&filled, team),
        (Sealed::No, true) => flush_files(&filled),
        (Sealed::No, false) => Ok(()),
    };
    if team.is_first() {
        let fill = || team.wait().and_then(|()| agreed(fill(&filled), team));
        write_first(parent, name, &filled, fill, finish)?;
    } else {
        team.wait()?;
        if !filled.is_dir() {
            return Err(Error::NotShared { folder: filled, rank: team.rank() });
        }
        agreed(fill(&filled), team)?;
        finish()?;
    }
    // Nobody goes on before the folder has its name.
    team.wait()
}

/// What a rank could or could not do, once all are done with it: none goes on if another failed.
fn agreed(done: Result<()>, team: &Team) -> Result<()> {
    let told = team.gather(done.as_ref().err().map(ToString::to_string))?;
    done?;
    let failed = told.into_iter().enumerate().find_map(|(rank, what)| Some((rank, what?)));
    failed.map_or(Ok(()), |(rank, what)| Err(Error::OfRank { rank, what }))
}

/// What the first rank does: the folder is made before, and renamed behind what all do.
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
    fs::create_dir_all(filled).map_err(Error::io("create", filled))?;
    if let Err(error) = fill().and_then(|()| finish()).and_then(|()| flush(filled)) {
        // The first error is the one to report.
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

/// Removes the folder `name` of `parent`: it is renamed first, so that none is ever there by half.
pub(super) fn remove(parent: &Path, name: &str) -> Result<()> {
    let (path, removed) = (parent.join(name), parent.join(hidden(name, REMOVED)));
    remove_hidden(&removed)?;
    fs::rename(&path, &removed).map_err(Error::io("remove", &path))?;
    remove_hidden(&removed)
}

/// Puts right what a kill left in `parent` under hidden names, of those folders that `ours` knows
/// by their name: a replaced folder whose successor never came is put back, all else is removed.
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

/// Flushes a file, or the names of a folder, to disk.
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
    fn a_failed_write_leaves_what_was_there_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "final", Sealed::No, &Team::default(), filled("old")).unwrap();
        let failed = write(dir.path(), "final", Sealed::Yes, &Team::default(), |folder| {
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
        write(dir.path(), "final", Sealed::No, &Team::default(), filled("new")).unwrap();
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
    fn half_filled_and_half_removed_folders_go_and_those_of_others_stay() {
        let dir = tempfile::tempdir().unwrap();
        for name in [".checkpoint-4.tmp", ".checkpoint-2.removed.tmp", ".cache.tmp", "checkpoint-2"]
        {
            put(dir.path(), name, "");
        }
        recover(dir.path(), |name| name.starts_with("checkpoint-")).unwrap();
        assert_eq!(names(dir.path()), [".cache.tmp", "checkpoint-2"]);
    }
}
