//! Where a vision-language model's eyes are stored: in a folder of Hugging Face's layout, or in llama.cpp's `mmproj`.

mod folder;
mod mmproj;

use std::path::Path;

use candle_core::Tensor;
use embodied_r_kernels::weight::Weight;
use embodied_r_policy::{Placement, gguf};

use crate::config::{PictureTokens, VisionConfig};
use crate::error::{Error, Result};
use crate::processor::Settings;
use crate::tower::Linear;
use folder::Folder;
use mmproj::Mmproj;

/// The parts of a tower, by their names in `transformers`.
pub(crate) trait TowerWeights {
    /// The product that makes a patch's first numbers.
    fn patches(&self, config: &VisionConfig) -> Result<Weight>;

    /// The weights of a norm.
    fn norm(&self, name: &str, width: usize) -> Result<Tensor>;

    /// `x · Wᵀ + b`.
    fn linear(&self, name: &str, outputs: usize, inputs: usize) -> Result<Linear>;

    /// Queries, keys and values of a block, each as wide as the block.
    fn qkv(&self, block: usize, width: usize) -> Result<[Linear; 3]>;
}

/// A model's eyes as they are stored.
pub(crate) enum Source {
    Folder(Folder),
    Mmproj(Box<Mmproj>),
}

impl Source {
    /// Those of `model`, a folder or a GGUF file.
    ///
    /// # Errors
    /// [`Error::NoVision`] for a text model, [`Error::NoMmproj`] for a decoder without its tower's file.
    pub(crate) fn of_model(model: &Path) -> Result<Self> {
        let Some(decoder) = gguf::find(model)? else { return Ok(Self::Folder(Folder::new(model))) };
        match gguf::find_mmproj(model)? {
            Some(file) => Ok(Self::Mmproj(Box::new(Mmproj::open(&file, &decoder)?))),
            None => Err(Error::NoMmproj { model: decoder }),
        }
    }

    /// Whether `model` is meant to see, be its parts whole or not.
    pub(crate) fn is_there(model: &Path) -> bool {
        match gguf::find(model) {
            Ok(Some(_)) => !matches!(gguf::find_mmproj(model), Ok(None)),
            Ok(None) => Folder::new(model).is_whole(),
            Err(_) => false,
        }
    }

    /// The tower's shape, and the tokens that stand for pictures.
    pub(crate) fn config(&self) -> Result<(VisionConfig, PictureTokens)> {
        match self {
            Self::Folder(folder) => folder.config(),
            Self::Mmproj(file) => file.config(),
        }
    }

    /// How images and videos become patches.
    pub(crate) fn settings(&self) -> Result<(Settings, Settings)> {
        match self {
            Self::Folder(folder) => folder.settings(),
            Self::Mmproj(file) => file.settings(),
        }
    }

    /// The tower's weights: a folder's in the placement's format, a file's as they are.
    pub(crate) fn weights(&self, placement: &Placement) -> Result<Box<dyn TowerWeights + '_>> {
        match self {
            Self::Folder(folder) => Ok(Box::new(folder.weights(placement)?)),
            Self::Mmproj(file) => Ok(Box::new(file.weights(placement))),
        }
    }
}
