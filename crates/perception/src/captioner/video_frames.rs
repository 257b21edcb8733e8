//! A video's key frames, selected and decoded once for all of its questions.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use embodied_r_keyframes as keyframes;
use embodied_r_video as video;
use tokio::sync::{OnceCell, Semaphore};

use super::frame_image::{FrameImage, ImageForm};
use crate::error::{Error, Result};

/// Limit on concurrently decoded videos, and what stops them.
#[derive(Debug, Clone)]
pub struct DecodeLimit {
    videos: Arc<Semaphore>,
    stop: Arc<AtomicBool>,
}

impl DecodeLimit {
    /// At most `n` videos, at least 1.
    pub fn new(n: usize) -> Self {
        Self { videos: Arc::new(Semaphore::new(n.max(1))), stop: Arc::default() }
    }

    /// Once `stop` is true, videos in progress fail with [`video::Error::DecodeInterrupted`].
    #[must_use]
    pub fn with_stop(mut self, stop: &Arc<AtomicBool>) -> Self {
        self.stop = Arc::clone(stop);
        self
    }
}

impl Default for DecodeLimit {
    /// One for every two cores, as FFmpeg itself uses several.
    fn default() -> Self {
        Self::new(std::thread::available_parallelism().map_or(1, |cores| cores.get() / 2))
    }
}

/// A key frame's position in its video.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KeyFrame {
    /// Index of the frame, from 0.
    pub index: usize,
    /// Its timestamp in seconds.
    pub time_s: f64,
}

/// The frames of one video. Each result, failures included, is computed lazily and at most once.
#[derive(Debug)]
pub struct VideoFrames {
    path: Result<PathBuf, Arc<Error>>,
    options: keyframes::KeyFrameOptions,
    max_side: Option<u32>,
    decode_limit: DecodeLimit,
    digest: OnceCell<Result<String, Arc<Error>>>,
    key_frames: OnceCell<Result<Vec<KeyFrame>, Arc<Error>>>,
    images: OnceCell<Result<Vec<FrameImage>, Arc<Error>>>,
}

impl VideoFrames {
    /// The video at `path`; an error there is returned by every method.
    /// Images are scaled down so that no side exceeds `max_side` pixels.
    pub fn new(
        path: Result<PathBuf>,
        options: &keyframes::KeyFrameOptions,
        max_side: Option<u32>,
        decode_limit: &DecodeLimit,
    ) -> Self {
        Self {
            path: path.map_err(Arc::new),
            options: *options,
            max_side,
            decode_limit: decode_limit.clone(),
            digest: OnceCell::new(),
            key_frames: OnceCell::new(),
            images: OnceCell::new(),
        }
    }

    /// The key frames, in order.
    ///
    /// # Errors
    /// The video does not exist or cannot be decoded.
    pub async fn key_frames(&self) -> Result<&[KeyFrame]> {
        let selected = self.key_frames.get_or_init(async || {
            let (options, limits) = (self.options, self.limits());
            self.decode(move |path| {
                let selection = keyframes::select_within(path, &options, &limits)?;
                Ok(selection
                    .sampled
                    .iter()
                    .filter(|frame| frame.kept)
                    .map(|frame| KeyFrame { index: frame.index, time_s: frame.time_s })
                    .collect())
            })
            .await
        });
        shared(selected.await).map(Vec::as_slice)
    }

    /// The BLAKE3 hash of the file, as 64 hexadecimal digits; it identifies the video under any name.
    ///
    /// # Errors
    /// The video does not exist or cannot be read.
    pub async fn digest(&self) -> Result<&str> {
        let digest = self.digest.get_or_init(async || {
            self.decode(|path| hash(path).map_err(Error::io("read", path))).await
        });
        shared(digest.await).map(String::as_str)
    }

    /// A content-based identifier of a key frame's image in [`VideoFrames::images`], given in `form`.
    ///
    /// # Errors
    /// As [`VideoFrames::digest`].
    pub async fn image_id(&self, frame: KeyFrame, form: ImageForm) -> Result<String> {
        let side = self.max_side.map_or_else(|| "whole".to_owned(), |side| side.to_string());
        let (digest, index) = (self.digest().await?, frame.index);
        Ok(format!("blake3:{digest} frame {index} side {side}{}", form.suffix()))
    }

    /// The images of the key frames, in order.
    ///
    /// # Errors
    /// The video does not exist or cannot be decoded.
    pub async fn images(&self) -> Result<&[FrameImage]> {
        let indices: Vec<usize> =
            self.key_frames().await?.iter().map(|frame| frame.index).collect();
        let decoded = self.images.get_or_init(async || {
            let (max_side, limits) = (self.max_side, self.limits());
            self.decode(move |path| {
                let images = video::frames(path, &indices, max_side, &limits)?;
                Ok(images.into_iter().map(|image| FrameImage::new(image, path)).collect())
            })
            .await
        });
        shared(decoded.await).map(Vec::as_slice)
    }

    /// The limits of one pass.
    fn limits(&self) -> video::Limits {
        video::Limits::new(self.options.time_limit).with_stop(&self.decode_limit.stop)
    }

    /// Runs `work` on the video in a blocking thread, within the decode limit.
    async fn decode<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Path) -> Result<T> + Send + 'static,
    ) -> Result<T, Arc<Error>> {
        let path = self.path.clone()?;
        // The semaphore is never closed.
        let _permit = self.decode_limit.videos.acquire().await.ok();
        match tokio::task::spawn_blocking(move || work(&path)).await {
            Ok(result) => result.map_err(Arc::new),
            Err(stopped) => Err(Arc::new(Error::TaskFailed(stopped))),
        }
    }
}

fn shared<T>(result: &Result<T, Arc<Error>>) -> Result<&T> {
    result.as_ref().map_err(|error| Error::Shared(Arc::clone(error)))
}

fn hash(path: &Path) -> std::io::Result<String> {
    let mut file = std::fs::File::open(path)?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finalize().to_hex().to_string()),
            n => hasher.update(&buffer[..n]),
        };
    }
}

#[cfg(test)]
mod tests {
    use embodied_r_video::clips;

    use super::*;

    #[tokio::test]
    async fn an_image_is_identified_by_its_frame_and_by_the_form_that_a_model_gets() {
        let dir = tempfile::tempdir().unwrap();
        let path = clips::brightening(dir.path(), "video.mp4", 1);
        let digest = blake3::hash(&std::fs::read(&path).unwrap()).to_hex();
        let options = keyframes::KeyFrameOptions::default();
        let frames = VideoFrames::new(Ok(path), &options, Some(48), &DecodeLimit::default());
        let [frame] = *frames.key_frames().await.unwrap() else { panic!("one frame") };
        let of = async |form| frames.image_id(frame, form).await.unwrap();
        // Completions of servers are cached under this text.
        assert_eq!(of(ImageForm::Jpeg).await, format!("blake3:{digest} frame 0 side 48 jpeg 90"));
        assert_eq!(of(ImageForm::Pixels).await, format!("blake3:{digest} frame 0 side 48"));
        let [image] = frames.images().await.unwrap() else { panic!("one image") };
        assert_eq!(image.jpeg().unwrap(), crate::jpeg::encode(image.pixels()).unwrap());
    }
}
