//! Where the frames of a track lie in the clusters of a file.

use super::super::{MOST_SAMPLES, Sample};
use super::elements::{Element, Elements, Id, length, unsigned};

pub(super) const TIMESTAMP: Id = 0xe7;
const SIMPLE_BLOCK: Id = 0xa3;
const BLOCK_GROUP: Id = 0xa0;
const BLOCK: Id = 0xa1;
const REFERENCE: Id = 0xfb;
const ENCRYPTED_BLOCK: Id = 0xaf;
/// Position and size of clusters, padding and checksums.
const PASSED_OVER: [Id; 4] = [0xa7, 0xab, 0xec, 0xbf];

/// Bytes before a block's frame at most: the track's number, a time and flags.
const MOST_HEAD_BYTES: u64 = 8 + 3;

/// A frame's element, which a shorter file takes over as it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Block {
    pub(super) offset: u64,
    pub(super) length: u64,
    /// The time of its cluster, to which its own is relative.
    pub(super) cluster: u64,
}

/// The frames of one track.
#[derive(Debug)]
pub(super) struct Frames {
    track: u64,
    pub(super) samples: Vec<Sample>,
    pub(super) blocks: Vec<Block>,
}

impl Frames {
    pub(super) fn of(track: u64) -> Self {
        Self { track, samples: Vec::new(), blocks: Vec::new() }
    }

    /// Adds the track's frames in a cluster; `None` where anything about the cluster is unusual.
    pub(super) fn add(&mut self, cluster: Element, elements: &mut Elements) -> Option<()> {
        let mut time = None;
        let mut at = cluster.body;
        while at < cluster.end {
            let inner = elements.at(at, cluster.end)?;
            match inner.id {
                TIMESTAMP if time.is_none() => {
                    time = Some(unsigned(&elements.file.bytes(inner.body, inner.end, 8)?)?);
                }
                SIMPLE_BLOCK => self.add_block(inner, inner, None, time?, elements)?,
                BLOCK_GROUP => self.add_group(inner, time?, elements)?,
                id if PASSED_OVER.contains(&id) => {}
                _ => return None,
            }
            at = inner.end;
        }
        Some(())
    }

    /// Adds the block of a group, which is a key frame where it refers to no other.
    fn add_group(&mut self, group: Element, time: u64, elements: &mut Elements) -> Option<()> {
        let (mut block, mut refers) = (None, false);
        let mut at = group.body;
        while at < group.end {
            let inner = elements.at(at, group.end)?;
            match inner.id {
                BLOCK if block.is_none() => block = Some(inner),
                BLOCK | ENCRYPTED_BLOCK => return None,
                REFERENCE => refers = true,
                _ => {}
            }
            at = inner.end;
        }
        self.add_block(block?, group, Some(!refers), time, elements)
    }

    /// Adds a block that is of the track. `whole` is its element, `is_key` is told by its flags where
    /// nothing else tells it.
    fn add_block(
        &mut self,
        block: Element,
        whole: Element,
        is_key: Option<bool>,
        time: u64,
        elements: &mut Elements,
    ) -> Option<()> {
        let head_end = block.end.min(block.body + MOST_HEAD_BYTES);
        let head = elements.file.bytes(block.body, head_end, MOST_HEAD_BYTES as usize)?;
        let (track, number_bytes) = length(&head)?;
        if track != self.track {
            return Some(());
        }
        let [high, low, flags] = *head.get(number_bytes..)?.first_chunk()?;
        let shown =
            i64::try_from(time).ok()?.checked_add(i16::from_be_bytes([high, low]).into())?;
        let offset = block.body + number_bytes as u64 + 3;
        let size = u32::try_from(block.end - offset).ok()?;
        // Several frames in one block share a time.
        let is_laced = flags & 6 != 0;
        if is_laced || shown < 0 || size == 0 || self.samples.len() == MOST_SAMPLES {
            return None;
        }
        let is_key = is_key.unwrap_or(flags & 0x80 != 0);
        self.samples.push(Sample { offset, size, shown, is_key });
        let length = whole.end - whole.start;
        self.blocks.push(Block { offset: whole.start, length, cluster: time });
        Some(())
    }
}
