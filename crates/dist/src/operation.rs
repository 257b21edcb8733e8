//! Collective operations, and the call header that ranks exchange before each.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The group that a call belongs to; calls of one group are ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GroupKind {
    /// All ranks.
    World,
    /// This rank's subgroup.
    Subgroup,
}

/// A reduction over ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Reduce {
    /// The sum, accumulated in rank order.
    Sum,
    /// The maximum.
    Max,
    /// The minimum.
    Min,
}

/// A kind of collective operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Operation {
    /// Waits until every rank has entered it.
    Barrier,
    /// All-reduce of `f32`.
    AllReduce(Reduce),
    /// All-reduce of `f64`.
    AllReduceF64(Reduce),
    /// Reduce-scatter (sum) of `f32`.
    ReduceScatter,
    /// All-gather of `f32`.
    AllGather,
    /// Broadcast of `f32`.
    Broadcast,
    /// All-gather of bytes, of any length per rank.
    AllGatherBytes,
    /// All-to-all of bytes.
    AllToAllBytes,
    /// Broadcast of bytes.
    BroadcastBytes,
    /// The end of the job.
    Finish,
    /// The split into subgroups.
    Split,
}

impl Operation {
    const ALL: [Self; 15] = [
        Self::Barrier,
        Self::AllReduce(Reduce::Sum),
        Self::AllReduce(Reduce::Max),
        Self::AllReduce(Reduce::Min),
        Self::AllReduceF64(Reduce::Sum),
        Self::AllReduceF64(Reduce::Max),
        Self::AllReduceF64(Reduce::Min),
        Self::ReduceScatter,
        Self::AllGather,
        Self::Broadcast,
        Self::AllGatherBytes,
        Self::AllToAllBytes,
        Self::BroadcastBytes,
        Self::Finish,
        Self::Split,
    ];

    fn code(self) -> u64 {
        Self::ALL.iter().position(|&operation| operation == self).unwrap_or_default() as u64
    }

    fn from_code(code: u64) -> Option<Self> {
        Self::ALL.get(usize::try_from(code).ok()?).copied()
    }

    /// Whether all ranks must pass the same length.
    fn requires_equal_lengths(self) -> bool {
        !matches!(self, Self::AllGatherBytes | Self::AllToAllBytes | Self::BroadcastBytes)
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, reduce) = match self {
            Self::Barrier => ("barrier", None),
            Self::AllReduce(reduce) => ("all-reduce", Some(reduce)),
            Self::AllReduceF64(reduce) => ("all-reduce of f64", Some(reduce)),
            Self::ReduceScatter => ("reduce-scatter", None),
            Self::AllGather => ("all-gather", None),
            Self::Broadcast => ("broadcast", None),
            Self::AllGatherBytes => ("all-gather of bytes", None),
            Self::AllToAllBytes => ("all-to-all of bytes", None),
            Self::BroadcastBytes => ("broadcast of bytes", None),
            Self::Finish => ("finish", None),
            Self::Split => ("split", None),
        };
        f.write_str(name)?;
        match reduce {
            Some(reduce) => write!(f, " ({})", format!("{reduce:?}").to_lowercase()),
            None => Ok(()),
        }
    }
}

/// A rank's collective call: its sequence number, operation, length and root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Call {
    /// The sequence number of this rank's collective calls, from 1.
    pub sequence: u64,
    /// The operation.
    pub operation: Operation,
    /// Elements or bytes that this rank contributes; the longest piece for an all-to-all.
    pub length: u64,
    /// The root of a broadcast, else 0.
    pub root: u64,
}

impl Call {
    /// The length of [`Call::to_bytes`].
    pub(crate) const SIZE: usize = 32;

    pub(crate) fn to_bytes(self) -> [u8; Self::SIZE] {
        let fields = [self.sequence, self.operation.code(), self.length, self.root];
        let mut bytes = [0; Self::SIZE];
        for (chunk, field) in bytes.chunks_exact_mut(8).zip(fields) {
            chunk.copy_from_slice(&field.to_le_bytes());
        }
        bytes
    }

    /// The call encoded in the first [`Call::SIZE`] bytes; `None` if they are invalid.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut fields =
            bytes.chunks_exact(8).map(|field| field.try_into().map(u64::from_le_bytes));
        let mut next = || fields.next()?.ok();
        Some(Self {
            sequence: next()?,
            operation: Operation::from_code(next()?)?,
            length: next()?,
            root: next()?,
        })
    }

    /// Whether two ranks' calls match.
    pub(crate) fn agrees_with(&self, other: &Self) -> bool {
        let lengths = !self.operation.requires_equal_lengths() || self.length == other.length;
        self.sequence == other.sequence
            && self.operation == other.operation
            && self.root == other.root
            && lengths
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of length {}", self.operation, self.length)?;
        if matches!(self.operation, Operation::Broadcast | Operation::BroadcastBytes) {
            write!(f, " from rank {}", self.root)?;
        }
        write!(f, " (call {})", self.sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(operation: Operation, length: u64) -> Call {
        Call { sequence: 7, operation, length, root: 2 }
    }

    #[test]
    fn a_call_round_trips_through_bytes() {
        for operation in Operation::ALL {
            let call = call(operation, u64::MAX);
            assert_eq!(Call::from_bytes(&call.to_bytes()), Some(call));
        }
    }

    #[test]
    fn invalid_bytes_are_not_a_call() {
        assert_eq!(Call::from_bytes(&[0xff; Call::SIZE]), None);
        assert_eq!(Call::from_bytes(&[0; 8]), None);
    }

    #[test]
    fn lengths_must_agree_for_numbers_and_may_differ_for_bytes() {
        let sum = Operation::AllReduce(Reduce::Sum);
        assert!(!call(sum, 3).agrees_with(&call(sum, 4)));
        let bytes = Operation::AllGatherBytes;
        assert!(call(bytes, 3).agrees_with(&call(bytes, 4)));
    }

    #[test]
    fn a_call_displays_operation_length_and_root() {
        let sum = Operation::AllReduce(Reduce::Sum);
        assert_eq!(call(sum, 3).to_string(), "all-reduce (sum) of length 3 (call 7)");
        let broadcast = call(Operation::Broadcast, 3);
        assert_eq!(broadcast.to_string(), "broadcast of length 3 from rank 2 (call 7)");
    }
}
