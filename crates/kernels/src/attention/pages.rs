//! The keys and values of a batch in pages.

use std::ops::Range;

use rayon::prelude::*;

use super::{GroupSpan, Heads};
use crate::error::Result;
use crate::paged_attention::{PAGE, PageLayout, Run};

/// Which rows of a batch stand in which pages, and which queries see them.
pub(super) struct Layout {
    pub(super) heads: Heads,
    pub(super) page: PageLayout,
    /// What stands in each page.
    pub(super) contents: Vec<Vec<Content>>,
    pub(super) groups: Vec<Group>,
}

/// Rows that stand in a page side by side.
pub(super) struct Content {
    /// Place of the first in the page.
    pub(super) slot: usize,
    /// The rows of keys and values.
    pub(super) rows: Range<usize>,
}

/// A group's sequences.
pub(super) struct Group {
    pub(super) sequences: Vec<Sequence>,
    /// Its pages, among those of all.
    pub(super) pages: Range<usize>,
}

/// Consecutive tokens of a prompt or a completion that have queries.
pub(super) struct Sequence {
    /// Rows of the queries.
    pub(super) rows: Range<usize>,
    /// Position of the first.
    pub(super) position: usize,
    /// The pages from the prompt's beginning on: the prompt's full ones, then the sequence's own, which begin
    /// with what is left of the prompt.
    pub(super) pages: Vec<usize>,
}

/// The pages' numbers, end to end.
pub(super) struct Pages {
    numbers: Vec<f32>,
    of_page: usize,
}

impl Layout {
    pub(super) fn new(spans: &[GroupSpan], heads: Heads) -> Self {
        let page = PageLayout::new(heads);
        let mut layout = Self { heads, page, contents: Vec::new(), groups: Vec::new() };
        let mut queries = 0;
        for span in spans {
            let first = layout.contents.len();
            let prompt = span.prompt.len();
            let full = prompt / PAGE;
            for start in (0..full).map(|page| span.prompt.start + page * PAGE) {
                layout.contents.push(vec![Content { slot: 0, rows: start..start + PAGE }]);
            }
            let left = span.prompt.start + full * PAGE..span.prompt.end;
            let nothing = span.prompt.end..span.prompt.end;
            let completions = span.completions.iter().map(|own| (prompt, own));
            let mut sequences = Vec::new();
            for (position, own) in std::iter::once((span.silent, &nothing)).chain(completions) {
                let tokens = prompt + own.len() - position;
                if tokens == 0 {
                    continue;
                }
                let rows = queries..queries + tokens;
                queries = rows.end;
                let pages = (first..first + full).chain(layout.add(&left, own)).collect();
                sequences.push(Sequence { rows, position, pages });
            }
            layout.groups.push(Group { sequences, pages: first..layout.contents.len() });
        }
        layout
    }

    /// New pages for these rows, one behind the other.
    fn add(&mut self, left: &Range<usize>, own: &Range<usize>) -> Range<usize> {
        let first = self.contents.len();
        let mut slot = 0;
        for part in [left, own] {
            let mut row = part.start;
            while row < part.end {
                let place = slot % PAGE;
                if place == 0 {
                    self.contents.push(Vec::new());
                }
                let end = part.end.min(row + PAGE - place);
                let content = Content { slot: place, rows: row..end };
                if let Some(page) = self.contents.last_mut() {
                    page.push(content);
                }
                slot += end - row;
                row = end;
            }
        }
        first..self.contents.len()
    }

    /// The sequences as attention over `pages` takes them, those of a group side by side.
    pub(super) fn runs<'a>(&self, pages: &'a Pages, causal: bool) -> Vec<Run<'a>> {
        let sequences = self.groups.iter().flat_map(|group| &group.sequences);
        let run = |sequence: &Sequence| Run {
            rows: sequence.rows.clone(),
            position: sequence.position,
            pages: sequence.pages.iter().map(|page| pages.page(*page)).collect(),
            causal,
        };
        sequences.map(run).collect()
    }
}

impl Pages {
    /// Pages with `keys`, turned, and `values` (tokens, kv heads · dim).
    ///
    /// # Errors
    /// They are no such tensors.
    pub(super) fn new(layout: &Layout, keys: &[f32], values: &[f32]) -> Result<Self> {
        let (of_page, width) = (layout.page.numbers(), layout.heads.kv_width());
        let mut numbers = vec![0.0; of_page * layout.contents.len()];
        let pages = numbers.par_chunks_mut(of_page.max(1)).zip(&layout.contents);
        pages.try_for_each(|(page, contents)| {
            contents.iter().try_for_each(|Content { slot, rows }| {
                let part = rows.start * width..rows.end * width;
                layout.page.store(page, *slot, &keys[part.clone()], &values[part])
            })
        })?;
        Ok(Self { numbers, of_page })
    }

    pub(super) fn page(&self, index: usize) -> &[f32] {
        &self.numbers[index * self.of_page..(index + 1) * self.of_page]
    }
}
