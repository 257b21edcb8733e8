//! Where runs are.

use std::io;
use std::path::{Path, PathBuf};

use embodied_r_grpo::checkpoint::SETTINGS_FILE;
use embodied_r_grpo::events::EVENTS_FILE;

/// So deep folders are looked into.
const DEPTH: usize = 4;

/// The folders of runs in `dir`, and `dir` itself where it is one.
///
/// # Errors
/// `dir` cannot be read; what lies in it and cannot is passed over.
pub(super) fn runs(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    look(dir, DEPTH, &mut found)?;
    Ok(found)
}

fn look(dir: &Path, depth: usize, found: &mut Vec<PathBuf>) -> io::Result<()> {
    let mut folders = Vec::new();
    let mut is_run = false;
    for entry in std::fs::read_dir(dir)?.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        is_run |= name == EVENTS_FILE || name == SETTINGS_FILE || checkpoint(&name).is_some();
        // A link could lead round.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) && !name.starts_with('.') {
            folders.push(entry.path());
        }
    }
    if is_run {
        found.push(dir.to_owned());
        return Ok(());
    }
    folders.sort();
    for folder in folders.iter().filter(|_| depth > 1) {
        // What cannot be read is no run that could be listed.
        let _ = look(folder, depth - 1, found);
    }
    Ok(())
}

/// The step of a checkpoint's folder by its name.
pub(super) fn checkpoint(name: &str) -> Option<u64> {
    name.strip_prefix("checkpoint-")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_found_in_folders_and_not_in_runs() {
        let dir = tempfile::tempdir().unwrap();
        for file in [
            "a/events.jsonl",
            "a/checkpoint-3/settings.toml",
            "b/c/settings.toml",
            "b/d/checkpoint-7/trainer_state.json",
            "b/notes/readme.txt",
            ".hidden/events.jsonl",
        ] {
            let path = dir.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let found = runs(dir.path()).unwrap();
        let names: Vec<_> = found.iter().map(|p| p.strip_prefix(dir.path()).unwrap()).collect();
        assert_eq!(names, ["a", "b/c", "b/d"].map(Path::new));
        assert_eq!(runs(&dir.path().join("a")).unwrap(), [dir.path().join("a")]);
        assert!(runs(&dir.path().join("nowhere")).is_err());
    }
}
