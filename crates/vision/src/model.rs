//! A vision-language model: the decoder and the vision encoder.

use std::path::Path;
use std::sync::Arc;

use candle_core::Device;
use embodied_r_policy::tokenizer::Tokenizer;
use embodied_r_policy::weights::EncoderTensors;
use embodied_r_policy::{InferenceModel, TensorParallel, WeightFormat, WeightPlacement};

use crate::encoder::VisionEncoder;
use crate::error::Result;
use crate::options::VisionOptions;
use crate::source::Source;
use crate::vision_processor::VisionProcessor;

/// A vision-language model for inference. Clones share the weights.
#[derive(Clone)]
pub struct VisionLanguageModel {
    decoder: Arc<InferenceModel>,
    vision_encoder: Arc<VisionEncoder>,
}

/// Whether the model in `dir`, a folder or a GGUF file, is a vision-language model. A GGUF file is if it has an
/// `mmproj` file next to it, valid or not.
#[must_use]
pub fn is_vision_language_model(dir: &Path) -> bool {
    Source::exists(dir)
}

/// Checks, from the headers of its files, that the vision encoder of `model` can be loaded.
///
/// # Errors
/// As [`VisionEncoder::load`].
pub fn check_headers(model: &Path) -> Result<()> {
    let source = Source::of_model(model)?;
    let processor = VisionProcessor::of_source(&source)?;
    let config = processor.config();
    // The decoder's loader reports a tokenizer that cannot be read.
    if let Ok(tokenizer) = Tokenizer::from_dir(model) {
        processor.check_tokenizer(&tokenizer)?;
    }
    let placement = WeightPlacement { format: WeightFormat::F32, device: Device::Cpu };
    let weights = source.weights(&placement)?;
    config.parts().iter().try_for_each(|(_, part)| weights.check(part, config))
}

/// Checks, from the headers of the files, that the adapter in the folder `dir` fits the vision tower of its base model.
///
/// # Errors
/// A file cannot be read, or the adapter does not fit.
pub fn check_adapter(dir: &Path) -> Result<()> {
    // Opening the tensors compares the adapter with them.
    Ok(EncoderTensors::open(dir).map(|_| ())?)
}

impl VisionLanguageModel {
    /// Loads the model in `dir`, a folder in Hugging Face's layout or a GGUF file with its `mmproj` next to it.
    ///
    /// # Errors
    /// [`crate::Error::NoVision`], [`crate::Error::NoProcessor`] and [`crate::Error::NoMmproj`] for a text model, and those of
    /// [`InferenceModel::load`].
    pub fn load(dir: &Path, options: &VisionOptions) -> Result<Self> {
        Self::load_part(dir, options, &TensorParallel::single_rank())
    }

    /// [`Self::load`] for one tensor-parallel rank: its shard of the decoder, and the whole vision tower, because images
    /// are partitioned over the ranks ([`VisionEncoder::encode_images_over`]).
    ///
    /// # Errors
    /// As [`Self::load`], and those of [`InferenceModel::load_shard`].
    pub fn load_part(dir: &Path, options: &VisionOptions, ranks: &TensorParallel) -> Result<Self> {
        // The small files come first, so that a missing one is reported quickly.
        let vision_encoder = VisionEncoder::load(dir, options)?;
        let decoder = InferenceModel::load_shard(dir, options.placement.clone(), ranks)?;
        vision_encoder.check_decoder(dir, decoder.config().hidden_size)?;
        Ok(Self { decoder: Arc::new(decoder), vision_encoder: Arc::new(vision_encoder) })
    }

    /// The decoder, for an engine.
    #[must_use]
    pub fn decoder(&self) -> &Arc<InferenceModel> {
        &self.decoder
    }

    /// The vision encoder.
    #[must_use]
    pub fn vision_encoder(&self) -> &Arc<VisionEncoder> {
        &self.vision_encoder
    }
}
