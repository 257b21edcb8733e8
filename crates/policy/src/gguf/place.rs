//! Where a model's GGUF file is, if it is one.

use std::path::{Path, PathBuf};

use super::EXTENSION;
use crate::error::{Error, Result};
use crate::weights::{INDEX_FILE, SINGLE_FILE};

/// Whether `path` is a file whose name ends as a GGUF file's does.
pub(crate) fn is_gguf(path: &Path) -> bool {
    let named = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case(EXTENSION));
    named && path.is_file()
}

/// The GGUF file that `model` means: itself, or the only one of a folder that has no safetensors.
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
    let mut files = Vec::new();
    for entry in std::fs::read_dir(model).map_err(Error::io("read", model))? {
        let path = entry.map_err(Error::io("read", model))?.path();
        if is_gguf(&path) {
            files.push(path);
        }
    }
    match files.len() {
        0 | 1 => Ok(files.pop()),
        _ => {
            files.sort();
            let name = |path: &PathBuf| path.file_name().unwrap_or_default().display().to_string();
            let found = files.iter().map(name).collect();
            Err(Error::GgufChoice { dir: model.to_owned(), found })
        }
    }
}
