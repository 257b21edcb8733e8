//! Where a benchmark's videos lie, and how they come into the folder of the unified set.
//!
//! Videos are found by their file name, in folders and in zip archives. What is placed appears whole
//! or not at all, and a video that is there already is left alone, so that a run can be repeated.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufReader, Read as _};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::write::Temporary;

mod archive;

/// How deep below a benchmark's folder videos are looked for; ends walks round linked folders.
const DEPTH: usize = 4;

/// How a video that lies in a folder comes to its new place. Archives are always unpacked and kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Transfer {
    /// By a hard link, or a copy where the file system has none.
    Link,
    /// By a copy.
    Copy,
    /// By moving it: it is gone from its old place.
    Move,
}

/// A place that a video can be had from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// A file.
    File(PathBuf),
    /// An entry of a zip archive, by its number.
    Entry { archive: PathBuf, index: usize },
}

/// The videos below a benchmark's folder, by file name.
#[derive(Debug, Default)]
pub(crate) struct Library {
    /// Each with the names of the folders and the archive that it lies in.
    by_name: BTreeMap<String, Vec<(Vec<String>, Source)>>,
}

impl Library {
    /// Looks through a folder and its archives.
    ///
    /// # Errors
    /// A folder or archive cannot be read, or an archive holds entries that leave their folder.
    pub(crate) fn below(folder: &Path) -> Result<Self> {
        let mut library = Self::default();
        library.walk(folder, &[], DEPTH)?;
        Ok(library)
    }

    /// The place of a video; where several bear its name, the one below a folder or archive named
    /// like its data set, and files before archives.
    pub(crate) fn find(&self, video_id: &str, dataset: Option<&str>) -> Option<&Source> {
        let found = self.by_name.get(video_id)?;
        let of_dataset = found
            .iter()
            .find(|(inside, _)| dataset.is_some_and(|name| inside.iter().any(|part| part == name)));
        of_dataset.or(found.first()).map(|(_, source)| source)
    }

    fn walk(&mut self, folder: &Path, inside: &[String], depth: usize) -> Result<()> {
        let mut entries = fs::read_dir(folder)
            .and_then(Iterator::collect::<std::io::Result<Vec<_>>>)
            .map_err(Error::io("read", folder))?;
        // Files before archives, so that what is unpacked already is not unpacked again.
        entries.sort_by_key(|entry| (is_archive(&entry.path()), entry.file_name()));
        for entry in entries {
            let path = entry.path();
            let Ok(name) = entry.file_name().into_string() else { continue };
            if name.starts_with('.') {
                continue;
            }
            // Follows links; what a broken one names is absent.
            let Ok(kind) = fs::metadata(&path) else { continue };
            if kind.is_dir() {
                if depth > 0 {
                    self.walk(&path, &[inside, &[name]].concat(), depth - 1)?;
                }
            } else if is_archive(&path) {
                let stem = name.rsplit_once('.').map_or(name.as_str(), |(stem, _)| stem);
                for (index, parts) in archive::files(&path)? {
                    self.add(&[inside, &[stem.to_owned()], &parts].concat(), || Source::Entry {
                        archive: path.clone(),
                        index,
                    });
                }
            } else {
                self.add(&[inside, &[name]].concat(), || Source::File(path.clone()));
            }
        }
        Ok(())
    }

    fn add(&mut self, parts: &[String], source: impl FnOnce() -> Source) {
        let Some((name, inside)) = parts.split_last() else { return };
        self.by_name.entry(name.clone()).or_default().push((inside.to_vec(), source()));
    }
}

fn is_archive(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("zip"))
}

/// Whether a video had to be brought to its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Placed {
    /// It is there now.
    New,
    /// It was there already.
    Already,
}

/// Brings videos to their places, several at a time; tells which had to be brought, in the order of
/// the jobs.
///
/// # Errors
/// A video cannot be read, unpacked or written. What was placed before stays.
pub(crate) fn place_all(
    jobs: &[(Source, PathBuf)],
    transfer: Transfer,
    progress: &dyn Progress,
) -> Result<Vec<Placed>> {
    // One batch per archive, so that each is opened once.
    let mut batches: BTreeMap<(Option<&Path>, usize), Vec<usize>> = BTreeMap::new();
    for (number, (source, _)) in jobs.iter().enumerate() {
        let batch = match source {
            Source::File(_) => (None, number),
            Source::Entry { archive, .. } => (Some(archive.as_path()), 0),
        };
        batches.entry(batch).or_default().push(number);
    }
    let batches: Vec<_> = batches.into_iter().collect();
    let placed: Vec<Vec<(usize, Placed)>> = batches
        .par_iter()
        .map(|((archive, _), numbers)| {
            let mut unpacker = archive.map(archive::Unpacker::open).transpose()?;
            let mut placed = Vec::with_capacity(numbers.len());
            for &number in numbers {
                let (source, place) = &jobs[number];
                let outcome = match (source, &mut unpacker) {
                    (Source::Entry { index, .. }, Some(unpacker)) => {
                        unpacker.unpack(*index, place)?
                    }
                    (Source::File(path), _) => place_file(path, place, transfer)?,
                    (Source::Entry { archive, index }, None) => {
                        archive::Unpacker::open(archive)?.unpack(*index, place)?
                    }
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

fn place_file(source: &Path, place: &Path, transfer: Transfer) -> Result<Placed> {
    let origin = fs::canonicalize(source).map_err(Error::io("read", source))?;
    if let Ok(there) = fs::canonicalize(place) {
        if there == origin {
            // One file under two paths, by links: moving it would delete the only copy.
            return Ok(Placed::Already);
        }
        if same_content(&origin, &there)? {
            if transfer == Transfer::Move {
                fs::remove_file(source).map_err(Error::io("remove", source))?;
            }
            return Ok(Placed::Already);
        }
    }
    let is_link = fs::symlink_metadata(source).is_ok_and(|kind| kind.is_symlink());
    if transfer == Transfer::Move && !is_link && fs::rename(source, place).is_ok() {
        return Ok(Placed::New);
    }
    let temporary = Temporary::beside(place);
    if transfer != Transfer::Link || fs::hard_link(&origin, &temporary.0).is_err() {
        fs::copy(&origin, &temporary.0).map_err(Error::io("copy", &origin))?;
    }
    temporary.rename_to(place).map_err(Error::io("write", place))?;
    if transfer == Transfer::Move {
        fs::remove_file(source).map_err(Error::io("remove", source))?;
    }
    Ok(Placed::New)
}

fn same_content(one: &Path, other: &Path) -> Result<bool> {
    let read = |path: &Path| File::open(path).map_err(Error::io("read", path));
    let (first, second) = (read(one)?, read(other)?);
    let kind = |file: &File, path: &Path| file.metadata().map_err(Error::io("read", path));
    let (first_kind, second_kind) = (kind(&first, one)?, kind(&second, other)?);
    if first_kind.len() != second_kind.len() {
        return Ok(false);
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        let identity = |kind: &fs::Metadata| (kind.dev(), kind.ino());
        if identity(&first_kind) == identity(&second_kind) {
            return Ok(true);
        }
    }
    let mut first = BufReader::with_capacity(1 << 16, first);
    let mut second = BufReader::with_capacity(1 << 16, second);
    let (mut ours, mut theirs) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut left = first_kind.len();
    while left > 0 {
        let take = usize::try_from(left).unwrap_or(usize::MAX).min(ours.len());
        first.read_exact(&mut ours[..take]).map_err(Error::io("read", one))?;
        second.read_exact(&mut theirs[..take]).map_err(Error::io("read", other))?;
        if ours[..take] != theirs[..take] {
            return Ok(false);
        }
        left -= take as u64;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Silent;

    fn folder_with(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    fn place(from: &Path, to: &Path, transfer: Transfer) -> Placed {
        let jobs = [(Source::File(from.to_owned()), to.to_owned())];
        place_all(&jobs, transfer, &Silent).unwrap()[0]
    }

    #[test]
    fn a_link_shares_the_file_and_a_copy_does_not() {
        use std::os::unix::fs::MetadataExt as _;
        let folder = folder_with(&[("a.mp4", "film")]);
        let (from, linked) = (folder.path().join("a.mp4"), folder.path().join("b.mp4"));
        let copied = folder.path().join("c.mp4");
        assert_eq!(place(&from, &linked, Transfer::Link), Placed::New);
        assert_eq!(place(&from, &copied, Transfer::Copy), Placed::New);
        let inode = |path: &Path| fs::metadata(path).unwrap().ino();
        assert_eq!(inode(&from), inode(&linked));
        assert_ne!(inode(&from), inode(&copied));
        assert_eq!(fs::read(&copied).unwrap(), b"film");
    }

    #[test]
    fn a_moved_video_is_gone_from_its_old_place() {
        let folder = folder_with(&[("a.mp4", "film")]);
        let (from, to) = (folder.path().join("a.mp4"), folder.path().join("b.mp4"));
        assert_eq!(place(&from, &to, Transfer::Move), Placed::New);
        assert!(!from.exists());
        assert_eq!(fs::read(&to).unwrap(), b"film");
    }

    #[test]
    fn what_is_there_already_is_left_alone_and_what_differs_is_replaced() {
        let folder = folder_with(&[("a.mp4", "film"), ("same.mp4", "film"), ("other.mp4", "mlif")]);
        let from = folder.path().join("a.mp4");
        let at = |name: &str| folder.path().join(name);
        assert_eq!(place(&from, &at("same.mp4"), Transfer::Copy), Placed::Already);
        assert_eq!(place(&from, &at("other.mp4"), Transfer::Copy), Placed::New);
        assert_eq!(fs::read(at("other.mp4")).unwrap(), b"film");
    }

    #[test]
    fn replacing_a_linked_video_leaves_the_users_file_as_it_was() {
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
        let place_of_it = folder.path().join("videos/a.mp4");
        assert_eq!(place(&linked.join("a.mp4"), &place_of_it, Transfer::Move), Placed::Already);
        assert_eq!(fs::read(&place_of_it).unwrap(), b"film");
    }

    #[test]
    fn a_symbolic_link_is_placed_as_the_video_that_it_names() {
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

    #[test]
    fn a_video_is_found_below_the_folder_of_its_data_set() {
        let folder = folder_with(&[
            ("arkitscenes/7.mp4", ""),
            ("scannet/deep/7.mp4", ""),
            ("scannet/.hidden.mp4", ""),
        ]);
        let library = Library::below(folder.path()).unwrap();
        let found = |dataset| match library.find("7.mp4", dataset) {
            Some(Source::File(path)) => path.strip_prefix(folder.path()).unwrap().to_owned(),
            other => panic!("{other:?}"),
        };
        assert_eq!(found(Some("scannet")), Path::new("scannet/deep/7.mp4"));
        assert_eq!(found(Some("arkitscenes")), Path::new("arkitscenes/7.mp4"));
        assert_eq!(found(None), Path::new("arkitscenes/7.mp4"));
        assert_eq!(library.find("8.mp4", None), None);
        assert_eq!(library.find(".hidden.mp4", None), None);
    }
}
