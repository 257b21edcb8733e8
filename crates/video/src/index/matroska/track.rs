//! Parsing the video track entry.

use super::super::codec::Codec;
use super::elements::{Id, InnerElement, at_most_one, split, uint};

const TRACK_ENTRY: Id = 0xae;
const TRACK_NUMBER: Id = 0xd7;
const TRACK_TYPE: Id = 0x83;
const CODEC_ID: Id = 0x86;
const CODEC_PRIVATE: Id = 0x63a2;
const DEFAULT_DURATION: Id = 0x23_e383;
const VIDEO: Id = 0xe0;
const WIDTH: Id = 0xb0;
const HEIGHT: Id = 0xba;

const TRACK_TIMESTAMP_SCALE: Id = 0x23_314f;
/// The float 1, in its two sizes.
const ONE: [&[u8]; 2] = [&[0x3f, 0x80, 0, 0], &[0x3f, 0xf0, 0, 0, 0, 0, 0, 0]];

/// Unsupported elements: ContentEncodings, CodecDelay and TrackOperation.
const UNSUPPORTED: [Id; 3] = [0x6d80, 0x56aa, 0xe2];

/// Unsupported elements of the video settings: cropping and Projection.
const UNSUPPORTED_IN_VIDEO: [Id; 5] = [0x54aa, 0x54bb, 0x54cc, 0x54dd, 0x7670];

const TRACK_TYPE_VIDEO: u64 = 1;

/// The only video track.
#[derive(Debug)]
pub(super) struct Track {
    /// Its index among the tracks.
    pub(super) index: usize,
    /// Its track number, which blocks refer to.
    pub(super) number: u64,
    pub(super) codec: Codec,
    /// Width and height in pixels.
    pub(super) size: (u32, u32),
    /// Default duration in nanoseconds.
    pub(super) step_ns: u64,
    /// Its whole TrackEntry element.
    pub(super) entry: Vec<u8>,
}

impl Track {
    /// The only video track in `tracks`; `None` for unsupported features.
    pub(super) fn of(tracks: &[u8]) -> Option<Self> {
        let elements = split(tracks)?;
        let entries: Vec<_> = elements.iter().filter(|inner| inner.id == TRACK_ENTRY).collect();
        let parts = entries.iter().map(|entry| split(entry.body)).collect::<Option<Vec<_>>>()?;
        let kinds = parts.iter().map(|parts| uint(parts, TRACK_TYPE, None));
        let kinds = kinds.collect::<Option<Vec<_>>>()?;
        let numbers = parts.iter().map(|parts| uint(parts, TRACK_NUMBER, None));
        let numbers = numbers.collect::<Option<Vec<_>>>()?;
        let mut videos = (0..kinds.len()).filter(|index| kinds[*index] == TRACK_TYPE_VIDEO);
        let index = videos.next()?;
        let of_its_number = numbers.iter().filter(|number| **number == numbers[index]);
        if videos.next().is_some() || of_its_number.count() > 1 {
            return None;
        }
        Self::of_entry(index, numbers[index], &parts[index], entries[index].whole)
    }

    fn of_entry(
        index: usize,
        track: u64,
        parts: &[InnerElement<'_>],
        entry: &[u8],
    ) -> Option<Self> {
        let is_scaled =
            at_most_one(parts, TRACK_TIMESTAMP_SCALE)?.is_some_and(|by| !ONE.contains(&by));
        if is_scaled || contains_any(parts, &UNSUPPORTED) {
            return None;
        }
        let video = split(at_most_one(parts, VIDEO)??)?;
        if contains_any(&video, &UNSUPPORTED_IN_VIDEO) {
            return None;
        }
        let side = |id| {
            let pixels = u32::try_from(uint(&video, id, None)?).ok()?;
            (pixels > 0).then_some(pixels)
        };
        Some(Self {
            index,
            number: track,
            codec: codec(parts)?,
            size: (side(WIDTH)?, side(HEIGHT)?),
            step_ns: uint(parts, DEFAULT_DURATION, None).filter(|step| *step > 0)?,
            entry: entry.to_vec(),
        })
    }
}

/// Whether an element with one of the IDs has a non-zero body.
fn contains_any(elements: &[InnerElement<'_>], kinds: &[Id]) -> bool {
    let is_nonzero = |inner: &InnerElement<'_>| inner.body.iter().any(|byte| *byte != 0);
    elements.iter().any(|inner| kinds.contains(&inner.id) && is_nonzero(inner))
}

fn codec(parts: &[InnerElement<'_>]) -> Option<Codec> {
    let private =
        || at_most_one(parts, CODEC_PRIVATE)?.filter(|private| private.first() == Some(&1));
    let length_bytes = |at: usize| Some(usize::from(private()?.get(at)? & 3) + 1);
    match at_most_one(parts, CODEC_ID)?? {
        b"V_MPEG4/ISO/AVC" => Some(Codec::H264(length_bytes(4)?)),
        b"V_MPEGH/ISO/HEVC" => Some(Codec::H265(length_bytes(21)?)),
        b"V_VP8" => Some(Codec::Vp8),
        b"V_VP9" => Some(Codec::Vp9),
        b"V_AV1" => Some(Codec::Av1),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::elements::write;
    use super::*;

    /// A track entry with additional elements.
    fn entry(track: u8, kind: u8, more: &[(Id, &[u8])], in_video: &[(Id, &[u8])]) -> Vec<u8> {
        let mut video = Vec::new();
        write(WIDTH, &[160], &mut video);
        write(HEIGHT, &[120], &mut video);
        in_video.iter().for_each(|(id, body)| write(*id, body, &mut video));
        let mut parts = Vec::new();
        write(TRACK_NUMBER, &[track], &mut parts);
        write(TRACK_TYPE, &[kind], &mut parts);
        write(CODEC_ID, b"V_VP9", &mut parts);
        write(DEFAULT_DURATION, &[2, 98, 90, 0], &mut parts);
        write(VIDEO, &video, &mut parts);
        more.iter().for_each(|(id, body)| write(*id, body, &mut parts));
        let mut entry = Vec::new();
        write(TRACK_ENTRY, &parts, &mut entry);
        entry
    }

    #[test]
    fn the_only_video_track_is_found_among_others() {
        let video = entry(2, 1, &[], &[]);
        let track = Track::of(&[entry(1, 2, &[], &[]), video.clone()].concat()).unwrap();
        assert_eq!((track.index, track.number, track.size), (1, 2, (160, 120)));
        assert_eq!((track.codec, track.step_ns), (Codec::Vp9, 40_000_000));
        assert_eq!(track.entry, video);
    }

    #[test]
    fn two_video_tracks_or_duplicate_track_numbers_are_unsupported() {
        let video = entry(1, 1, &[], &[]);
        assert!(Track::of(&[video.clone(), entry(2, 1, &[], &[])].concat()).is_none());
        assert!(Track::of(&[video, entry(1, 2, &[], &[])].concat()).is_none());
        assert!(Track::of(&entry(1, 2, &[], &[])).is_none());
    }

    #[test]
    fn rotated_cropped_encoded_or_scaled_tracks_are_unsupported() {
        // ProjectionPoseRoll of 90 degrees.
        let mut rotated = Vec::new();
        write(0x7675, &90f32.to_be_bytes(), &mut rotated);
        for more in [&UNSUPPORTED[..], &[TRACK_TIMESTAMP_SCALE]].concat() {
            assert!(Track::of(&entry(1, 1, &[(more, &[1])], &[])).is_none(), "{more:x}");
        }
        for more in UNSUPPORTED_IN_VIDEO {
            assert!(Track::of(&entry(1, 1, &[], &[(more, &rotated)])).is_none(), "{more:x}");
        }
        let usual: [(Id, &[u8]); 2] = [(0x56aa, &[0]), (TRACK_TIMESTAMP_SCALE, ONE[0])];
        assert!(Track::of(&entry(1, 1, &usual, &[(0x54aa, &[0])])).is_some());
    }
}
