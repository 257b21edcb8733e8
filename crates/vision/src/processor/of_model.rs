//! The processor of a model.

use std::path::Path;

use super::{Processor, of_json};
use crate::error::Result;
use crate::source::Source;

impl Processor {
    /// The processor of `model`: a folder with `preprocessor_config.json` and optionally
    /// `video_preprocessor_config.json`, or with the combined `processor_config.json` of `transformers` 5; or a GGUF
    /// file with its `mmproj` next to it.
    ///
    /// # Errors
    /// [`Error::NoProcessor`](crate::Error::NoProcessor) or [`Error::NoMmproj`](crate::Error::NoMmproj); a file cannot
    /// be read, or has unsupported settings.
    pub fn of_model(model: &Path) -> Result<Self> {
        Self::of_source(&Source::of_model(model)?)
    }

    /// The processor of the published Qwen2.5-VL models, for estimates.
    ///
    /// # Errors
    /// None: the settings are the defaults.
    pub fn published() -> Result<Self> {
        let (images, videos) = of_json(serde_json::json!({}), Path::new(""))?;
        Ok(Self { images, videos })
    }

    pub(crate) fn of_source(source: &Source) -> Result<Self> {
        let (images, videos) = source.settings()?;
        Ok(Self { images, videos })
    }
}
