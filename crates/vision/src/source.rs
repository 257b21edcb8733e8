//! The files of a vision encoder: a folder in Hugging Face's layout, or llama.cpp's `mmproj` GGUF.

mod folder;
mod mmproj;

use std::path::Path;

use embodied_r_policy::{Adapter, ModelConfig, WeightPlacement, gguf, lora};

use crate::config::{ImageTokens, VisionConfig};
use crate::error::{Error, Result};
use crate::processor::{Settings, VideoRules};
use crate::tower_weights::TowerWeights;
use folder::Folder;
pub(crate) use folder::tower_tensors;
use mmproj::Mmproj;

/// The files of a model's vision encoder.
pub(crate) enum Source {
    Folder(Folder),
    Mmproj(Box<Mmproj>),
}

impl VisionConfig {
    /// The configuration of `model`: a folder with a `config.json` in the hub's format or that of `transformers` 5, a GGUF
    /// file with its `mmproj` next to it, or an adapter of either.
    ///
    /// # Errors
    /// [`Error::NoVision`] or [`Error::NoMmproj`] for a text model; a file cannot be read, or the sizes are inconsistent.
    pub fn of_model(model: &Path) -> Result<Self> {
        Ok(Source::of_model(model)?.config()?.0)
    }
}

impl Source {
    /// The files of `model`, a folder, a GGUF file, or an adapter's folder, which stands for its base model with the adapter
    /// merged.
    ///
    /// # Errors
    /// [`Error::NoVision`] for a text model, [`Error::NoMmproj`] for a decoder without an `mmproj` file; an adapter's base
    /// model is missing, or the adapter cannot be merged into its tower.
    pub(crate) fn of_model(model: &Path) -> Result<Self> {
        let base = lora::base_model_dir(model)?;
        let files = base.as_deref().unwrap_or(model);
        let Some(decoder) = gguf::find(files)? else {
            return Ok(Self::Folder(Folder::new(files, model)));
        };
        if base.is_some() && Adapter::open(model, &ModelConfig::of_model(files)?)?.adapts_encoder()
        {
            let dir = model.to_owned();
            return Err(embodied_r_policy::Error::EncoderAdapter { dir }.into());
        }
        match gguf::find_mmproj(files)? {
            Some(file) => Ok(Self::Mmproj(Box::new(Mmproj::open(&file, &decoder)?))),
            None => Err(Error::NoMmproj { model: decoder }),
        }
    }

    /// Whether `model` is a vision-language model, even if its files are incomplete.
    pub(crate) fn exists(model: &Path) -> bool {
        let Ok(base) = lora::base_model_dir(model) else { return false };
        let model = base.as_deref().unwrap_or(model);
        match gguf::find(model) {
            Ok(Some(_)) => !matches!(gguf::find_mmproj(model), Ok(None)),
            Ok(None) => Folder::new(model, model).is_whole(),
            Err(_) => false,
        }
    }

    /// The tower's configuration and the placeholder tokens.
    pub(crate) fn config(&self) -> Result<(VisionConfig, ImageTokens)> {
        match self {
            Self::Folder(folder) => folder.config(),
            Self::Mmproj(file) => file.config(),
        }
    }

    /// What the family's video processor does.
    pub(crate) fn video_rules(&self) -> Result<VideoRules> {
        Ok(match self {
            Self::Folder(folder) => folder.video_rules()?,
            Self::Mmproj(file) => file.vision_config()?.family().video_rules(),
        })
    }

    /// The processor's settings for images, and for videos by `rules`.
    pub(crate) fn settings(&self, rules: &VideoRules) -> Result<(Settings, Settings)> {
        match self {
            Self::Folder(folder) => folder.settings(rules),
            Self::Mmproj(file) => file.settings(rules),
        }
    }

    /// The tower's weights: in the placement's format for a folder, in the file's format for GGUF.
    pub(crate) fn weights(
        &self,
        placement: &WeightPlacement,
    ) -> Result<Box<dyn TowerWeights + '_>> {
        match self {
            Self::Folder(folder) => Ok(Box::new(folder.weights(placement)?)),
            Self::Mmproj(file) => Ok(Box::new(file.weights(placement)?)),
        }
    }
}
