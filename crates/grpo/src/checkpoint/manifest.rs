//! The list of a folder's files with their lengths and hashes, by which damage is found.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::Path;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::team::Team;

/// Name of the list in a checkpoint: it is written last, and names every other file.
pub const MANIFEST_FILE: &str = "manifest.json";

/// Bytes that are hashed at once.
const PIECE: usize = 1 << 20;

/// What is wrong with one file of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    /// A file cannot be read, or is not what it should be.
    #[error("`{file}` {what}")]
    Unreadable {
        /// Its name.
        file: String,
        /// The reason.
        what: String,
    },
    /// A file that is listed, or should be, is not there.
    #[error("`{file}` is missing")]
    Missing {
        /// Its name.
        file: String,
    },
    /// A file is shorter or longer than it was.
    #[error("`{file}` has {found} bytes of {want}")]
    Length {
        /// Its name.
        file: String,
        /// Its length.
        found: u64,
        /// The length listed.
        want: u64,
    },
    /// A file's contents are not what they were.
    #[error("`{file}` has changed since it was written, its hash is another one")]
    Contents {
        /// Its name.
        file: String,
    },
}

impl Damage {
    fn unreadable(file: &str, error: impl std::fmt::Display) -> Self {
        Self::Unreadable { file: file.into(), what: format!("cannot be read: {error}") }
    }

    /// The same damage, told from outside of the folder `folder`.
    pub(super) fn within(mut self, folder: &str) -> Self {
        let (Self::Unreadable { file, .. }
        | Self::Missing { file }
        | Self::Length { file, .. }
        | Self::Contents { file }) = &mut self;
        *file = format!("{folder}/{file}");
        self
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    files: BTreeMap<String, Entry>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    bytes: u64,
    blake3: String,
}

/// Flushes the files of `folder` to disk and lists them in its manifest, which the first rank of `team` writes; each rank
/// looks at its share of them. What the first one sees there counts.
pub(super) fn seal(folder: &Path, team: &Team) -> Result<()> {
    let mut found = files(folder)?;
    found.sort();
    let files = team.of_first(found)?;
    let bytes: Vec<usize> = files.iter().map(|(_, bytes)| *bytes as usize).collect();
    let own = team.share(&bytes).into_iter().map(|index| files[index].0.clone());
    let entries = own
        .collect::<Vec<String>>()
        .into_par_iter()
        .map(|name| {
            let path = folder.join(&name);
            let entry = entry(&path).map_err(Error::io("read", &path))?;
            let file = File::open(&path).map_err(Error::io("open", &path))?;
            file.sync_all().map_err(Error::io("flush", &path))?;
            team.beat();
            Ok((name, entry))
        })
        .collect::<Result<Vec<_>>>()?;
    let files = team.gather(entries)?.into_iter().flatten().collect();
    if !team.is_first() {
        return Ok(());
    }
    let path = folder.join(MANIFEST_FILE);
    let bytes = serde_json::to_vec_pretty(&Manifest { files }).map_err(Error::json(&path))?;
    let mut file = File::create(&path).map_err(Error::io("create", &path))?;
    file.write_all(&bytes).map_err(Error::io("write", &path))?;
    file.sync_all().map_err(Error::io("flush", &path))
}

/// What is wrong with the files of `folder`, of which those in `needed` must be listed.
///
/// Files that are not listed are passed over.
pub(super) fn damage(folder: &Path, needed: &[&str]) -> Vec<Damage> {
    let files = match read(folder) {
        Ok(files) => files,
        Err(damage) => return vec![damage],
    };
    let mut damage = not_in(&files, needed);
    let files: Vec<_> = files.into_iter().collect();
    damage.par_extend(files.par_iter().filter_map(|(name, want)| held(folder, name, want).err()));
    damage
}

/// Which of the files `needed` are not listed in `folder`.
pub(super) fn unlisted(folder: &Path, needed: &[&str]) -> Vec<Damage> {
    match read(folder) {
        Ok(files) => not_in(&files, needed),
        Err(damage) => vec![damage],
    }
}

fn read(folder: &Path) -> Result<BTreeMap<String, Entry>, Damage> {
    match fs::read(folder.join(MANIFEST_FILE)) {
        Ok(bytes) => serde_json::from_slice::<Manifest>(&bytes)
            .map(|manifest| manifest.files)
            .map_err(|error| Damage::unreadable(MANIFEST_FILE, error)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(Damage::Missing { file: MANIFEST_FILE.into() })
        }
        Err(error) => Err(Damage::unreadable(MANIFEST_FILE, error)),
    }
}

fn not_in(files: &BTreeMap<String, Entry>, needed: &[&str]) -> Vec<Damage> {
    let unlisted = needed.iter().filter(|name| !files.contains_key(**name));
    unlisted.map(|name| Damage::Missing { file: (*name).to_owned() }).collect()
}

/// Holds one file against its entry.
fn held(folder: &Path, name: &str, want: &Entry) -> Result<(), Damage> {
    let path = folder.join(name);
    let length = match fs::metadata(&path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Damage::Missing { file: name.into() });
        }
        Err(error) => return Err(Damage::unreadable(name, error)),
    };
    if length != want.bytes {
        return Err(Damage::Length { file: name.into(), found: length, want: want.bytes });
    }
    let found = entry(&path).map_err(|error| Damage::unreadable(name, error))?;
    if found == *want { Ok(()) } else { Err(Damage::Contents { file: name.into() }) }
}

/// The files of `folder` but for the list, with their bytes.
fn files(folder: &Path) -> Result<Vec<(String, u64)>> {
    let mut files = Vec::new();
    for item in fs::read_dir(folder).map_err(Error::io("read", folder))? {
        let item = item.map_err(Error::io("read", folder))?;
        let name = item.file_name().to_string_lossy().into_owned();
        let metadata = item.metadata().map_err(Error::io("read", item.path()))?;
        if metadata.is_file() && name != MANIFEST_FILE {
            files.push((name, metadata.len()));
        }
    }
    Ok(files)
}

/// A file's length and hash, read a piece at a time.
fn entry(path: &Path) -> std::io::Result<Entry> {
    let mut file = File::open(path)?;
    let mut hasher = blake3::Hasher::new();
    let mut piece = vec![0; PIECE];
    let mut bytes = 0;
    loop {
        let read = match file.read(&mut piece) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hasher.update(&piece[..read]);
        bytes += read as u64;
    }
    Ok(Entry { bytes, blake3: hasher.finalize().to_hex().to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sealed folder of two files.
    fn sealed() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("weights"), [7; 3000]).unwrap();
        fs::write(dir.path().join("state"), "{}").unwrap();
        seal(dir.path(), &Team::default()).unwrap();
        dir
    }

    fn told(dir: &Path) -> Vec<String> {
        damage(dir, &["weights", "state"]).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_folder_as_it_was_written_has_no_damage() {
        let dir = sealed();
        fs::write(dir.path().join("notes.txt"), "a file of the user's").unwrap();
        assert_eq!(told(dir.path()), [""; 0]);
    }

    #[test]
    fn every_kind_of_damage_is_told_with_its_file() {
        let weights = |dir: &Path| dir.join("weights");
        type Harm<'a> = &'a dyn Fn(&Path);
        let cases: [(Harm<'_>, &str); 6] = [
            (
                &|dir| fs::write(weights(dir), [7; 2999]).unwrap(),
                "`weights` has 2999 bytes of 3000",
            ),
            (
                &|dir| fs::write(weights(dir), [7; 3001]).unwrap(),
                "`weights` has 3001 bytes of 3000",
            ),
            (&|dir| fs::remove_file(weights(dir)).unwrap(), "`weights` is missing"),
            (
                &|dir| {
                    let mut bytes = fs::read(weights(dir)).unwrap();
                    bytes[1234] ^= 4;
                    fs::write(weights(dir), bytes).unwrap();
                },
                "`weights` has changed since it was written, its hash is another one",
            ),
            (
                &|dir| fs::remove_file(dir.join(MANIFEST_FILE)).unwrap(),
                "`manifest.json` is missing",
            ),
            (
                &|dir| fs::write(dir.join(MANIFEST_FILE), r#"{"files": {}}"#).unwrap(),
                "`weights` is missing",
            ),
        ];
        for (harm, want) in cases {
            let dir = sealed();
            harm(dir.path());
            assert_eq!(told(dir.path())[0], want);
        }
    }

    #[test]
    fn every_byte_of_the_manifest_itself_counts() {
        let dir = sealed();
        let path = dir.path().join(MANIFEST_FILE);
        let whole = fs::read(&path).unwrap();
        let text = |byte: u8| byte.is_ascii_alphanumeric();
        for place in (0..whole.len()).filter(|&i| text(whole[i])) {
            let mut bytes = whole.clone();
            bytes[place] ^= 1;
            fs::write(&path, &bytes).unwrap();
            assert_ne!(told(dir.path()), [""; 0], "byte {place}");
        }
    }
}
