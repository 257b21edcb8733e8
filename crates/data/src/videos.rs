//! Finds a benchmark's videos and places them in the folder of the merged dataset.
//!
//! Videos are found by file name in folders and zip archives. Writes are atomic and videos already in
//! place are left alone, so a run can be repeated.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufReader, Read as _};
use std::path::{Path, PathBuf};

use embodied_r_files::TempFile;
use rayon::prelude::*;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::progress::Progress;

mod archive;
mod index;
mod outcome;
mod space;

pub(crate) use index::{VideoIndex, VideoSource};
pub(crate) use outcome::PlaceOutcome;
pub(crate) use space::check as check_space;

/// How video files are placed. Archives are always extracted and kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Transfer {
    /// Hard link, or a copy where the file system does not support it.
    Link,
    /// Copy.
    Copy,
    /// Move; removes the original.
    Move,
}

/// Places videos in parallel. Returns the outcomes in the order of the jobs.
///
/// # Errors
/// A video cannot be read, extracted or written. Videos placed before the error remain.
pub(crate) fn place_all(
    jobs: &[(VideoSource, PathBuf)],
    transfer: Transfer,
    progress: &dyn Progress,
) -> Result<Vec<PlaceOutcome>> {
    // One batch per archive, so that each is opened only once.
    let mut batches: BTreeMap<(Option<&Path>, usize), Vec<usize>> = BTreeMap::new();
    for (number, (source, _)) in jobs.iter().enumerate() {
        let batch = match source {
            VideoSource::File(_) | VideoSource::Outside(_) => (None, number),
            VideoSource::Entry { archive, .. } => (Some(archive.as_path()), 0),
        };
        batches.entry(batch).or_default().push(number);
    }
    let batches: Vec<_> = batches.into_iter().collect();
    let placed: Vec<Vec<(usize, PlaceOutcome)>> = batches
        .par_iter()
        .map(|((archive, _), numbers)| {
            let mut extractor = archive.map(archive::Extractor::open).transpose()?;
            let mut placed = Vec::with_capacity(numbers.len());
            for &number in numbers {
                let (source, target) = &jobs[number];
                let outcome = match (source, &mut extractor) {
                    (VideoSource::Entry { index, .. }, Some(extractor)) => {
                        extractor.extract(*index, target)?
                    }
                    (VideoSource::File(path), _) => place_file(path, target, transfer)?,
                    (VideoSource::Entry { archive, index }, None) => {
                        archive::Extractor::open(archive)?.extract(*index, target)?
                    }
                    (VideoSource::Outside(link), _) => return Err(link.error()),
                };
                placed.push((number, outcome));
                progress.advance(1);
            }
            Ok(placed)
        })
        .collect::<Result<_>>()?;
    let mut placed: Vec<_> = placed.into_iter().flatten().collect();
    placed.sort_unstable_by_key(|(number, _)| *number);
    Ok(placed.into_iter().map(|(_, outcome)| outcome).collect())
}

fn place_file(source: &Path, target: &Path, transfer: Transfer) -> Result<PlaceOutcome> {
    let origin = fs::canonicalize(source).map_err(Error::io("read", source))?;
    if let Ok(there) = fs::canonicalize(target) {
        if there == origin {
            // Two paths of one file, through links: moving it would delete the only copy.
            return Ok(PlaceOutcome::AlreadyPresent);
        }
        if same_content(&origin, &there)? {
            if transfer == Transfer::Move {
                fs::remove_file(source).map_err(Error::io("remove", source))?;
            }
            return Ok(PlaceOutcome::AlreadyPresent);
        }
    }
    let is_link = fs::symlink_metadata(source).is_ok_and(|kind| kind.is_symlink());
    if transfer == Transfer::Move && !is_link && fs::rename(source, target).is_ok() {
        return Ok(PlaceOutcome::New);
    }
    let temporary = TempFile::next_to(target);
    if transfer != Transfer::Link || fs::hard_link(&origin, temporary.path()).is_err() {
        fs::copy(&origin, temporary.path()).map_err(Error::io("copy", &origin))?;
    }
    temporary.rename_to(target)?;
    if transfer == Transfer::Move {
        fs::remove_file(source).map_err(Error::io("remove", source))?;
    }
    Ok(PlaceOutcome::New)
}

fn same_content(one: &Path, other: &Path) -> Result<bool> {
    let read = |path: &Path| File::open(path).map_err(Error::io("read", path));
    let (first, second) = (read(one)?, read(other)?);
    let metadata = |file: &File, path: &Path| file.metadata().map_err(Error::io("read", path));
    let (first_meta, second_meta) = (metadata(&first, one)?, metadata(&second, other)?);
    if first_meta.len() != second_meta.len() {
        return Ok(false);
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        let identity = |metadata: &fs::Metadata| (metadata.dev(), metadata.ino());
        if identity(&first_meta) == identity(&second_meta) {
            return Ok(true);
        }
    }
    let mut first = BufReader::with_capacity(1 << 16, first);
    let mut second = BufReader::with_capacity(1 << 16, second);
    let (mut first_chunk, mut second_chunk) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut remaining = first_meta.len();
    while remaining > 0 {
        let take = usize::try_from(remaining).unwrap_or(usize::MAX).min(first_chunk.len());
        first.read_exact(&mut first_chunk[..take]).map_err(Error::io("read", one))?;
        second.read_exact(&mut second_chunk[..take]).map_err(Error::io("read", other))?;
        if first_chunk[..take] != second_chunk[..take] {
            return Ok(false);
        }
        remaining -= take as u64;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Silent;

    pub(super) fn folder_with(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    fn place(from: &Path, to: &Path, transfer: Transfer) -> PlaceOutcome {
        let jobs = [(VideoSource::File(from.to_owned()), to.to_owned())];
        place_all(&jobs, transfer, &Silent).unwrap()[0]
    }

    #[test]
    fn a_link_shares_the_file_and_a_copy_does_not() {
        use std::os::unix::fs::MetadataExt as _;
        let folder = folder_with(&[("a.mp4", "film")]);
        let (from, linked) = (folder.path().join("a.mp4"), folder.path().join("b.mp4"));
        let copied = folder.path().join("c.mp4");
        assert_eq!(place(&from, &linked, Transfer::Link), PlaceOutcome::New);
        assert_eq!(place(&from, &copied, Transfer::Copy), PlaceOutcome::New);
        let inode = |path: &Path| fs::metadata(path).unwrap().ino();
        assert_eq!(inode(&from), inode(&linked));
        assert_ne!(inode(&from), inode(&copied));
        assert_eq!(fs::read(&copied).unwrap(), b"film");
    }

    #[test]
    fn a_moved_video_is_removed_from_its_old_path() {
        let folder = folder_with(&[("a.mp4", "film")]);
        let (from, to) = (folder.path().join("a.mp4"), folder.path().join("b.mp4"));
        assert_eq!(place(&from, &to, Transfer::Move), PlaceOutcome::New);
        assert!(!from.exists());
        assert_eq!(fs::read(&to).unwrap(), b"film");
    }

    #[test]
    fn identical_files_are_left_alone_and_different_ones_replaced() {
        let folder = folder_with(&[("a.mp4", "film"), ("same.mp4", "film"), ("other.mp4", "mlif")]);
        let from = folder.path().join("a.mp4");
        let at = |name: &str| folder.path().join(name);
        assert_eq!(place(&from, &at("same.mp4"), Transfer::Copy), PlaceOutcome::AlreadyPresent);
        assert_eq!(place(&from, &at("other.mp4"), Transfer::Copy), PlaceOutcome::New);
        assert_eq!(fs::read(at("other.mp4")).unwrap(), b"film");
    }

    #[test]
    fn replacing_a_linked_video_leaves_the_original_unchanged() {
        let folder = folder_with(&[("old.mp4", "old"), ("new.mp4", "new")]);
        let at = |name: &str| folder.path().join(name);
        place(&at("old.mp4"), &at("placed.mp4"), Transfer::Link);
        place(&at("new.mp4"), &at("placed.mp4"), Transfer::Copy);
        assert_eq!(fs::read(at("old.mp4")).unwrap(), b"old");
        assert_eq!(fs::read(at("placed.mp4")).unwrap(), b"new");
    }

    #[test]
    fn moving_a_video_onto_itself_through_a_link_does_not_delete_it() {
        let folder = folder_with(&[("videos/a.mp4", "film")]);
        let linked = folder.path().join("linked");
        std::os::unix::fs::symlink(folder.path().join("videos"), &linked).unwrap();
        let original = folder.path().join("videos/a.mp4");
        assert_eq!(
            place(&linked.join("a.mp4"), &original, Transfer::Move),
            PlaceOutcome::AlreadyPresent
        );
        assert_eq!(fs::read(&original).unwrap(), b"film");
    }

    #[test]
    fn a_symbolic_link_is_placed_as_its_target_file() {
        for transfer in [Transfer::Link, Transfer::Copy, Transfer::Move] {
            let folder = folder_with(&[("store/film.bin", "film"), ("out/x", "")]);
            let link = folder.path().join("a.mp4");
            std::os::unix::fs::symlink("store/film.bin", &link).unwrap();
            let to = folder.path().join("out/a.mp4");
            place(&link, &to, transfer);
            assert!(fs::symlink_metadata(&to).unwrap().is_file(), "{transfer:?}");
            assert_eq!(fs::read(&to).unwrap(), b"film");
            assert!(folder.path().join("store/film.bin").exists());
        }
    }
}
