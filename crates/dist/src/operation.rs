//! What ranks do together, and what they tell each other about it before they begin.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How numbers of several ranks become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Reduce {
    /// Their sum, added up in the order of the ranks.
    Sum,
    /// The greatest.
    Max,
    /// The least.
    Min,
}

/// A kind of collective operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Operation {
    /// Nobody goes on before everybody is here.
    Barrier,
    /// `f32` numbers of all ranks become one, on every rank.
    AllReduce(Reduce),
    /// `f64` numbers of all ranks become one, on every rank.
    AllReduceF64(Reduce),
    /// Sums of all ranks' numbers, a part of them on each.
    ReduceScatter,
    /// Numbers of all ranks, end to end.
    AllGather,
    /// One rank's numbers for all.
    Broadcast,
    /// Bytes of all ranks, by rank.
    AllGatherBytes,
    /// A piece from every rank for every other.
    AllToAllBytes,
    /// One rank's bytes for all.
    BroadcastBytes,
    /// The agreement that all work is done.
    Finish,
    /// The ranks divide into parts.
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

    /// Whether every rank must give as much as every other.
    fn wants_equal_lengths(self) -> bool {
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

/// A rank's collective call: the how-manieth it is, what it does, and with how much.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Call {
    /// The how-manieth collective call of this rank, from 1.
    pub sequence: u64,
    /// What is called.
    pub operation: Operation,
    /// Numbers or bytes that this rank gives: the longest piece, for an all-to-all.
    pub length: u64,
    /// Whose data are handed round; 0 where nobody's are.
    pub root: u64,
}

impl Call {
    /// Bytes of [`Call::to_bytes`].
    pub(crate) const SIZE: usize = 32;

    pub(crate) fn to_bytes(self) -> [u8; Self::SIZE] {
        let fields = [self.sequence, self.operation.code(), self.length, self.root];
        let mut bytes = [0; Self::SIZE];
        for (place, field) in bytes.chunks_exact_mut(8).zip(fields) {
            place.copy_from_slice(&field.to_le_bytes());
        }
        bytes
    }

    /// The call in the first [`Call::SIZE`] bytes; `None` for anything that is none.
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

    /// Whether two ranks that call these are doing the same.
    pub(crate) fn agrees_with(&self, other: &Self) -> bool {
        let lengths = !self.operation.wants_equal_lengths() || self.length == other.length;
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
    fn a_call_comes_back_from_its_bytes() {
        for operation in Operation::ALL {
            let call = call(operation, u64::MAX);
            assert_eq!(Call::from_bytes(&call.to_bytes()), Some(call));
        }
    }

    #[test]
    fn bytes_of_no_call_are_none() {
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
    fn a_call_says_what_it_does() {
        let sum = Operation::AllReduce(Reduce::Sum);
        assert_eq!(call(sum, 3).to_string(), "all-reduce (sum) of length 3 (call 7)");
        let broadcast = call(Operation::Broadcast, 3);
        assert_eq!(broadcast.to_string(), "broadcast of length 3 from rank 2 (call 7)");
    }
}
