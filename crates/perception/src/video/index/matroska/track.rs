//! What a file says of its tracks.

use super::super::codec::Codec;
use super::elements::{Id, Inner, at_most_one, number, split};

const TRACK_ENTRY: Id = 0xae;
const NUMBER: Id = 0xd7;
const KIND: Id = 0x83;
const CODEC: Id = 0x86;
const CODEC_PRIVATE: Id = 0x63a2;
const DEFAULT_DURATION: Id = 0x23_e383;
const VIDEO: Id = 0xe0;
const WIDTH: Id = 0xb0;
const HEIGHT: Id = 0xba;

/// By how much times are stretched.
const TIMES_SCALE: Id = 0x23_314f;
/// The number 1, by which nothing is, in its two sizes.
const ONE: [&[u8]; 2] = [&[0x3f, 0x80, 0, 0], &[0x3f, 0xf0, 0, 0, 0, 0, 0, 0]];

/// What changes times or frames in ways that are not followed here: encodings, delays and combinations
/// of tracks.
const UNUSUAL: [Id; 3] = [0x6d80, 0x56aa, 0xe2];

/// The same of the picture: four crops, and projections, which turn it.
const UNUSUAL_IN_PICTURE: [Id; 5] = [0x54aa, 0x54bb, 0x54cc, 0x54dd, 0x7670];

const KIND_VIDEO: u64 = 1;

/// The only video track.
#[derive(Debug)]
pub(super) struct Track {
    /// Its place among the tracks.
    pub(super) place: usize,
    /// By which its frames name it.
    pub(super) number: u64,
    pub(super) codec: Codec,
    /// Pixels across and down.
    pub(super) size: (u32, u32),
    /// From each frame to the next, in nanoseconds.
    pub(super) step_ns: u64,
    /// Its whole entry.
    pub(super) entry: Vec<u8>,
}

impl Track {
    /// The only video track among those in `tracks`; `None` where anything about it is unusual.
    pub(super) fn of(tracks: &[u8]) -> Option<Self> {
        let elements = split(tracks)?;
        let entries: Vec<_> = elements.iter().filter(|inner| inner.id == TRACK_ENTRY).collect();
        let parts = entries.iter().map(|entry| split(entry.body)).collect::<Option<Vec<_>>>()?;
        let kinds = parts.iter().map(|parts| number(parts, KIND, None));
        let kinds = kinds.collect::<Option<Vec<_>>>()?;
        let numbers = parts.iter().map(|parts| number(parts, NUMBER, None));
        let numbers = numbers.collect::<Option<Vec<_>>>()?;
        let mut videos = (0..kinds.len()).filter(|place| kinds[*place] == KIND_VIDEO);
        let place = videos.next()?;
        let of_its_number = numbers.iter().filter(|number| **number == numbers[place]);
        if videos.next().is_some() || of_its_number.count() > 1 {
            return None;
        }
        Self::of_entry(place, numbers[place], &parts[place], entries[place].whole)
    }

    fn of_entry(place: usize, track: u64, parts: &[Inner<'_>], entry: &[u8]) -> Option<Self> {
        let is_stretched = at_most_one(parts, TIMES_SCALE)?.is_some_and(|by| !ONE.contains(&by));
        if is_stretched || holds_any(parts, &UNUSUAL) {
            return None;
        }
        let picture = split(at_most_one(parts, VIDEO)??)?;
        if holds_any(&picture, &UNUSUAL_IN_PICTURE) {
            return None;
        }
        let side = |id| {
            let pixels = u32::try_from(number(&picture, id, None)?).ok()?;
            (pixels > 0).then_some(pixels)
        };
        Some(Self {
            place,
            number: track,
            codec: codec(parts)?,
            size: (side(WIDTH)?, side(HEIGHT)?),
            step_ns: number(parts, DEFAULT_DURATION, None).filter(|step| *step > 0)?,
            entry: entry.to_vec(),
        })
    }
}

/// Whether one of the elements, other than one that says 0, is of one of the kinds.
fn holds_any(elements: &[Inner<'_>], kinds: &[Id]) -> bool {
    let says_something = |inner: &Inner<'_>| inner.body.iter().any(|byte| *byte != 0);
    elements.iter().any(|inner| kinds.contains(&inner.id) && says_something(inner))
}

fn codec(parts: &[Inner<'_>]) -> Option<Codec> {
    let private =
        || at_most_one(parts, CODEC_PRIVATE)?.filter(|private| private.first() == Some(&1));
    let length_bytes = |at: usize| Some(usize::from(private()?.get(at)? & 3) + 1);
    match at_most_one(parts, CODEC)?? {
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

    /// An entry of a track with some elements more.
    fn entry(track: u8, kind: u8, more: &[(Id, &[u8])], in_picture: &[(Id, &[u8])]) -> Vec<u8> {
        let mut picture = Vec::new();
        write(WIDTH, &[160], &mut picture);
        write(HEIGHT, &[120], &mut picture);
        in_picture.iter().for_each(|(id, body)| write(*id, body, &mut picture));
        let mut parts = Vec::new();
        write(NUMBER, &[track], &mut parts);
        write(KIND, &[kind], &mut parts);
        write(CODEC, b"V_VP9", &mut parts);
        write(DEFAULT_DURATION, &[2, 98, 90, 0], &mut parts);
        write(VIDEO, &picture, &mut parts);
        more.iter().for_each(|(id, body)| write(*id, body, &mut parts));
        let mut entry = Vec::new();
        write(TRACK_ENTRY, &parts, &mut entry);
        entry
    }

    #[test]
    fn the_only_video_track_is_found_among_others() {
        let video = entry(2, 1, &[], &[]);
        let track = Track::of(&[entry(1, 2, &[], &[]), video.clone()].concat()).unwrap();
        assert_eq!((track.place, track.number, track.size), (1, 2, (160, 120)));
        assert_eq!((track.codec, track.step_ns), (Codec::Vp9, 40_000_000));
        assert_eq!(track.entry, video);
    }

    #[test]
    fn two_video_tracks_or_two_of_one_number_leave_a_doubt() {
        let video = entry(1, 1, &[], &[]);
        assert!(Track::of(&[video.clone(), entry(2, 1, &[], &[])].concat()).is_none());
        assert!(Track::of(&[video, entry(1, 2, &[], &[])].concat()).is_none());
        assert!(Track::of(&entry(1, 2, &[], &[])).is_none());
    }

    #[test]
    fn a_track_that_is_turned_cropped_packed_or_stretched_leaves_a_doubt() {
        // ProjectionPoseRoll of 90 degrees.
        let mut turned = Vec::new();
        write(0x7675, &90f32.to_be_bytes(), &mut turned);
        for more in [&UNUSUAL[..], &[TIMES_SCALE]].concat() {
            assert!(Track::of(&entry(1, 1, &[(more, &[1])], &[])).is_none(), "{more:x}");
        }
        for more in UNUSUAL_IN_PICTURE {
            assert!(Track::of(&entry(1, 1, &[], &[(more, &turned)])).is_none(), "{more:x}");
        }
        let usual: [(Id, &[u8]); 2] = [(0x56aa, &[0]), (TIMES_SCALE, ONE[0])];
        assert!(Track::of(&entry(1, 1, &usual, &[(0x54aa, &[0])])).is_some());
    }
}
