//! The frames of a request's video: selected from the file's index first, then decoded and encoded.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use embodied_r_media::Error;
use embodied_r_media::sampled_video::{FramePlan, FrameUse, SampledVideo, from_frames};
use embodied_r_video::{Error as VideoError, Limits, TimeLimit};
use embodied_r_vision::{FrameTimes, ImageEmbeddings, Processor, image_file};
use tempfile::TempPath;

use crate::budget::Reserved;
use crate::media::{Media, MediaFile};
use crate::refusal::Refusal;

/// How long FFmpeg may take to find the frames of a video, and to decode them.
const DECODE_TIMEOUT: Duration = Duration::from_secs(60);

/// Frames per second of a video that is a list of images: the rate at which the model's videos are sampled.
const FRAMES_FPS: f64 = 2.0;

/// A video whose frames are selected and not decoded yet.
#[derive(Debug)]
pub(crate) enum Video {
    /// A file, which is deleted with the request if it is a copy.
    File { plan: FramePlan, copy: Option<TempPath> },
    /// The image files of its frames, all of one size.
    Frames { files: Vec<Vec<u8>>, size: (u32, u32) },
}

/// Stops FFmpeg when the request ends.
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl StopOnDrop {
    fn new() -> (Self, Limits) {
        let stop = Arc::default();
        let limits = Limits::new(TimeLimit::At(DECODE_TIMEOUT)).with_stop(&stop);
        (Self(stop), limits)
    }
}

impl Video {
    /// Selects the frames of a file from the field `param`.
    ///
    /// # Errors
    /// It is no video, is corrupt, or takes too long.
    pub(crate) async fn load(media: &Media, param: &str, file: MediaFile) -> Result<Self, Refusal> {
        if let MediaFile::Frames(files) = file {
            let size = frames_size(&files).map_err(|fault| Refusal::media(param, &fault))?;
            return Ok(Self::Frames { files, size });
        }
        let decoder = media.decoders.clone().acquire_owned().await.map_err(Refusal::failed)?;
        let (_stop, limits) = StopOnDrop::new();
        let (selection, cache) = (media.frames, media.embedding_cache.clone());
        let select = move || {
            let _decoder = decoder;
            let copied = match &file {
                MediaFile::Bytes(bytes) => Some(copy(bytes).map_err(Refusal::failed)?),
                _ => None,
            };
            let path: &Path = match (&copied, &file) {
                (Some(copy), _) => copy,
                (None, MediaFile::Path(path)) => path,
                (None, _) => return Err(Refusal::failed("a video has no file")),
            };
            let processor = cache.vision_encoder().processor();
            let plan = FramePlan::of_file(path, &selection, processor, &limits);
            Ok((plan, copied))
        };
        let selected = tokio::task::spawn_blocking(select).await.map_err(Refusal::failed)?;
        let (plan, copy) = selected?;
        let plan = plan.map_err(|error| refusal(param, &error))?;
        Ok(Self::File { plan, copy })
    }

    /// The number of frames.
    pub(crate) fn frames(&self) -> usize {
        match self {
            Self::File { plan, .. } => plan.indices().len(),
            Self::Frames { files, .. } => files.len(),
        }
    }

    /// When the frames are shown.
    pub(crate) fn times(&self) -> FrameTimes {
        match self {
            Self::File { plan, .. } => plan.times().clone(),
            Self::Frames { files, .. } => FrameTimes::at_rate(files.len(), FRAMES_FPS),
        }
    }

    /// Width and height of each frame.
    pub(crate) fn size(&self) -> (u32, u32) {
        match self {
            Self::File { plan, .. } => plan.size(),
            Self::Frames { size, .. } => *size,
        }
    }

    /// Pixels of all frames, before they are resized.
    pub(crate) fn pixels(&self) -> u64 {
        (self.frames() as u64).saturating_mul(area(self.size()))
    }

    /// Decodes and encodes the frames. `memory` is that of the request's files.
    ///
    /// # Errors
    /// A frame is corrupt, decoding takes too long, or the encoder fails.
    pub(crate) async fn encode(
        self,
        media: &Media,
        memory: &Arc<Reserved>,
        param: String,
    ) -> Result<ImageEmbeddings, Refusal> {
        let processor = media.embedding_cache.vision_encoder().processor();
        let kept = processor.kept_frame_size(self.frames(), self.size());
        let kept = kept.map_err(|error| Refusal::media(&param, &error))?;
        // The frames that are kept, and the one that is being decoded.
        let pixels = (self.frames() as u64).saturating_mul(area(kept));
        let pixels = media.pixels.wait(pixels.saturating_add(area(self.size()))).await;
        let worker = media.workers.clone().acquire_owned().await.map_err(Refusal::failed)?;
        let decoder = media.decoders.clone().acquire_owned().await.map_err(Refusal::failed)?;
        let (cache, memory) = (media.embedding_cache.clone(), memory.clone());
        let (_stop, limits) = StopOnDrop::new();
        let encode = move || {
            // It keeps its shares until it ends, which is soon after the client has disconnected.
            let _shares = (pixels, worker, memory);
            let processor = cache.vision_encoder().processor();
            let video = match &self {
                Self::File { plan, copy: _copy } => {
                    plan.decode(FrameUse::Video, processor, &limits)
                }
                Self::Frames { files, .. } => decode(files, kept),
            };
            drop((self, decoder));
            let video = video.map_err(|error| refusal(&param, &error))?;
            cache.encode_video(&video).map_err(Refusal::failed)
        };
        tokio::task::spawn_blocking(encode).await.map_err(Refusal::failed)?
    }
}

fn area((width, height): (u32, u32)) -> u64 {
    u64::from(width) * u64::from(height)
}

/// A file with these bytes, which FFmpeg can open.
fn copy(bytes: &[u8]) -> std::io::Result<TempPath> {
    let mut file = tempfile::Builder::new().prefix("embodied-r-video-").tempfile()?;
    file.write_all(bytes)?;
    Ok(file.into_temp_path())
}

/// Width and height of frames, from their headers.
fn frames_size(files: &[Vec<u8>]) -> Result<(u32, u32), String> {
    let mut first = None;
    for (index, bytes) in files.iter().enumerate() {
        let size = image_file::size(bytes).map_err(|error| format!("frame {index}: {error}"))?;
        let (width, height) = *first.get_or_insert(size);
        if size != (width, height) {
            return Err(format!(
                "frame {index} has {} × {} pixels, but the first one {width} × {height}: all must have one size",
                size.0, size.1
            ));
        }
    }
    first.ok_or_else(|| "it has no frames".to_owned())
}

/// Decodes frames one after the other, and keeps them at this size.
fn decode(files: &[Vec<u8>], kept: (u32, u32)) -> Result<SampledVideo, Error> {
    let keep = |bytes: &Vec<u8>| Ok(Processor::resized(image_file::from_bytes(bytes)?, kept));
    let frames: Vec<_> = files.iter().map(keep).collect::<Result<_, Error>>()?;
    from_frames(frames, FRAMES_FPS)
}

/// The refusal of a video. A message names the field instead of the copy of the file.
fn refusal(param: &str, error: &Error) -> Refusal {
    let Error::Video(error) = error else { return Refusal::media(param, &error.to_string()) };
    let fault = match error {
        VideoError::FfmpegMissing { .. } | VideoError::FfmpegRun { .. } => {
            return Refusal::failed(error);
        }
        VideoError::Io(_) => "the video cannot be read".to_owned(),
        VideoError::EmptyFile { .. } => "the video is empty".to_owned(),
        VideoError::NotAVideo { reason, .. } => {
            format!("this is not a video that FFmpeg can read: {reason}")
        }
        VideoError::NoVideoTrack { tracks, .. } => {
            format!("the file has no video track, only {tracks}")
        }
        VideoError::Damaged { frames, expected, reason, .. } => format!(
            "the video is truncated or corrupt: {frames} of about {expected} frames could be decoded ({reason})"
        ),
        VideoError::Decode { reason, .. } => format!("cannot decode the video: {reason}"),
        VideoError::NoSuchFrame { index, .. } => {
            format!("the video is truncated: it ends before frame {index}")
        }
        VideoError::DecodeTimeout { .. } => {
            format!("decoding the video took longer than {} s", DECODE_TIMEOUT.as_secs())
        }
        VideoError::TooLarge { width, height, .. } => {
            format!("the video has frames of {width} × {height} pixels: scale it down")
        }
        other => other.to_string(),
    };
    Refusal::media(param, &fault)
}
