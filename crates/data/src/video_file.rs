//! Finds the video of a question.

use std::path::{Component, Path, PathBuf};

/// Extensions tried for a name without one.
const EXTENSIONS: [&str; 5] = ["mp4", "mov", "mkv", "webm", "avi"];

/// Where videos may be.
#[derive(Debug, Clone, Copy)]
pub struct VideoFolders<'a> {
    /// The folder of the videos, if one is given.
    pub video_dir: Option<&'a Path>,
    /// The folder that paths are relative to, if one is given.
    pub image_dir: Option<&'a Path>,
    /// The folder of the question file.
    pub beside: &'a Path,
}

/// The video of a question with these fields `videos` and `video_id`: by its name, or by `videos`, in `video_dir`, if one
/// is given; else `videos` in `image_dir`, if one is given; else `videos` relative to the working directory or to the
/// question file; else by its name in `videos/` beside the question file. `None` if it is in none of them.
#[must_use]
pub fn find_video(
    videos: Option<&str>,
    video_id: Option<&str>,
    folders: VideoFolders<'_>,
) -> Option<PathBuf> {
    let names = || [video_id, videos].into_iter().flatten().map(Path::new);
    // A path in `video_id` must not lead out of the folder.
    let in_folder = |folder: &Path| -> Vec<PathBuf> {
        names().filter_map(Path::file_name).map(|name| folder.join(name)).collect()
    };
    let candidates: Vec<PathBuf> = match (folders.video_dir, folders.image_dir) {
        (Some(folder), _) => {
            let within = videos.map(Path::new).filter(|path| is_contained(path));
            in_folder(folder).into_iter().chain(within.map(|path| folder.join(path))).collect()
        }
        (None, Some(folder)) => {
            videos.or(video_id).map(|path| folder.join(path)).into_iter().collect()
        }
        (None, None) => {
            let beside = folders.beside;
            let listed =
                videos.into_iter().flat_map(|path| [PathBuf::from(path), beside.join(path)]);
            listed.chain(in_folder(&beside.join("videos"))).collect()
        }
    };
    candidates.into_iter().flat_map(with_extensions).find(|path| path.is_file())
}

/// Whether `path` stays within a folder that it is joined to.
fn is_contained(path: &Path) -> bool {
    path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
}

/// `path`, and `path` with each of [`EXTENSIONS`].
fn with_extensions(path: PathBuf) -> impl Iterator<Item = PathBuf> {
    let with = |extension: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(".");
        name.push(extension);
        PathBuf::from(name)
    };
    let others: Vec<_> = EXTENSIONS.iter().map(|extension| with(extension)).collect();
    std::iter::once(path).chain(others)
}
