//! Pages of the KV cache, and the queries that attend to them.

use std::ops::Range;

use crate::attention::Heads;
use crate::error::{Result, check};

const OP: &str = "paged_attention";

/// Tokens per page.
pub const PAGE_SIZE: usize = 64;

/// Layout of one layer's part of a page. For each KV head: transposed keys (dim, [`PAGE_SIZE`]), then values
/// ([`PAGE_SIZE`], dim padded to a multiple of 16).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageLayout {
    pub(super) heads: Heads,
}

impl PageLayout {
    /// The layout for `heads`.
    pub fn new(heads: Heads) -> Self {
        Self { heads }
    }

    /// Elements of one layer's part of a page.
    pub fn elements(&self) -> usize {
        self.heads.kv * self.head_elements()
    }

    /// Elements of a token's value in one head, with padding.
    pub(crate) fn padded_dim(&self) -> usize {
        self.heads.dim.next_multiple_of(16)
    }

    fn head_elements(&self) -> usize {
        PAGE_SIZE * (self.heads.dim + self.padded_dim())
    }

    /// A head's keys, transposed (dim, [`PAGE_SIZE`]).
    pub(crate) fn keys<'a>(&self, page: &'a [f32], head: usize) -> &'a [f32] {
        &page[head * self.head_elements()..][..PAGE_SIZE * self.heads.dim]
    }

    /// A head's values ([`PAGE_SIZE`], padded dim).
    pub(crate) fn values<'a>(&self, page: &'a [f32], head: usize) -> &'a [f32] {
        let start = head * self.head_elements() + PAGE_SIZE * self.heads.dim;
        &page[start..start + PAGE_SIZE * self.padded_dim()]
    }

    /// Writes keys and values of consecutive tokens to the page, from slot `first` on.
    ///
    /// # Shapes
    /// `k` and `v` (tokens, kv heads · dim).
    ///
    /// # Errors
    /// The page's size differs from the layout's, or the tokens do not fit.
    pub fn store(&self, page: &mut [f32], first: usize, k: &[f32], v: &[f32]) -> Result<()> {
        let (dim, kv_size) = (self.heads.dim, self.heads.kv_size());
        let tokens = k.len() / kv_size.max(1);
        if tokens == 0 {
            return Ok(());
        }
        check(page.len() == self.elements(), OP, || {
            "the page size differs from the layout's".into()
        })?;
        check(k.len() == v.len() && k.len() == tokens * kv_size, OP, || {
            "keys and values must be whole tokens of equal number".into()
        })?;
        check(first + tokens <= PAGE_SIZE, OP, || format!("{tokens} tokens do not fit the page"))?;
        let parts = page.chunks_mut(self.head_elements().max(1));
        for (head, part) in parts.enumerate() {
            let (keys, values) = part.split_at_mut(PAGE_SIZE * dim);
            for (d, keys) in keys.chunks_mut(PAGE_SIZE).enumerate() {
                let of_head = k[head * dim + d..].iter().step_by(kv_size);
                for (key, k) in keys[first..first + tokens].iter_mut().zip(of_head) {
                    *key = *k;
                }
            }
            let values = values[first * self.padded_dim()..].chunks_mut(self.padded_dim());
            for (values, v) in values.zip(v.chunks(kv_size)) {
                values[..dim].copy_from_slice(&v[head * dim..(head + 1) * dim]);
            }
        }
        Ok(())
    }
}

/// Consecutive tokens of a sequence whose queries are computed: one token when decoding, a chunk of the prompt in
/// prefill.
pub struct QueryChunk<'a> {
    /// Their rows in the batch and in the output.
    pub rows: Range<usize>,
    /// Position of the first token in its sequence.
    pub position: usize,
    /// The sequence's pages, from its start up to the last of these tokens.
    pub pages: Vec<&'a [f32]>,
    /// Whether attention is causal. Otherwise each token attends up to the last token of the chunk.
    pub causal: bool,
}

impl QueryChunk<'_> {
    /// Position of the last token that `token` of this chunk attends to.
    pub(super) fn last_visible_to(&self, token: usize) -> usize {
        last_visible(self.position, token, self.rows.len(), self.causal)
    }
}

/// Position of the last token that `token` attends to, in a chunk of `tokens` tokens that starts at `position`.
pub(crate) fn last_visible(position: usize, token: usize, tokens: usize, causal: bool) -> usize {
    position + if causal { token } else { tokens - 1 }
}
