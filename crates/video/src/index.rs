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
mod remuxer;
mod sample;
mod source;
mod track_index;

use std::path::Path;

pub(crate) use excerpt::Excerpt;
use source::Source;
pub(crate) use track_index::Index;

/// The index of the file at `path`; `None` for other containers or unsupported features.
pub(crate) fn read(path: &Path) -> Option<Index> {
    let mut source = Source::open(path)?;
    match source.array(0)? {
        matroska::FIRST_BYTES => matroska::read(source),
        _ => mp4::read(source),
    }
}
