//! A persistent cache of completions, so that no request is sent, or paid for, twice.
//!
//! The key is a hash of everything that a completion depends on: the video's content, the frames, the
//! prompt, the model and its settings. The folder holds one JSONL file per concurrent process, so that
//! several may share it; each process reads all files when it starts.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use embodied_r_data::Progress;
use embodied_r_files::journal::{self, Journal, TornLine};
use embodied_r_files::lock::{Lock, lock};
use serde::{Deserialize, Serialize};
use tokio::sync::OwnedMutexGuard;

use crate::error::{Error, Result};

/// A hash of everything that a completion depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct CacheKey(blake3::Hash);

impl CacheKey {
    /// The key of a serialized request, with image identifiers in place of the images.
    pub(super) fn of(request: &[u8]) -> Self {
        Self(blake3::hash(request))
    }
}

/// A completion and its cost.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct CachedCompletion {
    pub(super) text: String,
    pub(super) finish_reason: Option<String>,
    /// Why the model or a content filter refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) refusal: Option<String>,
    pub(super) prompt_tokens: Option<u64>,
    pub(super) completion_tokens: Option<u64>,
    pub(super) attempts: u32,
    pub(super) elapsed_s: f64,
    /// Whether it was a cache hit.
    #[serde(skip)]
    pub(super) from_cache: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct Line {
    key: String,
    /// For human readers.
    model: String,
    #[serde(flatten)]
    completion: CachedCompletion,
}

/// The location of a line.
#[derive(Debug, Clone)]
struct Location {
    file: usize,
    bytes: Range<u64>,
}

/// The cache in a folder.
#[derive(Debug)]
pub(super) struct CompletionCache {
    journal: Mutex<Journal>,
    /// The first one belongs to the journal.
    files: Vec<PathBuf>,
    locations: Mutex<HashMap<CacheKey, Location>>,
    /// Locks of the requests in flight.
    in_flight: Mutex<HashMap<CacheKey, Weak<tokio::sync::Mutex<()>>>>,
}

impl CompletionCache {
    /// Opens or creates the folder. Lines that cannot be parsed are skipped with a warning.
    ///
    /// # Errors
    /// The folder cannot be created, or a file in it cannot be read or written.
    pub(super) fn open(folder: &Path, progress: &dyn Progress) -> Result<Self> {
        std::fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        let (journal, text) = claim(folder)?;
        let mut files = vec![journal.path().to_owned()];
        files.extend(journals(folder)?.into_iter().filter(|path| path != journal.path()));
        let mut locations = HashMap::new();
        index(&mut locations, 0, journal.path(), &text, progress);
        for (file, path) in files.iter().enumerate().skip(1) {
            let text = std::fs::read(path).map_err(Error::io("read", path))?;
            index(&mut locations, file, path, &text, progress);
        }
        let (journal, locations) = (Mutex::new(journal), Mutex::new(locations));
        Ok(Self { journal, files, locations, in_flight: Mutex::default() })
    }

    /// Waits until no identical request is in flight; the next one then hits the cache.
    pub(super) async fn lock(&self, key: CacheKey) -> OwnedMutexGuard<()> {
        let lock = {
            let mut in_flight = locked(&self.in_flight);
            in_flight.retain(|_, lock| lock.strong_count() > 0);
            let lock = in_flight.get(&key).and_then(Weak::upgrade).unwrap_or_default();
            in_flight.insert(key, Arc::downgrade(&lock));
            lock
        };
        lock.lock_owned().await
    }

    /// The cached completion of a request.
    pub(super) fn get(&self, key: CacheKey) -> Option<CachedCompletion> {
        let location = locked(&self.locations).get(&key).cloned()?;
        let path = &self.files[location.file];
        match read(path, location.bytes) {
            Ok(completion) => Some(completion),
            Err(error) => {
                tracing::warn!(
                    "`{}` has changed on disk, its entry is ignored: {error}",
                    path.display()
                );
                None
            }
        }
    }

    /// Stores a completion.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn put(
        &self,
        key: CacheKey,
        model: &str,
        completion: &CachedCompletion,
    ) -> Result<()> {
        let line = Line {
            key: key.0.to_hex().to_string(),
            model: model.to_owned(),
            completion: completion.clone(),
        };
        let bytes = locked(&self.journal).append(&line)?;
        locked(&self.locations).insert(key, Location { file: 0, bytes });
        Ok(())
    }
}

/// Opens a file of the folder that no other process writes to, and returns its contents.
fn claim(folder: &Path) -> Result<(Journal, Vec<u8>)> {
    let mut number = 1;
    loop {
        let path = folder.join(format!("replies-{number}.jsonl"));
        match lock(&path)? {
            Lock::Held(file) => return Ok(Journal::new(file, TornLine::End)?),
            Lock::InUse => number += 1,
            // Each process gets a new file.
            Lock::Unsupported(_) => {
                let path = folder.join(format!("replies-{:016x}.jsonl", fastrand::u64(..)));
                return Ok(Journal::share(&path)?);
            }
        }
    }
}

/// All cache files in the folder, by name.
fn journals(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).map_err(Error::io("read", folder))?;
    let paths = entries.map(|entry| Ok(entry.map_err(Error::io("read", folder))?.path()));
    let mut paths: Vec<PathBuf> = paths.collect::<Result<_>>()?;
    paths.retain(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("replies-") && name.ends_with(".jsonl")
    });
    paths.sort();
    Ok(paths)
}

fn index(
    locations: &mut HashMap<CacheKey, Location>,
    file: usize,
    path: &Path,
    text: &[u8],
    progress: &dyn Progress,
) {
    let mut broken = 0;
    for line in journal::lines(text) {
        let key = line.parse::<Line>().ok().and_then(|line| blake3::Hash::from_hex(line.key).ok());
        match key {
            Some(key) => {
                locations.insert(CacheKey(key), Location { file, bytes: line.bytes });
            }
            None => broken += 1,
        }
    }
    if broken > 0 {
        let path = path.display();
        progress.warn(&format!("`{path}` has {broken} malformed lines, which are skipped"));
    }
}

fn read(path: &Path, bytes: Range<u64>) -> std::io::Result<CachedCompletion> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(bytes.start))?;
    let mut text = Vec::new();
    file.take(bytes.end - bytes.start).read_to_end(&mut text)?;
    Ok(serde_json::from_slice::<Line>(&text)?.completion)
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use embodied_r_data::progress::Silent;

    use super::*;

    fn open(folder: &tempfile::TempDir) -> CompletionCache {
        CompletionCache::open(folder.path(), &Silent).unwrap()
    }

    fn completion(text: &str) -> CachedCompletion {
        CachedCompletion {
            text: text.to_owned(),
            finish_reason: Some("stop".into()),
            refusal: None,
            prompt_tokens: Some(7),
            completion_tokens: None,
            attempts: 1,
            elapsed_s: 0.5,
            from_cache: false,
        }
    }

    fn key(request: &str) -> CacheKey {
        CacheKey::of(request.as_bytes())
    }

    #[test]
    fn completions_are_cached_across_processes() {
        let folder = tempfile::tempdir().unwrap();
        let cache = open(&folder);
        cache.put(key("a"), "m", &completion("a lamp")).unwrap();
        cache.put(key("b"), "m", &completion("a door")).unwrap();
        assert_eq!(cache.get(key("a")), Some(completion("a lamp")));
        drop(cache);
        let cache = open(&folder);
        assert_eq!(cache.get(key("b")), Some(completion("a door")));
        assert_eq!(cache.get(key("c")), None);
    }

    #[test]
    fn concurrent_processes_write_separate_files_and_read_all() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (open(&folder), open(&folder));
        first.put(key("a"), "m", &completion("a lamp")).unwrap();
        second.put(key("b"), "m", &completion("a door")).unwrap();
        let third = open(&folder);
        assert_eq!(third.get(key("a")), Some(completion("a lamp")));
        assert_eq!(third.get(key("b")), Some(completion("a door")));
        assert_eq!(journals(folder.path()).unwrap().len(), 3);
    }

    #[test]
    fn broken_lines_are_skipped() {
        let folder = tempfile::tempdir().unwrap();
        let cache = open(&folder);
        cache.put(key("a"), "m", &completion("a lamp")).unwrap();
        cache.put(key("b"), "m", &completion("a door")).unwrap();
        drop(cache);
        let path = folder.path().join("replies-1.jsonl");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replacen("{\"key\"", "{\"k\0y\"", 1)).unwrap();
        let cache = open(&folder);
        assert_eq!((cache.get(key("a")), cache.get(key("b"))), (None, Some(completion("a door"))));
    }

    #[test]
    fn a_line_that_changed_on_disk_is_a_cache_miss() {
        let folder = tempfile::tempdir().unwrap();
        let cache = open(&folder);
        cache.put(key("a"), "m", &completion("a lamp")).unwrap();
        std::fs::write(folder.path().join("replies-1.jsonl"), "").unwrap();
        assert_eq!(cache.get(key("a")), None);
    }

    #[tokio::test]
    async fn only_identical_requests_wait_for_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Arc::new(open(&folder));
        let lock = cache.lock(key("a")).await;
        drop(cache.lock(key("b")).await);
        let second = tokio::spawn({
            let cache = Arc::clone(&cache);
            async move {
                let _lock = cache.lock(key("a")).await;
                cache.get(key("a"))
            }
        });
        tokio::task::yield_now().await;
        assert!(!second.is_finished());
        cache.put(key("a"), "m", &completion("a lamp")).unwrap();
        drop(lock);
        assert_eq!(second.await.unwrap(), Some(completion("a lamp")));
    }
}
