//! A shorter file with the samples alone that some frames need.

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;

use super::boxes::{write, write_table};
use super::tables::runs;
use super::{Codec, Index, Sample};

/// An excerpt is made only where at most this share of the samples must be decoded.
const WORTH_IT: f64 = 0.9;

/// Samples that are decoded together, and which of them are wanted.
#[derive(Debug, Clone)]
pub(in crate::video) struct Excerpt {
    /// Where the wanted frames stand among the excerpt's, in the order shown.
    pub(in crate::video) wanted: Vec<usize>,
    /// How many frames the excerpt has.
    pub(in crate::video) frames: usize,
    head: Vec<u8>,
    /// Places and lengths of what follows the head, in the whole file.
    parts: Vec<(u64, u64)>,
}

impl Index {
    /// The excerpt of the file at `path` that shows the frames at the ascending indices `wanted`.
    ///
    /// `None` where there is no such frame, where next to all must be decoded, and where a key frame
    /// does not make the decoder forget what was before.
    pub(in crate::video) fn excerpt(&self, path: &Path, wanted: &[usize]) -> Option<Excerpt> {
        let kept = self.needed(wanted)?;
        let count = kept.iter().filter(|kept| **kept).count();
        if count as f64 > WORTH_IT * kept.len() as f64 || !self.starts_afresh(path, &kept)? {
            return None;
        }
        let places: Vec<usize> = (0..kept.len()).filter(|place| kept[*place]).collect();
        // How many of the kept frames are shown before each frame.
        let mut before = Vec::with_capacity(self.shown.len());
        let mut sum = 0;
        for place in &self.shown {
            before.push(sum);
            sum += usize::from(kept[*place]);
        }
        let wanted = wanted.iter().map(|index| before[*index]).collect();
        let samples: Vec<Sample> = places.iter().map(|place| self.samples[*place]).collect();
        let mut parts: Vec<(u64, u64)> = Vec::new();
        for sample in &samples {
            match parts.last_mut() {
                Some((at, length)) if *at + *length == sample.offset => {
                    *length += u64::from(sample.size);
                }
                _ => parts.push((sample.offset, u64::from(sample.size))),
            }
        }
        let head = self.head(&samples, parts.iter().map(|part| part.1).sum());
        Some(Excerpt { wanted, frames: count, head, parts })
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
            if self.samples[place].shown() < self.samples[groups[place]].shown() {
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
            *kept &= self.samples[place].shown() >= self.samples[groups[place]].shown();
        }
        Some(kept)
    }

    /// Whether each key frame that follows a gap makes the decoder forget what was before.
    fn starts_afresh(&self, path: &Path, kept: &[bool]) -> Option<bool> {
        let (length_bytes, forgets): (usize, fn(u8) -> Option<bool>) = match self.codec {
            Codec::Other => return Some(true),
            // Slices are of the types 1 to 5; 5 is an instantaneous refresh.
            Codec::H264(bytes) => (bytes, |head| match head & 31 {
                kind @ 1..=5 => Some(kind == 5),
                _ => None,
            }),
            // Slices are below 32; 19 and 20 are instantaneous refreshes.
            Codec::H265(bytes) => (bytes, |head| match head >> 1 & 63 {
                kind @ 0..32 => Some(kind == 19 || kind == 20),
                _ => None,
            }),
        };
        let mut file = File::open(path).ok()?;
        for (place, sample) in self.samples.iter().enumerate() {
            if kept[place] && sample.is_key {
                let kind = first_slice(&mut file, sample, length_bytes, forgets).ok()?;
                if kind != Some(true) {
                    return Some(false);
                }
            }
        }
        Some(true)
    }

    /// All that comes before the samples' bytes.
    fn head(&self, samples: &[Sample], bytes: u64) -> Vec<u8> {
        let parts = &self.track_parts;
        let next = samples.iter().skip(1).map(|sample| sample.decoded);
        let steps = samples.iter().zip(next).map(|(sample, next)| (next - sample.decoded) as u32);
        let keys: Vec<[u32; 1]> = (1..)
            .zip(samples)
            .filter(|(_, sample)| sample.is_key)
            .map(|(number, _)| [number])
            .collect();
        let mut sizes = vec![0; 8];
        sizes.extend((samples.len() as u32).to_be_bytes());
        sizes.extend(samples.iter().flat_map(|sample| sample.size.to_be_bytes()));

        let mut head = Vec::new();
        write(b"ftyp", &[b"isom\0\0\x02\0isomiso2mp41"], &mut head);
        let movie = |first: u32| {
            let mut table = Vec::new();
            write(b"stsd", &[&parts.descriptions], &mut table);
            write_table(b"stts", 0, &runs(steps.clone().chain([1])), &mut table);
            let delays = runs(samples.iter().map(|sample| sample.delay as u32));
            write_table(b"ctts", 1, &delays, &mut table);
            write_table(b"stss", 0, &keys, &mut table);
            write_table(b"stsc", 0, &[[1, samples.len() as u32, 1]], &mut table);
            write(b"stsz", &[&sizes], &mut table);
            write_table(b"stco", 0, &[[first]], &mut table);
            let mut information = Vec::new();
            write(b"vmhd", &[&parts.video_head], &mut information);
            write(b"dinf", &[&parts.references], &mut information);
            write(b"stbl", &[&table], &mut information);
            let mut media = Vec::new();
            write(b"mdhd", &[&parts.media_head], &mut media);
            write(b"hdlr", &[&parts.handler], &mut media);
            write(b"minf", &[&information], &mut media);
            let mut track = Vec::new();
            write(b"tkhd", &[&parts.track_head], &mut track);
            write(b"mdia", &[&media], &mut track);
            let mut movie = Vec::new();
            write(b"mvhd", &[&parts.movie_head], &mut movie);
            write(b"trak", &[&track], &mut movie);
            let mut whole = Vec::new();
            write(b"moov", &[&movie], &mut whole);
            whole
        };
        // The samples follow the head of a box with a wide length.
        let length = head.len() + movie(0).len() + 16;
        head.extend(movie(length as u32));
        head.extend(1u32.to_be_bytes());
        head.extend(b"mdat");
        head.extend((bytes + 16).to_be_bytes());
        head
    }
}

/// What `forgets` says of the first slice of a sample; `None` where there is no slice.
fn first_slice(
    file: &mut File,
    sample: &Sample,
    length_bytes: usize,
    forgets: fn(u8) -> Option<bool>,
) -> io::Result<Option<bool>> {
    let mut at = sample.offset;
    let end = sample.offset + u64::from(sample.size);
    while at + (length_bytes as u64) < end {
        file.seek(SeekFrom::Start(at))?;
        let mut bytes = [0; 5];
        let head = &mut bytes[4 - length_bytes..];
        file.read_exact(head)?;
        let [length @ .., kind] = bytes;
        if let Some(forgets) = forgets(kind) {
            return Ok(Some(forgets));
        }
        at += length_bytes as u64 + u64::from(u32::from_be_bytes(length));
    }
    Ok(None)
}

impl Excerpt {
    /// Writes the excerpt of the file at `path`, as a file of its own, to `out`.
    pub(in crate::video) fn write_to(&self, path: &Path, out: impl Write) -> io::Result<()> {
        let mut out = BufWriter::with_capacity(1 << 16, out);
        out.write_all(&self.head)?;
        let mut file = File::open(path)?;
        for (at, length) in &self.parts {
            file.seek(SeekFrom::Start(*at))?;
            if io::copy(&mut (&mut file).take(*length), &mut out)? < *length {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        out.flush()
    }
}
