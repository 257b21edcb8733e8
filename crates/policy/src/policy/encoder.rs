//! The encoder that is saved with a decoder.

use std::collections::HashMap;
use std::sync::Arc;

use candle_core::Tensor;
use indexmap::IndexMap;

use super::Policy;
use crate::error::{Error, Result};
use crate::lora::{Adapter, Lora};

impl Policy {
    /// With trained tensors of the encoder, by their names in the checkpoint, which are saved in place of those that
    /// were read.
    #[must_use]
    pub fn with_encoder_tensors(self, tensors: HashMap<String, Tensor>) -> Self {
        let multimodal = self.multimodal.map(|it| it.with_encoder_tensors(tensors));
        Self { multimodal, ..self }
    }

    /// With `adapter` merged, also into the encoder that is saved with the decoder.
    ///
    /// # Errors
    /// [`Error::Adapter`] if the adapter does not fit the encoder; [`Error::EncoderAdapter`] if it adapts that of a GGUF
    /// model, which is in another file.
    pub fn merged(self, adapter: Arc<Adapter>) -> Result<Self> {
        adapter.apply(&self.weights)?;
        if !adapter.adapts_encoder() {
            return Ok(self);
        }
        match self.multimodal {
            Some(multimodal) => {
                Ok(Self { multimodal: Some(multimodal.with_adapter(adapter)?), ..self })
            }
            None => Err(Error::EncoderAdapter { dir: adapter.dir().to_owned() }),
        }
    }

    /// With a trained adapter of the encoder, by the names of its tensors in the checkpoint, which is saved with the
    /// decoder's.
    #[must_use]
    pub fn with_encoder_adapter(self, tensors: IndexMap<String, Tensor>) -> Self {
        Self { lora: self.lora.map(|lora| Lora { encoder: tensors, ..lora }), ..self }
    }

    /// With the encoder, configuration and processor that `other` is saved with.
    #[must_use]
    pub fn with_encoder_of(self, other: &Self) -> Self {
        Self { multimodal: other.multimodal.clone(), ..self }
    }

    /// Only the decoder: it is saved as a text model even if it comes from a vision-language checkpoint.
    pub fn text_only(self) -> Self {
        Self { multimodal: None, ..self }
    }
}
