//! Videos in zip archives. An archive is looked through before anything is taken from it, and
//! refused if an entry would leave its folder.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use zip::ZipArchive;
use zip::result::ZipError;

use super::Placed;
use crate::error::{Error, Result};
use crate::write::write_atomic_with;

/// The files of an archive: their numbers, and their paths part by part.
///
/// # Errors
/// The archive cannot be read, or an entry is an absolute path, leads out of its folder, or is a
/// symbolic link.
pub(super) fn files(path: &Path) -> Result<Vec<(usize, Vec<String>)>> {
    let mut archive = open(path)?;
    let mut files = Vec::new();
    for index in 0..archive.len() {
        let entry = archive.by_index_raw(index).map_err(fault(path))?;
        let name = entry.name().map_err(fault(path))?.into_owned();
        let parts: Vec<String> = name.split(['/', '\\']).map(str::to_owned).collect();
        let leaves = parts.iter().any(|part| part == "..")
            || name.starts_with(['/', '\\'])
            || parts.first().is_some_and(|part| part.ends_with(':'));
        if leaves || entry.is_symlink() || entry.enclosed_name().is_none() {
            return Err(Error::HostileEntry { path: path.into(), entry: name });
        }
        // macOS adds a companion `__MACOSX/…/._NAME` to each file.
        let hidden = parts.last().is_none_or(|last| last.is_empty() || last.starts_with('.'));
        if entry.is_file() && !hidden {
            files.push((index, parts));
        }
    }
    Ok(files)
}

/// An open archive.
pub(super) struct Unpacker {
    path: PathBuf,
    archive: ZipArchive<BufReader<File>>,
}

impl Unpacker {
    /// Opens an archive.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn open(path: &Path) -> Result<Self> {
        Ok(Self { path: path.into(), archive: open(path)? })
    }

    /// Unpacks an entry to `place`, unless a file of its length and checksum is there.
    ///
    /// # Errors
    /// The entry is damaged or packed in an unknown way, or the file cannot be written.
    pub(super) fn unpack(&mut self, index: usize, place: &Path) -> Result<Placed> {
        let mut entry = self.archive.by_index(index).map_err(fault(&self.path))?;
        if place.metadata().is_ok_and(|there| there.is_file() && there.len() == entry.size())
            && checksum(place)? == entry.crc32()
        {
            return Ok(Placed::Already);
        }
        let damaged = fault(&self.path);
        write_atomic_with(place, |out| {
            io::copy(&mut entry, out).map(|_| ()).map_err(|source| damaged(ZipError::Io(source)))
        })?;
        Ok(Placed::New)
    }
}

fn open(path: &Path) -> Result<ZipArchive<BufReader<File>>> {
    let file = File::open(path).map_err(Error::io("read", path))?;
    ZipArchive::new(BufReader::new(file)).map_err(fault(path))
}

fn fault(path: &Path) -> impl Fn(ZipError) -> Error {
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
    fn a_video_is_unpacked_once() {
        let (folder, path) = archive_of(&[("scannet/a.mp4", b"film"), ("__MACOSX/._a.mp4", b"x")]);
        let files = files(&path).unwrap();
        assert_eq!(files, [(0, vec!["scannet".to_owned(), "a.mp4".to_owned()])]);
        let place = folder.path().join("videos/a.mp4");
        let mut unpacker = Unpacker::open(&path).unwrap();
        assert_eq!(unpacker.unpack(0, &place).unwrap(), Placed::New);
        assert_eq!(std::fs::read(&place).unwrap(), b"film");
        assert_eq!(unpacker.unpack(0, &place).unwrap(), Placed::Already);
    }

    #[test]
    fn a_changed_file_of_the_same_length_is_unpacked_again() {
        let (folder, path) = archive_of(&[("a.mp4", b"film")]);
        let place = folder.path().join("a.mp4");
        std::fs::write(&place, "mlif").unwrap();
        assert_eq!(Unpacker::open(&path).unwrap().unpack(0, &place).unwrap(), Placed::New);
        assert_eq!(std::fs::read(&place).unwrap(), b"film");
    }

    #[test]
    fn entries_that_leave_the_folder_are_refused() {
        for hostile in ["../a.mp4", "x/../../a.mp4", "/etc/a.mp4", "..\\a.mp4", "C:\\a.mp4"] {
            let (_folder, path) = archive_of(&[("fine.mp4", b""), (hostile, b"film")]);
            let error = files(&path).unwrap_err();
            assert!(matches!(&error, Error::HostileEntry { entry, .. } if entry == hostile));
        }
    }

    #[test]
    fn a_symbolic_link_in_an_archive_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.zip");
        let mut writer = ZipWriter::new(File::create(&path).unwrap());
        writer.add_symlink("a.mp4", "/etc/passwd", SimpleFileOptions::default()).unwrap();
        writer.finish().unwrap();
        assert!(matches!(files(&path), Err(Error::HostileEntry { .. })));
    }

    #[test]
    fn a_damaged_entry_names_the_archive_and_leaves_nothing() {
        let (folder, path) = archive_of(&[("a.mp4", b"film film film film")]);
        let mut bytes = std::fs::read(&path).unwrap();
        let at = 30 + "a.mp4".len() + 2;
        bytes[at] ^= 0xff;
        std::fs::write(&path, bytes).unwrap();
        let place = folder.path().join("videos/a.mp4");
        let error = Unpacker::open(&path).and_then(|mut it| it.unpack(0, &place)).unwrap_err();
        assert!(error.to_string().contains("scannet.zip"), "{error}");
        assert_eq!(std::fs::read_dir(folder.path().join("videos")).unwrap().count(), 0);
    }

    #[test]
    fn a_file_that_is_no_archive_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.zip");
        std::fs::write(&path, "no zip").unwrap();
        let error = files(&path).unwrap_err().to_string();
        assert!(error.contains("x.zip"), "{error}");
    }
}
