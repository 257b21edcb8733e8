//! The images of a prompt: counted from their headers first, then decoded one at a time.

use std::sync::Arc;
use std::time::Duration;

use embodied_r_vision::{Error as VisionError, ImageEmbeddings, image_file};
use tokio::time::{Instant, timeout_at};

use crate::budget::Reserved;
use crate::media::{Media, RequestMemory};
use crate::refusal::Refusal;
use crate::request::message::ImageUrl;

/// How long all images of a prompt may take to load, if one may not take longer.
const LOAD_TIMEOUT: Duration = Duration::from_secs(60);

/// The image files of a prompt, which are not decoded yet.
#[derive(Debug, Default)]
pub(crate) struct ImageFiles {
    files: Vec<ImageFile>,
    /// The tokens of all images.
    pub(crate) tokens: usize,
    pixels: u64,
}

#[derive(Debug)]
struct ImageFile {
    /// The field that contains its URL.
    param: String,
    bytes: Vec<u8>,
    pixels: u64,
}

/// Limits on the images of a prompt.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ImageLimits {
    /// The context length.
    pub(crate) max_model_len: usize,
    pub(crate) max_pixels: u64,
}

impl ImageFiles {
    /// Loads the files of the request's field `field` until the limits are exceeded.
    ///
    /// # Errors
    /// A file cannot be loaded, is no image, or the images exceed the limits.
    pub(crate) async fn load(
        media: &Media,
        field: &str,
        urls: Vec<ImageUrl>,
        limits: ImageLimits,
        mut memory: RequestMemory<'_>,
    ) -> Result<Self, Refusal> {
        let mut all = Self::default();
        let allowed = LOAD_TIMEOUT.max(media.fetch_timeout);
        let deadline = Instant::now() + allowed;
        for ImageUrl { param, url } in urls {
            let bytes = timeout_at(deadline, media.bytes(&param, url, &mut memory)).await;
            let late = |_| {
                let seconds = allowed.as_secs();
                Refusal::about(
                    &param,
                    format!("the images up to `{param}` took longer than {seconds} s"),
                )
            };
            let bytes = bytes.map_err(late)??;
            let about = |error: VisionError| about(&param, &error);
            let size = image_file::size(&bytes).map_err(about)?;
            let tokens = media.embedding_cache.vision_encoder().image_tokens(size);
            let pixels = u64::from(size.0) * u64::from(size.1);
            all.tokens += tokens.map_err(about)?;
            all.pixels += pixels;
            let ImageLimits { max_model_len, max_pixels } = limits;
            if all.tokens >= max_model_len {
                return Err(Refusal::too_many_tokens(field, all.tokens, max_model_len));
            }
            if all.pixels > max_pixels {
                return Err(Refusal::too_many_pixels(field, all.pixels, max_pixels));
            }
            all.files.push(ImageFile { param, bytes, pixels });
        }
        Ok(all)
    }

    pub(crate) fn len(&self) -> usize {
        self.files.len()
    }

    /// Decodes and encodes the images, one at a time, so that the pixels of only one are in memory. `memory` is that of
    /// the files.
    ///
    /// # Errors
    /// A file is corrupt, or the encoder fails.
    pub(crate) async fn encode(
        self,
        media: &Media,
        memory: &Arc<Reserved>,
    ) -> Result<Vec<ImageEmbeddings>, Refusal> {
        let mut embeddings = Vec::with_capacity(self.files.len());
        for ImageFile { param, bytes, pixels } in self.files {
            let pixels = media.pixels.wait(pixels).await;
            let worker = media.workers.clone().acquire_owned().await.map_err(Refusal::failed)?;
            let (cache, memory) = (media.embedding_cache.clone(), memory.clone());
            let encode = move || {
                // It goes on after the client has disconnected, and keeps its shares until it ends.
                let _shares = (pixels, worker, memory);
                let image =
                    image_file::from_bytes(&bytes).map_err(|error| about(&param, &error))?;
                cache.encode_images(&[&image]).map_err(Refusal::failed)
            };
            let encoded = tokio::task::spawn_blocking(encode).await.map_err(Refusal::failed)?;
            embeddings.extend(encoded?);
        }
        Ok(embeddings)
    }
}

fn about(param: &str, error: &VisionError) -> Refusal {
    Refusal::about(param, format!("`{param}`: {error}"))
}
