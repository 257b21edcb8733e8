//! Demuxing and remuxing Matroska and WebM files (RFC 9559).
//!
//! The file's cues index key frames only, so the headers of all blocks are parsed.

mod clusters;
mod elements;
mod rate;
mod track;

use std::sync::Arc;

use clusters::{Block, TIMESTAMP, TrackFrames};
use elements::{Element, Elements, Id, at_most_one, split, uint, write, write_header};
use track::Track;

use super::remuxer::{ExcerptPart, Remuxer};
use super::sample::{Sample, presentation_order};
use super::source::Source;
use super::track_index::Index;

/// The first bytes of every EBML file.
pub(super) const FIRST_BYTES: [u8; 4] = EBML_HEADER.to_be_bytes();

const EBML_HEADER: Id = 0x1a45_dfa3;
const DOC_TYPE: Id = 0x4282;
const SEGMENT: Id = 0x1853_8067;
const INFO: Id = 0x1549_a966;
const TIMESTAMP_SCALE: Id = 0x2a_d7b1;
const TRACKS: Id = 0x1654_ae6b;
const CLUSTER: Id = 0x1f43_b675;
/// SeekHead, Cues, Chapters, Tags, Attachments, Void and CRC-32.
const SKIPPED: [Id; 7] =
    [0x114d_9b74, 0x1c53_bb6b, 0x1043_a770, 0x1254_c367, 0x1941_a469, 0xec, 0xbf];

/// Maximum size of the EBML header, Info and Tracks.
const MAX_ELEMENT_BYTES: usize = 1 << 20;

/// Remuxes samples of a Matroska file.
#[derive(Debug, Clone)]
struct MatroskaRemuxer {
    /// The EBML header.
    header: Vec<u8>,
    info: Vec<u8>,
    track: Vec<u8>,
    /// The blocks of the samples, in decoding order.
    blocks: Vec<Block>,
}

/// The index of a Matroska file; `None` for unsupported features.
pub(super) fn read(file: Source) -> Option<Index> {
    let length = file.length();
    let mut elements = Elements::of(file);
    let header = elements.at(0, length)?;
    let segment = elements.at(header.end, length)?;
    if header.id != EBML_HEADER || segment.id != SEGMENT || segment.end != length {
        return None;
    }
    let header = bytes_of(header, &mut elements)?;
    if !is_matroska(&header)? {
        return None;
    }
    let SegmentParts { info, track, frames } = SegmentParts::of(segment, &mut elements)?;
    let tick_ns = tick_ns(&info)?;
    let TrackFrames { samples, blocks, .. } = frames;
    let presentation_order = presentation_order(&samples)?;
    let fps = rate::frame_rate(track.step_ns)?;
    let times = presentation_order.iter().map(|position| samples[*position].pts);
    if !samples.first()?.is_key || !rate::is_constant(times, tick_ns, track.step_ns) {
        return None;
    }
    let remuxer = Arc::new(MatroskaRemuxer { header, info, track: track.entry, blocks });
    let (size, number, codec) = (track.size, track.index, track.codec);
    Some(Index { size, fps, track: number, samples, presentation_order, codec, remuxer })
}

/// The parsed parts of a segment.
struct SegmentParts {
    info: Vec<u8>,
    track: Track,
    frames: TrackFrames,
}

impl SegmentParts {
    fn of(segment: Element, elements: &mut Elements) -> Option<Self> {
        let (mut info, mut track, mut frames) = (None, None, None);
        let mut at = segment.body;
        while at < segment.end {
            let inner = elements.at(at, segment.end)?;
            match inner.id {
                INFO if info.is_none() => info = Some(bytes_of(inner, elements)?),
                TRACKS if track.is_none() => {
                    let bytes = elements.file.bytes(inner.body, inner.end, MAX_ELEMENT_BYTES)?;
                    let found = Track::of(&bytes)?;
                    frames = Some(TrackFrames::of(found.number));
                    track = Some(found);
                }
                CLUSTER => frames.as_mut()?.add(inner, elements)?,
                id if SKIPPED.contains(&id) => {}
                _ => return None,
            }
            at = inner.end;
        }
        Some(Self { info: info?, track: track?, frames: frames? })
    }
}

/// The bytes of a whole element.
fn bytes_of(element: Element, elements: &mut Elements) -> Option<Vec<u8>> {
    elements.file.bytes(element.start, element.end, MAX_ELEMENT_BYTES)
}

/// Whether the DocType is `matroska` or `webm`.
fn is_matroska(header: &[u8]) -> Option<bool> {
    let kind = at_most_one(&split(split(header)?.first()?.body)?, DOC_TYPE)??;
    Some(kind == b"matroska" || kind == b"webm")
}

/// The timestamp scale in nanoseconds.
fn tick_ns(info: &[u8]) -> Option<u64> {
    let parts = split(split(info)?.first()?.body)?;
    uint(&parts, TIMESTAMP_SCALE, 1_000_000).filter(|tick| *tick > 0)
}

impl Remuxer for MatroskaRemuxer {
    fn format(&self) -> &'static str {
        "matroska"
    }

    fn parts(&self, _: &[Sample], positions: &[usize]) -> Vec<ExcerptPart> {
        let mut clusters = Vec::new();
        let blocks: Vec<Block> = positions.iter().map(|position| self.blocks[*position]).collect();
        for cluster in blocks.chunk_by(|one, next| one.cluster == next.cluster) {
            let mut time = Vec::new();
            write(TIMESTAMP, &cluster[0].cluster.to_be_bytes(), &mut time);
            let bytes: u64 = cluster.iter().map(|block| block.length).sum();
            let mut header = Vec::new();
            write_header(CLUSTER, time.len() as u64 + bytes, &mut header);
            header.extend(time);
            ExcerptPart::add_bytes(&mut clusters, &header);
            for block in cluster {
                ExcerptPart::add_range(&mut clusters, block.offset, block.length);
            }
        }
        let mut tracks = Vec::new();
        write(TRACKS, &self.track, &mut tracks);
        let bytes: u64 = clusters.iter().map(ExcerptPart::length).sum();
        let mut header = self.header.clone();
        write_header(SEGMENT, (self.info.len() + tracks.len()) as u64 + bytes, &mut header);
        header.extend(&self.info);
        header.extend(tracks);
        clusters.insert(0, ExcerptPart::Bytes(header));
        clusters
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;

    fn element(id: Id, parts: &[&[u8]]) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(id, &parts.concat(), &mut bytes);
        bytes
    }

    /// A block's body: track, timestamp, flags and a VP8 frame.
    fn block(track: u8, time: u8, flags: u8) -> Vec<u8> {
        let is_other = u8::from(flags & 0x80 == 0);
        vec![0x80 | track, 0, time, flags, 0x10 | is_other, 7, 7]
    }

    /// A file of 2 clusters of 4 frames at 25 fps, interleaved with another track; the second cluster has
    /// block groups.
    fn file() -> Vec<u8> {
        let header = element(EBML_HEADER, &[&element(DOC_TYPE, &[b"webm"])]);
        let info = element(INFO, &[&element(TIMESTAMP_SCALE, &[&[0x0f, 0x42, 0x40]])]);
        let video = [element(0xb0, &[&[64]]), element(0xba, &[&[48]])].concat();
        let step = element(0x23_e383, &[&[2, 0x62, 0x5a, 0]]);
        let track = |number: u8, kind: u8| {
            let (number, kind) = (element(0xd7, &[&[number]]), element(0x83, &[&[kind]]));
            let codec = element(0x86, &[b"V_VP8"]);
            element(0xae, &[&number, &kind, &codec, &step, &element(0xe0, &[&video])])
        };
        let tracks = element(TRACKS, &[&track(1, 1), &track(2, 2)]);
        let simple = |track, time, flags| element(0xa3, &[&block(track, time, flags)]);
        let grouped =
            |time, parts: &[u8]| element(0xa0, &[&element(0xa1, &[&block(1, time, 0)]), parts]);
        let first = [
            element(TIMESTAMP, &[&[0]]),
            simple(1, 0, 0x80),
            simple(2, 0, 0x80),
            simple(1, 40, 0),
            simple(1, 80, 0),
            simple(1, 120, 0),
        ];
        let reference = element(0xfb, &[&[0xd8]]);
        let second = [
            element(TIMESTAMP, &[&[160]]),
            grouped(0, &[]),
            grouped(40, &reference),
            simple(2, 40, 0x80),
            grouped(80, &reference),
            grouped(120, &reference),
        ];
        let clusters =
            [element(CLUSTER, &[&first.concat()]), element(CLUSTER, &[&second.concat()])];
        let segment = [info, tracks, element(0xec, &[&[0; 9]]), clusters.concat()];
        [header, element(SEGMENT, &[&segment.concat()])].concat()
    }

    fn index_of(bytes: &[u8], path: &Path) -> Option<Index> {
        std::fs::write(path, bytes).unwrap();
        crate::index::read(path)
    }

    #[test]
    fn simple_blocks_and_block_groups_are_parsed() {
        let folder = tempfile::tempdir().unwrap();
        let file = file();
        let index = index_of(&file, &folder.path().join("a.webm")).unwrap();
        assert_eq!((index.size, index.fps, index.track), ((64, 48), (25, 1), 0));
        let pts: Vec<i64> = index.samples.iter().map(|sample| sample.pts).collect();
        assert_eq!(pts, [0, 40, 80, 120, 160, 200, 240, 280]);
        let keys: Vec<bool> = index.samples.iter().map(|sample| sample.is_key).collect();
        assert_eq!(keys, [true, false, false, false, true, false, false, false]);
        for Sample { offset, size, .. } in index.samples {
            assert_eq!(size, 3);
            assert_eq!(file[offset as usize + 1..offset as usize + 3], [7, 7]);
        }
    }

    #[test]
    fn a_truncated_or_extended_file_has_no_index() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.webm");
        let file = file();
        for end in 0..file.len() {
            assert!(index_of(&file[..end], &path).is_none(), "{end}");
        }
        assert!(index_of(&[file, vec![0xec, 0x80]].concat(), &path).is_none());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        #[test]
        fn samples_of_a_corrupt_file_lie_within_it(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
            is_widened in any::<bool>(),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("a.webm");
            let mut bytes = file();
            for (position, byte) in changes {
                let position = position.index(bytes.len());
                match is_widened {
                    true => bytes[position] |= byte,
                    false => bytes[position] = byte,
                }
            }
            if let Some(index) = index_of(&bytes, &path) {
                let length = bytes.len() as u64;
                for sample in &index.samples {
                    prop_assert!(sample.offset + u64::from(sample.size) <= length);
                }
                let mut order = index.presentation_order.clone();
                order.sort_unstable();
                prop_assert!(order.into_iter().eq(0..index.frames()));
                if let Some(excerpt) = index.excerpt(&path, &[0, index.frames() - 1]) {
                    let mut out = Vec::new();
                    excerpt.write_to(&path, &mut out).unwrap();
                    prop_assert!(out.len() < bytes.len() + 200);
                }
            }
        }
    }
}
