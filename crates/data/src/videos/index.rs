//! Finds videos in folders and archives, by file name.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::archive;
use crate::error::{Error, Result};

/// Maximum search depth below a benchmark's folder.
const DEPTH: usize = 4;

/// Where to read a video from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum VideoSource {
    /// A file.
    File(PathBuf),
    /// An entry of a zip archive, by index.
    Entry { archive: PathBuf, index: usize },
    /// A link to a file outside the benchmark's folder, which is never placed.
    Outside(OutsideLink),
}

/// A symbolic link that leads out of a benchmark's folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OutsideLink {
    link: PathBuf,
    target: PathBuf,
    folder: PathBuf,
}

impl OutsideLink {
    pub(crate) fn error(&self) -> Error {
        let Self { link, target, folder } = self.clone();
        Error::LinkLeaves { path: link, target, folder }
    }
}

/// The videos below a benchmark's folder, by file name.
#[derive(Debug, Default)]
pub(crate) struct VideoIndex {
    /// Each with the names of its parent folders and archive.
    by_name: BTreeMap<String, Vec<(Vec<String>, VideoSource)>>,
}

impl VideoIndex {
    /// Indexes a folder and its archives.
    ///
    /// # Errors
    /// A folder or archive cannot be read, leads out of `folder` as a link, or an archive has an unsafe
    /// entry.
    pub(crate) fn scan(folder: &Path) -> Result<Self> {
        let mut videos = Self::default();
        let root = fs::canonicalize(folder).map_err(Error::io("read", folder))?;
        // The cache of the Hugging Face Hub: files are links from `snapshots/COMMIT` to `blobs`.
        let is_snapshot = root.parent().is_some_and(|parent| parent.ends_with("snapshots"));
        let blobs = root.ancestors().nth(2).filter(|_| is_snapshot).map(|repo| repo.join("blobs"));
        let scan =
            Scan { folder, allowed: [Some(root.clone()), blobs].into_iter().flatten().collect() };
        videos.walk(&scan, folder, &[], &[root])?;
        Ok(videos)
    }

    /// The source of a video. Among several of the same name it prefers one inside the benchmark's folder,
    /// then one below a folder or archive named like its dataset, then files over archives.
    pub(crate) fn find(&self, video_id: &str, dataset: Option<&str>) -> Option<&VideoSource> {
        let found = self.by_name.get(video_id)?;
        let is_inside =
            |(_, source): &&(Vec<String>, VideoSource)| !matches!(source, VideoSource::Outside(_));
        let is_of_dataset = |(inside, _): &&(Vec<String>, VideoSource)| {
            dataset.is_some_and(|name| inside.iter().any(|part| part == name))
        };
        let inside = || found.iter().filter(is_inside);
        let best = inside().find(is_of_dataset).or_else(|| inside().next()).or(found.first());
        best.map(|(_, source)| source)
    }

    /// Adds the videos in `folder`, the last of `ancestors`, which is below the folders `inside`.
    fn walk(
        &mut self,
        scan: &Scan<'_>,
        folder: &Path,
        inside: &[String],
        ancestors: &[PathBuf],
    ) -> Result<()> {
        let mut entries = fs::read_dir(folder)
            .and_then(Iterator::collect::<std::io::Result<Vec<_>>>)
            .map_err(Error::io("read", folder))?;
        // Files before archives, so that extracted videos are preferred.
        entries.sort_by_key(|entry| (is_archive(&entry.path()), entry.file_name()));
        for entry in entries {
            let path = entry.path();
            let Ok(name) = entry.file_name().into_string() else { continue };
            if name.starts_with('.') {
                continue;
            }
            // Follows links and skips broken ones.
            let (Ok(kind), Ok(real)) = (fs::metadata(&path), fs::canonicalize(&path)) else {
                continue;
            };
            let outside = scan.outside(&path, &real);
            if kind.is_dir() {
                // A link to a parent, which is being read already.
                if ancestors.contains(&real) || ancestors.len() > DEPTH {
                    continue;
                }
                if let Some(link) = outside {
                    return Err(link.error());
                }
                self.walk(
                    scan,
                    &path,
                    &[inside, &[name]].concat(),
                    &[ancestors, &[real]].concat(),
                )?;
            } else if is_archive(&path) {
                if let Some(link) = outside {
                    return Err(link.error());
                }
                let stem = name.rsplit_once('.').map_or(name.as_str(), |(stem, _)| stem);
                for (index, parts) in archive::files(&path)? {
                    self.add(&[inside, &[stem.to_owned()], &parts].concat(), || {
                        VideoSource::Entry { archive: path.clone(), index }
                    });
                }
            } else if kind.is_file() {
                self.add(&[inside, &[name]].concat(), || match outside {
                    Some(link) => VideoSource::Outside(link),
                    None => VideoSource::File(path.clone()),
                });
            }
        }
        Ok(())
    }

    fn add(&mut self, parts: &[String], source: impl FnOnce() -> VideoSource) {
        let Some((name, inside)) = parts.split_last() else { return };
        self.by_name.entry(name.clone()).or_default().push((inside.to_vec(), source()));
    }
}

/// The benchmark's folder that is indexed.
struct Scan<'a> {
    folder: &'a Path,
    /// The folders that links may lead to, without links.
    allowed: Vec<PathBuf>,
}

impl Scan<'_> {
    /// The link at `path` to `real`, if it leads out of the folder.
    fn outside(&self, path: &Path, real: &Path) -> Option<OutsideLink> {
        let is_allowed = self.allowed.iter().any(|folder| real.starts_with(folder));
        let link = || OutsideLink {
            link: path.to_owned(),
            target: real.to_owned(),
            folder: self.folder.to_owned(),
        };
        (!is_allowed).then(link)
    }
}

fn is_archive(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("zip"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::super::tests::folder_with;
    use super::*;

    #[test]
    fn a_video_is_found_below_the_folder_of_its_dataset() {
        let folder = folder_with(&[
            ("arkitscenes/7.mp4", ""),
            ("scannet/deep/7.mp4", ""),
            ("scannet/.hidden.mp4", ""),
        ]);
        let videos = VideoIndex::scan(folder.path()).unwrap();
        let found = |dataset| match videos.find("7.mp4", dataset) {
            Some(VideoSource::File(path)) => path.strip_prefix(folder.path()).unwrap().to_owned(),
            other => panic!("{other:?}"),
        };
        assert_eq!(found(Some("scannet")), Path::new("scannet/deep/7.mp4"));
        assert_eq!(found(Some("arkitscenes")), Path::new("arkitscenes/7.mp4"));
        assert_eq!(found(None), Path::new("arkitscenes/7.mp4"));
        assert_eq!(videos.find("8.mp4", None), None);
        assert_eq!(videos.find(".hidden.mp4", None), None);
    }

    #[test]
    fn a_link_out_of_the_folder_is_no_source() {
        let outside = folder_with(&[("secret", "s"), ("videos/b.mp4", "b")]);
        let folder = folder_with(&[("c.mp4", "c")]);
        symlink(outside.path().join("secret"), folder.path().join("a.mp4")).unwrap();
        let videos = VideoIndex::scan(folder.path()).unwrap();
        let Some(VideoSource::Outside(link)) = videos.find("a.mp4", None) else { panic!() };
        let error = link.error().to_string();
        assert!(error.contains("a.mp4` is a link to") && error.contains("secret`"), "{error}");
        assert!(matches!(videos.find("c.mp4", None), Some(VideoSource::File(_))));
        for name in ["videos", "videos.zip"] {
            let link = folder.path().join("linked").with_file_name(name);
            symlink(outside.path().join("videos"), &link).unwrap();
            assert!(matches!(VideoIndex::scan(folder.path()), Err(Error::LinkLeaves { .. })));
            fs::remove_file(link).unwrap();
        }
    }

    #[test]
    fn links_inside_the_folder_and_a_linked_folder_are_followed() {
        let folder = folder_with(&[("real/store/film.bin", "film")]);
        symlink("store/film.bin", folder.path().join("real/a.mp4")).unwrap();
        symlink(folder.path().join("real"), folder.path().join("VSI-Bench")).unwrap();
        let videos = VideoIndex::scan(&folder.path().join("VSI-Bench")).unwrap();
        assert!(matches!(videos.find("a.mp4", None), Some(VideoSource::File(_))));
    }

    #[test]
    fn a_snapshot_in_the_hubs_cache_links_to_its_blobs() {
        let cache = folder_with(&[("repo/blobs/1234", "film"), ("repo/snapshots/c0ffee/x", "")]);
        let snapshot = cache.path().join("repo/snapshots/c0ffee");
        symlink("../../blobs/1234", snapshot.join("a.mp4")).unwrap();
        let videos = VideoIndex::scan(&snapshot).unwrap();
        assert!(matches!(videos.find("a.mp4", None), Some(VideoSource::File(_))));
    }

    #[test]
    fn a_folder_that_links_to_its_parent_is_read_once() {
        let folder = folder_with(&[("videos/a.mp4", "film")]);
        symlink("..", folder.path().join("videos/up")).unwrap();
        symlink(".", folder.path().join("again")).unwrap();
        let videos = VideoIndex::scan(folder.path()).unwrap();
        assert_eq!(videos.by_name["a.mp4"].len(), 1);
    }

    #[test]
    fn a_pipe_is_no_video() {
        let folder = folder_with(&[]);
        let path = folder.path().join("a.mp4");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        assert_eq!(VideoIndex::scan(folder.path()).unwrap().find("a.mp4", None), None);
    }
}
