//! Parsing the frame headers of encoded samples.

use super::sample::Sample;
use super::source::Source;

/// The codec of a track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Codec {
    /// Samples are NAL units with length prefixes of this many bytes.
    H264(usize),
    /// As [`Self::H264`].
    H265(usize),
    Vp8,
    Vp9,
    Av1,
}

impl Codec {
    /// Whether decoding can start at a sample, without earlier references; `None` if unknown.
    pub(super) fn is_random_access_point(self, file: &mut Source, sample: &Sample) -> Option<bool> {
        match self {
            // NAL unit types 1 to 5 are slices; 5 is an IDR slice.
            Self::H264(bytes) => first_slice(file, sample, bytes, |header| match header & 31 {
                kind @ 1..=5 => Some(kind == 5),
                _ => None,
            }),
            // NAL unit types below 32 are slices; 19 and 20 are IDR slices.
            Self::H265(bytes) => {
                first_slice(file, sample, bytes, |header| match header >> 1 & 63 {
                    kind @ 0..32 => Some(kind == 19 || kind == 20),
                    _ => None,
                })
            }
            Self::Vp8 => Some(file.byte(sample.offset)? & 1 == 0),
            Self::Vp9 => {
                Some(vp9_header(file, sample.offset)? == Vp9Header::Key { is_shown: true })
            }
            Self::Av1 => Some(av1_unit(file, sample)?.is_random_access_point),
        }
    }

    /// Whether the decoder outputs exactly one frame for a sample; `None` if unknown.
    pub(super) fn outputs_one_frame(self, file: &mut Source, sample: &Sample) -> Option<bool> {
        match self {
            // Required by the containers; there are no hidden frames.
            Self::H264(_) | Self::H265(_) => Some(true),
            // RFC 6386, 9.1.
            Self::Vp8 => Some(file.byte(sample.offset)? >> 4 & 1 == 1),
            Self::Vp9 => Some(vp9_shown(file, sample)? == 1),
            Self::Av1 => Some(av1_unit(file, sample)?.shown == 1),
        }
    }
}

/// The result of `is_idr` for the first slice of a sample; `None` if there is no slice.
fn first_slice(
    file: &mut Source,
    sample: &Sample,
    length_bytes: usize,
    is_idr: fn(u8) -> Option<bool>,
) -> Option<bool> {
    let mut at = sample.offset;
    let end = sample.offset + u64::from(sample.size);
    while at + (length_bytes as u64) < end {
        let mut bytes = [0; 5];
        file.fill(at, &mut bytes[4 - length_bytes..])?;
        let [length @ .., kind] = bytes;
        if let Some(is_idr) = is_idr(kind) {
            return Some(is_idr);
        }
        at += length_bytes as u64 + u64::from(u32::from_be_bytes(length));
    }
    None
}

/// The start of a VP9 frame header (specification, section 6.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Vp9Header {
    Key { is_shown: bool },
    Other { is_shown: bool },
}

fn vp9_header(file: &mut Source, at: u64) -> Option<Vp9Header> {
    let byte = file.byte(at)?;
    // Frame marker, profile (low bit first), and a reserved bit for profile 3.
    let flags = if byte >> 4 & 3 == 3 { byte } else { byte >> 1 };
    let (shows_older, is_other, is_shown) = (flags >> 2 & 1, flags >> 1 & 1, flags & 1 == 1);
    match (byte >> 6, shows_older, is_other) {
        (2, 1, _) => Some(Vp9Header::Other { is_shown: true }),
        (2, _, 1) => Some(Vp9Header::Other { is_shown }),
        (2, _, _) => Some(Vp9Header::Key { is_shown }),
        _ => None,
    }
}

/// The number of frames that a VP9 sample shows, over all frames of a superframe (annex B).
fn vp9_shown(file: &mut Source, sample: &Sample) -> Option<usize> {
    let end = sample.offset + u64::from(sample.size);
    let is_shown = |header| match header {
        Vp9Header::Key { is_shown } | Vp9Header::Other { is_shown } => usize::from(is_shown),
    };
    let marker = file.byte(end - 1)?;
    if marker >> 5 != 0b110 {
        return vp9_header(file, sample.offset).map(is_shown);
    }
    let (frames, bytes) = (usize::from(marker & 7) + 1, usize::from(marker >> 3 & 3) + 1);
    let index_bytes = (2 + frames * bytes) as u64;
    let index_at = end.checked_sub(index_bytes).filter(|at| *at > sample.offset)?;
    let index = file.bytes(index_at + 1, end - 1, 8 * 4)?;
    let (mut at, mut shown) = (sample.offset, 0);
    for size in index.chunks_exact(bytes) {
        if at >= index_at {
            return None;
        }
        shown += is_shown(vp9_header(file, at)?);
        at += size.iter().rev().fold(0, |size, byte| size << 8 | u64::from(*byte));
    }
    Some(shown)
}

/// The frames of an AV1 temporal unit.
struct Av1Unit {
    /// The number of shown frames.
    shown: usize,
    /// Whether the first is a shown key frame with a sequence header.
    is_random_access_point: bool,
}

/// Parses the OBU headers of a temporal unit (AV1 specification, sections 5.3 to 5.9.2); `None` for scalable
/// layers or unsupported features.
fn av1_unit(file: &mut Source, sample: &Sample) -> Option<Av1Unit> {
    const SEQUENCE_HEADER: u8 = 1;
    const FRAME_HEADER: u8 = 3;
    const FRAME: u8 = 6;
    let end = sample.offset + u64::from(sample.size);
    let mut unit = Av1Unit { shown: 0, is_random_access_point: false };
    let (mut at, mut has_sequence, mut is_first) = (sample.offset, false, true);
    while at < end {
        let header = file.byte(at)?;
        // Neither the forbidden bit nor the extension (layers).
        if header & 0x84 != 0 {
            return None;
        }
        at += 1;
        let has_size = header & 2 != 0;
        let size = if has_size { leb128(file, &mut at)? } else { end - at };
        let next = at.checked_add(size).filter(|next| *next <= end)?;
        let kind = header >> 3 & 15;
        if matches!(kind, SEQUENCE_HEADER | FRAME_HEADER | FRAME) {
            let first = file.byte(at)?;
            match kind {
                // Still pictures may have reduced headers.
                SEQUENCE_HEADER if first >> 3 & 3 != 0 => return None,
                SEQUENCE_HEADER => has_sequence = true,
                _ => {
                    // show_existing_frame, frame_type (0 for key frames), show_frame.
                    let (shows_older, kind, is_shown) =
                        (first >> 7 == 1, first >> 5 & 3, first >> 4 & 1 == 1);
                    unit.shown += usize::from(shows_older || is_shown);
                    let is_key = !shows_older && kind == 0 && is_shown;
                    unit.is_random_access_point |= is_first && is_key && has_sequence;
                    is_first = false;
                }
            }
        }
        at = next;
    }
    Some(unit)
}

/// Parses a LEB128 number and advances `at`.
fn leb128(file: &mut Source, at: &mut u64) -> Option<u64> {
    let mut number = 0;
    for index in 0..5 {
        let byte = file.byte(*at)?;
        *at += 1;
        number |= u64::from(byte & 127) << (7 * index);
        if byte < 128 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a sample is a random access point, and whether it outputs one frame.
    fn inspect(codec: Codec, bytes: &[u8]) -> (Option<bool>, Option<bool>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sample");
        // The sample lies between other bytes.
        std::fs::write(&path, [&[0xff, 0xff], bytes, &[0xff]].concat()).unwrap();
        let sample = Sample { offset: 2, size: bytes.len() as u32, pts: 0, is_key: true };
        let mut file = Source::open(&path).unwrap();
        (
            codec.is_random_access_point(&mut file, &sample),
            codec.outputs_one_frame(&mut file, &sample),
        )
    }

    #[test]
    fn only_idr_frames_are_random_access_points_in_h264_and_h265() {
        // A parameter set of two bytes, then a slice.
        let h264 = |slice| inspect(Codec::H264(4), &[0, 0, 0, 2, 0x67, 9, 0, 0, 0, 2, slice, 9]).0;
        assert_eq!([h264(0x65), h264(0x41), h264(0x67)], [Some(true), Some(false), None]);
        let h265 = |kind: u8| inspect(Codec::H265(2), &[0, 2, 32 << 1, 1, 0, 3, kind << 1, 1, 9]).0;
        // Both kinds of IDR, CRA, and a trailing picture.
        assert_eq!([19, 20, 21, 1].map(h265), [true, true, false, false].map(Some));
    }

    #[test]
    fn vp8_flags_are_in_the_first_byte() {
        assert_eq!(inspect(Codec::Vp8, &[0x10]), (Some(true), Some(true)));
        assert_eq!(inspect(Codec::Vp8, &[0x01]), (Some(false), Some(false)));
    }

    #[test]
    fn a_vp9_superframe_with_one_shown_frame_is_one_frame() {
        const HIDDEN: u8 = 0b1000_0100;
        const SHOWN: u8 = 0b1000_0110;
        assert_eq!(inspect(Codec::Vp9, &[0b1000_0010, 9]), (Some(true), Some(true)));
        // The same in profile 3.
        assert_eq!(inspect(Codec::Vp9, &[0b1011_0001, 9]), (Some(true), Some(true)));
        assert_eq!(inspect(Codec::Vp9, &[HIDDEN, 9]), (Some(false), Some(false)));
        // show_existing_frame.
        assert_eq!(inspect(Codec::Vp9, &[0b1000_1000, 9]), (Some(false), Some(true)));
        let both = |one, two| inspect(Codec::Vp9, &[one, 9, 9, two, 9, 0xc1, 3, 2, 0xc1]).1;
        assert_eq!(both(HIDDEN, SHOWN), Some(true));
        assert_eq!(both(SHOWN, SHOWN), Some(false));
        assert_eq!(both(HIDDEN, HIDDEN), Some(false));
        assert_eq!(inspect(Codec::Vp9, &[SHOWN, 0xc1, 3, 2, 0xc1]).1, None);
    }

    #[test]
    fn an_av1_random_access_point_has_a_sequence_header_and_a_shown_key_frame() {
        const DELIMITER: [u8; 2] = [0x12, 0];
        const SEQUENCE_HEADER: [u8; 3] = [0x0a, 1, 0];
        const KEY: [u8; 3] = [0x32, 1, 0b0001_0000];
        const HIDDEN_KEY: [u8; 3] = [0x32, 1, 0];
        const OTHER: [u8; 3] = [0x32, 1, 0b0011_0000];
        const OLDER: [u8; 3] = [0x1a, 1, 0b1000_0000];
        let unit =
            |parts: &[[u8; 3]]| inspect(Codec::Av1, &[&DELIMITER[..], &parts.concat()].concat());
        assert_eq!(unit(&[SEQUENCE_HEADER, KEY]), (Some(true), Some(true)));
        assert_eq!(unit(&[KEY]), (Some(false), Some(true)));
        assert_eq!(unit(&[SEQUENCE_HEADER, HIDDEN_KEY, OTHER]), (Some(false), Some(true)));
        assert_eq!(unit(&[SEQUENCE_HEADER, OLDER]), (Some(false), Some(true)));
        assert_eq!(unit(&[OTHER, OTHER]), (Some(false), Some(false)));
        assert_eq!(unit(&[HIDDEN_KEY]), (Some(false), Some(false)));
        // Layers, still pictures, and an OBU that is longer than the sample.
        assert_eq!(unit(&[[0x36, 0, 0]]), (None, None));
        assert_eq!(unit(&[[0x0a, 1, 0x18]]), (None, None));
        assert_eq!(unit(&[[0x32, 9, 0]]), (None, None));
    }
}
