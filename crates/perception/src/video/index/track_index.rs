//! The index of a track, whatever its container.

use std::sync::Arc;

use super::codec::Codec;
use super::remuxer::Remuxer;
use super::sample::Sample;

/// The index of a file's only video track.
#[derive(Debug, Clone)]
pub(in crate::video) struct Index {
    /// Width and height in pixels, after rotation.
    pub(in crate::video) size: (u32, u32),
    /// Frames per second: numerator and denominator.
    pub(in crate::video) fps: (u64, u64),
    /// The track's index in the file.
    pub(in crate::video) track: usize,
    /// In decoding order.
    pub(super) samples: Vec<Sample>,
    /// Positions among the samples, in presentation order.
    pub(super) presentation_order: Vec<usize>,
    pub(super) codec: Codec,
    pub(super) remuxer: Arc<dyn Remuxer>,
}

impl Index {
    /// The number of frames.
    pub(in crate::video) fn frames(&self) -> usize {
        self.samples.len()
    }
}
