//! Demuxing and remuxing MP4 and QuickTime files (ISO/IEC 14496-12).

mod boxes;
mod remux;
mod tables;

use std::sync::Arc;

use boxes::{only, read_index, split, u32_at, u64_at};

use super::codec::Codec;
use super::sample::{Sample, presentation_order};
use super::source::Source;
use super::track_index::Index;

/// Remuxes samples of an MP4 file.
#[derive(Debug, Clone)]
struct Mp4Remuxer {
    /// Decoding timestamp of each sample, in the track's time base.
    dts: Vec<u64>,
    parts: TrackBoxes,
}

/// The boxes that an excerpt shares with the original file.
#[derive(Debug, Clone)]
struct TrackBoxes {
    movie_header: Vec<u8>,
    track_header: Vec<u8>,
    media_header: Vec<u8>,
    handler: Vec<u8>,
    video_header: Vec<u8>,
    references: Vec<u8>,
    descriptions: Vec<u8>,
}

/// The index of an MP4 file; `None` for other files or unsupported features.
pub(super) fn read(mut source: Source) -> Option<Index> {
    let movie = read_index(&mut source)?;
    let boxes = split(&movie)?;
    if boxes.iter().any(|entry| entry.kind == *b"mvex") {
        return None;
    }
    let movie_header = only(&boxes, b"mvhd")?;
    if !is_upright(movie_header)? {
        return None;
    }
    let tracks: Vec<_> = boxes.iter().filter(|entry| entry.kind == *b"trak").collect();
    let mut videos = tracks.iter().enumerate().filter(|(_, track)| is_video(track.body));
    let (number, track) = videos.next()?;
    if videos.next().is_some() {
        return None;
    }
    of_track(number, track.body, movie_header, source.length())
}

fn of_track(number: usize, track: &[u8], movie_header: &[u8], length: u64) -> Option<Index> {
    let track = split(track)?;
    let media = split(only(&track, b"mdia")?)?;
    let information = split(only(&media, b"minf")?)?;
    let table = split(only(&information, b"stbl")?)?;
    let track_header = only(&track, b"tkhd")?;
    let media_header = only(&media, b"mdhd")?;
    let descriptions = only(&table, b"stsd")?;
    let (codec, coded_size) = description(descriptions)?;
    let (samples, dts) = tables::samples(&table, length)?;
    let units = u64::from(timescale(media_header)?);
    let presentation_order = presentation_order(&samples)?;
    if !shows_all(&track, &samples, units, u64::from(timescale(movie_header)?)) {
        return None;
    }
    let step = tables::constant_duration(&table)?;
    let time = |position: &usize| samples[*position].pts;
    // Composition offsets can make the rate variable, too.
    let is_constant = |two: &[usize]| time(&two[1]) - time(&two[0]) == i64::from(step);
    if !presentation_order.windows(2).all(is_constant) {
        return None;
    }
    let parts = TrackBoxes {
        movie_header: movie_header.to_vec(),
        track_header: track_header.to_vec(),
        media_header: media_header.to_vec(),
        handler: only(&media, b"hdlr")?.to_vec(),
        video_header: only(&information, b"vmhd")?.to_vec(),
        references: only(&information, b"dinf")?.to_vec(),
        descriptions: descriptions.to_vec(),
    };
    let size = rotated_size(coded_size, track_header)?;
    let fps = (units, u64::from(step));
    let remuxer = Arc::new(Mp4Remuxer { dts, parts });
    Some(Index { size, fps, track: number, samples, presentation_order, codec, remuxer })
}

fn is_video(track: &[u8]) -> bool {
    let handler = || {
        let media = split(only(&split(track)?, b"mdia")?)?;
        let handler = only(&media, b"hdlr")?;
        Some(handler.get(8..12)? == b"vide")
    };
    // A malformed track counts as video, so that the file has no index.
    handler().unwrap_or(true)
}

/// The codec and frame size of the only sample description.
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

/// Width and height after the track's rotation by a multiple of 90°; `None` for any other matrix.
fn rotated_size((width, height): (u32, u32), track_header: &[u8]) -> Option<(u32, u32)> {
    const ONE: i32 = 1 << 16;
    let at = if track_header.first()? & 1 == 1 { 52 } else { 40 };
    let entry =
        |position: usize| u32_at(track_header, at + 4 * position).map(|number| number as i32);
    let matrix = (entry(0)?, entry(1)?, entry(3)?, entry(4)?);
    match matrix {
        (ONE, 0, 0, ONE) => Some((width, height)),
        (a, 0, 0, d) if (a, d) == (-ONE, -ONE) => Some((width, height)),
        (0, b, c, 0) if (b, c) == (ONE, -ONE) || (b, c) == (-ONE, ONE) => Some((height, width)),
        _ => None,
    }
}

/// Whether the movie's matrix is the identity.
fn is_upright(movie_header: &[u8]) -> Option<bool> {
    let at = if movie_header.first()? & 1 == 1 { 48 } else { 36 };
    let matrix = movie_header.get(at..at + 36)?;
    let entries = (0..9).filter_map(|position| u32_at(matrix, 4 * position));
    Some(entries.eq([1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30]))
}

/// The time scale, at the same offset in `mvhd` and `mdhd`.
fn timescale(header: &[u8]) -> Option<u32> {
    let at = if header.first()? & 1 == 1 { 20 } else { 12 };
    u32_at(header, at).filter(|scale| *scale > 0)
}

/// Whether the track has no edit list, or one edit that shows all frames.
fn shows_all(
    track: &[boxes::Mp4Box<'_>],
    samples: &[Sample],
    timescale: u64,
    movie_timescale: u64,
) -> bool {
    let Some(edits) = track.iter().find(|entry| entry.kind == *b"edts") else { return true };
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
        let first = samples.iter().map(|sample| sample.pts).min()?;
        let last = samples.iter().map(|sample| sample.pts).max()?;
        // The end is rounded to the movie's time scale.
        let end = start + ((duration + 1) * timescale / movie_timescale) as i64;
        Some(rate == 1 << 16 && (0..=first).contains(&start) && last < end)
    };
    covers().unwrap_or(false)
}
