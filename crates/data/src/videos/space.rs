//! Whether the videos fit on the file system that they are placed on.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::{Transfer, VideoSource, archive};
use crate::error::{Error, Result};

/// Checks the jobs of [`super::place_all`] before any of them: that no archive is a zip bomb, and that
/// `folder` has room for what they write.
///
/// # Errors
/// [`Error::ArchiveBomb`], [`Error::NoSpace`], [`Error::LinkLeaves`], or an archive or a file cannot be
/// read.
pub(crate) fn check(
    jobs: &[(VideoSource, PathBuf)],
    transfer: Transfer,
    folder: &Path,
) -> Result<()> {
    check_within(jobs, transfer, folder, None)
}

/// [`check`] with so many `free` bytes, or those of the file system.
fn check_within(
    jobs: &[(VideoSource, PathBuf)],
    transfer: Transfer,
    folder: &Path,
    free: Option<u64>,
) -> Result<()> {
    let existing = folder.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("."));
    let device = fs::metadata(existing).map_err(Error::io("read", existing))?.dev();
    // The entries of each archive, and the bytes of those that are there.
    let mut entries: BTreeMap<&Path, (Vec<usize>, u64)> = BTreeMap::new();
    let mut needed: u64 = 0;
    for (source, target) in jobs {
        let there = fs::metadata(target).map(|there| there.len()).ok();
        match source {
            VideoSource::Entry { archive, index } => {
                let (indices, present) = entries.entry(archive).or_default();
                indices.push(*index);
                *present = present.saturating_add(there.unwrap_or(0));
            }
            VideoSource::File(path) => {
                let file = fs::metadata(path).map_err(Error::io("read", path))?;
                let is_copied = transfer == Transfer::Copy || file.dev() != device;
                if is_copied && there != Some(file.len()) {
                    needed = needed.saturating_add(file.len());
                }
            }
            VideoSource::Outside(link) => return Err(link.error()),
        }
    }
    for (archive, (indices, present)) in entries {
        let size = archive::Extractor::open(archive)?.size(indices.into_iter())?;
        // What is there is kept, or replaced.
        needed = needed.saturating_add(size.saturating_sub(present));
    }
    match free.or_else(|| free_bytes(existing)) {
        Some(free) if free < needed => {
            Err(Error::NoSpace { path: folder.to_owned(), needed, free })
        }
        _ => Ok(()),
    }
}

/// The free bytes of a file system; one that does not say reports it when it is full.
fn free_bytes(path: &Path) -> Option<u64> {
    let system = rustix::fs::statvfs(path).ok()?;
    Some(system.f_bavail.saturating_mul(system.f_frsize))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn entries_that_are_extracted_already_need_no_space() {
        let folder = tempfile::tempdir().unwrap();
        let archive = folder.path().join("videos.zip");
        let mut zip = zip::ZipWriter::new(fs::File::create(&archive).unwrap());
        zip.start_file("a.mp4", zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(&[7; 5000]).unwrap();
        zip.finish().unwrap();
        let target = folder.path().join("out/a.mp4");
        let jobs = [(VideoSource::Entry { archive, index: 0 }, target.clone())];
        let fits =
            |free| check_within(&jobs, Transfer::Link, &folder.path().join("out"), Some(free));
        assert!(fits(5000).is_ok() && fits(4999).is_err());
        fs::create_dir(folder.path().join("out")).unwrap();
        fs::write(target, [7; 5000]).unwrap();
        fits(0).unwrap();
    }

    #[test]
    fn videos_that_do_not_fit_are_refused_before_they_are_written() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("complete/videos");
        let jobs: Vec<_> = (0..20)
            .map(|number| {
                let path = folder.path().join(format!("{number}.mp4"));
                // Sparse: it takes no space, but its copy would.
                fs::File::create(&path).unwrap().set_len(8 << 40).unwrap();
                (VideoSource::File(path), target.join(format!("{number}.mp4")))
            })
            .collect();
        check(&jobs, Transfer::Link, &target).unwrap();
        let error = check(&jobs, Transfer::Copy, &target).unwrap_err().to_string();
        assert!(error.starts_with("the videos need 175921.9 GB, but"), "{error}");
        assert!(!target.exists());
    }
}
