//! A model's own tokenizer and chat template: text to token ids and back.

mod bytes;
mod from_gguf;
mod stop;
#[cfg(test)]
mod tests;
mod train;

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;
use tokenizers::AddedToken;

use crate::atomic;
use crate::chat_template::ChatTemplate;
pub use crate::chat_template::{ChatMessage, Generation};
use crate::error::{Error, Result};
use crate::gguf;
use crate::lora;
pub use bytes::write_bytes;
pub(crate) use stop::GENERATION_CONFIG_FILE;
pub use stop::stop_ids;
pub use train::{TrainOptions, Trained, train};

/// The vocabulary and its rules.
const TOKENIZER_FILE: &str = "tokenizer.json";

/// What `transformers` knows of a tokenizer beyond its vocabulary.
const TOKENIZER_CONFIG_FILE: &str = "tokenizer_config.json";

/// The files beside `config.json` and the weights that belong to a model's text side.
pub(crate) const FILES: [&str; 10] = [
    TOKENIZER_FILE,
    TOKENIZER_CONFIG_FILE,
    stop::GENERATION_CONFIG_FILE,
    "chat_template.jinja",
    "chat_template.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
];

/// What decoding does with special tokens such as `<|im_end|>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Special {
    /// They stand in the text.
    Keep,
    /// They are left out.
    Skip,
}

/// A model's tokenizer.
#[derive(Debug)]
pub struct Tokenizer {
    pub(crate) dir: PathBuf,
    pub(crate) inner: tokenizers::Tokenizer,
    stop_ids: Vec<u32>,
    template: Option<ChatTemplate>,
    /// The files it was read from, so that a checkpoint can be written after they are gone.
    files: Vec<(&'static str, Vec<u8>)>,
}

impl Tokenizer {
    /// Reads the tokenizer of the model in `model`, a folder or a GGUF file.
    ///
    /// Only `tokenizer.json` has to be there; where it is not, a GGUF file's own tokenizer is taken, or that of the model
    /// that an adapter stands on. A template that cannot be used is an error here already, a missing one only when
    /// [`Tokenizer::render`] needs it.
    ///
    /// # Errors
    /// If a file cannot be read or does not fit the others.
    pub fn from_dir(model: &Path) -> Result<Self> {
        let gguf = gguf::find(model)?;
        let dir = gguf::folder(model)?;
        let dir = dir.as_path();
        let path = dir.join(TOKENIZER_FILE);
        if !path.is_file() {
            return match &gguf {
                Some(file) => Self::from_gguf(file),
                None => match lora::base_of(model)? {
                    Some(base) => Self::from_dir(&base),
                    None => Err(Error::NoTokenizer { dir: dir.to_owned() }),
                },
            };
        }
        let files = read_files(dir)?;
        let mut inner = tokenizers::Tokenizer::from_file(&path).map_err(Error::tokenizer(&path))?;
        // A saved limit or filling would silently change prompts.
        inner.with_padding(None).with_truncation(None).map_err(Error::tokenizer(&path))?;
        let config = match files.iter().find(|(name, _)| *name == TOKENIZER_CONFIG_FILE) {
            Some((name, bytes)) => {
                serde_json::from_slice(bytes).map_err(Error::json(dir.join(name)))?
            }
            None => Value::Null,
        };
        add_declared_tokens(&mut inner, dir, &config)?;
        let stop_ids = stop::all_stop_ids(model, &config, |token| inner.token_to_id(token))?;
        let template = ChatTemplate::find(dir, &config)?;
        Ok(Self { dir: dir.to_owned(), inner, stop_ids, template, files })
    }

    /// The ids of a text. Special tokens written out in it become their ids; none are added at its ends, as a chat
    /// template brings its own.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the vocabulary cannot express the text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self.inner.encode_fast(text, false).map_err(Error::tokenizer(&self.dir))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The ids of a text that nothing frames: those of [`Tokenizer::encode`], and at its ends the special tokens that
    /// the vocabulary's rules put there, such as the first token of a Llama's text.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the vocabulary cannot express the text.
    pub fn encode_unframed(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self.inner.encode_fast(text, true).map_err(Error::tokenizer(&self.dir))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The text of ids. Bytes that are no UTF-8, such as half a character at the end, become `\u{fffd}`; ids beyond
    /// the vocabulary, which the padded rows of an embedding have, become nothing.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the decoder refuses the ids.
    pub fn decode(&self, ids: &[u32], special: Special) -> Result<String> {
        self.inner.decode(ids, special == Special::Skip).map_err(Error::tokenizer(&self.dir))
    }

    /// The text of a conversation in the form the model was trained on. Messages are [`ChatMessage`]s, or what a
    /// template of more than text takes in their place: a `role`, and as `content` a list of parts.
    ///
    /// # Errors
    /// [`Error::NoChatTemplate`], or [`Error::ChatTemplate`] if the template refuses the conversation.
    pub fn render(&self, messages: &[impl Serialize], generation: Generation) -> Result<String> {
        match &self.template {
            Some(template) => template.render(messages, generation),
            None => Err(Error::NoChatTemplate { dir: self.dir.clone() }),
        }
    }

    /// The ids that end a completion: every one that `generation_config.json`, `config.json` and the tokenizer name.
    pub fn stop_ids(&self) -> &[u32] {
        &self.stop_ids
    }

    /// The id of a token, given as it stands in the vocabulary.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Number of entries, added tokens included. A model's `vocab_size` must be no less.
    pub fn len(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes the files it was read from into `dir`, as a checkpoint needs them.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn save(&self, dir: &Path) -> Result<()> {
        self.files.iter().try_for_each(|(name, bytes)| atomic::write(&dir.join(name), bytes))
    }
}

fn read_files(dir: &Path) -> Result<Vec<(&'static str, Vec<u8>)>> {
    let present =
        FILES.into_iter().map(|name| (name, dir.join(name))).filter(|(_, path)| path.is_file());
    present
        .map(|(name, path)| Ok((name, std::fs::read(&path).map_err(Error::io("read", &path))?)))
        .collect()
}

/// Adds the tokens that only `tokenizer_config.json` declares.
fn add_declared_tokens(
    inner: &mut tokenizers::Tokenizer,
    dir: &Path,
    config: &Value,
) -> Result<()> {
    let Some(declared) = config.get("added_tokens_decoder").and_then(Value::as_object) else {
        return Ok(());
    };
    let mut declared: Vec<(u32, AddedToken)> = declared
        .iter()
        .filter_map(|(id, token)| {
            Some((id.parse().ok()?, serde_json::from_value(token.clone()).ok()?))
        })
        .collect();
    declared.sort_by_key(|(id, _)| *id);
    for (id, token) in declared {
        if inner.token_to_id(&token.content).is_none() {
            inner.add_tokens([token.clone()]).map_err(Error::tokenizer(dir))?;
        }
        let found = inner.token_to_id(&token.content);
        if found != Some(id) {
            let path = dir.join(TOKENIZER_CONFIG_FILE);
            return Err(Error::AddedToken { path, token: token.content, id, found });
        }
    }
    Ok(())
}
