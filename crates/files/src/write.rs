//! Atomic file writes: to a temporary file in the same folder, then renamed.

use std::collections::hash_map::RandomState;
use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher as _, Hasher as _};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::Pid;
use serde::Serialize;

use crate::error::{Error, Result};

/// A temporary file that was not written to for so long is abandoned, if its process has ended.
const ABANDONED: Duration = Duration::from_secs(60);

/// Writes `bytes` to `path` atomically. Creates missing parent folders.
///
/// # Errors
/// Creating the folder, writing the temporary file or renaming it fails; an existing file at `path` is then
/// unchanged.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    write_atomic_with(path, |out| out.write_all(bytes).map_err(Error::io("write", path)))
}

/// Like [`write_atomic`], for streamed output.
///
/// # Errors
/// As [`write_atomic`], and any error of `fill`; no temporary file is left behind.
pub fn write_atomic_with<E: From<Error>>(
    path: &Path,
    fill: impl FnOnce(&mut BufWriter<&File>) -> Result<(), E>,
) -> Result<(), E> {
    create_parents(path)?;
    write_in_existing_folder_with(path, fill)
}

/// Like [`write_atomic`], but never creates parent folders: for folders that may be moved or removed meanwhile, such as
/// a run's.
///
/// # Errors
/// As [`write_atomic`], also if the folder does not exist.
pub fn write_in_existing_folder(path: &Path, bytes: &[u8]) -> Result<()> {
    write_in_existing_folder_with(path, |out| {
        out.write_all(bytes).map_err(Error::io("write", path))
    })
}

/// Writes `value` as indented JSON, like [`write_atomic`].
///
/// # Errors
/// As [`write_atomic`].
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    create_parents(path)?;
    write_json_in_existing_folder(path, value)
}

/// Writes `value` as indented JSON, like [`write_in_existing_folder`].
///
/// # Errors
/// As [`write_in_existing_folder`].
pub fn write_json_in_existing_folder(path: &Path, value: &impl Serialize) -> Result<()> {
    let mut bytes =
        serde_json::to_vec_pretty(value).map_err(|fault| Error::io("write", path)(fault.into()))?;
    bytes.push(b'\n');
    write_in_existing_folder(path, &bytes)
}

/// Writes JSON lines, one per record, like [`write_atomic`].
///
/// # Errors
/// As [`write_atomic`].
pub fn write_lines<T: Serialize>(path: &Path, records: impl IntoIterator<Item = T>) -> Result<()> {
    write_atomic_with(path, |out| {
        records
            .into_iter()
            .try_for_each(|record| -> io::Result<()> {
                serde_json::to_writer(&mut *out, &record)?;
                out.write_all(b"\n")
            })
            .map_err(Error::io("write", path))
    })
}

/// Like [`write_in_existing_folder`], for streamed output.
///
/// # Errors
/// As [`write_in_existing_folder`], and any error of `fill`; no temporary file is left behind.
pub fn write_in_existing_folder_with<E: From<Error>>(
    path: &Path,
    fill: impl FnOnce(&mut BufWriter<&File>) -> Result<(), E>,
) -> Result<(), E> {
    let temporary = prepare(path, fill)?;
    Ok(temporary.rename_to(path)?)
}

/// Writes several related files: all to temporary files first, which are then renamed, so that a
/// failed write leaves all existing files unchanged.
///
/// # Errors
/// As [`write_atomic`].
pub fn write_all_atomic(files: &[(PathBuf, Vec<u8>)]) -> Result<()> {
    let prepared: Vec<(TempFile, &Path)> = files
        .iter()
        .map(|(path, bytes)| {
            let fill =
                |out: &mut BufWriter<&File>| out.write_all(bytes).map_err(Error::io("write", path));
            create_parents(path)?;
            Ok((prepare(path, fill)?, path.as_path()))
        })
        .collect::<Result<_>>()?;
    for (temporary, path) in prepared {
        temporary.rename_to(path)?;
    }
    Ok(())
}

/// Creates the missing parent folders of `path`.
///
/// # Errors
/// A folder cannot be created.
pub fn create_parents(path: &Path) -> Result<()> {
    path.parent()
        .map_or(Ok(()), |folder| fs::create_dir_all(folder).map_err(Error::io("create", folder)))
}

fn prepare<E: From<Error>>(
    path: &Path,
    fill: impl FnOnce(&mut BufWriter<&File>) -> Result<(), E>,
) -> Result<TempFile, E> {
    let temporary = TempFile::next_to(path);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&temporary.0)
        .map_err(Error::io("create", &temporary.0))?;
    let mut out = BufWriter::new(&file);
    fill(&mut out)?;
    out.flush().map_err(Error::io("write", path))?;
    drop(out);
    // Otherwise a system crash could leave an empty file under the new name.
    file.sync_all().map_err(Error::io("write", path))?;
    Ok(temporary)
}

/// Removes temporary files that killed processes left in `folder`. Those of other machines are kept while they
/// are being written.
///
/// # Errors
/// The folder or a file cannot be read, or a file cannot be removed.
pub fn remove_abandoned(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder).map_err(Error::io("read", folder))? {
        let path = entry.map_err(Error::io("read", folder))?.path();
        let Some(writer) = writer_of(&path) else { continue };
        let Ok(modified) = fs::symlink_metadata(&path).and_then(|file| file.modified()) else {
            continue;
        };
        let is_idle = modified.elapsed().is_ok_and(|since| since > ABANDONED);
        if is_idle && rustix::process::test_kill_process(writer) == Err(rustix::io::Errno::SRCH) {
            fs::remove_file(&path).map_err(Error::io("remove", &path))?;
        }
    }
    Ok(())
}

/// The process that wrote a [`TempFile`] of this name.
fn writer_of(path: &Path) -> Option<Pid> {
    let name = path.file_name()?.to_str()?.strip_prefix('.')?.strip_suffix(".tmp")?;
    let (writer, number) = name.rsplit_once('.')?.1.split_once('-')?;
    number.parse::<u64>().ok()?;
    Pid::from_raw(writer.parse().ok()?)
}

/// A unique temporary file next to its target, removed on drop unless renamed.
#[derive(Debug)]
pub struct TempFile(PathBuf);

impl TempFile {
    /// A name for a file next to `path`; nothing is created yet.
    pub fn next_to(path: &Path) -> Self {
        // Process ids repeat, in containers above all, so the numbers begin anywhere.
        static NEXT: LazyLock<AtomicU64> =
            LazyLock::new(|| AtomicU64::new(RandomState::new().build_hasher().finish()));
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self(path.with_file_name(format!(".{name}.{}-{number}.tmp", process::id())))
    }

    /// The temporary file.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Gives the file the name `path`, and replaces a file there.
    ///
    /// # Errors
    /// It cannot be renamed; it is then removed.
    pub fn rename_to(self, path: &Path) -> Result<()> {
        fs::rename(&self.0, path).map_err(Error::io("write", path))
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        // After a rename there is nothing to remove, so errors are expected.
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_missing_folder_is_not_created_where_it_must_exist() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("moved/out.json");
        assert!(write_in_existing_folder(&path, b"[1]").is_err());
        assert!(names(folder.path()).is_empty());
    }

    #[test]
    fn a_write_leaves_the_file_and_no_temporary_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/deep/out.json");
        write_atomic(&path, b"[1]").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"[1]");
        assert_eq!(names(path.parent().unwrap()), ["out.json"]);
    }

    #[test]
    fn a_failed_write_keeps_the_old_file_and_leaves_no_temporary_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.json");
        write_atomic(&path, b"old").unwrap();
        let failed = write_atomic_with(&path, |out| {
            out.write_all(b"half").map_err(Error::io("write", "x"))?;
            Err::<(), Error>(Error::io("read", "y")(std::io::Error::other("broken")))
        });
        assert!(failed.unwrap_err().to_string().contains("`y`"));
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names(folder.path()), ["out.json"]);
    }

    #[test]
    fn no_file_is_replaced_if_one_of_several_cannot_be_written() {
        let folder = tempfile::tempdir().unwrap();
        let first = folder.path().join("first.json");
        write_atomic(&first, b"old").unwrap();
        let second = first.join("second.json");
        let files = [(first.clone(), b"new".to_vec()), (second, b"new".to_vec())];
        assert!(write_all_atomic(&files).is_err());
        assert_eq!(fs::read(&first).unwrap(), b"old");
        write_all_atomic(&files[..1]).unwrap();
        assert_eq!(fs::read(&first).unwrap(), b"new");
        assert_eq!(names(folder.path()), ["first.json"]);
    }

    #[test]
    fn temporary_files_of_killed_processes_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let mut child = process::Command::new("true").spawn().unwrap();
        let dead = child.id();
        child.wait().unwrap();
        let own = process::id();
        let old =
            [format!(".a.mp4.{dead}-0.tmp"), format!(".b.mp4.{own}-0.tmp"), ".c.tmp".to_owned()];
        for name in &old {
            let file = File::create(folder.path().join(name)).unwrap();
            file.set_modified(std::time::SystemTime::now() - 2 * ABANDONED).unwrap();
        }
        let recent = format!(".d.mp4.{dead}-1.tmp");
        fs::write(folder.path().join(&recent), "").unwrap();
        remove_abandoned(folder.path()).unwrap();
        assert_eq!(names(folder.path()), [old[1].clone(), old[2].clone(), recent]);
    }

    #[test]
    fn a_bare_file_name_is_written_to_the_working_directory() {
        let name = &TempFile::next_to(Path::new("out.json")).0;
        assert_eq!(name.parent(), Some(Path::new("")));
    }

    #[test]
    fn a_path_below_a_file_is_reported_with_that_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        write_atomic(&file, b"").unwrap();
        let error = write_atomic(&file.join("out.json"), b"").unwrap_err().to_string();
        assert!(error.contains("file`"), "{error}");
    }
}
