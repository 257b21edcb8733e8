//! Stop tokens.

use std::path::Path;

use serde_json::Value;

use super::files::{GENERATION_CONFIG_FILE, TOKENIZER_CONFIG_FILE};
use crate::config::{CONFIG_FILE, token_ids};
use crate::error::{Error, Result};
use crate::gguf::{self, GgufModel};

/// The stop token ids of all sources, deduplicated, those of `generation_config.json` first.
///
/// A chat model's `config.json` often has only the end-of-document token, and its tokenizer only the end-of-turn token.
pub(super) fn all_stop_ids(
    model: &Path,
    tokenizer_config: &Value,
    id_of: impl Fn(&str) -> Option<u32>,
) -> Result<Vec<u32>> {
    let mut ids = stop_ids(model)?;
    if let Some(token) = eos_token(tokenizer_config) {
        let path = model.join(TOKENIZER_CONFIG_FILE);
        let unknown = || Error::UnknownToken { path, field: "eos_token", token: token.to_owned() };
        ids.push(id_of(token).ok_or_else(unknown)?);
    }
    Ok(unique(ids))
}

/// The stop token ids of `model`, a folder or a GGUF file, from `generation_config.json`, `config.json` and the GGUF
/// file, deduplicated; for use without a tokenizer.
///
/// # Errors
/// [`Error::StopIds`] for invalid ids, or a file cannot be read.
pub fn stop_ids(model: &Path) -> Result<Vec<u32>> {
    let gguf = gguf::find(model)?;
    let dir = gguf::folder(model)?;
    let mut ids = Vec::new();
    for file in [GENERATION_CONFIG_FILE, CONFIG_FILE] {
        ids.extend(ids_in_file(&dir.join(file))?);
    }
    if let Some(file) = gguf {
        ids.extend(&GgufModel::open(&file)?.config().eos_token_ids);
    }
    Ok(unique(ids))
}

fn unique(mut ids: Vec<u32>) -> Vec<u32> {
    let mut seen = std::collections::HashSet::new();
    ids.retain(|id| seen.insert(*id));
    ids
}

/// The token that ends a sequence, by the settings of a tokenizer.
pub(super) fn eos_token(tokenizer_config: &Value) -> Option<&str> {
    let token = tokenizer_config.get("eos_token")?;
    token.as_str().or_else(|| token.get("content")?.as_str())
}

fn ids_in_file(path: &Path) -> Result<Vec<u32>> {
    if !path.is_file() {
        return Ok(Vec::new());
    }
    let text = std::fs::read(path).map_err(Error::io("read", path))?;
    let value: Value = serde_json::from_slice(&text).map_err(Error::json(path))?;
    let parts = [Some(&value), value.get("text_config")];
    let mut found = parts.into_iter().flatten().filter_map(|part| part.get("eos_token_id"));
    let Some(eos) = found.find(|eos| !eos.is_null()) else { return Ok(Vec::new()) };
    let wrong = || Error::StopIds { path: path.to_owned(), found: eos.to_string() };
    token_ids(eos).ok_or_else(wrong)
}
