//! The processor of a model.

use std::path::Path;

use super::{IMAGE_FILE, Processor, of_files};
use crate::config::VisionConfig;
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

    /// The processor of the published models of a tower's family.
    pub(crate) fn published(config: &VisionConfig) -> Result<Self> {
        let (files, rules) = (config.family().processor_files(), config.family().video_rules());
        let (images, videos) = of_files(files, Path::new(IMAGE_FILE), &rules)?;
        Ok(Self { images, videos, sampling: rules.sampling })
    }

    pub(crate) fn of_source(source: &Source) -> Result<Self> {
        let rules = source.video_rules()?;
        let (images, videos) = source.settings(&rules)?;
        Ok(Self { images, videos, sampling: rules.sampling })
    }
}
