//! The images and videos of a prompt: counted from their headers first, then decoded one at a time.

use std::sync::Arc;
use std::time::Duration;

use embodied_r_vision::{Error as VisionError, ImageEmbeddings, image_file};
use tokio::time::{Instant, timeout_at};

use crate::budget::Reserved;
use crate::media::{Media, MediaFile, RequestMemory};
use crate::refusal::Refusal;
use crate::request::message::{MediaKind, MediaUrl};
use crate::videos::Video;

/// How long all images and video files of a prompt may take to load, if one may not take longer.
const LOAD_TIMEOUT: Duration = Duration::from_secs(60);

/// The images and videos of a prompt, which are not decoded yet.
#[derive(Debug, Default)]
pub(crate) struct MediaFiles {
    files: Vec<Visual>,
    /// The tokens of all of them.
    pub(crate) tokens: usize,
    /// The timestamps of each video, as [`VisionProcessor::with_timestamps`](embodied_r_vision::VisionProcessor) takes them.
    pub(crate) timestamps: Vec<Vec<String>>,
    pixels: u64,
}

#[derive(Debug)]
struct Visual {
    /// The field that contains its URL.
    param: String,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Image { bytes: Vec<u8>, pixels: u64 },
    Video(Video),
}

/// Limits on the images and videos of a prompt.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MediaLimits {
    /// The context length.
    pub(crate) max_model_len: usize,
    pub(crate) max_pixels: u64,
}

impl MediaFiles {
    /// Loads the files of the request's field `field` until the limits are exceeded.
    ///
    /// # Errors
    /// A file cannot be loaded, is no image or video, or they exceed the limits.
    pub(crate) async fn load(
        media: &Media,
        field: &str,
        urls: Vec<MediaUrl>,
        limits: MediaLimits,
        mut memory: RequestMemory<'_>,
    ) -> Result<Self, Refusal> {
        let mut all = Self::default();
        let allowed = LOAD_TIMEOUT.max(media.fetch_timeout);
        let deadline = Instant::now() + allowed;
        for url in urls {
            let (kind, param) = (url.kind, url.param.clone());
            let file = timeout_at(deadline, media.file(url, &mut memory)).await;
            let late = |_| {
                let seconds = allowed.as_secs();
                Refusal::about(
                    &param,
                    format!("the images and videos up to `{param}` took longer than {seconds} s"),
                )
            };
            let file = file.map_err(late)??;
            let wrong = |error: VisionError| Refusal::media(&param, &error);
            let encoder = media.embedding_cache.vision_encoder();
            let (content, tokens, pixels) = match (kind, file) {
                (MediaKind::Image, MediaFile::Bytes(bytes)) => {
                    let size = image_file::size(&bytes).map_err(wrong)?;
                    let tokens = encoder.image_tokens(size).map_err(wrong)?;
                    let pixels = u64::from(size.0) * u64::from(size.1);
                    (Content::Image { bytes, pixels }, tokens, pixels)
                }
                (_, file) => {
                    let video = Video::load(media, &param, file).await?;
                    let tokens = encoder.video_tokens(video.frames(), video.size());
                    let (tokens, pixels) = (tokens.map_err(wrong)?, video.pixels());
                    let timestamps = encoder.vision_processor().timestamps(&video.times());
                    all.timestamps.push(timestamps.map_err(wrong)?);
                    (Content::Video(video), tokens, pixels)
                }
            };
            all.tokens = all.tokens.saturating_add(tokens);
            all.pixels = all.pixels.saturating_add(pixels);
            let MediaLimits { max_model_len, max_pixels } = limits;
            if all.tokens >= max_model_len {
                return Err(Refusal::too_many_tokens(field, all.tokens, max_model_len));
            }
            if all.pixels > max_pixels {
                return Err(Refusal::too_many_pixels(field, all.pixels, max_pixels));
            }
            all.files.push(Visual { param, content });
        }
        Ok(all)
    }

    /// The placeholders that become their tokens.
    pub(crate) fn placeholders(&self) -> usize {
        let of_videos = self.timestamps.iter().map(|timestamps| timestamps.len().max(1));
        self.files.len() - self.timestamps.len() + of_videos.sum::<usize>()
    }

    /// Decodes and encodes the images and videos, one at a time, so that the pixels of only one are in memory. `memory`
    /// is that of the files.
    ///
    /// # Errors
    /// A file is corrupt, or the encoder fails.
    pub(crate) async fn encode(
        self,
        media: &Media,
        memory: &Arc<Reserved>,
    ) -> Result<Vec<ImageEmbeddings>, Refusal> {
        let mut embeddings = Vec::with_capacity(self.files.len());
        for Visual { param, content } in self.files {
            embeddings.push(match content {
                Content::Image { bytes, pixels } => {
                    encode_image(media, memory, param, bytes, pixels).await?
                }
                Content::Video(video) => video.encode(media, memory, param).await?,
            });
        }
        Ok(embeddings)
    }
}

async fn encode_image(
    media: &Media,
    memory: &Arc<Reserved>,
    param: String,
    bytes: Vec<u8>,
    pixels: u64,
) -> Result<ImageEmbeddings, Refusal> {
    let pixels = media.pixels.wait(pixels).await;
    let worker = media.workers.clone().acquire_owned().await.map_err(Refusal::failed)?;
    let (cache, memory) = (media.embedding_cache.clone(), memory.clone());
    let encode = move || {
        // It goes on after the client has disconnected, and keeps its shares until it ends.
        let _shares = (pixels, worker, memory);
        let image =
            image_file::from_bytes(&bytes).map_err(|error| Refusal::media(&param, &error))?;
        let encoded = cache.encode_images(&[&image]).map_err(Refusal::failed)?;
        encoded.into_iter().next().ok_or_else(|| Refusal::failed("an image has no embeddings"))
    };
    tokio::task::spawn_blocking(encode).await.map_err(Refusal::failed)?
}
