//! Input videos, and parallel processing in order.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;

use crate::exit::Usage;

/// File extensions of videos.
const EXTENSIONS: [&str; 16] = [
    "3gp", "avi", "flv", "gif", "m4v", "mkv", "mov", "mp4", "mpeg", "mpg", "mts", "ogv", "ts",
    "webm", "wmv", "y4m",
];

/// Maximum search depth.
const MAX_DEPTH: usize = 8;

/// The files in `named`, and the videos in its folders, in order.
pub(super) fn found(named: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut videos = Vec::new();
    for path in named {
        if !path.is_dir() {
            videos.push(path.clone());
            continue;
        }
        let before = videos.len();
        search(path, MAX_DEPTH, &mut BTreeSet::new(), &mut videos)?;
        if videos.len() == before {
            anyhow::bail!(Usage(format!("no videos in `{}`", path.display())));
        }
    }
    Ok(videos)
}

/// Adds the videos in `folder`, unless it is among the folders `read`: links may lead to it several times.
fn search(
    folder: &Path,
    depth: usize,
    read: &mut BTreeSet<PathBuf>,
    videos: &mut Vec<PathBuf>,
) -> anyhow::Result<()> {
    let unreadable = |error| anyhow::anyhow!("cannot read `{}`: {error}", folder.display());
    if !read.insert(folder.canonicalize().map_err(unreadable)?) {
        return Ok(());
    }
    let entries: Result<Vec<PathBuf>, std::io::Error> =
        std::fs::read_dir(folder).map_err(unreadable)?.map(|e| e.map(|e| e.path())).collect();
    let mut entries = entries.map_err(unreadable)?;
    entries.sort();
    for path in entries {
        if path.is_dir() {
            if depth > 0 {
                search(&path, depth - 1, read, videos)?;
            }
        } else if is_video(&path) {
            videos.push(path);
        }
    }
    Ok(())
}

fn is_video(path: &Path) -> bool {
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    EXTENSIONS.iter().any(|known| known.eq_ignore_ascii_case(ending))
}

/// Runs `work` on all `videos` with one thread per core, and passes the results to `take` in order. Stops at the first
/// error of `take`.
pub(super) fn for_each<T: Send>(
    videos: &[PathBuf],
    work: impl Fn(&PathBuf) -> T + Sync,
    mut take: impl FnMut(&Path, T) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (next, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let (done, results) = channel();
    std::thread::scope(|scope| {
        for _ in 0..cores.min(videos.len()) {
            let done = done.clone();
            scope.spawn(|| {
                let done = done;
                while !is_over.load(Ordering::Relaxed) {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(video) = videos.get(index) else { return };
                    if done.send((index, work(video))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(done);
        let mut early = BTreeMap::new();
        let mut due = 0;
        for (index, result) in results {
            early.insert(index, result);
            while let Some(result) = early.remove(&due) {
                if let Err(error) = videos.get(due).map_or(Ok(()), |video| take(video, result)) {
                    is_over.store(true, Ordering::Relaxed);
                    return Err(error);
                }
                due += 1;
            }
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn videos_in_folders_are_found_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir(at("b")).unwrap();
        for name in ["b/two.MKV", "a.mp4", "notes.txt", "c.mp4"] {
            std::fs::write(at(name), "").unwrap();
        }
        let named = [at("notes.txt"), folder.path().to_owned()];
        let videos = found(&named).unwrap();
        assert_eq!(videos, [at("notes.txt"), at("a.mp4"), at("b/two.MKV"), at("c.mp4")]);
    }

    #[test]
    fn a_folder_that_links_to_its_parent_is_read_once() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("inner");
        std::fs::create_dir(&inner).unwrap();
        std::fs::write(inner.join("a.mp4"), "").unwrap();
        std::os::unix::fs::symlink("..", inner.join("up")).unwrap();
        std::os::unix::fs::symlink("inner", folder.path().join("z")).unwrap();
        assert_eq!(found(&[folder.path().to_owned()]).unwrap(), [inner.join("a.mp4")]);
    }

    #[test]
    fn a_folder_without_videos_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let error = found(&[folder.path().to_owned()]).unwrap_err().to_string();
        assert!(error.starts_with("no videos in"), "{error}");
    }

    #[test]
    fn results_come_in_order_and_stop_at_an_error() {
        let videos: Vec<PathBuf> = (0..20).map(|i| PathBuf::from(i.to_string())).collect();
        let mut seen = Vec::new();
        let ended = for_each(
            &videos,
            |path| path.to_string_lossy().parse::<usize>().unwrap(),
            |_, number| {
                seen.push(number);
                if number == 12 { Err(anyhow::anyhow!("over")) } else { Ok(()) }
            },
        );
        assert_eq!(ended.unwrap_err().to_string(), "over");
        assert_eq!(seen, (0..13).collect::<Vec<_>>());
    }
}
