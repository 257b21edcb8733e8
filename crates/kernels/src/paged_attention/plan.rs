//! How attention over a pool's pages is shared out over a device's blocks.

use std::ops::Range;

use candle_core::{Device, Tensor};

use super::pool::PoolRun;
use super::{OP, PAGE, last_seen};
use crate::attention::Heads;
use crate::cuda::upload;
use crate::error::{Result, check};

/// Pages of an item, at most. A constant, so that a query's sums do not depend on the batch.
const ITEM_PAGES: usize = 8;

/// Query heads of an item and a key head, at most: the larger of the kernel's two tiles.
const TILE: usize = 32;

/// Queries of a run from which on dense products take it.
const MANY: usize = 17;

/// Which blocks compute what, for all layers of a step. It depends on the runs alone, not on what the pages hold.
pub struct Plan {
    pub(crate) heads: Heads,
    /// Rows of the queries.
    pub(crate) rows: usize,
    /// Pages that a pool must have.
    pub(crate) pages: usize,
    /// Whether all runs are causal.
    pub(crate) causal: bool,
    /// Whether some rows stand in no run.
    pub(crate) gaps: bool,
    /// Runs of few queries.
    pub(crate) few: Option<Few>,
    /// Runs of many queries.
    pub(crate) many: Vec<Many>,
}

/// What the kernel for few queries takes.
pub(crate) struct Few {
    /// Number of items.
    pub(crate) items: usize,
    /// Rows of partial results.
    pub(crate) parts: usize,
    /// Query heads of one key head that go into one block.
    pub(crate) per_block: usize,
    /// The kernel's tile: most query heads of an item and a key head.
    pub(crate) tile: usize,
    /// (items, 6): first row, rows, first of the listed pages, pages, position, first partial result.
    pub(crate) item_list: Tensor,
    pub(crate) page_list: Tensor,
    /// Position of the last token that each row sees.
    pub(crate) positions: Tensor,
    /// Each row's partial results begin here in the list; one number more than rows.
    pub(crate) part_starts: Tensor,
    pub(crate) part_list: Tensor,
}

/// A run of many queries.
pub(crate) struct Many {
    pub(crate) rows: Range<usize>,
    pub(crate) position: usize,
    pub(crate) causal: bool,
    /// Tokens that are seen.
    pub(crate) tokens: usize,
    pub(crate) pages: Tensor,
}

/// Consecutive rows, and consecutive pages of which each row sees something.
#[derive(Debug, Clone, PartialEq)]
struct Item {
    rows: Range<usize>,
    pages: Vec<usize>,
    position: usize,
}

impl Plan {
    /// A plan for queries (`rows`, query heads · dim). Runs that share pages should stand side by side, in the order
    /// of their rows: such pages are then read once for several of them.
    ///
    /// # Errors
    /// A row lies outside the batch or stands in two runs, a run has too few pages, or the device has no room.
    pub fn new(runs: &[PoolRun], heads: Heads, rows: usize, device: &Device) -> Result<Self> {
        let covered = check_runs(runs, rows)?;
        let fits = heads.kv > 0 && heads.query.is_multiple_of(heads.kv);
        check(fits, OP, || format!("{} query heads, {} key heads", heads.query, heads.kv))?;
        let (few, many): (Vec<&PoolRun>, Vec<&PoolRun>) =
            runs.iter().filter(|run| !run.rows.is_empty()).partition(|run| run.rows.len() < MANY);
        let many = many.into_iter().map(|run| {
            let tokens = run.position + run.rows.len();
            let pages = upload(&run.pages[..tokens.div_ceil(PAGE)], device, OP)?;
            let PoolRun { rows, position, causal, .. } = run.clone();
            Ok(Many { rows, position, causal, tokens, pages })
        });
        Ok(Self {
            heads,
            rows,
            pages: runs.iter().flat_map(|run| &run.pages).max().map_or(0, |page| page + 1),
            causal: runs.iter().all(|run| run.causal),
            gaps: covered < rows,
            few: if few.is_empty() { None } else { Some(Few::new(&few, heads, rows, device)?) },
            many: many.collect::<Result<_>>()?,
        })
    }
}

impl Few {
    fn new(runs: &[&PoolRun], heads: Heads, rows: usize, device: &Device) -> Result<Self> {
        let per_block = heads.shared().clamp(1, TILE);
        let items = items(runs, (TILE / per_block).max(1));
        let mut positions = vec![0; rows];
        for run in runs {
            for (token, row) in run.rows.clone().enumerate() {
                positions[row] = last_seen(run.position, token, run.rows.len(), run.causal);
            }
        }
        let (mut item_list, mut page_list, mut parts) = (Vec::new(), Vec::new(), 0);
        let mut of_rows = vec![Vec::new(); rows];
        for Item { rows, pages, position } in &items {
            let at = page_list.len();
            item_list.extend([rows.start, rows.len(), at, pages.len(), *position, parts]);
            page_list.extend(pages);
            for row in rows.clone() {
                of_rows[row].push(parts);
                parts += 1;
            }
        }
        let mut part_starts = vec![0];
        for parts in &of_rows {
            part_starts.push(part_starts.last().copied().unwrap_or(0) + parts.len());
        }
        let most = items.iter().map(|item| item.rows.len() * per_block).max().unwrap_or(0);
        let upload = |numbers: &[usize]| upload(numbers, device, OP);
        Ok(Self {
            items: items.len(),
            parts,
            per_block,
            tile: if most <= 8 { 8 } else { TILE },
            item_list: upload(&item_list)?,
            page_list: upload(&page_list)?,
            positions: upload(&positions)?,
            part_starts: upload(&part_starts)?,
            part_list: upload(&of_rows.concat())?,
        })
    }
}

/// The runs' rows with their pages, [`ITEM_PAGES`] after the other; up to `most` consecutive rows with the same
/// pages together.
fn items(runs: &[&PoolRun], most: usize) -> Vec<Item> {
    let last = |run: &PoolRun, row: usize| {
        last_seen(run.position, row - run.rows.start, run.rows.len(), run.causal)
    };
    let longest = runs.iter().map(|run| run.position + run.rows.len()).max().unwrap_or(0);
    let mut items: Vec<Item> = Vec::new();
    for first in (0..longest.div_ceil(PAGE)).step_by(ITEM_PAGES) {
        let begin = items.len();
        for run in runs {
            for row in run.rows.clone() {
                let end = (last(run, row) / PAGE + 1).min(first + ITEM_PAGES);
                if end <= first {
                    continue;
                }
                let pages = &run.pages[first..end];
                match items[begin..].last_mut() {
                    Some(item)
                        if item.rows.end == row
                            && item.rows.len() < most
                            && item.pages == pages =>
                    {
                        item.rows.end += 1;
                    }
                    _ => items.push(Item {
                        rows: row..row + 1,
                        pages: pages.to_vec(),
                        position: first * PAGE,
                    }),
                }
            }
        }
    }
    items
}

/// Number of rows that stand in a run.
fn check_runs(runs: &[PoolRun], rows: usize) -> Result<usize> {
    let mut taken = vec![false; rows];
    for run in runs {
        let (tokens, pages) = (run.position + run.rows.len(), run.pages.len());
        check(tokens <= pages * PAGE, OP, || format!("{pages} pages for {tokens} tokens"))?;
        for row in run.rows.clone() {
            let free = row < rows && !std::mem::replace(&mut taken[row], true);
            check(free, OP, || format!("row {row} is not there, or there twice"))?;
        }
    }
    Ok(taken.iter().filter(|taken| **taken).count())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(rows: Range<usize>, position: usize, pages: Vec<usize>) -> PoolRun {
        PoolRun { rows, position, pages, causal: true }
    }

    #[test]
    fn rows_with_the_same_pages_stand_in_one_item() {
        let shared: Vec<usize> = (0..10).collect();
        let pages = |own: usize| shared.iter().copied().chain([own]).collect::<Vec<_>>();
        let runs: Vec<PoolRun> =
            (0..3).map(|row| run(row..row + 1, 10 * PAGE + row, pages(20 + row))).collect();
        let runs: Vec<&PoolRun> = runs.iter().collect();
        let found = items(&runs, 2);
        let of = |rows: Range<usize>, pages: Vec<usize>, position| Item { rows, pages, position };
        let mut expected = vec![of(0..2, (0..8).collect(), 0), of(2..3, (0..8).collect(), 0)];
        for row in 0..3 {
            expected.push(of(row..row + 1, vec![8, 9, 20 + row], 8 * PAGE));
        }
        assert_eq!(found, expected);
    }

    #[test]
    fn a_row_that_sees_less_of_the_pages_has_an_item_of_its_own() {
        let run = run(4..6, PAGE - 1, vec![7, 3]);
        let expected = [(4..5, vec![7]), (5..6, vec![7, 3])];
        let expected = expected.map(|(rows, pages)| Item { rows, pages, position: 0 });
        assert_eq!(items(&[&run], 8), expected);
    }

    #[test]
    fn rows_that_are_not_there_or_have_too_few_pages_are_refused() {
        assert!(check_runs(&[run(0..1, 64, vec![0])], 1).is_err());
        assert!(check_runs(&[run(1..2, 0, vec![0])], 1).is_err());
        assert!(check_runs(&[run(0..1, 0, vec![0]), run(0..1, 0, vec![0])], 1).is_err());
        assert_eq!(check_runs(&[run(1..3, 0, vec![0])], 4).unwrap(), 2);
    }
}
