//! Where the frames of a file lie, and which of them must be decoded to see some.
//!
//! A decoder starts at a key frame and goes on to the last frame that is wanted before the next one.
//! Groups of pictures in which none is wanted, and the ends of the others, need not be read at all.
//! Only files whose index leaves no doubt have one here; all others are decoded as a whole.
//!
//! [`mp4`] and [`matroska`] read the containers and write shorter ones, [`codec`] looks at what the
//! frames say of themselves, and [`excerpt`] is what they have in common.

mod codec;
mod excerpt;
mod matroska;
mod mp4;
mod source;

use std::path::Path;

use codec::Codec;
pub(super) use excerpt::Excerpt;
use source::Source;

/// Samples at most: 24 hours at 60 frames a second.
const MOST_SAMPLES: usize = 24 * 3600 * 60;

/// The index of a file's only video track.
#[derive(Debug, Clone)]
pub(super) struct Index {
    /// Pixels across and down, as shown.
    pub(super) size: (u32, u32),
    /// Frames a second: above and below the line.
    pub(super) fps: (u64, u64),
    /// The track's number in the file.
    pub(super) track: usize,
    /// In the order of decoding.
    samples: Vec<Sample>,
    /// For each frame in the order shown, its place among the samples.
    shown: Vec<usize>,
    codec: Codec,
    container: Container,
}

/// A frame in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sample {
    offset: u64,
    size: u32,
    /// When it is shown, in the track's units.
    shown: i64,
    /// Whether decoding can start here.
    is_key: bool,
}

/// What a shorter file of the same kind needs beside the samples.
#[derive(Debug, Clone)]
enum Container {
    Mp4(mp4::Layout),
    Matroska(matroska::Layout),
}

impl Index {
    /// The index of the file at `path`; `None` where it is of neither kind or anything about it is
    /// unusual.
    pub(super) fn read(path: &Path) -> Option<Self> {
        let mut source = Source::open(path)?;
        match source.array(0)? {
            matroska::FIRST_BYTES => matroska::read(source),
            _ => mp4::read(source),
        }
    }

    /// How many frames the video has.
    pub(super) fn frames(&self) -> usize {
        self.samples.len()
    }
}

/// The samples' places in the order they are shown in; `None` where two are shown at once.
fn order_shown(samples: &[Sample]) -> Option<Vec<usize>> {
    let time = |place: &usize| samples.get(*place).map(|sample| sample.shown);
    let mut order: Vec<usize> = (0..samples.len()).collect();
    order.sort_by_key(time);
    let is_strict = order.windows(2).all(|two| time(&two[0]) < time(&two[1]));
    (is_strict && !order.is_empty()).then_some(order)
}
