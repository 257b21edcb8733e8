//! A model's tokenizer and chat template.

mod bounded;
mod bytes;
mod chat;
mod chatml;
mod content;
mod declared;
mod files;
mod from_gguf;
mod placeholders;
mod stop;
#[cfg(test)]
mod tests;
mod text_bounds;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use embodied_r_files::write_in_existing_folder;
use serde_json::{Map, Value};

use crate::chat_template::ChatTemplate;
pub use crate::chat_template::{ChatMessage, ChatTemplateKwargs, GenerationPrompt, KwargsFault};
use crate::error::{Error, Result};
use crate::gguf;
use crate::lora;
pub use bounded::BoundedIds;
pub use bytes::{Placeholders, write_byte_tokenizer};
pub use chat::RenderedChat;
pub use chatml::{SPECIAL_TOKENS, VISION_TOKENS, write_chatml_tokenizer};
use content::Contents;
use declared::Declared;
pub(crate) use files::{FILES, GENERATION_CONFIG_FILE};
use files::{TOKENIZER_CONFIG_FILE, TOKENIZER_FILE};
pub use stop::stop_ids;
use text_bounds::TextBounds;

/// Whether decoding skips special tokens such as `<|im_end|>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpecialTokens {
    /// Special tokens are spelled out.
    Keep,
    /// Special tokens are skipped (`skip_special_tokens=True`).
    Skip,
}

/// A model's tokenizer.
#[derive(Debug)]
pub struct Tokenizer {
    pub(crate) dir: PathBuf,
    pub(crate) inner: tokenizers::Tokenizer,
    stop_ids: Vec<u32>,
    template: Option<ChatTemplate>,
    /// Variables of every rendered conversation.
    template_kwargs: ChatTemplateKwargs,
    text_bounds: OnceLock<TextBounds>,
    /// Finds special tokens in messages.
    contents: Contents,
    /// The files' contents, so that checkpoints can be saved after the originals are deleted.
    files: Vec<(&'static str, Vec<u8>)>,
}

impl Tokenizer {
    /// Loads the tokenizer of `model`, a folder or a GGUF file.
    ///
    /// Only `tokenizer.json` is required; without it, the tokenizer of the GGUF file or of an adapter's base model is
    /// used. The other files are read as by `transformers`. A missing or invalid chat template is
    /// an error only in [`Tokenizer::apply_chat_template`].
    ///
    /// # Errors
    /// A file cannot be read, or the files are inconsistent.
    pub fn from_dir(model: &Path) -> Result<Self> {
        let gguf = gguf::find(model)?;
        let dir = gguf::folder(model)?;
        let dir = dir.as_path();
        let path = dir.join(TOKENIZER_FILE);
        if !path.is_file() {
            return match &gguf {
                Some(file) => Self::from_gguf(file),
                None => match lora::base_model_dir(model)? {
                    Some(base) => Self::from_dir(&base),
                    None => Err(declared::no_tokenizer(dir)),
                },
            };
        }
        let files = read_files(dir)?;
        let content = files.iter().find(|(name, _)| *name == TOKENIZER_FILE);
        let mut inner = parse(content.map_or(&[], |(_, content)| content), &path)?;
        // Saved truncation or padding would silently change prompts.
        inner.with_padding(None).with_truncation(None).map_err(Error::tokenizer(&path))?;
        let declared = Declared::read(dir, &files)?;
        declared.add_to(&mut inner)?;
        let config = declared.config;
        let stop_ids = stop::all_stop_ids(model, &config, |token| inner.token_to_id(token))?;
        let template = ChatTemplate::find(dir, &config);
        let (contents, text_bounds) = (contents(&inner), OnceLock::new());
        let template_kwargs = ChatTemplateKwargs::default();
        Ok(Self {
            dir: dir.to_owned(),
            inner,
            stop_ids,
            template,
            template_kwargs,
            text_bounds,
            contents,
            files,
        })
    }

    /// Gives these variables to the chat template in every conversation. A variable that the template does not mention has
    /// no effect, of which a warning says so.
    #[must_use]
    pub fn with_chat_template_kwargs(self, kwargs: ChatTemplateKwargs) -> Self {
        let source = self.template.as_ref().map_or("", ChatTemplate::source);
        for name in kwargs.variables().keys().filter(|name| !source.contains(*name)) {
            let dir = self.dir.display();
            tracing::warn!(
                "the chat template of `{dir}` does not use `{name}` of `chat_template_kwargs`"
            );
        }
        Self { template_kwargs: kwargs, ..self }
    }

    /// Encodes a text. Special tokens in the text are recognized, so it must not come from a user; none are added.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the text cannot be encoded.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self.inner.encode_fast(text, false).map_err(Error::tokenizer(&self.dir))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Encodes a raw text: as [`Tokenizer::encode`], with the special tokens of the post-processor, such as Llama's BOS
    /// token.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the text cannot be encoded.
    pub fn encode_with_special_tokens(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self.inner.encode_fast(text, true).map_err(Error::tokenizer(&self.dir))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Decodes ids. Invalid UTF-8, such as an incomplete character at the end, becomes `\u{fffd}`; ids beyond the
    /// vocabulary, from padding rows of the embedding, decode to nothing.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the decoder fails.
    pub fn decode(&self, ids: &[u32], special: SpecialTokens) -> Result<String> {
        self.inner.decode(ids, special == SpecialTokens::Skip).map_err(Error::tokenizer(&self.dir))
    }

    /// The stop token ids of `generation_config.json`, `config.json` and the tokenizer.
    pub fn stop_ids(&self) -> &[u32] {
        &self.stop_ids
    }

    /// The id of a vocabulary entry.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// A vocabulary entry, in the form that the vocabulary has it.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The contents of `tokenizer_config.json` with the chat template that is used.
    ///
    /// # Errors
    /// [`Error::Json`]; the file was valid when the tokenizer was loaded.
    pub fn config(&self) -> Result<Map<String, Value>> {
        let file = self.files.iter().find(|(name, _)| *name == TOKENIZER_CONFIG_FILE);
        let path = self.dir.join(TOKENIZER_CONFIG_FILE);
        let mut config: Map<String, Value> = match file {
            Some((_, bytes)) => serde_json::from_slice(bytes).map_err(Error::json(path))?,
            None => Map::new(),
        };
        if let Some(template) = self.template.as_ref().filter(|it| !it.source().is_empty()) {
            config.insert("chat_template".to_owned(), template.source().into());
        }
        Ok(config)
    }

    /// Number of entries, added tokens included; at most the model's `vocab_size`.
    pub fn len(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes the tokenizer's files into `dir`, for a checkpoint.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn save(&self, dir: &Path) -> Result<()> {
        let mut files = self.files.iter();
        Ok(files.try_for_each(|(name, bytes)| write_in_existing_folder(&dir.join(name), bytes))?)
    }
}

/// The tokenizer of the `content` of a `tokenizer.json`. `FromStr` is compiled in its own crate; `from_file` and `from_bytes`
/// would be compiled here once more, with all that they deserialize.
fn parse(content: &[u8], path: &Path) -> Result<tokenizers::Tokenizer> {
    let parsed = std::str::from_utf8(content).map_err(Into::into).and_then(str::parse);
    parsed.map_err(Error::tokenizer(path))
}

/// Finds the special tokens of this tokenizer.
fn contents(inner: &tokenizers::Tokenizer) -> Contents {
    Contents::new(inner.get_added_vocabulary().get_added_tokens_decoder().values())
}

fn read_files(dir: &Path) -> Result<Vec<(&'static str, Vec<u8>)>> {
    let present =
        FILES.into_iter().map(|name| (name, dir.join(name))).filter(|(_, path)| path.is_file());
    present
        .map(|(name, path)| Ok((name, std::fs::read(&path).map_err(Error::io("read", &path))?)))
        .collect()
}
