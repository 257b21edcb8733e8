//! The manifest: lengths and hashes of a folder's files, to detect damage.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::Path;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::damaged::Damage;
use crate::error::{Error, Result};
use embodied_r_dist::ProcessGroup;

/// Name of the manifest; it is written last and lists every other file.
pub const MANIFEST_FILE: &str = "manifest.json";

/// Bytes hashed at a time.
const CHUNK: usize = 1 << 20;

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

/// Flushes the files of `folder` to disk and lists them in its manifest, which rank 0 writes. Each rank hashes its
/// share of the files that rank 0 lists.
pub(super) fn seal(folder: &Path, process_group: &ProcessGroup) -> Result<()> {
    let mut found = files(folder)?;
    found.sort();
    let files = process_group.broadcast(found)?;
    let bytes: Vec<usize> = files.iter().map(|(_, bytes)| *bytes as usize).collect();
    let own = process_group.assigned(&bytes).into_iter().map(|index| files[index].0.clone());
    let entries = own
        .collect::<Vec<String>>()
        .into_par_iter()
        .map(|name| {
            let path = folder.join(&name);
            let entry = entry(&path).map_err(Error::io("read", &path))?;
            let file = File::open(&path).map_err(Error::io("open", &path))?;
            file.sync_all().map_err(Error::io("flush", &path))?;
            process_group.heartbeat();
            Ok((name, entry))
        })
        .collect::<Result<Vec<_>>>()?;
    let files = process_group.all_gather(entries)?.into_iter().flatten().collect();
    if !process_group.is_rank_zero() {
        return Ok(());
    }
    let path = folder.join(MANIFEST_FILE);
    let bytes = serde_json::to_vec_pretty(&Manifest { files }).map_err(Error::json(&path))?;
    let mut file = File::create(&path).map_err(Error::io("create", &path))?;
    file.write_all(&bytes).map_err(Error::io("write", &path))?;
    file.sync_all().map_err(Error::io("flush", &path))
}

/// The damage to the files of `folder`; those in `needed` must be listed.
///
/// Unlisted files are ignored.
pub(super) fn damage(folder: &Path, needed: &[&str]) -> Vec<Damage> {
    let files = match read(folder) {
        Ok(files) => files,
        Err(damage) => return vec![damage],
    };
    let mut damage = not_in(&files, needed);
    let files: Vec<_> = files.into_iter().collect();
    damage.par_extend(
        files.par_iter().filter_map(|(name, listed)| verify(folder, name, listed).err()),
    );
    damage
}

/// The files of `needed` that the manifest of `folder` does not list.
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

/// Verifies one file against its entry.
fn verify(folder: &Path, name: &str, listed: &Entry) -> Result<(), Damage> {
    let path = folder.join(name);
    let length = match fs::metadata(&path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Damage::Missing { file: name.into() });
        }
        Err(error) => return Err(Damage::unreadable(name, error)),
    };
    if length != listed.bytes {
        return Err(Damage::Length { file: name.into(), found: length, expected: listed.bytes });
    }
    let found = entry(&path).map_err(|error| Damage::unreadable(name, error))?;
    if found == *listed { Ok(()) } else { Err(Damage::Contents { file: name.into() }) }
}

/// The files of `folder` except the manifest, with their lengths.
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

/// A file's length and hash, read in chunks.
fn entry(path: &Path) -> std::io::Result<Entry> {
    let mut file = File::open(path)?;
    let mut hasher = blake3::Hasher::new();
    let mut chunk = vec![0; CHUNK];
    let mut bytes = 0;
    loop {
        let read = match file.read(&mut chunk) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hasher.update(&chunk[..read]);
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
        seal(dir.path(), &ProcessGroup::default()).unwrap();
        dir
    }

    fn messages(dir: &Path) -> Vec<String> {
        damage(dir, &["weights", "state"]).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_unchanged_folder_has_no_damage() {
        let dir = sealed();
        fs::write(dir.path().join("notes.txt"), "a file of the user's").unwrap();
        assert_eq!(messages(dir.path()), [""; 0]);
    }

    #[test]
    fn every_kind_of_damage_is_reported_with_its_file() {
        let weights = |dir: &Path| dir.join("weights");
        type Corrupt<'a> = &'a dyn Fn(&Path);
        let cases: [(Corrupt<'_>, &str); 6] = [
            (
                &|dir| fs::write(weights(dir), [7; 2999]).unwrap(),
                "`weights` has the wrong length: 2999 bytes, expected 3000",
            ),
            (
                &|dir| fs::write(weights(dir), [7; 3001]).unwrap(),
                "`weights` has the wrong length: 3001 bytes, expected 3000",
            ),
            (&|dir| fs::remove_file(weights(dir)).unwrap(), "`weights` is missing"),
            (
                &|dir| {
                    let mut bytes = fs::read(weights(dir)).unwrap();
                    bytes[1234] ^= 4;
                    fs::write(weights(dir), bytes).unwrap();
                },
                "`weights` has changed since it was written: hash mismatch",
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
        for (corrupt, want) in cases {
            let dir = sealed();
            corrupt(dir.path());
            assert_eq!(messages(dir.path())[0], want);
        }
    }

    #[test]
    fn damage_to_any_byte_of_the_manifest_is_detected() {
        let dir = sealed();
        let path = dir.path().join(MANIFEST_FILE);
        let whole = fs::read(&path).unwrap();
        let text = |byte: u8| byte.is_ascii_alphanumeric();
        for index in (0..whole.len()).filter(|&i| text(whole[i])) {
            let mut bytes = whole.clone();
            bytes[index] ^= 1;
            fs::write(&path, &bytes).unwrap();
            assert_ne!(messages(dir.path()), [""; 0], "byte {index}");
        }
    }
}
