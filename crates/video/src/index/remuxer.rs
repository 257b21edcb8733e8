//! Writing files of the same container with some of the samples.

use std::fmt::Debug;

use super::sample::Sample;

/// Remuxes samples into a file of the same container.
pub(super) trait Remuxer: Debug + Send + Sync {
    /// FFmpeg's name of the container format.
    fn format(&self) -> &'static str;

    /// The parts of a file with only the samples at the ascending `positions`.
    fn parts(&self, samples: &[Sample], positions: &[usize]) -> Vec<ExcerptPart>;
}

/// A part of an excerpt.
#[derive(Debug, Clone)]
pub(super) enum ExcerptPart {
    /// New bytes.
    Bytes(Vec<u8>),
    /// A byte range of the original file: offset and length.
    Range(u64, u64),
}

impl ExcerptPart {
    /// Appends bytes.
    pub(super) fn add_bytes(parts: &mut Vec<Self>, bytes: &[u8]) {
        match parts.last_mut() {
            Some(Self::Bytes(last)) => last.extend(bytes),
            _ => parts.push(Self::Bytes(bytes.to_vec())),
        }
    }

    /// Appends a byte range of the original file.
    pub(super) fn add_range(parts: &mut Vec<Self>, offset: u64, length: u64) {
        match parts.last_mut() {
            Some(Self::Range(at, last)) if *at + *last == offset => *last += length,
            _ => parts.push(Self::Range(offset, length)),
        }
    }

    /// The length in bytes.
    pub(super) fn length(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Range(_, length) => *length,
        }
    }
}
