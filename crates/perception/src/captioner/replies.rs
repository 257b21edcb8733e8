//! Replies of a model, kept so that nothing is asked, or paid, twice.
//!
//! A reply is found by what it depends on: the video's content, the frames, the words of the prompt,
//! the model and its settings. The folder holds a file of JSON lines for each process that ever wrote
//! at the same time, so that several may share it; each reads what all of them have written by then.

use std::collections::HashMap;
use std::fs::{File, TryLockError};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use embodied_r_data::Progress;
use serde::{Deserialize, Serialize};
use tokio::sync::OwnedMutexGuard;

use super::journal::{self, Journal, Lines};
use crate::error::{Error, Result};

/// What a reply depends on, as a hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key(blake3::Hash);

impl Key {
    /// The key of a request, written down whole with its pictures' names in place of the pictures.
    pub(super) fn of(request: &[u8]) -> Self {
        Self(blake3::hash(request))
    }
}

/// What a model said, and what it took.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Reply {
    pub(super) text: String,
    pub(super) finish_reason: Option<String>,
    /// Why the model, or a filter before it, refuses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) refusal: Option<String>,
    pub(super) prompt_tokens: Option<u64>,
    pub(super) completion_tokens: Option<u64>,
    pub(super) attempts: u32,
    pub(super) elapsed_s: f64,
    /// Whether it was there already.
    #[serde(skip)]
    pub(super) from_cache: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct Line {
    key: String,
    /// For the reader.
    model: String,
    #[serde(flatten)]
    reply: Reply,
}

/// Where a line is.
#[derive(Debug, Clone)]
struct Place {
    file: usize,
    bytes: Range<u64>,
}

/// The replies in a folder.
#[derive(Debug)]
pub(super) struct Replies {
    journal: Journal,
    /// The first one is the journal's.
    files: Vec<PathBuf>,
    places: Mutex<HashMap<Key, Place>>,
    /// Requests that are being answered.
    open: Mutex<HashMap<Key, Weak<tokio::sync::Mutex<()>>>>,
}

impl Replies {
    /// Opens or makes the folder. Lines that cannot be read are passed over with a warning.
    ///
    /// # Errors
    /// The folder cannot be made, or a file in it cannot be read or written.
    pub(super) fn open(folder: &Path, progress: &dyn Progress) -> Result<Self> {
        std::fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        let (own, file) = claim(folder)?;
        let (journal, lines) = Journal::new(&own, file)?;
        let mut files = vec![own.clone()];
        files.extend(journals(folder)?.into_iter().filter(|path| *path != own));
        let mut places = HashMap::new();
        index(&mut places, 0, &own, &lines, progress);
        for (file, path) in files.iter().enumerate().skip(1) {
            let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
            index(&mut places, file, path, &journal::lines(&bytes), progress);
        }
        let (places, open) = (Mutex::new(places), Mutex::default());
        Ok(Self { journal, files, places, open })
    }

    /// Waits until nobody else asks the same; whoever comes second finds the reply here.
    pub(super) async fn turn(&self, key: Key) -> OwnedMutexGuard<()> {
        let turn = {
            let mut open = locked(&self.open);
            open.retain(|_, turn| turn.strong_count() > 0);
            let turn = open.get(&key).and_then(Weak::upgrade).unwrap_or_default();
            open.insert(key, Arc::downgrade(&turn));
            turn
        };
        turn.lock_owned().await
    }

    /// The reply to a request that was answered before.
    pub(super) fn get(&self, key: Key) -> Option<Reply> {
        let place = locked(&self.places).get(&key).cloned()?;
        let path = &self.files[place.file];
        match read(path, place.bytes) {
            Ok(reply) => Some(reply),
            Err(error) => {
                tracing::warn!(
                    "`{}` has changed, a reply is asked for again: {error}",
                    path.display()
                );
                None
            }
        }
    }

    /// Keeps a reply.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn put(&self, key: Key, model: &str, reply: &Reply) -> Result<()> {
        let line =
            Line { key: key.0.to_hex().to_string(), model: model.to_owned(), reply: reply.clone() };
        let bytes = self.journal.append(&line)?;
        locked(&self.places).insert(key, Place { file: 0, bytes });
        Ok(())
    }
}

/// A file of the folder that no other process writes to.
fn claim(folder: &Path) -> Result<(PathBuf, File)> {
    let mut number = 1;
    loop {
        let path = folder.join(format!("replies-{number}.jsonl"));
        let file = journal::appendable(&path).map_err(Error::io("open", &path))?;
        match file.try_lock() {
            Ok(()) => return Ok((path, file)),
            Err(TryLockError::WouldBlock) => number += 1,
            // Some network file systems cannot lock: a file of its own for each process.
            Err(TryLockError::Error(_)) => {
                let path = folder.join(format!("replies-{:016x}.jsonl", fastrand::u64(..)));
                let file = journal::appendable(&path).map_err(Error::io("open", &path))?;
                return Ok((path, file));
            }
        }
    }
}

/// All files of replies in the folder, by name.
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
    places: &mut HashMap<Key, Place>,
    file: usize,
    path: &Path,
    lines: &Lines<Line>,
    progress: &dyn Progress,
) {
    let mut broken = lines.broken.len();
    for (bytes, line) in &lines.whole {
        match blake3::Hash::from_hex(&line.key) {
            Ok(hash) => drop(places.insert(Key(hash), Place { file, bytes: bytes.clone() })),
            Err(_) => broken += 1,
        }
    }
    if broken > 0 {
        let path = path.display();
        progress.warn(&format!("`{path}` has {broken} broken lines, which are passed over"));
    }
}

fn read(path: &Path, bytes: Range<u64>) -> std::io::Result<Reply> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(bytes.start))?;
    let mut text = Vec::new();
    file.take(bytes.end - bytes.start).read_to_end(&mut text)?;
    Ok(serde_json::from_slice::<Line>(&text)?.reply)
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use embodied_r_data::progress::Silent;

    use super::*;

    fn open(folder: &tempfile::TempDir) -> Replies {
        Replies::open(folder.path(), &Silent).unwrap()
    }

    fn reply(text: &str) -> Reply {
        Reply {
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

    fn key(request: &str) -> Key {
        Key::of(request.as_bytes())
    }

    #[test]
    fn a_reply_is_found_again_by_the_next_process() {
        let folder = tempfile::tempdir().unwrap();
        let replies = open(&folder);
        replies.put(key("a"), "m", &reply("a lamp")).unwrap();
        replies.put(key("b"), "m", &reply("a door")).unwrap();
        assert_eq!(replies.get(key("a")), Some(reply("a lamp")));
        drop(replies);
        let replies = open(&folder);
        assert_eq!(replies.get(key("b")), Some(reply("a door")));
        assert_eq!(replies.get(key("c")), None);
    }

    #[test]
    fn processes_at_the_same_time_write_files_of_their_own_and_read_all() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (open(&folder), open(&folder));
        first.put(key("a"), "m", &reply("a lamp")).unwrap();
        second.put(key("b"), "m", &reply("a door")).unwrap();
        let third = open(&folder);
        assert_eq!(third.get(key("a")), Some(reply("a lamp")));
        assert_eq!(third.get(key("b")), Some(reply("a door")));
        assert_eq!(journals(folder.path()).unwrap().len(), 3);
    }

    #[test]
    fn broken_lines_are_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let replies = open(&folder);
        replies.put(key("a"), "m", &reply("a lamp")).unwrap();
        replies.put(key("b"), "m", &reply("a door")).unwrap();
        drop(replies);
        let path = folder.path().join("replies-1.jsonl");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replacen("{\"key\"", "{\"k\0y\"", 1)).unwrap();
        let replies = open(&folder);
        assert_eq!((replies.get(key("a")), replies.get(key("b"))), (None, Some(reply("a door"))));
    }

    #[test]
    fn a_line_that_changes_under_our_hands_is_no_reply() {
        let folder = tempfile::tempdir().unwrap();
        let replies = open(&folder);
        replies.put(key("a"), "m", &reply("a lamp")).unwrap();
        std::fs::write(folder.path().join("replies-1.jsonl"), "").unwrap();
        assert_eq!(replies.get(key("a")), None);
    }

    #[tokio::test]
    async fn whoever_asks_the_same_waits_and_others_do_not() {
        let folder = tempfile::tempdir().unwrap();
        let replies = Arc::new(open(&folder));
        let turn = replies.turn(key("a")).await;
        drop(replies.turn(key("b")).await);
        let second = tokio::spawn({
            let replies = Arc::clone(&replies);
            async move {
                let _turn = replies.turn(key("a")).await;
                replies.get(key("a"))
            }
        });
        tokio::task::yield_now().await;
        assert!(!second.is_finished());
        replies.put(key("a"), "m", &reply("a lamp")).unwrap();
        drop(turn);
        assert_eq!(second.await.unwrap(), Some(reply("a lamp")));
    }
}
