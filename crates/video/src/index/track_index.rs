//! The index of a track, whatever its container.

use std::sync::Arc;

use super::codec::Codec;
use super::remuxer::Remuxer;
use super::sample::Sample;

/// The index of a file's only video track.
#[derive(Debug, Clone)]
pub(crate) struct Index {
    /// Width and height in pixels, after rotation.
    pub(crate) size: (u32, u32),
    /// Frames per second: numerator and denominator.
    pub(crate) fps: (u64, u64),
    /// The track's index in the file.
    pub(crate) track: usize,
    /// In decoding order.
    pub(super) samples: Vec<Sample>,
    /// Positions among the samples, in presentation order.
    pub(super) presentation_order: Vec<usize>,
    pub(super) codec: Codec,
    pub(super) remuxer: Arc<dyn Remuxer>,
}

impl Index {
    /// The number of frames.
    pub(crate) fn frames(&self) -> usize {
        self.samples.len()
    }
}
