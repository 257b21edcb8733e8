//! What tells one model from another, wherever its folder lies.

use std::path::Path;

use crate::config::CONFIG_FILE;
use crate::error::{Error, Result};
use crate::gguf;
use crate::lora;
use crate::tokenizer;
use crate::weights;

/// Stretches of a large weight file that are read.
const STRETCHES: usize = 64;

/// Bytes of a stretch.
const STRETCH_BYTES: usize = 64 * 1024;

/// A short text that changes with the configuration, the tokenizer, the chat template and the weights of the model in
/// `dir`, a folder or a GGUF file.
///
/// Of weight files above 4 MiB it reads stretches spread evenly from beginning to end, 4 MiB in all, so that it takes
/// no time even for large models: training changes nearly every number. Of an adapter's folder the model that it
/// stands on counts too.
///
/// # Errors
/// [`Error::NoWeights`], or [`Error::Io`] if a file cannot be read.
pub fn fingerprint(dir: &Path) -> Result<String> {
    if let Some(base) = lora::base_of(dir)? {
        let mut hasher = blake3::Hasher::new();
        hasher.update(fingerprint(&base)?.as_bytes());
        for name in [lora::CONFIG_FILE, lora::WEIGHTS_FILE] {
            let path = dir.join(name);
            let bytes = weights::map(&path)?;
            begin(&mut hasher, name, bytes.len());
            stretches(&bytes).for_each(|stretch| {
                hasher.update(stretch);
            });
        }
        return Ok(hasher.finalize().to_hex().to_string());
    }
    let files = match gguf::find(dir)? {
        // Where several towers lie beside it, none of them is used.
        Some(file) => std::iter::once(file).chain(gguf::find_mmproj(dir).ok().flatten()).collect(),
        None => weights::files(dir)?,
    };
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
        let bytes = weights::map(&path)?;
        begin(&mut hasher, &path.file_name().unwrap_or_default().to_string_lossy(), bytes.len());
        for stretch in stretches(&bytes) {
            hasher.update(stretch);
        }
    }
    Ok(hasher.finalize().to_hex().to_string())
}

/// A file's name and length, so that no two lists of files read the same.
fn begin(hasher: &mut blake3::Hasher, name: &str, bytes: usize) {
    hasher.update(&(name.len() as u64).to_le_bytes());
    hasher.update(name.as_bytes());
    hasher.update(&(bytes as u64).to_le_bytes());
}

/// All of a small file; of a large one its two ends and what lies evenly between them.
fn stretches(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let whole = bytes.len() <= STRETCHES * STRETCH_BYTES;
    let (count, length) = if whole { (1, bytes.len()) } else { (STRETCHES, STRETCH_BYTES) };
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
        assert_eq!(fingerprint(model().path()).unwrap(), fingerprint(model().path()).unwrap());
    }

    #[test]
    fn every_file_of_the_model_counts_and_no_other() {
        let dir = model();
        let before = fingerprint(dir.path()).unwrap();
        for (name, text) in MODEL {
            let path = dir.path().join(name);
            // The length alone, and the contents alone.
            for other in [format!("{text}!"), "#".repeat(text.len())] {
                std::fs::write(&path, other).unwrap();
                assert_ne!(fingerprint(dir.path()).unwrap(), before, "{name}");
            }
            std::fs::write(&path, text).unwrap();
        }
        std::fs::write(dir.path().join("README.md"), "a model").unwrap();
        assert_eq!(fingerprint(dir.path()).unwrap(), before);
    }

    #[test]
    fn stretches_of_a_large_file_reach_from_its_beginning_to_its_end() {
        let bytes = vec![0; STRETCHES * STRETCH_BYTES + 12_345];
        let at = |stretch: &[u8]| stretch.as_ptr() as usize - bytes.as_ptr() as usize;
        let starts: Vec<usize> = stretches(&bytes).map(at).collect();
        assert_eq!(starts.len(), STRETCHES);
        assert_eq!((starts[0], starts[STRETCHES - 1]), (0, bytes.len() - STRETCH_BYTES));
        assert!(starts.windows(2).all(|pair| pair[0] + STRETCH_BYTES <= pair[1]));
    }

    #[test]
    fn small_files_are_read_whole() {
        for length in [0, 100, STRETCHES * STRETCH_BYTES] {
            let bytes = vec![0; length];
            assert_eq!(stretches(&bytes).map(<[u8]>::len).collect::<Vec<_>>(), [length]);
        }
    }
}
