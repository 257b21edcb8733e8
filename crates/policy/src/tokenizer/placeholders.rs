//! Adds the placeholders of images and videos to a text model's tokenizer.

use std::path::Path;

use embodied_r_files::write_json_in_existing_folder;
use serde_json::json;
use tokenizers::AddedToken;

use super::chatml::{VISION_TEMPLATE, VISION_TOKENS, declared};
use super::{TOKENIZER_CONFIG_FILE, TOKENIZER_FILE, Tokenizer};
use crate::error::{Error, Result};

impl Tokenizer {
    /// Writes this tokenizer, with ChatML's tokens, into the folder `dir` for a vision-language model: with the tokens
    /// `<|vision_start|>`, `<|vision_end|>`, `<|image_pad|>` and `<|video_pad|>` after all others, and a ChatML template
    /// that places images and videos. Returns the id of the first.
    ///
    /// # Errors
    /// [`Error::Tokenizer`], [`Error::Json`], [`Error::Io`].
    pub fn save_with_placeholders(&self, dir: &Path) -> Result<u32> {
        self.save(dir)?;
        let path = dir.join(TOKENIZER_FILE);
        let mut inner = self.inner.clone();
        inner
            .add_special_tokens(VISION_TOKENS.map(|token| AddedToken::from(token, true)))
            .map_err(Error::tokenizer(&path))?;
        write_json_in_existing_folder(&path, &inner)?;
        let id = |token: &str| inner.token_to_id(token).unwrap_or_default();
        let path = dir.join(TOKENIZER_CONFIG_FILE);
        let text = embodied_r_files::read_text(&path)?;
        let mut config: serde_json::Value = serde_json::from_str(&text)
            .map_err(|source| Error::Json { path: path.clone(), source })?;
        config["chat_template"] = json!(VISION_TEMPLATE);
        for token in VISION_TOKENS {
            config["added_tokens_decoder"][id(token).to_string()] = declared(token);
        }
        write_json_in_existing_folder(&path, &config)?;
        Ok(id(VISION_TOKENS[0]))
    }
}
