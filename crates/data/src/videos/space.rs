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
    let existing = folder.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("."));
    let device = fs::metadata(existing).map_err(Error::io("read", existing))?.dev();
    let mut entries: BTreeMap<&Path, Vec<usize>> = BTreeMap::new();
    let mut needed: u64 = 0;
    for (source, target) in jobs {
        let there = fs::metadata(target).map(|there| there.len()).ok();
        match source {
            VideoSource::Entry { archive, index } => {
                entries.entry(archive).or_default().push(*index);
                // What is there is replaced.
                needed = needed.saturating_sub(there.unwrap_or(0));
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
    for (archive, indices) in entries {
        needed =
            needed.saturating_add(archive::Extractor::open(archive)?.size(indices.into_iter())?);
    }
    match rustix::fs::statvfs(existing) {
        Ok(system) if system.f_bavail.saturating_mul(system.f_frsize) < needed => {
            let (path, free) = (folder.to_owned(), system.f_bavail.saturating_mul(system.f_frsize));
            Err(Error::NoSpace { path, needed, free })
        }
        // A file system that does not say how much is free reports it when it is full.
        Ok(_) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
