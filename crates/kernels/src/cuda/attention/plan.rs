//! Attention over packed groups, cut into dense blocks of queries and keys.

use std::ops::Range;

use crate::attention::{GroupSpan, Pattern};

/// Consecutive queries of a group's prompt or completions, whose scores exist at the same time.
#[derive(Debug, PartialEq)]
pub(super) struct Chunk {
    /// Rows of the queries.
    pub(super) rows: Range<usize>,
    /// What they see: the prompt, and the completions themselves. Each query stands in one block of a part, or
    /// in none where it sees nothing of it.
    pub(super) parts: [Vec<Block>; 2],
}

/// Queries of a chunk and all keys that one of them sees, of which each sees consecutive ones.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Block {
    /// The queries, among the chunk's.
    pub(super) queries: Range<usize>,
    /// Rows of keys and values.
    pub(super) keys: Range<usize>,
    /// Place of the first query, counted from the first key.
    pub(super) offset: usize,
    /// Whether a query sees no key behind its place.
    pub(super) causal: bool,
}

impl Chunk {
    pub(super) fn blocks(&self) -> impl Iterator<Item = &Block> {
        self.parts.iter().flatten()
    }
}

/// The chunks of all groups, each with no more than `scores` scores in a block, or of one query.
pub(super) fn chunks(spans: &[GroupSpan], pattern: Pattern, scores: usize) -> Vec<Chunk> {
    let mut chunks = Vec::new();
    let mut row = 0;
    for span in spans {
        let prompt = Prompt { span, pattern };
        let asking = span.prompt.len() - span.silent;
        for queries in cut(asking, most_queries(span.prompt.len(), pattern, scores)) {
            let positions = span.silent + queries.start..span.silent + queries.end;
            let rows = row + queries.start..row + queries.end;
            chunks.push(Chunk { rows, parts: [prompt.own(positions), Vec::new()] });
        }
        row += asking;
        let completions: usize = span.completions.iter().map(Range::len).sum();
        let longest = span.completions.iter().map(Range::len).max().unwrap_or(0);
        let most = most_queries(longest.max(span.prompt.len()), pattern, scores);
        for queries in cut(completions, most) {
            let rows = row + queries.start..row + queries.end;
            chunks.push(Chunk { rows, parts: prompt.behind(queries) });
        }
        row += completions;
    }
    chunks
}

/// Queries of which each may see `keys` keys.
fn most_queries(keys: usize, pattern: Pattern, scores: usize) -> usize {
    (scores / (pattern.heads.query * super::stride(keys)).max(1)).max(1)
}

fn cut(all: usize, most: usize) -> impl Iterator<Item = Range<usize>> {
    (0..all).step_by(most).map(move |start| start..all.min(start + most))
}

struct Prompt<'a> {
    span: &'a GroupSpan,
    pattern: Pattern,
}

impl Prompt<'_> {
    /// The first of the places that the token at `position` sees.
    fn first(&self, position: usize) -> usize {
        self.pattern.window.map_or(0, |window| (position + 1).saturating_sub(window))
    }

    /// What the prompt's tokens at these positions see of it.
    fn own(&self, positions: Range<usize>) -> Vec<Block> {
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

    /// What some of the completions' tokens see of the prompt, and of themselves.
    fn behind(&self, tokens: Range<usize>) -> [Vec<Block>; 2] {
        let (prompt, mut parts) = (self.span.prompt.clone(), [Vec::new(), Vec::new()]);
        if self.pattern.window.is_none() && !prompt.is_empty() {
            let queries = 0..tokens.len();
            parts[0].push(Block { queries, keys: prompt.clone(), offset: 0, causal: false });
        }
        let mut before = 0;
        for own in &self.span.completions {
            let of_chunk = tokens.start.max(before)..tokens.end.min(before + own.len());
            let places = of_chunk.start.saturating_sub(before)..of_chunk.end.saturating_sub(before);
            before += own.len();
            if of_chunk.is_empty() {
                continue;
            }
            let queries = of_chunk.start - tokens.start..of_chunk.end - tokens.start;
            let position = prompt.len() + places.start;
            let first = self.first(position);
            if self.pattern.window.is_some() && first < prompt.len() {
                let keys = prompt.start + first..prompt.end;
                let queries = queries.clone();
                parts[0].push(Block { queries, keys, offset: position - first, causal: true });
            }
            let first = first.saturating_sub(prompt.len());
            let last = if self.pattern.causal { places.end } else { own.len() };
            parts[1].push(Block {
                queries,
                keys: own.start + first..own.start + last,
                offset: places.start - first,
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
            GroupSpan { prompt: 0..9, completions: vec![9..12, 12..12, 12..19], silent: 2 },
            GroupSpan { prompt: 19..19, completions: vec![19..20, 20..21], silent: 0 },
            GroupSpan { prompt: 21..26, completions: vec![], silent: 5 },
        ]
    }

    /// The rows of keys that each query sees, written out.
    fn seen(pattern: Pattern) -> Vec<Vec<usize>> {
        let mut all = Vec::new();
        for span in spans() {
            let prompt: Vec<usize> = span.prompt.clone().collect();
            let mut sequence = |keys: Vec<usize>, silent: usize| {
                for at in silent..keys.len() {
                    let end = if pattern.causal { at + 1 } else { keys.len() };
                    let first = pattern.window.map_or(0, |window| (at + 1).saturating_sub(window));
                    all.push(keys[first..end].to_vec());
                }
            };
            sequence(prompt.clone(), span.silent);
            for own in &span.completions {
                let keys = prompt.iter().copied().chain(own.clone()).collect();
                sequence(keys, prompt.len());
            }
        }
        all
    }

    #[test]
    fn each_query_sees_what_its_pattern_shows_and_no_key_is_taken_in_vain() {
        for (window, causal) in
            [(None, true), (None, false), (Some(1), true), (Some(4), true), (Some(11), true)]
        {
            let pattern = Pattern { heads: HEADS, window, causal };
            for scores in [1, 64, 200, 1 << 20] {
                let mut found = vec![Vec::new(); seen(pattern).len()];
                for chunk in chunks(&spans(), pattern, scores) {
                    for Block { queries, keys, offset, causal } in chunk.blocks().cloned() {
                        let mut taken = vec![false; keys.len()];
                        assert!(queries.end <= chunk.rows.len() && !queries.is_empty());
                        let most = scores.max(HEADS.query * super::super::stride(keys.len()));
                        assert!(
                            queries.len() * HEADS.query * super::super::stride(keys.len()) <= most
                        );
                        for (i, query) in queries.enumerate() {
                            let end =
                                if causal { keys.len().min(offset + i + 1) } else { keys.len() };
                            let first =
                                window.map_or(0, |window| (offset + i + 1).saturating_sub(window));
                            let seen = first.min(end)..end;
                            taken[seen.clone()].fill(true);
                            let keys = seen.map(|key| keys.start + key);
                            found[chunk.rows.start + query].extend(keys);
                        }
                        assert!(taken.iter().all(|taken| *taken), "{pattern:?}, {scores}");
                    }
                }
                assert_eq!(found, seen(pattern), "{pattern:?}, {scores}");
            }
        }
    }
}
