//! A video's key frames, chosen and decoded once for all of its questions.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use image::RgbImage;
use image::codecs::jpeg::JpegEncoder;
use tokio::sync::{OnceCell, Semaphore};

use crate::error::{Error, Result};
use crate::keyframes;
use crate::video;

/// Quality of the pictures that a model gets, of 100.
const JPEG_QUALITY: u8 = 90;

/// How many videos are decoded at once.
#[derive(Debug, Clone)]
pub struct Decoders(Arc<Semaphore>);

impl Decoders {
    /// At most `n` at once, at least 1.
    pub fn new(n: usize) -> Self {
        Self(Arc::new(Semaphore::new(n.max(1))))
    }
}

impl Default for Decoders {
    /// One for every two cores, as FFmpeg itself uses several.
    fn default() -> Self {
        Self::new(std::thread::available_parallelism().map_or(1, |cores| cores.get() / 2))
    }
}

/// A key frame's place in its video.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KeyFrame {
    /// Index of the frame, from 0.
    pub index: usize,
    /// When it is shown, in seconds.
    pub time_s: f64,
}

/// One video. Nothing is decoded before it is needed, and nothing twice, failures included.
#[derive(Debug)]
pub struct Footage {
    path: Result<PathBuf, Arc<Error>>,
    options: keyframes::Options,
    max_side: Option<u32>,
    decoders: Decoders,
    digest: OnceCell<Result<String, Arc<Error>>>,
    key_frames: OnceCell<Result<Vec<KeyFrame>, Arc<Error>>>,
    jpegs: OnceCell<Result<Vec<Vec<u8>>, Arc<Error>>>,
}

impl Footage {
    /// The video at `path`, or why there is none, which is told to whoever needs the video.
    /// Pictures are made smaller where a side is longer than `max_side` pixels.
    pub fn new(
        path: Result<PathBuf>,
        options: &keyframes::Options,
        max_side: Option<u32>,
        decoders: &Decoders,
    ) -> Self {
        Self {
            path: path.map_err(Arc::new),
            options: *options,
            max_side,
            decoders: decoders.clone(),
            digest: OnceCell::new(),
            key_frames: OnceCell::new(),
            jpegs: OnceCell::new(),
        }
    }

    /// The key frames, in order.
    ///
    /// # Errors
    /// There is no such video, or it cannot be decoded.
    pub async fn key_frames(&self) -> Result<&[KeyFrame]> {
        let chosen = self.key_frames.get_or_init(async || {
            let options = self.options;
            self.decode(move |path| {
                let selection = keyframes::select(path, &options)?;
                Ok(selection
                    .sampled
                    .iter()
                    .filter(|frame| frame.kept)
                    .map(|frame| KeyFrame { index: frame.index, time_s: frame.time_s })
                    .collect())
            })
            .await
        });
        shared(chosen.await).map(Vec::as_slice)
    }

    /// A hash of the file's bytes, by which the video is known under any name, as 64 digits.
    ///
    /// # Errors
    /// There is no such video, or it cannot be read.
    pub async fn digest(&self) -> Result<&str> {
        let digest = self.digest.get_or_init(async || {
            self.decode(|path| hash(path).map_err(Error::io("read", path))).await
        });
        shared(digest.await).map(String::as_str)
    }

    /// The name of a key frame's picture as [`Footage::jpegs`] gives it, which is the same wherever the
    /// picture is.
    ///
    /// # Errors
    /// As [`Footage::digest`].
    pub async fn picture_name(&self, frame: KeyFrame) -> Result<String> {
        let side = self.max_side.map_or_else(|| "whole".to_owned(), |side| side.to_string());
        let (digest, index) = (self.digest().await?, frame.index);
        Ok(format!("blake3:{digest} frame {index} side {side} jpeg {JPEG_QUALITY}"))
    }

    /// The key frames as JPEG files, in order.
    ///
    /// # Errors
    /// There is no such video, or it cannot be decoded.
    pub async fn jpegs(&self) -> Result<&[Vec<u8>]> {
        let indices: Vec<usize> =
            self.key_frames().await?.iter().map(|frame| frame.index).collect();
        let decoded = self.jpegs.get_or_init(async || {
            let max_side = self.max_side;
            self.decode(move |path| {
                let pictures = video::frames(path, &indices, max_side)?;
                pictures.iter().map(|picture| jpeg(path, picture)).collect()
            })
            .await
        });
        shared(decoded.await).map(Vec::as_slice)
    }

    /// Runs `work` on the video off the asynchronous threads, when a decoder is free.
    async fn decode<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Path) -> Result<T> + Send + 'static,
    ) -> Result<T, Arc<Error>> {
        let path = self.path.clone()?;
        // The semaphore is never closed.
        let _decoder = self.decoders.0.acquire().await.ok();
        match tokio::task::spawn_blocking(move || work(&path)).await {
            Ok(result) => result.map_err(Arc::new),
            Err(stopped) => Err(Arc::new(Error::Stopped(stopped))),
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

fn jpeg(path: &Path, picture: &RgbImage) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    picture
        .write_with_encoder(JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY))
        .map_err(|source| Error::Picture { action: "encode", path: path.into(), source })?;
    Ok(bytes)
}
