//! The videos that were named, and what to do with each on all cores.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;

use crate::exit::Usage;

/// Names that videos end in.
const ENDINGS: [&str; 16] = [
    "3gp", "avi", "flv", "gif", "m4v", "mkv", "mov", "mp4", "mpeg", "mpg", "mts", "ogv", "ts",
    "webm", "wmv", "y4m",
];

/// Folders inside folders at most: a link may lead round.
const DEPTH: usize = 8;

/// The files among `named`, and those in its folders that bear a video's name, in order.
pub(super) fn found(named: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut videos = Vec::new();
    for path in named {
        if !path.is_dir() {
            videos.push(path.clone());
            continue;
        }
        let before = videos.len();
        look_into(path, DEPTH, &mut videos)?;
        if videos.len() == before {
            anyhow::bail!(Usage(format!("`{}` holds no videos", path.display())));
        }
    }
    Ok(videos)
}

fn look_into(folder: &Path, depth: usize, videos: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let unreadable = |error| anyhow::anyhow!("cannot read `{}`: {error}", folder.display());
    let entries: Result<Vec<PathBuf>, std::io::Error> =
        std::fs::read_dir(folder).map_err(unreadable)?.map(|e| e.map(|e| e.path())).collect();
    let mut entries = entries.map_err(unreadable)?;
    entries.sort();
    for path in entries {
        if path.is_dir() {
            if depth > 0 {
                look_into(&path, depth - 1, videos)?;
            }
        } else if is_video(&path) {
            videos.push(path);
        }
    }
    Ok(())
}

fn is_video(path: &Path) -> bool {
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    ENDINGS.iter().any(|known| known.eq_ignore_ascii_case(ending))
}

/// Does `work` on all of `videos`, as many at a time as there are cores, and hands the results to
/// `take` in the videos' order. The first error of `take` ends it.
pub(super) fn each<T: Send>(
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
                    let place = next.fetch_add(1, Ordering::Relaxed);
                    let Some(video) = videos.get(place) else { return };
                    if done.send((place, work(video))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(done);
        let mut early = BTreeMap::new();
        let mut turn = 0;
        for (place, result) in results {
            early.insert(place, result);
            while let Some(result) = early.remove(&turn) {
                if let Err(error) = videos.get(turn).map_or(Ok(()), |video| take(video, result)) {
                    is_over.store(true, Ordering::Relaxed);
                    return Err(error);
                }
                turn += 1;
            }
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_give_their_videos_in_order() {
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
    fn a_folder_without_videos_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let error = found(&[folder.path().to_owned()]).unwrap_err().to_string();
        assert!(error.ends_with("holds no videos"), "{error}");
    }

    #[test]
    fn results_come_in_order_and_an_error_ends_them() {
        let videos: Vec<PathBuf> = (0..20).map(|i| PathBuf::from(i.to_string())).collect();
        let mut seen = Vec::new();
        let ended = each(
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
