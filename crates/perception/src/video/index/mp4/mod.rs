//! The index of an MP4 or QuickTime file (ISO/IEC 14496-12), and the head of a shorter one.

mod boxes;
mod head;
mod tables;

use boxes::{only, read_index, split, u32_at, u64_at};

use super::codec::Codec;
use super::excerpt::Part;
use super::source::Source;
use super::{Container, Index, Sample, order_shown};

/// What a shorter file needs beside the samples.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    /// When each sample is decoded, in the track's units.
    decoded: Vec<u64>,
    parts: TrackParts,
}

/// The boxes that a shorter file has in common with the whole one.
#[derive(Debug, Clone)]
struct TrackParts {
    movie_head: Vec<u8>,
    track_head: Vec<u8>,
    media_head: Vec<u8>,
    handler: Vec<u8>,
    video_head: Vec<u8>,
    references: Vec<u8>,
    descriptions: Vec<u8>,
}

/// The index of an MP4 file; `None` where it is no such file or anything about it is unusual.
pub(super) fn read(mut source: Source) -> Option<Index> {
    let movie = read_index(&mut source)?;
    let boxes = split(&movie)?;
    if boxes.iter().any(|inner| inner.kind == *b"mvex") {
        return None;
    }
    let movie_head = only(&boxes, b"mvhd")?;
    if !is_upright(movie_head)? {
        return None;
    }
    let tracks: Vec<_> = boxes.iter().filter(|inner| inner.kind == *b"trak").collect();
    let mut videos = tracks.iter().enumerate().filter(|(_, track)| is_video(track.body));
    let (number, track) = videos.next()?;
    if videos.next().is_some() {
        return None;
    }
    of_track(number, track.body, movie_head, source.length())
}

fn of_track(number: usize, track: &[u8], movie_head: &[u8], length: u64) -> Option<Index> {
    let track = split(track)?;
    let media = split(only(&track, b"mdia")?)?;
    let information = split(only(&media, b"minf")?)?;
    let table = split(only(&information, b"stbl")?)?;
    let track_head = only(&track, b"tkhd")?;
    let media_head = only(&media, b"mdhd")?;
    let descriptions = only(&table, b"stsd")?;
    let (codec, coded_size) = description(descriptions)?;
    let (samples, decoded) = tables::samples(&table, length)?;
    let units = u64::from(timescale(media_head)?);
    let shown = order_shown(&samples)?;
    if !shows_all(&track, &samples, units, u64::from(timescale(movie_head)?)) {
        return None;
    }
    let step = tables::constant_step(&table)?;
    let parts = TrackParts {
        movie_head: movie_head.to_vec(),
        track_head: track_head.to_vec(),
        media_head: media_head.to_vec(),
        handler: only(&media, b"hdlr")?.to_vec(),
        video_head: only(&information, b"vmhd")?.to_vec(),
        references: only(&information, b"dinf")?.to_vec(),
        descriptions: descriptions.to_vec(),
    };
    let size = turned(coded_size, track_head)?;
    let fps = (units, u64::from(step));
    let container = Container::Mp4(Layout { decoded, parts });
    Some(Index { size, fps, track: number, samples, shown, codec, container })
}

fn is_video(track: &[u8]) -> bool {
    let handler = || {
        let media = split(only(&split(track)?, b"mdia")?)?;
        let handler = only(&media, b"hdlr")?;
        Some(handler.get(8..12)? == b"vide")
    };
    // An unreadable track counts, so that no index comes of it.
    handler().unwrap_or(true)
}

/// The codec, and the frame's width and height, of the only description.
fn description(body: &[u8]) -> Option<(Codec, (u32, u32))> {
    let entries = split(body.get(8..)?)?;
    let [entry] = entries.as_slice() else { return None };
    let two = |at: usize| {
        entry.body.get(at..)?.first_chunk().map(|two| u32::from(u16::from_be_bytes(*two)))
    };
    let size = (two(24)?, two(26)?);
    let details = split(entry.body.get(78..)?)?;
    let codec = match &entry.kind {
        b"avc1" => Codec::H264(usize::from(only(&details, b"avcC")?.get(4)? & 3) + 1),
        b"hvc1" => Codec::H265(usize::from(only(&details, b"hvcC")?.get(21)? & 3) + 1),
        b"vp09" => Codec::Vp9,
        b"av01" => Codec::Av1,
        _ => return None,
    };
    (size.0 > 0 && size.1 > 0).then_some((codec, size))
}

/// Width and height as shown, after the quarter turns that the track asks for; `None` for any other
/// transformation.
fn turned((width, height): (u32, u32), track_head: &[u8]) -> Option<(u32, u32)> {
    const ONE: i32 = 1 << 16;
    let at = if track_head.first()? & 1 == 1 { 52 } else { 40 };
    let entry = |place: usize| u32_at(track_head, at + 4 * place).map(|number| number as i32);
    let matrix = (entry(0)?, entry(1)?, entry(3)?, entry(4)?);
    match matrix {
        (ONE, 0, 0, ONE) => Some((width, height)),
        (a, 0, 0, d) if (a, d) == (-ONE, -ONE) => Some((width, height)),
        (0, b, c, 0) if (b, c) == (ONE, -ONE) || (b, c) == (-ONE, ONE) => Some((height, width)),
        _ => None,
    }
}

/// Whether the movie as a whole is neither turned nor distorted.
fn is_upright(movie_head: &[u8]) -> Option<bool> {
    let at = if movie_head.first()? & 1 == 1 { 48 } else { 36 };
    let matrix = movie_head.get(at..at + 36)?;
    let entries = (0..9).filter_map(|place| u32_at(matrix, 4 * place));
    Some(entries.eq([1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30]))
}

/// Units in a second, which stand at the same place in the heads of movies and media.
fn timescale(head: &[u8]) -> Option<u32> {
    let at = if head.first()? & 1 == 1 { 20 } else { 12 };
    u32_at(head, at).filter(|scale| *scale > 0)
}

/// Whether the track has no edits, or one that shows all frames.
fn shows_all(
    track: &[boxes::Inner<'_>],
    samples: &[Sample],
    timescale: u64,
    movie_timescale: u64,
) -> bool {
    let Some(edits) = track.iter().find(|inner| inner.kind == *b"edts") else { return true };
    let covers = || {
        let list = split(edits.body)?;
        let list = only(&list, b"elst")?;
        let is_wide = *list.first()? == 1;
        if u32_at(list, 4)? != 1 {
            return None;
        }
        let (duration, start, rate) = match is_wide {
            true => (u64_at(list, 8)?, u64_at(list, 16)? as i64, u32_at(list, 24)?),
            false => {
                let start = u32_at(list, 12)? as i32;
                (u64::from(u32_at(list, 8)?), i64::from(start), u32_at(list, 16)?)
            }
        };
        let first = samples.iter().map(|sample| sample.shown).min()?;
        let last = samples.iter().map(|sample| sample.shown).max()?;
        // The end is rounded to the movie's units.
        let end = start + ((duration + 1) * timescale / movie_timescale) as i64;
        Some(rate == 1 << 16 && (0..=first).contains(&start) && last < end)
    };
    covers().unwrap_or(false)
}
