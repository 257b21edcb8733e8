//! Videos in zip archives. All entries are checked before extraction; an archive with path traversal
//! or links is rejected, as are entries that decompress to more than a video can.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use embodied_r_files::write_atomic_with;
use zip::ZipArchive;
use zip::result::ZipError;

use super::outcome::PlaceOutcome;
use crate::error::{Error, Result};

/// How much an entry, or the requested entries of an archive, may be compressed. Videos hardly are; deflate
/// reaches a thousand.
const MAX_RATIO: u64 = 100;

/// Smaller entries may be compressed more.
const MAX_UNCHECKED_BYTES: u64 = 16 << 20;

/// The files of an archive: entry indices and path components.
///
/// # Errors
/// The archive cannot be read, or an entry is an absolute path, leaves its folder, or is a symbolic
/// link.
pub(super) fn files(path: &Path) -> Result<Vec<(usize, Vec<String>)>> {
    let mut archive = open(path)?;
    let mut files = Vec::new();
    for index in 0..archive.len() {
        let entry = archive.by_index_raw(index).map_err(archive_error(path))?;
        let name = entry.name().map_err(archive_error(path))?.into_owned();
        let parts: Vec<String> = name.split(['/', '\\']).map(str::to_owned).collect();
        let leaves = parts.iter().any(|part| part == "..")
            || name.starts_with(['/', '\\'])
            || parts.first().is_some_and(|part| part.ends_with(':'));
        if leaves || entry.is_symlink() || entry.enclosed_name().is_none() {
            return Err(Error::UnsafeEntry { path: path.into(), entry: name });
        }
        // macOS adds a resource fork `__MACOSX/…/._NAME` to each file.
        let hidden = parts.last().is_none_or(|last| last.is_empty() || last.starts_with('.'));
        if entry.is_file() && !hidden {
            files.push((index, parts));
        }
    }
    Ok(files)
}

/// An open archive.
pub(super) struct Extractor {
    path: PathBuf,
    archive: ZipArchive<BufReader<File>>,
}

impl Extractor {
    /// Opens an archive.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn open(path: &Path) -> Result<Self> {
        Ok(Self { path: path.into(), archive: open(path)? })
    }

    /// The bytes that the entries at `indices` take when they are extracted.
    ///
    /// # Errors
    /// The archive cannot be read, or an entry, or all of them together, are implausibly larger than the
    /// bytes that they are compressed to.
    pub(super) fn size(&mut self, indices: impl Iterator<Item = usize>) -> Result<u64> {
        let mut total: u64 = 0;
        for index in indices {
            let entry = self.archive.by_index_raw(index).map_err(archive_error(&self.path))?;
            let (size, compressed) = (entry.size(), entry.compressed_size());
            if is_bomb(size, compressed) {
                let entry = entry.name().map_err(archive_error(&self.path))?.into_owned();
                return Err(Error::ArchiveBomb {
                    path: self.path.clone(),
                    entry,
                    size,
                    compressed,
                });
            }
            total = total.saturating_add(size);
        }
        // Entries may share their bytes.
        let compressed = self.path.metadata().map_err(Error::io("read", &self.path))?.len();
        match is_bomb(total, compressed) {
            false => Ok(total),
            true => {
                let (path, entry) = (self.path.clone(), "*".to_owned());
                Err(Error::ArchiveBomb { path, entry, size: total, compressed })
            }
        }
    }

    /// Extracts an entry to `target`, unless a file with its length and checksum exists there.
    ///
    /// # Errors
    /// The entry is corrupt, longer than the archive says, or uses an unsupported compression, or the file
    /// cannot be written.
    pub(super) fn extract(&mut self, index: usize, target: &Path) -> Result<PlaceOutcome> {
        let mut entry = self.archive.by_index(index).map_err(archive_error(&self.path))?;
        if target.metadata().is_ok_and(|there| there.is_file() && there.len() == entry.size())
            && checksum(target)? == entry.crc32()
        {
            return Ok(PlaceOutcome::AlreadyPresent);
        }
        let read_error = archive_error(&self.path);
        // The reader fails beyond the size that the archive says.
        write_atomic_with(target, |out| {
            io::copy(&mut entry, out).map(|_| ()).map_err(|source| read_error(ZipError::Io(source)))
        })?;
        Ok(PlaceOutcome::New)
    }
}

/// Whether `size` bytes cannot be videos that were compressed to `compressed` bytes.
fn is_bomb(size: u64, compressed: u64) -> bool {
    size > MAX_UNCHECKED_BYTES && size / MAX_RATIO > compressed
}

fn open(path: &Path) -> Result<ZipArchive<BufReader<File>>> {
    let file = File::open(path).map_err(Error::io("read", path))?;
    ZipArchive::new(BufReader::new(file)).map_err(archive_error(path))
}

fn archive_error(path: &Path) -> impl Fn(ZipError) -> Error {
    let path = path.to_owned();
    move |source| Error::Archive { path: path.clone(), source }
}

fn checksum(path: &Path) -> Result<u32> {
    let mut file = File::open(path).map_err(Error::io("read", path))?;
    let mut hasher = crc32fast::Hasher::new();
    let mut chunk = vec![0; 1 << 16];
    loop {
        match file.read(&mut chunk).map_err(Error::io("read", path))? {
            0 => return Ok(hasher.finalize()),
            length => hasher.update(&chunk[..length]),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    use super::*;

    fn archive_of(entries: &[(&str, &[u8])]) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("scannet.zip");
        let mut writer = ZipWriter::new(File::create(&path).unwrap());
        for (name, bytes) in entries {
            writer.start_file(*name, SimpleFileOptions::default()).unwrap();
            writer.write_all(bytes).unwrap();
        }
        writer.finish().unwrap();
        (folder, path)
    }

    #[test]
    fn a_video_is_extracted_once() {
        let (folder, path) = archive_of(&[("scannet/a.mp4", b"film"), ("__MACOSX/._a.mp4", b"x")]);
        let files = files(&path).unwrap();
        assert_eq!(files, [(0, vec!["scannet".to_owned(), "a.mp4".to_owned()])]);
        let target = folder.path().join("videos/a.mp4");
        let mut extractor = Extractor::open(&path).unwrap();
        assert_eq!(extractor.extract(0, &target).unwrap(), PlaceOutcome::New);
        assert_eq!(std::fs::read(&target).unwrap(), b"film");
        assert_eq!(extractor.extract(0, &target).unwrap(), PlaceOutcome::AlreadyPresent);
    }

    #[test]
    fn a_changed_file_of_the_same_length_is_extracted_again() {
        let (folder, path) = archive_of(&[("a.mp4", b"film")]);
        let target = folder.path().join("a.mp4");
        std::fs::write(&target, "mlif").unwrap();
        assert_eq!(Extractor::open(&path).unwrap().extract(0, &target).unwrap(), PlaceOutcome::New);
        assert_eq!(std::fs::read(&target).unwrap(), b"film");
    }

    #[test]
    fn entries_outside_the_folder_are_rejected() {
        for hostile in ["../a.mp4", "x/../../a.mp4", "/etc/a.mp4", "..\\a.mp4", "C:\\a.mp4"] {
            let (_folder, path) = archive_of(&[("fine.mp4", b""), (hostile, b"film")]);
            let error = files(&path).unwrap_err();
            assert!(matches!(&error, Error::UnsafeEntry { entry, .. } if entry == hostile));
        }
    }

    #[test]
    fn a_symbolic_link_in_an_archive_is_rejected() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.zip");
        let mut writer = ZipWriter::new(File::create(&path).unwrap());
        writer.add_symlink("a.mp4", "/etc/passwd", SimpleFileOptions::default()).unwrap();
        writer.finish().unwrap();
        assert!(matches!(files(&path), Err(Error::UnsafeEntry { .. })));
    }

    #[test]
    fn a_corrupt_entry_is_reported_with_its_archive_and_leaves_no_file() {
        let (folder, path) = archive_of(&[("a.mp4", b"film film film film")]);
        let mut bytes = std::fs::read(&path).unwrap();
        let at = 30 + "a.mp4".len() + 2;
        bytes[at] ^= 0xff;
        std::fs::write(&path, bytes).unwrap();
        let target = folder.path().join("videos/a.mp4");
        let error = Extractor::open(&path).and_then(|mut it| it.extract(0, &target)).unwrap_err();
        assert!(error.to_string().contains("scannet.zip"), "{error}");
        assert_eq!(std::fs::read_dir(folder.path().join("videos")).unwrap().count(), 0);
    }

    #[test]
    fn an_entry_that_is_compressed_a_thousand_times_is_refused_before_it_is_extracted() {
        let zeros = vec![0; 20 << 20];
        let (_folder, path) = archive_of(&[("fine.mp4", b"film"), ("a.mp4", &zeros)]);
        let mut extractor = Extractor::open(&path).unwrap();
        assert_eq!(extractor.size([0].into_iter()).unwrap(), 4);
        let error = extractor.size([0, 1].into_iter()).unwrap_err();
        assert!(matches!(&error, Error::ArchiveBomb { entry, .. } if entry == "a.mp4"), "{error}");
    }

    #[test]
    fn entries_that_share_their_bytes_are_refused() {
        let noise: Vec<u8> =
            (0..1_u32 << 20).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let (_folder, path) = archive_of(&[("a.mp4", &noise)]);
        let mut extractor = Extractor::open(&path).unwrap();
        assert_eq!(extractor.size([0].into_iter()).unwrap(), 1 << 20);
        let error = extractor.size(std::iter::repeat_n(0, 500)).unwrap_err();
        assert!(matches!(&error, Error::ArchiveBomb { entry, .. } if entry == "*"), "{error}");
    }

    #[test]
    fn an_entry_longer_than_it_says_is_an_error_and_leaves_no_file() {
        let (folder, path) = archive_of(&[("a.mp4", &[7; 5000])]);
        let mut bytes = std::fs::read(&path).unwrap();
        // The uncompressed size in the central directory.
        let at = bytes.windows(4).rposition(|four| four == b"PK\x01\x02").unwrap() + 24;
        bytes[at..at + 4].copy_from_slice(&100_u32.to_le_bytes());
        std::fs::write(&path, bytes).unwrap();
        let target = folder.path().join("videos/a.mp4");
        let error = Extractor::open(&path).and_then(|mut it| it.extract(0, &target)).unwrap_err();
        assert!(error.to_string().contains("larger than its declared"), "{error}");
        assert_eq!(std::fs::read_dir(folder.path().join("videos")).unwrap().count(), 0);
    }

    #[test]
    fn a_file_that_is_not_an_archive_is_reported_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.zip");
        std::fs::write(&path, "no zip").unwrap();
        let error = files(&path).unwrap_err().to_string();
        assert!(error.contains("x.zip"), "{error}");
    }
}
