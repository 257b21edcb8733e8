//! What the files beside `tokenizer.json` declare, read as by `transformers`: settings, and tokens that it lacks.

#[cfg(test)]
mod tests;

use std::path::Path;

use serde_json::{Map, Value};
use tokenizers::AddedToken;

use super::files::{
    ADDED_TOKENS_FILE, SPECIAL_TOKENS_MAP_FILE, TOKENIZER_CONFIG_FILE, VOCABULARY_FILES,
};
use super::stop::eos_token;
use crate::error::{Error, Result};

/// The tokens of `tokenizer_config.json` by their ids.
const DECODER: &str = "added_tokens_decoder";

/// Lists of special tokens, under their old and their new name; the latter may also be an object.
const EXTRA_TOKENS: [&str; 2] = ["additional_special_tokens", "extra_special_tokens"];

/// The settings of a tokenizer, and the tokens that its files declare.
pub(super) struct Declared<'a> {
    dir: &'a Path,
    /// `tokenizer_config.json` with `special_tokens_map.json`.
    pub(super) config: Value,
    /// `added_tokens.json`, if it counts.
    added: Map<String, Value>,
}

impl<'a> Declared<'a> {
    /// Reads the files of `dir`, given by their names. Those of older versions count only if `tokenizer_config.json` has no
    /// `added_tokens_decoder`; then `special_tokens_map.json` takes precedence.
    pub(super) fn read(dir: &'a Path, files: &[(&'static str, Vec<u8>)]) -> Result<Self> {
        let object = |name: &str| -> Result<Map<String, Value>> {
            match files.iter().find(|(found, _)| *found == name) {
                Some((_, bytes)) => {
                    serde_json::from_slice(bytes).map_err(Error::json(dir.join(name)))
                }
                None => Ok(Map::new()),
            }
        };
        let mut config = object(TOKENIZER_CONFIG_FILE)?;
        let mut added = Map::new();
        if !config.contains_key(DECODER) {
            for (key, value) in object(SPECIAL_TOKENS_MAP_FILE)? {
                match (config.get_mut(&key), value) {
                    (Some(Value::Array(list)), Value::Array(more)) => list.extend(more),
                    (_, value) => drop(config.insert(key, value)),
                }
            }
            added = object(ADDED_TOKENS_FILE)?;
        }
        if config.get("split_special_tokens") == Some(&Value::Bool(true)) {
            let why = "`split_special_tokens` is not supported: chat templates need special tokens";
            return Err(Error::tokenizer(dir.join(TOKENIZER_CONFIG_FILE))(why.into()));
        }
        Ok(Self { dir, config: Value::Object(config), added })
    }

    /// Adds the tokens that `inner` lacks, and makes the special ones special.
    ///
    /// # Errors
    /// A declaration is not a token, or has another id than the token.
    pub(super) fn add_to(&self, inner: &mut tokenizers::Tokenizer) -> Result<()> {
        let specials: Vec<AddedToken> =
            self.special_tokens().filter_map(|value| token(value, true)).collect();
        for (id, token) in self.by_id(&specials)? {
            if inner.token_to_id(&token.content).is_none() {
                inner.add_tokens([token.clone()]).map_err(Error::tokenizer(self.dir))?;
            }
            let found = inner.token_to_id(&token.content);
            if found != Some(id) {
                let is_old = !self.added.is_empty();
                let file = if is_old { ADDED_TOKENS_FILE } else { TOKENIZER_CONFIG_FILE };
                let path = self.dir.join(file);
                return Err(Error::AddedToken { path, token: token.content, id, found });
            }
        }
        let eos = eos_token(&self.config);
        for special in specials {
            let vocabulary = inner.get_added_vocabulary().get_added_tokens_decoder();
            let known = vocabulary.values().find(|token| token.content == special.content);
            let special = match known {
                Some(known) if known.special => continue,
                Some(known) => AddedToken { special: true, ..known.clone() },
                // The tokenizer lacks a token to end with, which is an error when its id is needed.
                None if Some(special.content.as_str()) == eos
                    && inner.token_to_id(&special.content).is_none() =>
                {
                    continue;
                }
                None => AddedToken { special: true, ..special },
            };
            inner.add_special_tokens([special]).map_err(Error::tokenizer(self.dir))?;
        }
        Ok(())
    }

    /// The values of the settings that name special tokens.
    fn special_tokens(&self) -> impl Iterator<Item = &Value> {
        let settings = self.config.as_object().into_iter().flatten();
        settings.flat_map(|(key, value)| -> Vec<&Value> {
            match value {
                Value::Array(list) if EXTRA_TOKENS.contains(&key.as_str()) => list.iter().collect(),
                Value::Object(map) if EXTRA_TOKENS.contains(&key.as_str()) => {
                    map.values().collect()
                }
                _ if key.ends_with("_token") => vec![value],
                _ => Vec::new(),
            }
        })
    }

    /// The tokens that are declared with their ids, in the order of the ids.
    fn by_id(&self, specials: &[AddedToken]) -> Result<Vec<(u32, AddedToken)>> {
        let is_special = |token: &str| specials.iter().any(|special| special.content == token);
        let mut tokens = Vec::new();
        for (id, value) in self.config.get(DECODER).and_then(Value::as_object).into_iter().flatten()
        {
            let declared = id.parse().ok().zip(token(value, false));
            tokens.push(declared.ok_or_else(|| {
                self.invalid(TOKENIZER_CONFIG_FILE, &format!("`{DECODER}`: `{id}`: {value}"))
            })?);
        }
        for (content, id) in &self.added {
            let special = is_special(content);
            let found = id.as_u64().and_then(|id| u32::try_from(id).ok());
            let invalid = || self.invalid(ADDED_TOKENS_FILE, &format!("`{content}`: {id}"));
            let token = AddedToken::from(content.as_str(), special);
            tokens.push((found.ok_or_else(invalid)?, token));
        }
        tokens.sort_by_key(|(id, _)| *id);
        Ok(tokens)
    }

    fn invalid(&self, file: &str, found: &str) -> Error {
        let why = format!("expected the content of a token and its id, not {found}");
        Error::tokenizer(self.dir.join(file))(why.into())
    }
}

/// A token, given as its content or as an object whose fields but the content have defaults; `None` for anything else.
fn token(value: &Value, is_special: bool) -> Option<AddedToken> {
    if let Some(content) = value.as_str() {
        return Some(AddedToken::from(content, is_special));
    }
    let content = value.get("content")?.as_str()?;
    let flag =
        |name: &str, default: bool| value.get(name).and_then(Value::as_bool).unwrap_or(default);
    let special = flag("special", is_special);
    Some(AddedToken {
        content: content.to_owned(),
        single_word: flag("single_word", false),
        lstrip: flag("lstrip", false),
        rstrip: flag("rstrip", false),
        normalized: flag("normalized", !special),
        special,
    })
}

/// An error about a folder without `tokenizer.json`, which names the vocabulary that it has in another format.
pub(super) fn no_tokenizer(dir: &Path) -> Error {
    let Some(found) = VOCABULARY_FILES.into_iter().find(|name| dir.join(name).is_file()) else {
        return Error::NoTokenizer { dir: dir.to_owned() };
    };
    let why = format!(
        "it has `{found}` but no `tokenizer.json`; write one with transformers: \
         `AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)`"
    );
    Error::tokenizer(dir)(why.into())
}
