//! Locates a model's GGUF file.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::weights::{INDEX_FILE, SINGLE_FILE};

/// File name extension.
pub const EXTENSION: &str = "gguf";

/// Whether `path` is a file with the GGUF extension.
pub(crate) fn is_gguf(path: &Path) -> bool {
    let named = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case(EXTENSION));
    named && path.is_file()
}

/// The GGUF file of `model`: the file itself, or the only one in a folder without safetensors.
///
/// # Errors
/// [`Error::GgufChoice`] if a folder without safetensors has several, [`Error::Io`] if it cannot be read.
pub fn find(model: &Path) -> Result<Option<PathBuf>> {
    if is_gguf(model) {
        return Ok(Some(model.to_owned()));
    }
    let safetensors = [SINGLE_FILE, INDEX_FILE].iter().any(|file| model.join(file).exists());
    if safetensors || !model.is_dir() {
        return Ok(None);
    }
    one_of(model, files_in(model, |path| !is_mmproj(path))?)
}

/// The GGUF file of the vision tower beside the decoder's, for the file or folder `model`: llama.cpp stores it
/// separately as `mmproj`.
///
/// # Errors
/// [`Error::GgufChoice`] if there are several, [`Error::Io`] if the folder cannot be read.
pub fn find_mmproj(model: &Path) -> Result<Option<PathBuf>> {
    let Some(decoder) = find(model)? else { return Ok(None) };
    let dir = folder_of(&decoder);
    one_of(dir, files_in(dir, is_mmproj)?)
}

/// The folder with the configuration and tokenizer files of `model`, a GGUF file or a folder.
///
/// # Errors
/// As [`find`].
pub fn folder(model: &Path) -> Result<PathBuf> {
    Ok(find(model)?.as_deref().map_or(model, folder_of).to_owned())
}

fn folder_of(file: &Path) -> &Path {
    match file.parent() {
        Some(dir) if dir.as_os_str().is_empty() => Path::new("."),
        Some(dir) => dir,
        None => file,
    }
}

/// Whether a file is a vision tower, by its name.
fn is_mmproj(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    name.contains("mmproj")
}

/// The GGUF files of a folder that satisfy `wanted`, sorted.
fn files_in(dir: &Path, wanted: fn(&Path) -> bool) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(Error::io("read", dir))? {
        let path = entry.map_err(Error::io("read", dir))?.path();
        if is_gguf(&path) && wanted(&path) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn one_of(dir: &Path, mut files: Vec<PathBuf>) -> Result<Option<PathBuf>> {
    if files.len() < 2 {
        return Ok(files.pop());
    }
    let name = |path: &PathBuf| path.file_name().unwrap_or_default().display().to_string();
    Err(Error::GgufChoice { dir: dir.to_owned(), found: files.iter().map(name).collect() })
}
