//! What frames say of themselves in their first bits.

use super::Sample;
use super::source::Source;

/// How a track's frames are coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Codec {
    /// Frames are made of units that begin with lengths of so many bytes.
    H264(usize),
    /// The same.
    H265(usize),
    Vp8,
    Vp9,
    Av1,
}

impl Codec {
    /// Whether a decoder forgets at a sample all that was before; `None` where it cannot be told.
    pub(super) fn starts_afresh(self, file: &mut Source, sample: &Sample) -> Option<bool> {
        match self {
            // Slices are of the types 1 to 5; 5 is an instantaneous refresh.
            Self::H264(bytes) => first_slice(file, sample, bytes, |head| match head & 31 {
                kind @ 1..=5 => Some(kind == 5),
                _ => None,
            }),
            // Slices are below 32; 19 and 20 are instantaneous refreshes.
            Self::H265(bytes) => first_slice(file, sample, bytes, |head| match head >> 1 & 63 {
                kind @ 0..32 => Some(kind == 19 || kind == 20),
                _ => None,
            }),
            Self::Vp8 => Some(file.byte(sample.offset)? & 1 == 0),
            Self::Vp9 => Some(vp9_head(file, sample.offset)? == Vp9Head::Key { is_shown: true }),
            Self::Av1 => Some(av1_unit(file, sample)?.starts_afresh),
        }
    }

    /// Whether the decoder gives one frame for a sample; `None` where it cannot be told.
    pub(super) fn shows_one(self, file: &mut Source, sample: &Sample) -> Option<bool> {
        match self {
            // Their containers demand so, and hidden frames do not exist.
            Self::H264(_) | Self::H265(_) => Some(true),
            // RFC 6386, 9.1.
            Self::Vp8 => Some(file.byte(sample.offset)? >> 4 & 1 == 1),
            Self::Vp9 => Some(vp9_shown(file, sample)? == 1),
            Self::Av1 => Some(av1_unit(file, sample)?.shown == 1),
        }
    }
}

/// What `forgets` says of the first slice of a sample; `None` where there is no slice.
fn first_slice(
    file: &mut Source,
    sample: &Sample,
    length_bytes: usize,
    forgets: fn(u8) -> Option<bool>,
) -> Option<bool> {
    let mut at = sample.offset;
    let end = sample.offset + u64::from(sample.size);
    while at + (length_bytes as u64) < end {
        let mut bytes = [0; 5];
        file.fill(at, &mut bytes[4 - length_bytes..])?;
        let [length @ .., kind] = bytes;
        if let Some(forgets) = forgets(kind) {
            return Some(forgets);
        }
        at += length_bytes as u64 + u64::from(u32::from_be_bytes(length));
    }
    None
}

/// The first bits of a VP9 frame (its specification, 6.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Vp9Head {
    Key { is_shown: bool },
    Other { is_shown: bool },
}

fn vp9_head(file: &mut Source, at: u64) -> Option<Vp9Head> {
    let byte = file.byte(at)?;
    // A marker, the profile with its low bit first, and one more bit where that is 3.
    let flags = if byte >> 4 & 3 == 3 { byte } else { byte >> 1 };
    let (shows_older, is_other, is_shown) = (flags >> 2 & 1, flags >> 1 & 1, flags & 1 == 1);
    match (byte >> 6, shows_older, is_other) {
        (2, 1, _) => Some(Vp9Head::Other { is_shown: true }),
        (2, _, 1) => Some(Vp9Head::Other { is_shown }),
        (2, _, _) => Some(Vp9Head::Key { is_shown }),
        _ => None,
    }
}

/// How many frames a VP9 sample shows: the frames of a superframe (annex B) are looked at each.
fn vp9_shown(file: &mut Source, sample: &Sample) -> Option<usize> {
    let end = sample.offset + u64::from(sample.size);
    let is_shown = |head| match head {
        Vp9Head::Key { is_shown } | Vp9Head::Other { is_shown } => usize::from(is_shown),
    };
    let marker = file.byte(end - 1)?;
    if marker >> 5 != 0b110 {
        return vp9_head(file, sample.offset).map(is_shown);
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
        shown += is_shown(vp9_head(file, at)?);
        at += size.iter().rev().fold(0, |size, byte| size << 8 | u64::from(*byte));
    }
    Some(shown)
}

/// What the frames of an AV1 temporal unit are together.
struct Av1Unit {
    /// How many of them are shown.
    shown: usize,
    /// Whether the first is a key frame that is shown, with all that is needed to decode it.
    starts_afresh: bool,
}

/// Reads the heads of a temporal unit's parts (AV1's specification, 5.3 to 5.9.2); `None` where they
/// are in layers or anything is unusual.
fn av1_unit(file: &mut Source, sample: &Sample) -> Option<Av1Unit> {
    const SEQUENCE: u8 = 1;
    const FRAME_HEAD: u8 = 3;
    const FRAME: u8 = 6;
    let end = sample.offset + u64::from(sample.size);
    let mut unit = Av1Unit { shown: 0, starts_afresh: false };
    let (mut at, mut has_sequence, mut is_first) = (sample.offset, false, true);
    while at < end {
        let head = file.byte(at)?;
        // Neither the forbidden bit nor that of layers.
        if head & 0x84 != 0 {
            return None;
        }
        at += 1;
        let has_size = head & 2 != 0;
        let size = if has_size { av1_number(file, &mut at)? } else { end - at };
        let next = at.checked_add(size).filter(|next| *next <= end)?;
        let kind = head >> 3 & 15;
        if matches!(kind, SEQUENCE | FRAME_HEAD | FRAME) {
            let first = file.byte(at)?;
            match kind {
                // Still pictures have shorter heads.
                SEQUENCE if first >> 3 & 3 != 0 => return None,
                SEQUENCE => has_sequence = true,
                _ => {
                    // Shows an older frame, kind of frame (0 for key frames), is shown.
                    let (shows_older, kind, is_shown) =
                        (first >> 7 == 1, first >> 5 & 3, first >> 4 & 1 == 1);
                    unit.shown += usize::from(shows_older || is_shown);
                    let is_key = !shows_older && kind == 0 && is_shown;
                    unit.starts_afresh |= is_first && is_key && has_sequence;
                    is_first = false;
                }
            }
        }
        at = next;
    }
    Some(unit)
}

/// Reads a number in base 128 and passes over it.
fn av1_number(file: &mut Source, at: &mut u64) -> Option<u64> {
    let mut number = 0;
    for place in 0..5 {
        let byte = file.byte(*at)?;
        *at += 1;
        number |= u64::from(byte & 127) << (7 * place);
        if byte < 128 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a sample of so many bytes starts afresh, and whether it shows one frame.
    fn told(codec: Codec, bytes: &[u8]) -> (Option<bool>, Option<bool>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sample");
        // The sample lies between other bytes.
        std::fs::write(&path, [&[0xff, 0xff], bytes, &[0xff]].concat()).unwrap();
        let sample = Sample { offset: 2, size: bytes.len() as u32, shown: 0, is_key: true };
        let mut file = Source::open(&path).unwrap();
        (codec.starts_afresh(&mut file, &sample), codec.shows_one(&mut file, &sample))
    }

    #[test]
    fn only_an_instantaneous_refresh_starts_h264_and_h265_afresh() {
        // A parameter set of two bytes, then a slice.
        let h264 = |slice| told(Codec::H264(4), &[0, 0, 0, 2, 0x67, 9, 0, 0, 0, 2, slice, 9]).0;
        assert_eq!([h264(0x65), h264(0x41), h264(0x67)], [Some(true), Some(false), None]);
        let h265 = |kind: u8| told(Codec::H265(2), &[0, 2, 32 << 1, 1, 0, 3, kind << 1, 1, 9]).0;
        // Both kinds of refreshes; a clean random access, and a trailing picture.
        assert_eq!([19, 20, 21, 1].map(h265), [true, true, false, false].map(Some));
    }

    #[test]
    fn vp8_tells_in_its_first_byte() {
        assert_eq!(told(Codec::Vp8, &[0x10]), (Some(true), Some(true)));
        assert_eq!(told(Codec::Vp8, &[0x01]), (Some(false), Some(false)));
    }

    #[test]
    fn a_vp9_superframe_is_one_frame_where_one_of_its_frames_is_shown() {
        const HIDDEN: u8 = 0b1000_0100;
        const SHOWN: u8 = 0b1000_0110;
        assert_eq!(told(Codec::Vp9, &[0b1000_0010, 9]), (Some(true), Some(true)));
        // The same in profile 3.
        assert_eq!(told(Codec::Vp9, &[0b1011_0001, 9]), (Some(true), Some(true)));
        assert_eq!(told(Codec::Vp9, &[HIDDEN, 9]), (Some(false), Some(false)));
        // One that shows an older frame.
        assert_eq!(told(Codec::Vp9, &[0b1000_1000, 9]), (Some(false), Some(true)));
        let both = |one, two| told(Codec::Vp9, &[one, 9, 9, two, 9, 0xc1, 3, 2, 0xc1]).1;
        assert_eq!(both(HIDDEN, SHOWN), Some(true));
        assert_eq!(both(SHOWN, SHOWN), Some(false));
        assert_eq!(both(HIDDEN, HIDDEN), Some(false));
        assert_eq!(told(Codec::Vp9, &[SHOWN, 0xc1, 3, 2, 0xc1]).1, None);
    }

    #[test]
    fn an_av1_unit_starts_afresh_where_a_sequence_and_a_shown_key_frame_come_first() {
        const DELIMITER: [u8; 2] = [0x12, 0];
        const SEQUENCE: [u8; 3] = [0x0a, 1, 0];
        const KEY: [u8; 3] = [0x32, 1, 0b0001_0000];
        const HIDDEN_KEY: [u8; 3] = [0x32, 1, 0];
        const OTHER: [u8; 3] = [0x32, 1, 0b0011_0000];
        const OLDER: [u8; 3] = [0x1a, 1, 0b1000_0000];
        let unit =
            |parts: &[[u8; 3]]| told(Codec::Av1, &[&DELIMITER[..], &parts.concat()].concat());
        assert_eq!(unit(&[SEQUENCE, KEY]), (Some(true), Some(true)));
        assert_eq!(unit(&[KEY]), (Some(false), Some(true)));
        assert_eq!(unit(&[SEQUENCE, HIDDEN_KEY, OTHER]), (Some(false), Some(true)));
        assert_eq!(unit(&[SEQUENCE, OLDER]), (Some(false), Some(true)));
        assert_eq!(unit(&[OTHER, OTHER]), (Some(false), Some(false)));
        assert_eq!(unit(&[HIDDEN_KEY]), (Some(false), Some(false)));
        // Layers, still pictures, and a part that is longer than the sample.
        assert_eq!(unit(&[[0x36, 0, 0]]), (None, None));
        assert_eq!(unit(&[[0x0a, 1, 0x18]]), (None, None));
        assert_eq!(unit(&[[0x32, 9, 0]]), (None, None));
    }
}
