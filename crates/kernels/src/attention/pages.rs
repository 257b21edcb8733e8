//! Keys and values of a batch in pages.

use std::ops::Range;

use rayon::prelude::*;

use super::{GroupSpan, Heads};
use crate::error::Result;
use crate::paged_attention::{PAGE_SIZE, PageLayout, QueryChunk};

/// Page table of a batch: the rows in each page, and each sequence's pages.
pub(super) struct PageTable {
    pub(super) heads: Heads,
    pub(super) layout: PageLayout,
    /// Rows in each page.
    pub(super) contents: Vec<Vec<PageRows>>,
    pub(super) groups: Vec<GroupPages>,
}

/// Consecutive rows in a page.
pub(super) struct PageRows {
    /// Slot of the first row.
    pub(super) slot: usize,
    /// Rows of keys and values.
    pub(super) rows: Range<usize>,
}

/// Sequences of a group.
pub(super) struct GroupPages {
    pub(super) sequences: Vec<Sequence>,
    /// Its pages, in the batch's numbering.
    pub(super) pages: Range<usize>,
}

/// Consecutive tokens of a prompt or a completion that have queries.
pub(super) struct Sequence {
    /// Rows of the queries.
    pub(super) rows: Range<usize>,
    /// Position of the first token.
    pub(super) position: usize,
    /// All pages from the start of the prompt: the prompt's full pages, shared, then the sequence's own, which start
    /// with the remainder of the prompt.
    pub(super) pages: Vec<usize>,
}

/// The pages' elements, contiguous.
pub(super) struct PageData {
    data: Vec<f32>,
    page_len: usize,
}

impl PageTable {
    pub(super) fn new(spans: &[GroupSpan], heads: Heads) -> Self {
        let layout = PageLayout::new(heads);
        let mut table = Self { heads, layout, contents: Vec::new(), groups: Vec::new() };
        let mut queries = 0;
        for span in spans {
            let first = table.contents.len();
            let prompt = span.prompt.len();
            let full = prompt / PAGE_SIZE;
            for start in (0..full).map(|page| span.prompt.start + page * PAGE_SIZE) {
                table.contents.push(vec![PageRows { slot: 0, rows: start..start + PAGE_SIZE }]);
            }
            let left = span.prompt.start + full * PAGE_SIZE..span.prompt.end;
            let nothing = span.prompt.end..span.prompt.end;
            let completions = span.completions.iter().map(|own| (prompt, own));
            let mut sequences = Vec::new();
            for (position, own) in std::iter::once((span.kv_only, &nothing)).chain(completions) {
                let tokens = prompt + own.len() - position;
                if tokens == 0 {
                    continue;
                }
                let rows = queries..queries + tokens;
                queries = rows.end;
                let pages = (first..first + full).chain(table.add(&left, own)).collect();
                sequences.push(Sequence { rows, position, pages });
            }
            table.groups.push(GroupPages { sequences, pages: first..table.contents.len() });
        }
        table
    }

    /// Allocates pages for the rest of the prompt and the sequence's own rows.
    fn add(&mut self, left: &Range<usize>, own: &Range<usize>) -> Range<usize> {
        let first = self.contents.len();
        let mut slot = 0;
        for part in [left, own] {
            let mut row = part.start;
            while row < part.end {
                let offset = slot % PAGE_SIZE;
                if offset == 0 {
                    self.contents.push(Vec::new());
                }
                let end = part.end.min(row + PAGE_SIZE - offset);
                let content = PageRows { slot: offset, rows: row..end };
                if let Some(page) = self.contents.last_mut() {
                    page.push(content);
                }
                slot += end - row;
                row = end;
            }
        }
        first..self.contents.len()
    }

    /// The sequences as query chunks over `pages`; those of a group are adjacent.
    pub(super) fn chunks<'a>(&self, pages: &'a PageData, causal: bool) -> Vec<QueryChunk<'a>> {
        let sequences = self.groups.iter().flat_map(|group| &group.sequences);
        let chunk = |sequence: &Sequence| QueryChunk {
            rows: sequence.rows.clone(),
            position: sequence.position,
            pages: sequence.pages.iter().map(|page| pages.page(*page)).collect(),
            causal,
        };
        sequences.map(chunk).collect()
    }
}

impl PageData {
    /// Pages with the transposed `keys` and `values` (tokens, kv heads · dim).
    ///
    /// # Errors
    /// The tensors do not fit the table.
    pub(super) fn new(table: &PageTable, keys: &[f32], values: &[f32]) -> Result<Self> {
        let (page_len, width) = (table.layout.elements(), table.heads.kv_size());
        let mut data = vec![0.0; page_len * table.contents.len()];
        let pages = data.par_chunks_mut(page_len.max(1)).zip(&table.contents);
        pages.try_for_each(|(page, contents)| {
            contents.iter().try_for_each(|PageRows { slot, rows }| {
                let part = rows.start * width..rows.end * width;
                table.layout.store(page, *slot, &keys[part.clone()], &values[part])
            })
        })?;
        Ok(Self { data, page_len })
    }

    pub(super) fn page(&self, index: usize) -> &[f32] {
        &self.data[index * self.page_len..(index + 1) * self.page_len]
    }
}
