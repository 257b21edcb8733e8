//! The vision tower that is saved with a decoder.

use std::collections::HashMap;
use std::sync::Arc;

use candle_core::Tensor;
use indexmap::IndexMap;

use super::Policy;
use crate::error::{Error, Result};
use crate::lora::{Adapter, Lora};

impl Policy {
    /// With trained tensors of the vision tower, by their names in the checkpoint, which are saved in place of those that
    /// were read.
    #[must_use]
    pub fn with_vision_tensors(self, tensors: HashMap<String, Tensor>) -> Self {
        let multimodal = self.multimodal.map(|it| it.with_vision_tensors(tensors));
        Self { multimodal, ..self }
    }

    /// With `adapter` merged, also into the vision tower that is saved with the decoder.
    ///
    /// # Errors
    /// [`Error::Adapter`] if the adapter does not fit the vision tower; [`Error::VisionAdapter`] if it adapts the tower of a
    /// GGUF model, whose tower is in another file.
    pub fn merged(self, adapter: Arc<Adapter>) -> Result<Self> {
        adapter.apply(&self.weights)?;
        if !adapter.adapts_vision() {
            return Ok(self);
        }
        match self.multimodal {
            Some(multimodal) => {
                Ok(Self { multimodal: Some(multimodal.with_adapter(adapter)?), ..self })
            }
            None => Err(Error::VisionAdapter { dir: adapter.dir().to_owned() }),
        }
    }

    /// With a trained adapter of the vision tower, by the names of its tensors in the checkpoint, which is saved with the
    /// decoder's.
    #[must_use]
    pub fn with_vision_adapter(self, tensors: IndexMap<String, Tensor>) -> Self {
        Self { lora: self.lora.map(|lora| Lora { vision: tensors, ..lora }), ..self }
    }

    /// With the vision tower, configuration and image processor that `other` is saved with.
    #[must_use]
    pub fn with_vision_files_of(self, other: &Self) -> Self {
        Self { multimodal: other.multimodal.clone(), ..self }
    }

    /// Only the decoder: it is saved as a text model even if it comes from a vision-language checkpoint.
    pub fn text_only(self) -> Self {
        Self { multimodal: None, ..self }
    }
}
