//! The shard of each tensor on a rank.

use std::ops::Range;

use embodied_r_kernels::attention::Heads;

use crate::config::ModelConfig;
use crate::error::{Error, Result};
use crate::layer::Size;
use crate::tensors::Place;

/// A slice of a tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TensorSlice {
    /// The whole tensor.
    Whole,
    /// Rows of a matrix, or elements of a vector.
    Rows(Range<usize>),
    /// Columns of a matrix.
    Columns(Range<usize>),
}

/// A rank's shard of a decoder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shard {
    /// Its attention heads.
    pub(crate) heads: Heads,
    /// Outputs of the query projection.
    queries: Range<usize>,
    /// Outputs of the key and value projections.
    keys: Range<usize>,
    /// Hidden units of the MLP.
    inner: Range<usize>,
    /// Each rank's range of the vocabulary.
    pub(crate) vocabulary: Vec<Range<usize>>,
    rank: usize,
    is_whole: bool,
}

impl Shard {
    /// The shard of one of `count` ranks. The MLP is split at multiples of `block`. With more ranks than key/value
    /// heads, these are replicated.
    ///
    /// # Errors
    /// [`Error::ShardSize`] with the size that does not divide.
    pub(crate) fn new(
        config: &ModelConfig,
        (rank, count): (usize, usize),
        block: usize,
    ) -> Result<Self> {
        let rejected =
            |field, found, want: String| Err(Error::ShardSize { field, found, ranks: count, want });
        let (query, kv) = (config.num_attention_heads, config.num_key_value_heads);
        if !query.is_multiple_of(count) {
            return rejected("num_attention_heads", query, "a multiple of the ranks".into());
        }
        if !kv.is_multiple_of(count) && !count.is_multiple_of(kv) {
            let want = "a multiple or a divisor of the ranks";
            return rejected("num_key_value_heads", kv, want.into());
        }
        let blocks = config.intermediate_size.div_ceil(block);
        if blocks < count {
            let want = format!("at least {block} per rank");
            return rejected("intermediate_size", config.intermediate_size, want);
        }
        if config.vocab_size < count {
            return rejected("vocab_size", config.vocab_size, "at least one token per rank".into());
        }
        let dim = config.head_dim;
        let heads = Heads { query: query / count, kv: (kv / count).max(1), dim };
        let first_kv = rank * kv / count;
        let inner = partition(blocks, rank, count);
        Ok(Self {
            queries: rank * heads.query * dim..(rank + 1) * heads.query * dim,
            keys: first_kv * dim..(first_kv + heads.kv) * dim,
            inner: inner.start * block..(inner.end * block).min(config.intermediate_size),
            vocabulary: (0..count).map(|rank| partition(config.vocab_size, rank, count)).collect(),
            heads,
            rank,
            is_whole: count == 1,
        })
    }

    /// The slice of the tensor of a canonical name on this rank.
    pub(crate) fn of(&self, name: &str) -> TensorSlice {
        if self.is_whole {
            return TensorSlice::Whole;
        }
        let sizes = Place::of(name).map(Place::sizes).unwrap_or_default();
        match sizes[..] {
            [outputs, ..] if outputs.is_sharded() => TensorSlice::Rows(self.range(outputs)),
            [_, inputs] if inputs.is_sharded() => TensorSlice::Columns(self.range(inputs)),
            _ => TensorSlice::Whole,
        }
    }

    /// This rank's part of a sharded size.
    fn range(&self, size: Size) -> Range<usize> {
        match size {
            Size::Queries => self.queries.clone(),
            Size::Keys => self.keys.clone(),
            Size::Inner => self.inner.clone(),
            _ => self.vocabulary_range(),
        }
    }

    /// Hidden units of the MLP on this rank.
    pub(crate) fn inner_size(&self) -> usize {
        self.inner.len()
    }

    /// This rank's range of the vocabulary.
    pub(crate) fn vocabulary_range(&self) -> Range<usize> {
        self.vocabulary[self.rank].clone()
    }
}

/// One of `ranks` partitions of `total` items, whose sizes differ by at most one.
fn partition(total: usize, rank: usize, ranks: usize) -> Range<usize> {
    total * rank / ranks..total * (rank + 1) / ranks
}
