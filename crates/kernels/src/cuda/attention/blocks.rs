//! Splits attention over packed groups into dense blocks of queries and keys.

use std::ops::Range;

use crate::attention::{GroupSpan, Pattern};

/// Consecutive queries of a group's prompt or completions, processed together.
#[derive(Debug, PartialEq)]
pub(super) struct Chunk {
    /// Rows of the queries.
    pub(super) rows: Range<usize>,
    /// Blocks over the prompt's keys, and over the completions' own. Each query is in at most one block of a part.
    pub(super) parts: [Vec<Block>; 2],
}

/// Queries of a chunk, and all keys that any of them attends to; each attends to consecutive ones.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Block {
    /// The queries, relative to the chunk.
    pub(super) queries: Range<usize>,
    /// Rows of keys and values.
    pub(super) keys: Range<usize>,
    /// Position of the first query relative to the first key.
    pub(super) offset: usize,
    /// Whether the block is causal.
    pub(super) causal: bool,
}

impl Chunk {
    pub(super) fn blocks(&self) -> impl Iterator<Item = &Block> {
        self.parts.iter().flatten()
    }
}

/// The chunks of all groups, each with at most `scores` scores per block, or with one query.
pub(super) fn chunks(spans: &[GroupSpan], pattern: Pattern, scores: usize) -> Vec<Chunk> {
    let mut chunks = Vec::new();
    let mut row = 0;
    for span in spans {
        let prompt = GroupBlocks { span, pattern };
        let prompt_queries = span.prompt.len() - span.kv_only;
        for queries in split(prompt_queries, max_queries(span.prompt.len(), pattern, scores)) {
            let positions = span.kv_only + queries.start..span.kv_only + queries.end;
            let rows = row + queries.start..row + queries.end;
            chunks.push(Chunk { rows, parts: [prompt.prompt_blocks(positions), Vec::new()] });
        }
        row += prompt_queries;
        let completions: usize = span.completions.iter().map(Range::len).sum();
        let longest = span.completions.iter().map(Range::len).max().unwrap_or(0);
        let limit = max_queries(longest.max(span.prompt.len()), pattern, scores);
        for queries in split(completions, limit) {
            let rows = row + queries.start..row + queries.end;
            chunks.push(Chunk { rows, parts: prompt.completion_blocks(queries) });
        }
        row += completions;
    }
    chunks
}

/// Queries that may attend to `keys` keys each within the limit.
fn max_queries(keys: usize, pattern: Pattern, scores: usize) -> usize {
    (scores / (pattern.heads.query * super::scores::stride(keys)).max(1)).max(1)
}

fn split(all: usize, limit: usize) -> impl Iterator<Item = Range<usize>> {
    (0..all).step_by(limit).map(move |start| start..all.min(start + limit))
}

struct GroupBlocks<'a> {
    span: &'a GroupSpan,
    pattern: Pattern,
}

impl GroupBlocks<'_> {
    /// First position that the token at `position` attends to.
    fn first(&self, position: usize) -> usize {
        self.pattern.window.map_or(0, |window| (position + 1).saturating_sub(window))
    }

    /// Blocks of the prompt's tokens at these positions, over the prompt.
    fn prompt_blocks(&self, positions: Range<usize>) -> Vec<Block> {
        let Range { start, end } = self.span.prompt;
        let first = self.first(positions.start);
        let last = if self.pattern.causal { start + positions.end } else { end };
        vec![Block {
            queries: 0..positions.len(),
            keys: start + first..last,
            offset: positions.start - first,
            causal: self.pattern.causal,
        }]
    }

    /// Blocks of completion tokens, over the prompt and over their completions.
    fn completion_blocks(&self, tokens: Range<usize>) -> [Vec<Block>; 2] {
        let (prompt, mut parts) = (self.span.prompt.clone(), [Vec::new(), Vec::new()]);
        if self.pattern.window.is_none() && !prompt.is_empty() {
            let queries = 0..tokens.len();
            parts[0].push(Block { queries, keys: prompt.clone(), offset: 0, causal: false });
        }
        let mut before = 0;
        for own in &self.span.completions {
            let of_chunk = tokens.start.max(before)..tokens.end.min(before + own.len());
            let own_range =
                of_chunk.start.saturating_sub(before)..of_chunk.end.saturating_sub(before);
            before += own.len();
            if of_chunk.is_empty() {
                continue;
            }
            let queries = of_chunk.start - tokens.start..of_chunk.end - tokens.start;
            let position = prompt.len() + own_range.start;
            let first = self.first(position);
            if self.pattern.window.is_some() && first < prompt.len() {
                let keys = prompt.start + first..prompt.end;
                let queries = queries.clone();
                parts[0].push(Block { queries, keys, offset: position - first, causal: true });
            }
            let first = first.saturating_sub(prompt.len());
            let last = if self.pattern.causal { own_range.end } else { own.len() };
            parts[1].push(Block {
                queries,
                keys: own.start + first..own.start + last,
                offset: own_range.start - first,
                causal: self.pattern.causal,
            });
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::Heads;

    const HEADS: Heads = Heads { query: 2, kv: 1, dim: 4 };

    fn spans() -> Vec<GroupSpan> {
        vec![
            GroupSpan { prompt: 0..9, completions: vec![9..12, 12..12, 12..19], kv_only: 2 },
            GroupSpan { prompt: 19..19, completions: vec![19..20, 20..21], kv_only: 0 },
            GroupSpan { prompt: 21..26, completions: vec![], kv_only: 5 },
        ]
    }

    /// Rows of keys that each query attends to: the reference.
    fn visible(pattern: Pattern) -> Vec<Vec<usize>> {
        let mut all = Vec::new();
        for span in spans() {
            let prompt: Vec<usize> = span.prompt.clone().collect();
            let mut sequence = |keys: Vec<usize>, kv_only: usize| {
                for at in kv_only..keys.len() {
                    let end = if pattern.causal { at + 1 } else { keys.len() };
                    let first = pattern.window.map_or(0, |window| (at + 1).saturating_sub(window));
                    all.push(keys[first..end].to_vec());
                }
            };
            sequence(prompt.clone(), span.kv_only);
            for own in &span.completions {
                let keys = prompt.iter().copied().chain(own.clone()).collect();
                sequence(keys, prompt.len());
            }
        }
        all
    }

    #[test]
    fn blocks_cover_the_pattern_exactly_and_no_key_is_unused() {
        for (window, causal) in
            [(None, true), (None, false), (Some(1), true), (Some(4), true), (Some(11), true)]
        {
            let pattern = Pattern { heads: HEADS, window, causal };
            for scores in [1, 64, 200, 1 << 20] {
                let mut found = vec![Vec::new(); visible(pattern).len()];
                for chunk in chunks(&spans(), pattern, scores) {
                    for Block { queries, keys, offset, causal } in chunk.blocks().cloned() {
                        let mut taken = vec![false; keys.len()];
                        assert!(queries.end <= chunk.rows.len() && !queries.is_empty());
                        let limit =
                            scores.max(HEADS.query * super::super::scores::stride(keys.len()));
                        assert!(
                            queries.len() * HEADS.query * super::super::scores::stride(keys.len())
                                <= limit
                        );
                        for (i, query) in queries.enumerate() {
                            let end =
                                if causal { keys.len().min(offset + i + 1) } else { keys.len() };
                            let first =
                                window.map_or(0, |window| (offset + i + 1).saturating_sub(window));
                            let visible = first.min(end)..end;
                            taken[visible.clone()].fill(true);
                            let keys = visible.map(|key| keys.start + key);
                            found[chunk.rows.start + query].extend(keys);
                        }
                        assert!(taken.iter().all(|taken| *taken), "{pattern:?}, {scores}");
                    }
                }
                assert_eq!(found, visible(pattern), "{pattern:?}, {scores}");
            }
        }
    }
}
