//! Decoded images that wait for their first use, so that they are decoded once.

use std::collections::HashMap;
use std::sync::Mutex;

use embodied_r_vision::{Frames, Processor};

use crate::lock::locked;

/// Decoded images and videos by digest, up to a number of bytes.
#[derive(Debug, Default)]
pub(crate) struct KeptFrames {
    most: usize,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    frames: HashMap<u128, Frames>,
    bytes: usize,
}

impl KeptFrames {
    /// Up to `most` bytes.
    pub(crate) fn new(most: usize) -> Self {
        Self { most, kept: Mutex::default() }
    }

    /// Keeps the frames of an image or a video if there is room, in the size in which `processor` needs them.
    pub(crate) fn insert(&self, digest: u128, frames: Frames, processor: &Processor) {
        if self.most == 0 {
            return;
        }
        let frames = reduced(frames, processor);
        let bytes = bytes(&frames);
        let kept = &mut *locked(&self.kept);
        if kept.bytes + bytes <= self.most && !kept.frames.contains_key(&digest) {
            kept.frames.insert(digest, frames);
            kept.bytes += bytes;
        }
    }

    /// Takes the frames of an image or a video, if they were kept.
    pub(crate) fn take(&self, digest: u128) -> Option<Frames> {
        let kept = &mut *locked(&self.kept);
        let frames = kept.frames.remove(&digest)?;
        kept.bytes -= bytes(&frames);
        Some(frames)
    }
}

/// An image in the size in which the processor needs it, to the same bits; frames of videos have it already.
fn reduced(frames: Frames, processor: &Processor) -> Frames {
    match frames {
        Frames::Image(image) => match processor.kept_image_size(image.dimensions()) {
            Ok(size) => Frames::Image(Processor::resized(image, size)),
            Err(_) => Frames::Image(image),
        },
        video @ Frames::Video(_) => video,
    }
}

fn bytes(frames: &Frames) -> usize {
    match frames {
        Frames::Image(image) => image.as_raw().len(),
        Frames::Video(video) => video.frames.iter().map(|frame| frame.as_raw().len()).sum(),
    }
}
