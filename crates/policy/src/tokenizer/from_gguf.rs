//! Loads the tokenizer of a GGUF file.

use std::path::Path;
use std::sync::OnceLock;

use super::files::GENERATION_CONFIG_FILE;
use super::{TOKENIZER_CONFIG_FILE, TOKENIZER_FILE, Tokenizer, contents, parse};
use crate::chat_template::{ChatTemplate, ChatTemplateKwargs};
use crate::error::{Error, Result};
use crate::gguf::{GgufFault, GgufModel, TokenizerFiles};

impl Tokenizer {
    /// Loads the tokenizer of the GGUF file `path`; it is saved in Hugging Face's format.
    pub(super) fn from_gguf(path: &Path) -> Result<Self> {
        let none = || Error::Gguf { path: path.to_owned(), fault: GgufFault::NoTokenizer.into() };
        let TokenizerFiles { tokenizer, config, generation, stop_ids } =
            GgufModel::open(path)?.tokenizer()?.ok_or_else(none)?;
        let bytes = |value| serde_json::to_vec_pretty(value).map_err(Error::json(path));
        let tokenizer = bytes(&tokenizer)?;
        let inner = parse(&tokenizer, path)?;
        let template = ChatTemplate::in_config(path, &config);
        let files = vec![
            (TOKENIZER_FILE, tokenizer),
            (TOKENIZER_CONFIG_FILE, bytes(&config)?),
            (GENERATION_CONFIG_FILE, bytes(&generation)?),
        ];
        Ok(Self {
            dir: path.to_owned(),
            contents: contents(&inner),
            inner,
            stop_ids,
            template,
            template_kwargs: ChatTemplateKwargs::default(),
            text_bounds: OnceLock::new(),
            files,
        })
    }
}
