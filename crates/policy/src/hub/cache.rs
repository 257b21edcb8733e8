//! A repository in the cache, in the layout of `huggingface_hub`:
//!
//! ```text
//! models--org--name/blobs/HASH                the files, `HASH.incomplete` while they are downloaded
//! models--org--name/snapshots/COMMIT/FILE     links to them
//! models--org--name/refs/REVISION             the commit of a branch or tag
//! .locks/models--org--name/HASH.lock          held while a file is downloaded
//! ```
//!
//! A data set's folder begins with `datasets` instead.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Component, Path, PathBuf};

use embodied_r_files::{create_parents, write_atomic};
use hf_hub::{Cache, Repo};

use super::fault::HubFault;
use super::progress::DownloadProgress;
use super::repository::{Repository, RepositoryKind};

/// The folder of a repository.
pub(super) struct RepoCache {
    dir: PathBuf,
    locks: PathBuf,
    hub: Cache,
    repo: Repo,
}

/// A lock on a file's download, until it is dropped.
pub(super) struct Lock {
    _file: File,
}

impl RepoCache {
    pub(super) fn new(cache: &Path, repo: Repository<'_>) -> Self {
        let name = repo.name.to_owned();
        let repo = match repo.kind {
            RepositoryKind::Model => Repo::model(name),
            RepositoryKind::Dataset => Repo::dataset(name),
        };
        let folder = repo.folder_name();
        let (dir, locks) = (cache.join(&folder), cache.join(".locks").join(&folder));
        Self { dir, locks, hub: Cache::new(cache.to_owned()), repo }
    }

    /// The folder of `revision`, a branch, tag or commit, if it was ever completed.
    pub(super) fn snapshot_of(&self, revision: &str) -> Option<PathBuf> {
        if !is_relative(revision) {
            return None;
        }
        let commit = fs::read_to_string(self.dir.join("refs").join(revision));
        let commit = commit.as_deref().map_or(revision, str::trim);
        Some(self.snapshot(commit)).filter(|dir| is_relative(commit) && dir.is_dir())
    }

    /// The folder of a commit.
    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.hub.repo(self.repo.clone()).pointer_path(commit)
    }

    /// Records that `revision` is `commit`.
    pub(super) fn set_revision(&self, revision: &str, commit: &str) -> Result<(), HubFault> {
        if revision == commit {
            return Ok(());
        }
        if !is_relative(revision) {
            return Err(HubFault::NoRevision);
        }
        let path = self.dir.join("refs").join(revision);
        Ok(write_atomic(&path, commit.as_bytes())?)
    }

    /// The path of a file's bytes.
    pub(super) fn blob(&self, etag: &str) -> PathBuf {
        self.dir.join("blobs").join(etag)
    }

    /// The path of its bytes while they are downloaded.
    pub(super) fn partial(&self, etag: &str) -> PathBuf {
        self.dir.join("blobs").join(format!("{etag}.incomplete"))
    }

    /// Waits until no other process downloads the file.
    pub(super) fn lock(
        &self,
        etag: &str,
        file: &str,
        progress: &dyn DownloadProgress,
    ) -> Result<Lock, HubFault> {
        let path = self.locks.join(format!("{etag}.lock"));
        create_parents(&path)?;
        let failed = |error| HubFault::cache("lock", &path)(error);
        let held = File::options().create(true).truncate(false).write(true).open(&path);
        let held = held.map_err(failed)?;
        match held.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                progress.warn(&format!("waiting for another process, which downloads `{file}`"));
                held.lock().map_err(failed)?;
            }
            // Some file systems of clusters. The hash tells if two processes wrote into one file.
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {}
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        Ok(Lock { _file: held })
    }

    /// Links a file of a commit to its bytes.
    pub(super) fn link(&self, commit: &str, file: &str, etag: &str) -> Result<(), HubFault> {
        let link = self.snapshot(commit).join(file);
        create_parents(&link)?;
        if link.is_symlink() && !link.exists() {
            // Its bytes were deleted.
            fs::remove_file(&link).map_err(HubFault::cache("remove", &link))?;
        }
        let up = "../".repeat(2 + file.matches('/').count());
        match std::os::unix::fs::symlink(format!("{up}blobs/{etag}"), &link) {
            // Another process was first.
            Err(_) if link.exists() => Ok(()),
            made => made.map_err(HubFault::cache("create", link)),
        }
    }
}

/// Whether a path stays below the folder that it is relative to.
pub(super) fn is_relative(path: &str) -> bool {
    let mut parts = Path::new(path).components().peekable();
    parts.peek().is_some() && parts.all(|part| matches!(part, Component::Normal(_)))
}

/// Whether a server's word can be the name of a file.
pub(super) fn is_file_name(word: &str) -> bool {
    let letters = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=200).contains(&word.len()) && word.bytes().all(letters) && !word.starts_with('.')
}
