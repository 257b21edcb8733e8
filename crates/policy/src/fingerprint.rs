//! Model fingerprints, independent of the folder's path.

use std::path::{Path, PathBuf};

use crate::config::CONFIG_FILE;
use crate::error::{Error, Result};
use crate::gguf;
use crate::lora;
use crate::tokenizer;
use crate::weights;

/// Number of segments read from a large weight file.
const SEGMENTS: usize = 64;

/// Bytes per segment.
const SEGMENT_BYTES: usize = 64 * 1024;

/// How much of large weight files a fingerprint reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FingerprintExtent {
    /// Evenly spaced segments of 4 MiB in total, which is fast for every model. Training changes nearly every weight.
    Sampled,
    /// All bytes, so that it sees every change.
    Whole,
}

/// A hash of the configuration, the tokenizer, the chat template and the weights of the model in `dir`, a folder or a
/// GGUF file.
///
/// Of weight files above 4 MiB, `extent` is read; of an adapter and its base model, which its fingerprint includes,
/// everything.
///
/// # Errors
/// [`Error::NoWeights`], or [`Error::Io`] if a file cannot be read.
pub fn fingerprint(dir: &Path, extent: FingerprintExtent) -> Result<String> {
    if let Some(base) = lora::base_model_dir(dir)? {
        let mut hasher = blake3::Hasher::new();
        hasher.update(fingerprint(&base, FingerprintExtent::Whole)?.as_bytes());
        for name in [lora::CONFIG_FILE, lora::WEIGHTS_FILE] {
            add(&mut hasher, &dir.join(name), FingerprintExtent::Whole)?;
        }
        return Ok(hasher.finalize().to_hex().to_string());
    }
    let files = weight_files(dir)?;
    let dir = gguf::folder(dir)?;
    let mut hasher = blake3::Hasher::new();
    for name in std::iter::once(CONFIG_FILE).chain(tokenizer::FILES) {
        let path = dir.join(name);
        if path.is_file() {
            let bytes = std::fs::read(&path).map_err(Error::io("read", &path))?;
            begin(&mut hasher, name, bytes.len());
            hasher.update(&bytes);
        }
    }
    for path in files {
        add(&mut hasher, &path, extent)?;
    }
    Ok(hasher.finalize().to_hex().to_string())
}

/// A hash of the contents of the weight files of the model in `dir`, a folder or a GGUF file. Other files, such as the chat
/// template or a vision tower beside a GGUF file, may change.
///
/// # Errors
/// As [`fingerprint`].
pub fn weights_fingerprint(dir: &Path) -> Result<String> {
    let files = match gguf::find(dir)? {
        Some(file) => vec![file],
        None => weights::files(dir)?,
    };
    let mut hasher = blake3::Hasher::new();
    for path in files {
        add(&mut hasher, &path, FingerprintExtent::Whole)?;
    }
    Ok(hasher.finalize().to_hex().to_string())
}

fn weight_files(dir: &Path) -> Result<Vec<PathBuf>> {
    match gguf::find(dir)? {
        // With several vision towers, none is used.
        Some(file) => {
            Ok(std::iter::once(file).chain(gguf::find_mmproj(dir).ok().flatten()).collect())
        }
        None => weights::files(dir),
    }
}

/// Hashes a weight file.
fn add(hasher: &mut blake3::Hasher, path: &Path, extent: FingerprintExtent) -> Result<()> {
    let bytes = weights::map(path)?;
    begin(hasher, &path.file_name().unwrap_or_default().to_string_lossy(), bytes.len());
    match extent {
        FingerprintExtent::Whole => {
            hasher.update_rayon(&bytes);
        }
        FingerprintExtent::Sampled => segments(&bytes).for_each(|segment| {
            hasher.update(segment);
        }),
    }
    Ok(())
}

/// Hashes a file's name and length as a header, so that different lists of files hash differently.
fn begin(hasher: &mut blake3::Hasher, name: &str, bytes: usize) {
    hasher.update(&(name.len() as u64).to_le_bytes());
    hasher.update(name.as_bytes());
    hasher.update(&(bytes as u64).to_le_bytes());
}

/// The whole of a small file; evenly spaced segments of a large one, including both ends.
fn segments(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let whole = bytes.len() <= SEGMENTS * SEGMENT_BYTES;
    let (count, length) = if whole { (1, bytes.len()) } else { (SEGMENTS, SEGMENT_BYTES) };
    (0..count).map(move |i| {
        let start = (bytes.len() - length) * i / (count - 1).max(1);
        &bytes[start..start + length]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODEL: [(&str, &str); 3] =
        [(CONFIG_FILE, "{}"), ("tokenizer.json", "{}"), ("model.safetensors", "numbers")];

    fn model() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in MODEL {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        dir
    }

    #[test]
    fn a_model_keeps_its_fingerprint_in_another_folder() {
        assert_eq!(
            fingerprint(model().path(), FingerprintExtent::Sampled).unwrap(),
            fingerprint(model().path(), FingerprintExtent::Sampled).unwrap()
        );
    }

    #[test]
    fn the_fingerprint_covers_every_model_file_and_no_other() {
        let dir = model();
        let before = fingerprint(dir.path(), FingerprintExtent::Sampled).unwrap();
        for (name, text) in MODEL {
            let path = dir.path().join(name);
            // Change only the length, then only the contents.
            for other in [format!("{text}!"), "#".repeat(text.len())] {
                std::fs::write(&path, other).unwrap();
                assert_ne!(
                    fingerprint(dir.path(), FingerprintExtent::Sampled).unwrap(),
                    before,
                    "{name}"
                );
            }
            std::fs::write(&path, text).unwrap();
        }
        std::fs::write(dir.path().join("README.md"), "a model").unwrap();
        assert_eq!(fingerprint(dir.path(), FingerprintExtent::Sampled).unwrap(), before);
    }

    #[test]
    fn segments_of_a_large_file_span_it_from_start_to_end() {
        let bytes = vec![0; SEGMENTS * SEGMENT_BYTES + 12_345];
        let at = |segment: &[u8]| segment.as_ptr() as usize - bytes.as_ptr() as usize;
        let starts: Vec<usize> = segments(&bytes).map(at).collect();
        assert_eq!(starts.len(), SEGMENTS);
        assert_eq!((starts[0], starts[SEGMENTS - 1]), (0, bytes.len() - SEGMENT_BYTES));
        assert!(starts.windows(2).all(|pair| pair[0] + SEGMENT_BYTES <= pair[1]));
    }

    #[test]
    fn one_flipped_bit_of_a_large_file_is_seen_by_a_whole_fingerprint() {
        let dir = model();
        let path = dir.path().join("model.safetensors");
        let mut bytes = vec![0; 2 * SEGMENTS * SEGMENT_BYTES];
        let of = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            let whole = fingerprint(dir.path(), FingerprintExtent::Whole).unwrap();
            let sampled = fingerprint(dir.path(), FingerprintExtent::Sampled).unwrap();
            (whole, weights_fingerprint(dir.path()).unwrap(), sampled)
        };
        let before = of(&bytes);
        // Between two segments.
        bytes[SEGMENT_BYTES + SEGMENT_BYTES / 2] ^= 1;
        let after = of(&bytes);
        assert!(before.0 != after.0 && before.1 != after.1);
        assert_eq!(before.2, after.2);
    }

    #[test]
    fn small_files_are_hashed_whole() {
        for length in [0, 100, SEGMENTS * SEGMENT_BYTES] {
            let bytes = vec![0; length];
            assert_eq!(segments(&bytes).map(<[u8]>::len).collect::<Vec<_>>(), [length]);
        }
    }
}
