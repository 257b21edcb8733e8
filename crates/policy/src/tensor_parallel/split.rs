//! Which part of each tensor a rank holds.

use std::ops::Range;

use embodied_r_kernels::attention::Heads;

use crate::config::ModelConfig;
use crate::error::{Error, Result};

/// What of a tensor is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Slice {
    /// All of it.
    Whole,
    /// Some rows of a matrix, or numbers of a vector.
    Rows(Range<usize>),
    /// Some columns of a matrix.
    Columns(Range<usize>),
}

/// A rank's parts of a decoder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Split {
    /// Its attention heads.
    pub(crate) heads: Heads,
    /// Outputs of the queries' product.
    queries: Range<usize>,
    /// Outputs of the keys' and of the values' product.
    keys: Range<usize>,
    /// The gated layer's inner numbers.
    inner: Range<usize>,
    /// Each rank's tokens of the vocabulary.
    pub(crate) vocabulary: Vec<Range<usize>>,
    rank: usize,
    is_whole: bool,
}

impl Split {
    /// The parts of one of `count` ranks. The gated layer is cut between `block` numbers only.
    ///
    /// # Errors
    /// [`Error::Split`] names what cannot be shared out. Heads of keys and values are repeated where there are more
    /// ranks.
    pub(crate) fn new(
        config: &ModelConfig,
        (rank, count): (usize, usize),
        block: usize,
    ) -> Result<Self> {
        let refused =
            |field, found, want: String| Err(Error::Split { field, found, ranks: count, want });
        let (query, kv) = (config.num_attention_heads, config.num_key_value_heads);
        if !query.is_multiple_of(count) {
            return refused("num_attention_heads", query, "a multiple of the ranks".into());
        }
        if !kv.is_multiple_of(count) && !count.is_multiple_of(kv) {
            let want = "a multiple or a divisor of the ranks";
            return refused("num_key_value_heads", kv, want.into());
        }
        let blocks = config.intermediate_size.div_ceil(block);
        if blocks < count {
            let want = format!("{block} or more for each rank");
            return refused("intermediate_size", config.intermediate_size, want);
        }
        if config.vocab_size < count {
            return refused(
                "vocab_size",
                config.vocab_size,
                "a token or more for each rank".into(),
            );
        }
        let dim = config.head_dim;
        let heads = Heads { query: query / count, kv: (kv / count).max(1), dim };
        let first_kv = rank * kv / count;
        let inner = share(blocks, rank, count);
        Ok(Self {
            queries: rank * heads.query * dim..(rank + 1) * heads.query * dim,
            keys: first_kv * dim..(first_kv + heads.kv) * dim,
            inner: inner.start * block..(inner.end * block).min(config.intermediate_size),
            vocabulary: (0..count).map(|rank| share(config.vocab_size, rank, count)).collect(),
            heads,
            rank,
            is_whole: count == 1,
        })
    }

    /// What is held of the tensor of a canonical name.
    pub(crate) fn of(&self, name: &str) -> Slice {
        if self.is_whole {
            return Slice::Whole;
        }
        let mut parts = name.rsplit('.');
        let kind = parts.next();
        match (parts.next(), kind) {
            (Some("embed_tokens" | "lm_head"), _) => Slice::Rows(self.own_vocabulary()),
            (Some("q_proj"), _) => Slice::Rows(self.queries.clone()),
            (Some("k_proj" | "v_proj"), _) => Slice::Rows(self.keys.clone()),
            (Some("gate_proj" | "up_proj"), _) => Slice::Rows(self.inner.clone()),
            (Some("o_proj"), Some("weight")) => Slice::Columns(self.queries.clone()),
            (Some("down_proj"), Some("weight")) => Slice::Columns(self.inner.clone()),
            _ => Slice::Whole,
        }
    }

    /// The tokens whose embeddings are held.
    pub(crate) fn own_vocabulary(&self) -> Range<usize> {
        self.vocabulary[self.rank].clone()
    }
}

/// One of `ranks` shares of so many, which differ by one at most.
fn share(of: usize, rank: usize, ranks: usize) -> Range<usize> {
    of * rank / ranks..of * (rank + 1) / ranks
}
