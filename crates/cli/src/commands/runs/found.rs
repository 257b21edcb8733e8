//! Discovery of run folders.

use std::io;
use std::path::{Path, PathBuf};

use embodied_r_grpo::checkpoint::{SETTINGS_FILE, step_of};
use embodied_r_grpo::events::EVENTS_FILE;

/// Maximum search depth.
const MAX_DEPTH: usize = 4;

/// The run folders in `dir`, or `dir` itself if it is one.
///
/// # Errors
/// `dir` cannot be read; unreadable subfolders are skipped.
pub(super) fn runs(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    search(dir, MAX_DEPTH, &mut found)?;
    Ok(found)
}

fn search(dir: &Path, depth: usize, found: &mut Vec<PathBuf>) -> io::Result<()> {
    let mut folders = Vec::new();
    let mut is_run = false;
    for entry in std::fs::read_dir(dir)?.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        is_run |= name == EVENTS_FILE || name == SETTINGS_FILE || step_of(&name).is_some();
        // Symlinks are not followed: they may form a cycle.
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
        // Unreadable subfolders are skipped.
        let _ = search(folder, depth - 1, found);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_found_in_folders_but_not_inside_runs() {
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
