//! The frames of a track in the clusters of a file.

use super::super::sample::{MAX_SAMPLES, Sample};
use super::elements::{Element, Elements, Id, parse_uint, vint};

pub(super) const TIMESTAMP: Id = 0xe7;
const SIMPLE_BLOCK: Id = 0xa3;
const BLOCK_GROUP: Id = 0xa0;
const BLOCK: Id = 0xa1;
const REFERENCE_BLOCK: Id = 0xfb;
const ENCRYPTED_BLOCK: Id = 0xaf;
/// Position, PrevSize, Void and CRC-32.
const SKIPPED: [Id; 4] = [0xa7, 0xab, 0xec, 0xbf];

/// Maximum size of a block's header: track number, timestamp and flags.
const MAX_HEADER_BYTES: u64 = 8 + 3;

/// A frame's block, which an excerpt copies unchanged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Block {
    pub(super) offset: u64,
    pub(super) length: u64,
    /// The cluster's timestamp, to which the block's is relative.
    pub(super) cluster: u64,
}

/// The frames of one track.
#[derive(Debug)]
pub(super) struct TrackFrames {
    track: u64,
    pub(super) samples: Vec<Sample>,
    pub(super) blocks: Vec<Block>,
}

impl TrackFrames {
    pub(super) fn of(track: u64) -> Self {
        Self { track, samples: Vec::new(), blocks: Vec::new() }
    }

    /// Adds the track's frames in a cluster; `None` for unsupported features.
    pub(super) fn add(&mut self, cluster: Element, elements: &mut Elements) -> Option<()> {
        let mut time = None;
        let mut at = cluster.body;
        while at < cluster.end {
            let inner = elements.at(at, cluster.end)?;
            match inner.id {
                TIMESTAMP if time.is_none() => {
                    time = Some(parse_uint(&elements.file.bytes(inner.body, inner.end, 8)?)?);
                }
                SIMPLE_BLOCK => self.add_block(inner, inner, None, time?, elements)?,
                BLOCK_GROUP => self.add_group(inner, time?, elements)?,
                id if SKIPPED.contains(&id) => {}
                _ => return None,
            }
            at = inner.end;
        }
        Some(())
    }

    /// Adds the block of a block group, which is a key frame if it references no other.
    fn add_group(&mut self, group: Element, time: u64, elements: &mut Elements) -> Option<()> {
        let (mut block, mut refers) = (None, false);
        let mut at = group.body;
        while at < group.end {
            let inner = elements.at(at, group.end)?;
            match inner.id {
                BLOCK if block.is_none() => block = Some(inner),
                BLOCK | ENCRYPTED_BLOCK => return None,
                REFERENCE_BLOCK => refers = true,
                _ => {}
            }
            at = inner.end;
        }
        self.add_block(block?, group, Some(!refers), time, elements)
    }

    /// Adds a block if it belongs to the track. `whole` is its element; without `is_key` the block's flags
    /// decide.
    fn add_block(
        &mut self,
        block: Element,
        whole: Element,
        is_key: Option<bool>,
        time: u64,
        elements: &mut Elements,
    ) -> Option<()> {
        let header_end = block.end.min(block.body + MAX_HEADER_BYTES);
        let header = elements.file.bytes(block.body, header_end, MAX_HEADER_BYTES as usize)?;
        let (track, number_bytes) = vint(&header)?;
        if track != self.track {
            return Some(());
        }
        let [high, low, flags] = *header.get(number_bytes..)?.first_chunk()?;
        let pts = i64::try_from(time).ok()?.checked_add(i16::from_be_bytes([high, low]).into())?;
        let offset = block.body + number_bytes as u64 + 3;
        let size = u32::try_from(block.end - offset).ok()?;
        // Lacing: several frames in one block share a timestamp.
        let is_laced = flags & 6 != 0;
        if is_laced || pts < 0 || size == 0 || self.samples.len() == MAX_SAMPLES {
            return None;
        }
        let is_key = is_key.unwrap_or(flags & 0x80 != 0);
        self.samples.push(Sample { offset, size, pts, is_key });
        let length = whole.end - whole.start;
        self.blocks.push(Block { offset: whole.start, length, cluster: time });
        Some(())
    }
}
