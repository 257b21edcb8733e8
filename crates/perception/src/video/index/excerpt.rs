//! A shorter file with the samples alone that some frames need.

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;

use super::source::Source;
use super::{Container, Index};

/// An excerpt is made only where at most this share of the samples must be decoded.
const WORTH_IT: f64 = 0.9;

/// Samples that are decoded together, and which of them are wanted.
#[derive(Debug, Clone)]
pub(in crate::video) struct Excerpt {
    /// FFmpeg's name for what the excerpt is a file of.
    pub(in crate::video) format: &'static str,
    /// Pixels across and down of the frames, as shown.
    pub(in crate::video) size: (u32, u32),
    /// Where the wanted frames stand among the excerpt's, in the order shown.
    pub(in crate::video) wanted: Vec<usize>,
    /// How many frames the excerpt has.
    pub(in crate::video) frames: usize,
    parts: Vec<Part>,
}

/// A part of an excerpt.
#[derive(Debug, Clone)]
pub(super) enum Part {
    /// What the whole file does not have.
    Bytes(Vec<u8>),
    /// So many bytes at a place of the whole file.
    Range(u64, u64),
}

impl Part {
    /// Appends bytes.
    pub(super) fn add_bytes(parts: &mut Vec<Self>, bytes: &[u8]) {
        match parts.last_mut() {
            Some(Self::Bytes(last)) => last.extend(bytes),
            _ => parts.push(Self::Bytes(bytes.to_vec())),
        }
    }

    /// Appends `length` bytes at a place of the whole file.
    pub(super) fn add_range(parts: &mut Vec<Self>, offset: u64, length: u64) {
        match parts.last_mut() {
            Some(Self::Range(at, last)) if *at + *last == offset => *last += length,
            _ => parts.push(Self::Range(offset, length)),
        }
    }

    /// How many bytes it is long.
    pub(super) fn length(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Range(_, length) => *length,
        }
    }
}

impl Index {
    /// The excerpt of the file at `path` that shows the frames at the ascending indices `wanted`.
    ///
    /// `None` where there is no such frame, where next to all must be decoded, where a key frame does
    /// not make the decoder forget what was before, and where a sample is not one frame.
    pub(in crate::video) fn excerpt(&self, path: &Path, wanted: &[usize]) -> Option<Excerpt> {
        let kept = self.needed(wanted)?;
        let places: Vec<usize> = (0..kept.len()).filter(|place| kept[*place]).collect();
        let is_worth_it = places.len() as f64 <= WORTH_IT * kept.len() as f64;
        if !is_worth_it || !self.is_as_told(path, &kept)? {
            return None;
        }
        // How many of the kept frames are shown before each frame.
        let mut before = Vec::with_capacity(self.shown.len());
        let mut sum = 0;
        for place in &self.shown {
            before.push(sum);
            sum += usize::from(kept[*place]);
        }
        let wanted = wanted.iter().map(|index| before[*index]).collect();
        let (format, parts) = match &self.container {
            Container::Mp4(layout) => ("mov", layout.parts(&self.samples, &places)),
            Container::Matroska(layout) => ("matroska", layout.parts(&places)),
        };
        Some(Excerpt { format, size: self.size, wanted, frames: places.len(), parts })
    }

    /// Which samples must be decoded to see the frames `wanted`.
    fn needed(&self, wanted: &[usize]) -> Option<Vec<bool>> {
        let mut group = 0;
        let groups: Vec<usize> = self
            .samples
            .iter()
            .enumerate()
            .map(|(place, sample)| {
                group = if sample.is_key { place } else { group };
                group
            })
            .collect();
        let mut kept = vec![false; self.samples.len()];
        for index in wanted {
            let place = *self.shown.get(*index)?;
            // Frames shown before their group's key frame lean on the group before.
            if self.samples[place].shown < self.samples[groups[place]].shown {
                return None;
            }
            for sample in (groups[place]..=place).rev() {
                if kept[sample] {
                    break;
                }
                kept[sample] = true;
            }
        }
        // Such frames are left out, and nothing that is wanted leans on them.
        for (place, kept) in kept.iter_mut().enumerate() {
            *kept &= self.samples[place].shown >= self.samples[groups[place]].shown;
        }
        Some(kept)
    }

    /// Whether the video begins with a key frame that makes the decoder forget what was before, each of
    /// the `kept` key frames does so too, and all samples are one frame each.
    fn is_as_told(&self, path: &Path, kept: &[bool]) -> Option<bool> {
        let mut source = Source::open(path)?;
        for (place, sample) in self.samples.iter().enumerate() {
            let is_start = place == 0 || kept[place] && sample.is_key;
            if is_start && !self.codec.starts_afresh(&mut source, sample)?
                || !self.codec.shows_one(&mut source, sample)?
            {
                return Some(false);
            }
        }
        Some(true)
    }
}

impl Excerpt {
    /// Writes the excerpt of the file at `path`, as a file of its own, to `out`.
    pub(in crate::video) fn write_to(&self, path: &Path, out: impl Write) -> io::Result<()> {
        let mut out = BufWriter::with_capacity(1 << 16, out);
        let mut file = File::open(path)?;
        for part in &self.parts {
            match part {
                Part::Bytes(bytes) => out.write_all(bytes)?,
                Part::Range(at, length) => {
                    file.seek(SeekFrom::Start(*at))?;
                    if io::copy(&mut (&mut file).take(*length), &mut out)? < *length {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
            }
        }
        out.flush()
    }
}
