//! The sample index of a file, and excerpts with only the samples that some frames depend on.
//!
//! Within a GOP a decoder must decode from the key frame to the last requested frame. GOPs without a
//! requested frame, and the remaining samples of the others, need not be read at all. Only files with an
//! unambiguous index have one here; all others are decoded completely.
//!
//! [`mp4`] and [`matroska`] demux and remux the containers, [`codec`] parses frame headers, and
//! [`excerpt`] is container-independent.

mod codec;
mod excerpt;
mod matroska;
mod mp4;
mod source;

use std::path::Path;

use codec::Codec;
pub(super) use excerpt::Excerpt;
use source::Source;

/// Maximum samples: 24 hours at 60 fps.
const MAX_SAMPLES: usize = 24 * 3600 * 60;

/// The index of a file's only video track.
#[derive(Debug, Clone)]
pub(super) struct Index {
    /// Width and height in pixels, after rotation.
    pub(super) size: (u32, u32),
    /// Frames per second: numerator and denominator.
    pub(super) fps: (u64, u64),
    /// The track's index in the file.
    pub(super) track: usize,
    /// In decoding order.
    samples: Vec<Sample>,
    /// Positions among the samples, in presentation order.
    presentation_order: Vec<usize>,
    codec: Codec,
    remuxer: Remuxer,
}

/// A sample in the file: one encoded frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sample {
    offset: u64,
    size: u32,
    /// Presentation timestamp, in the track's time base.
    pts: i64,
    /// Whether it is a key frame.
    is_key: bool,
}

/// Remuxes samples into a file of the same container.
#[derive(Debug, Clone)]
enum Remuxer {
    Mp4(mp4::Mp4Remuxer),
    Matroska(matroska::MatroskaRemuxer),
}

impl Index {
    /// The index of the file at `path`; `None` for other containers or unsupported features.
    pub(super) fn read(path: &Path) -> Option<Self> {
        let mut source = Source::open(path)?;
        match source.array(0)? {
            matroska::FIRST_BYTES => matroska::read(source),
            _ => mp4::read(source),
        }
    }

    /// The number of frames.
    pub(super) fn frames(&self) -> usize {
        self.samples.len()
    }
}

/// The samples' positions in presentation order; `None` if two timestamps are equal.
fn presentation_order(samples: &[Sample]) -> Option<Vec<usize>> {
    let time = |position: &usize| samples.get(*position).map(|sample| sample.pts);
    let mut order: Vec<usize> = (0..samples.len()).collect();
    order.sort_by_key(time);
    let is_strict = order.windows(2).all(|two| time(&two[0]) < time(&two[1]));
    (is_strict && !order.is_empty()).then_some(order)
}
