//! The configuration of a model on disk.

use std::path::Path;

use embodied_r_files::write_json_in_existing_folder;
use serde_json::Value;

use super::{CONFIG_FILE, ModelConfig};
use crate::error::{Error, Result};
use crate::gguf::{self, GgufModel};
use crate::lora;
use crate::weights;

impl ModelConfig {
    /// Reads `config.json` of the model in `dir`.
    ///
    /// Supports the flat format of the hub and the nested one of `transformers` 5 (`text_config`, `rope_parameters`).
    /// If it ties the LM head to the embedding matrix but the weights have another LM head, that one is used, as in
    /// `transformers`, and a warning says so.
    ///
    /// # Errors
    /// If the file cannot be read, and [`Error::Config`] with every field that is missing, invalid or unsupported.
    pub fn from_dir(dir: &Path) -> Result<Self> {
        let path = dir.join(CONFIG_FILE);
        let text = std::fs::read(&path).map_err(Error::io("read", &path))?;
        let value: Value = serde_json::from_slice(&text).map_err(Error::json(&path))?;
        let mut config = Self::from_json(&value)
            .map_err(|faults| Error::Config { path: path.clone(), faults })?;
        if config.tie_word_embeddings && weights::has_own_head(dir) {
            tracing::warn!(
                "`lm_head.weight` in `{}` differs from the embedding matrix and is used, although `{CONFIG_FILE}` ties \
                 them: set `tie_word_embeddings` to false",
                dir.display()
            );
            config.tie_word_embeddings = false;
        }
        Ok(config)
    }

    /// The configuration of the model at `path`: a folder in Hugging Face's layout, a GGUF file or a folder with one,
    /// or an adapter folder, which stands for its base model.
    ///
    /// # Errors
    /// As [`Self::from_dir`], and for a corrupt GGUF file or an adapter whose base model is missing.
    pub fn of_model(path: &Path) -> Result<Self> {
        if let Some(base) = lora::base_model_dir(path)? {
            return Self::of_model(&base);
        }
        match gguf::find(path)? {
            Some(file) => Ok(GgufModel::open(&file)?.config().clone()),
            None => Self::from_dir(path),
        }
    }

    /// [`Self::of_model`], once the headers of the model's files have been checked against it: what [`crate::Policy::load`]
    /// would find wrong with them is known before anything long starts.
    ///
    /// # Errors
    /// As [`Self::of_model`], and [`Error::Weights`] as [`weights::check_headers`].
    pub fn checked(path: &Path) -> Result<Self> {
        if let Some(base) = lora::base_model_dir(path)? {
            return Self::checked(&base);
        }
        let config = Self::of_model(path)?;
        // Opening a GGUF file compares its tensors with its configuration.
        if gguf::find(path)?.is_none() {
            weights::check_headers(path, &config)?;
        }
        Ok(config)
    }

    /// Writes `config.json` into `dir`, in the flat format that every version of `transformers` reads.
    ///
    /// # Errors
    /// [`Error::Config`] if the configuration is inconsistent, [`Error::Io`] if the file cannot be written.
    pub fn save(&self, dir: &Path) -> Result<()> {
        self.check_for(dir)?;
        Ok(write_json_in_existing_folder(&dir.join(CONFIG_FILE), &self.to_json())?)
    }

    /// [`Self::check`] before a save into `dir`.
    pub(crate) fn check_for(&self, dir: &Path) -> Result<()> {
        self.check().map_err(|faults| Error::Config { path: dir.join(CONFIG_FILE), faults })
    }
}
