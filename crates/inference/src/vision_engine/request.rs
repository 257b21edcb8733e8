//! A conversation with images as a request to the engine.

use std::sync::Arc;

use embodied_r_policy::{Prompt, SamplingDefaults};
use embodied_r_vision::{Error as VisionError, image_file};
use image::RgbImage;
use rayon::prelude::*;

use crate::error::Result;
use crate::model::Model;
use crate::worker::PromptRequest;

/// The images of files.
pub(super) fn decoded(files: &[Vec<u8>]) -> Result<Vec<RgbImage>> {
    let images = files.par_iter().map(|file| image_file::from_bytes(file));
    Ok(images.collect::<Result<_, VisionError>>()?)
}

/// A request for one completion.
pub(super) fn one_completion(
    model: &Model,
    defaults: SamplingDefaults,
    prompt: Prompt,
    temperature: f64,
    max_tokens: usize,
    stream: u64,
) -> PromptRequest {
    let defaults = SamplingDefaults { temperature, ..defaults };
    let stop_ids = model.tokenizer.stop_ids().to_vec();
    PromptRequest::new(prompt, 1, stream, &Arc::new(defaults.sampling(max_tokens, stop_ids)))
}
