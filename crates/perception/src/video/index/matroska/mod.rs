//! The index of a Matroska or WebM file (RFC 9559), and a shorter one.
//!
//! The file's own index names key frames alone, so all blocks are passed over, each by its head.

mod clusters;
mod elements;
mod rate;
mod track;

use clusters::{Block, Frames, TIMESTAMP};
use elements::{Element, Elements, Id, at_most_one, number, split, write, write_head};
use track::Track;

use super::excerpt::Part;
use super::source::Source;
use super::{Container, Index, order_shown};

/// How every such file begins.
pub(super) const FIRST_BYTES: [u8; 4] = FILE_HEAD.to_be_bytes();

const FILE_HEAD: Id = 0x1a45_dfa3;
const KIND_OF_FILE: Id = 0x4282;
const SEGMENT: Id = 0x1853_8067;
const INFO: Id = 0x1549_a966;
const TICK_NS: Id = 0x2a_d7b1;
const TRACKS: Id = 0x1654_ae6b;
const CLUSTER: Id = 0x1f43_b675;
/// Lists of places, chapters, tags, attachments, padding and checksums.
const PASSED_OVER: [Id; 7] =
    [0x114d_9b74, 0x1c53_bb6b, 0x1043_a770, 0x1254_c367, 0x1941_a469, 0xec, 0xbf];

/// Bytes of a file's head, of its description and of its tracks' at most.
const MOST_BYTES: usize = 1 << 20;

/// What a shorter file needs beside the samples.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    /// The elements before the tracks.
    head: Vec<u8>,
    info: Vec<u8>,
    track: Vec<u8>,
    /// Those of the samples, in the order of decoding.
    blocks: Vec<Block>,
}

/// The index of a Matroska file; `None` where anything about it is unusual.
pub(super) fn read(file: Source) -> Option<Index> {
    let length = file.length();
    let mut elements = Elements::of(file);
    let head = elements.at(0, length)?;
    let segment = elements.at(head.end, length)?;
    if head.id != FILE_HEAD || segment.id != SEGMENT || segment.end != length {
        return None;
    }
    let head = bytes_of(head, &mut elements)?;
    if !is_known(&head)? {
        return None;
    }
    let Parts { info, track, frames } = Parts::of(segment, &mut elements)?;
    let tick_ns = tick_ns(&info)?;
    let Frames { samples, blocks, .. } = frames;
    let shown = order_shown(&samples)?;
    let fps = rate::stated(track.step_ns)?;
    let times = shown.iter().map(|place| samples[*place].shown);
    if !samples.first()?.is_key || !rate::is_kept(times, tick_ns, track.step_ns) {
        return None;
    }
    let layout = Layout { head, info, track: track.entry, blocks };
    let (size, number, codec) = (track.size, track.place, track.codec);
    let container = Container::Matroska(layout);
    Some(Index { size, fps, track: number, samples, shown, codec, container })
}

/// What is read of a segment.
struct Parts {
    info: Vec<u8>,
    track: Track,
    frames: Frames,
}

impl Parts {
    fn of(segment: Element, elements: &mut Elements) -> Option<Self> {
        let (mut info, mut track, mut frames) = (None, None, None);
        let mut at = segment.body;
        while at < segment.end {
            let inner = elements.at(at, segment.end)?;
            match inner.id {
                INFO if info.is_none() => info = Some(bytes_of(inner, elements)?),
                TRACKS if track.is_none() => {
                    let bytes = elements.file.bytes(inner.body, inner.end, MOST_BYTES)?;
                    let found = Track::of(&bytes)?;
                    frames = Some(Frames::of(found.number));
                    track = Some(found);
                }
                CLUSTER => frames.as_mut()?.add(inner, elements)?,
                id if PASSED_OVER.contains(&id) => {}
                _ => return None,
            }
            at = inner.end;
        }
        Some(Self { info: info?, track: track?, frames: frames? })
    }
}

/// A whole element.
fn bytes_of(element: Element, elements: &mut Elements) -> Option<Vec<u8>> {
    elements.file.bytes(element.start, element.end, MOST_BYTES)
}

/// Whether a file's head tells of one of the two kinds.
fn is_known(head: &[u8]) -> Option<bool> {
    let kind = at_most_one(&split(split(head)?.first()?.body)?, KIND_OF_FILE)??;
    Some(kind == b"matroska" || kind == b"webm")
}

/// Nanoseconds to a unit of time.
fn tick_ns(info: &[u8]) -> Option<u64> {
    let parts = split(split(info)?.first()?.body)?;
    number(&parts, TICK_NS, 1_000_000).filter(|tick| *tick > 0)
}

impl Layout {
    /// The parts of a file with the samples at the ascending `places` alone.
    pub(super) fn parts(&self, places: &[usize]) -> Vec<Part> {
        let mut clusters = Vec::new();
        let blocks: Vec<Block> = places.iter().map(|place| self.blocks[*place]).collect();
        for cluster in blocks.chunk_by(|one, next| one.cluster == next.cluster) {
            let mut time = Vec::new();
            write(TIMESTAMP, &cluster[0].cluster.to_be_bytes(), &mut time);
            let bytes: u64 = cluster.iter().map(|block| block.length).sum();
            let mut head = Vec::new();
            write_head(CLUSTER, time.len() as u64 + bytes, &mut head);
            head.extend(time);
            Part::add_bytes(&mut clusters, &head);
            for block in cluster {
                Part::add_range(&mut clusters, block.offset, block.length);
            }
        }
        let mut tracks = Vec::new();
        write(TRACKS, &self.track, &mut tracks);
        let bytes: u64 = clusters.iter().map(Part::length).sum();
        let mut head = self.head.clone();
        write_head(SEGMENT, (self.info.len() + tracks.len()) as u64 + bytes, &mut head);
        head.extend(&self.info);
        head.extend(tracks);
        clusters.insert(0, Part::Bytes(head));
        clusters
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::super::Sample;
    use super::*;

    fn element(id: Id, parts: &[&[u8]]) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(id, &parts.concat(), &mut bytes);
        bytes
    }

    /// A block's body: its track, its time and flags, and a frame of VP8.
    fn block(track: u8, time: u8, flags: u8) -> Vec<u8> {
        let is_other = u8::from(flags & 0x80 == 0);
        vec![0x80 | track, 0, time, flags, 0x10 | is_other, 7, 7]
    }

    /// A file of 2 clusters of 4 frames at 25 a second, with another track between; the second cluster
    /// has groups.
    fn file() -> Vec<u8> {
        let head = element(FILE_HEAD, &[&element(KIND_OF_FILE, &[b"webm"])]);
        let info = element(INFO, &[&element(TICK_NS, &[&[0x0f, 0x42, 0x40]])]);
        let picture = [element(0xb0, &[&[64]]), element(0xba, &[&[48]])].concat();
        let step = element(0x23_e383, &[&[2, 0x62, 0x5a, 0]]);
        let track = |number: u8, kind: u8| {
            let (number, kind) = (element(0xd7, &[&[number]]), element(0x83, &[&[kind]]));
            let codec = element(0x86, &[b"V_VP8"]);
            element(0xae, &[&number, &kind, &codec, &step, &element(0xe0, &[&picture])])
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
        [head, element(SEGMENT, &[&segment.concat()])].concat()
    }

    fn index_of(bytes: &[u8], path: &Path) -> Option<Index> {
        std::fs::write(path, bytes).unwrap();
        Index::read(path)
    }

    #[test]
    fn simple_blocks_and_groups_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let file = file();
        let index = index_of(&file, &folder.path().join("a.webm")).unwrap();
        assert_eq!((index.size, index.fps, index.track), ((64, 48), (25, 1), 0));
        let shown: Vec<i64> = index.samples.iter().map(|sample| sample.shown).collect();
        assert_eq!(shown, [0, 40, 80, 120, 160, 200, 240, 280]);
        let keys: Vec<bool> = index.samples.iter().map(|sample| sample.is_key).collect();
        assert_eq!(keys, [true, false, false, false, true, false, false, false]);
        for Sample { offset, size, .. } in index.samples {
            assert_eq!(size, 3);
            assert_eq!(file[offset as usize + 1..offset as usize + 3], [7, 7]);
        }
    }

    #[test]
    fn a_file_that_ends_early_or_goes_on_has_no_index() {
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
        fn what_is_read_of_a_broken_file_lies_within_it(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
            is_widened in any::<bool>(),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("a.webm");
            let mut bytes = file();
            for (place, byte) in changes {
                let place = place.index(bytes.len());
                match is_widened {
                    true => bytes[place] |= byte,
                    false => bytes[place] = byte,
                }
            }
            if let Some(index) = index_of(&bytes, &path) {
                let length = bytes.len() as u64;
                for sample in &index.samples {
                    prop_assert!(sample.offset + u64::from(sample.size) <= length);
                }
                let mut order = index.shown.clone();
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
