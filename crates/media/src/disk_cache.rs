//! Image embeddings on disk, beside a run.

use std::path::{Path, PathBuf};

use candle_core::Tensor;
use embodied_r_files::write_in_existing_folder_with;
use embodied_r_kernels::memory;
use std::io::Write as _;

use crate::error::{Error, Result};

/// The first bytes of a file.
const MAGIC: &[u8; 8] = b"embed-r1";

/// Bytes of the checksum.
const CHECKSUM: usize = 32;

/// A folder with the embeddings of images under one vision tower, one file per image.
#[derive(Debug, Clone)]
pub struct DiskCache {
    folder: PathBuf,
}

impl DiskCache {
    /// The cache in `folder`, which is created, for what `key` identifies: vision tower and processor.
    ///
    /// # Errors
    /// The folder cannot be created.
    pub fn open(folder: &Path, key: &str) -> Result<Self> {
        let name = &blake3::hash(key.as_bytes()).to_hex()[..16];
        let folder = folder.join(name);
        std::fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
        Ok(Self { folder })
    }

    fn path(&self, digest: u128) -> PathBuf {
        self.folder.join(format!("{digest:032x}.f32"))
    }

    /// Whether there is a file for an image.
    #[must_use]
    pub fn contains(&self, digest: u128) -> bool {
        self.path(digest).is_file()
    }

    /// The embeddings of an image (tokens, hidden); `None` if there are none, or the file is damaged.
    #[must_use]
    pub fn read(&self, digest: u128) -> Option<Tensor> {
        let bytes = std::fs::read(self.path(digest)).ok()?;
        let rest = bytes.strip_prefix(MAGIC)?;
        let (checksum, rest) = rest.split_at_checked(CHECKSUM)?;
        if blake3::hash(rest).as_bytes() != checksum {
            return None;
        }
        let (rows, rest) = rest.split_first_chunk::<8>()?;
        let (columns, values) = rest.split_first_chunk::<8>()?;
        let size = |bytes: &[u8; 8]| usize::try_from(u64::from_le_bytes(*bytes)).ok();
        let (rows, columns) = (size(rows)?, size(columns)?);
        let values = values.as_chunks::<4>().0.iter().map(|value| f32::from_le_bytes(*value));
        memory::tensor(values.collect(), (rows, columns)).ok()
    }

    /// Writes the embeddings of an image (tokens, hidden), atomically.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, digest: u128, embeddings: &Tensor) -> Result<()> {
        let values = memory::floats(embeddings, "cache image embeddings")?;
        let sizes = embeddings.dims().iter().flat_map(|size| (*size as u64).to_le_bytes());
        let payload: Vec<u8> =
            sizes.chain(values.iter().flat_map(|value| value.to_le_bytes())).collect();
        let path = self.path(digest);
        write_in_existing_folder_with(&path, |out| {
            let checksum = blake3::hash(&payload);
            let parts = [MAGIC.as_slice(), checksum.as_bytes(), &payload];
            parts.iter().try_for_each(|part| out.write_all(part)).map_err(Error::io("write", &path))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn embeddings_are_read_as_they_were_written_unless_the_file_is_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let cache = DiskCache::open(folder.path(), "tower").unwrap();
        let values: Vec<f32> = (0..12).map(|i| i as f32 / 7.0).collect();
        cache.write(3, &memory::tensor(values.clone(), (4, 3)).unwrap()).unwrap();
        assert_eq!((cache.contains(3), cache.contains(4)), (true, false));
        let read = cache.read(3).unwrap();
        assert_eq!(read.dims(), [4, 3]);
        assert_eq!(memory::floats(&read, "test").unwrap().to_vec(), values);
        // Another tower has other embeddings.
        assert!(DiskCache::open(folder.path(), "other").unwrap().read(3).is_none());
        let path = cache.path(3);
        let bytes = std::fs::read(&path).unwrap();
        for damaged in
            [&bytes[..bytes.len() - 1], &bytes[..20], b"", &[bytes.as_slice(), b"x"].concat()]
        {
            std::fs::write(&path, damaged).unwrap();
            assert!(cache.read(3).is_none());
        }
        let mut flipped = bytes.clone();
        flipped[60] ^= 1;
        std::fs::write(&path, flipped).unwrap();
        assert!(cache.read(3).is_none());
        std::fs::write(&path, bytes).unwrap();
        assert!(cache.read(3).is_some());
    }
}
