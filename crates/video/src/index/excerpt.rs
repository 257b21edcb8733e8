//! Excerpts: remuxed files with only the samples that the selected frames depend on.

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;

use super::remuxer::ExcerptPart;
use super::source::Source;
use super::track_index::Index;

/// An excerpt is used only if at most this share of the samples must be decoded.
const MAX_DECODED_SHARE: f64 = 0.9;

/// The samples to decode, and which frames to output.
#[derive(Debug, Clone)]
pub(crate) struct Excerpt {
    /// FFmpeg's name of the container format.
    pub(crate) format: &'static str,
    /// Width and height of the frames in pixels, after rotation.
    pub(crate) size: (u32, u32),
    /// Indices of the selected frames among the excerpt's, in presentation order.
    pub(crate) selected: Vec<usize>,
    /// The number of frames in the excerpt.
    pub(crate) frames: usize,
    parts: Vec<ExcerptPart>,
}

impl Index {
    /// The excerpt of the file at `path` for the frames at the ascending indices `selected`.
    ///
    /// `None` if there is no such frame, if nearly all samples must be decoded, if a key frame is not a
    /// random access point, or if a sample is not exactly one frame.
    pub(crate) fn excerpt(&self, path: &Path, selected: &[usize]) -> Option<Excerpt> {
        let kept = self.required_samples(selected)?;
        let positions: Vec<usize> = (0..kept.len()).filter(|position| kept[*position]).collect();
        let is_worthwhile = positions.len() as f64 <= MAX_DECODED_SHARE * kept.len() as f64;
        if !is_worthwhile || !self.matches_bitstream(path, &kept)? {
            return None;
        }
        // For each frame, the number of kept frames presented before it.
        let mut before = Vec::with_capacity(self.presentation_order.len());
        let mut sum = 0;
        for position in &self.presentation_order {
            before.push(sum);
            sum += usize::from(kept[*position]);
        }
        let selected = selected.iter().map(|index| before[*index]).collect();
        let format = self.remuxer.format();
        let parts = self.remuxer.parts(&self.samples, &positions);
        Some(Excerpt { format, size: self.size, selected, frames: positions.len(), parts })
    }

    /// Marks the samples to decode for the frames `selected`.
    fn required_samples(&self, selected: &[usize]) -> Option<Vec<bool>> {
        let mut gop = 0;
        let gops: Vec<usize> = self
            .samples
            .iter()
            .enumerate()
            .map(|(position, sample)| {
                gop = if sample.is_key { position } else { gop };
                gop
            })
            .collect();
        let mut kept = vec![false; self.samples.len()];
        for index in selected {
            let position = *self.presentation_order.get(*index)?;
            // Open GOP: frames presented before their GOP's key frame reference the previous GOP.
            if self.samples[position].pts < self.samples[gops[position]].pts {
                return None;
            }
            for sample in (gops[position]..=position).rev() {
                if kept[sample] {
                    break;
                }
                kept[sample] = true;
            }
        }
        // Such leading frames are dropped; no selected frame references them.
        for (position, kept) in kept.iter_mut().enumerate() {
            *kept &= self.samples[position].pts >= self.samples[gops[position]].pts;
        }
        Some(kept)
    }

    /// Verifies in the bitstream that the first sample and all `kept` key frames are random access points,
    /// and that each sample is exactly one frame.
    fn matches_bitstream(&self, path: &Path, kept: &[bool]) -> Option<bool> {
        let mut source = Source::open(path)?;
        for (position, sample) in self.samples.iter().enumerate() {
            let is_start = position == 0 || kept[position] && sample.is_key;
            if is_start && !self.codec.is_random_access_point(&mut source, sample)?
                || !self.codec.outputs_one_frame(&mut source, sample)?
            {
                return Some(false);
            }
        }
        Some(true)
    }
}

impl Excerpt {
    /// Writes the excerpt of the file at `path` to `out`, as a complete file.
    pub(crate) fn write_to(&self, path: &Path, out: impl Write) -> io::Result<()> {
        let mut out = BufWriter::with_capacity(1 << 16, out);
        let mut file = File::open(path)?;
        for part in &self.parts {
            match part {
                ExcerptPart::Bytes(bytes) => out.write_all(bytes)?,
                ExcerptPart::Range(at, length) => {
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
