//! Work partitioning of paged attention over a device's thread blocks (split-KV).

use std::ops::Range;

use candle_core::{Device, Tensor};

use super::decode_kernel::DecodeKernel;
use super::{OP, PAGE_SIZE, last_visible};
use crate::attention::Heads;
use crate::cuda::upload;
use crate::error::{Result, check};

/// [`super::QueryChunk`] with the pages' indices in a [`super::PagePool`] (the sequence's page table).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PooledQueryChunk {
    /// Their rows in the batch and in the output.
    pub rows: Range<usize>,
    /// Position of the first token in its sequence.
    pub position: usize,
    /// The sequence's pages, from its start up to the last of these tokens.
    pub pages: Vec<usize>,
    /// Whether attention is causal. Otherwise each token attends up to the last token of the chunk.
    pub causal: bool,
}

/// Maximum pages per work item. A constant, so that a query's summation order does not depend on the batch. Few, so that
/// one sequence occupies the device: the tensor-core kernel loads both pages of an item at once.
const SPLIT_PAGES: usize = 2;

/// Maximum query heads of a work item and a KV head: the largest tile of the kernels.
const TILE: usize = 32;

/// Queries from which a chunk is prefilled by dense GEMMs.
const PREFILL_MIN_QUERIES: usize = 17;

/// Work items for all layers of a step. They depend on the query chunks, not on the pages' content.
pub struct PagedAttentionPlan {
    pub(crate) heads: Heads,
    /// Rows of the queries.
    pub(crate) rows: usize,
    /// Minimum number of pages of the pool.
    pub(crate) pages: usize,
    /// Whether all chunks are causal.
    pub(crate) causal: bool,
    /// Kernel for `decode` over pages in bf16.
    pub(crate) kernel: DecodeKernel,
    /// Whether some rows belong to no chunk.
    pub(crate) has_uncovered_rows: bool,
    /// Chunks of few queries.
    pub(crate) decode: Option<DecodeBatch>,
    /// Chunks of many queries.
    pub(crate) prefill: Vec<PrefillChunk>,
}

/// Inputs of the decode kernel.
pub(crate) struct DecodeBatch {
    /// Number of work items.
    pub(crate) items: usize,
    /// Rows of partial results.
    pub(crate) parts: usize,
    /// Query heads of a KV head per thread block.
    pub(crate) per_block: usize,
    /// Maximum query heads of a work item and a KV head; a kernel chooses its tile by it.
    pub(crate) item_heads: usize,
    /// (items, 6): first row, rows, first index in the page list, pages, position, first partial result.
    pub(crate) item_list: Tensor,
    pub(crate) page_list: Tensor,
    /// Position of the last token that each row attends to.
    pub(crate) positions: Tensor,
    /// Start of each row's partial results in the list; rows + 1 entries.
    pub(crate) part_starts: Tensor,
    pub(crate) part_list: Tensor,
}

/// A chunk of many queries.
pub(crate) struct PrefillChunk {
    pub(crate) rows: Range<usize>,
    pub(crate) position: usize,
    pub(crate) causal: bool,
    /// Number of visible tokens.
    pub(crate) tokens: usize,
    pub(crate) pages: Tensor,
}

/// Consecutive rows, and consecutive pages that each row attends to.
#[derive(Debug, Clone, PartialEq)]
struct WorkItem {
    rows: Range<usize>,
    pages: Vec<usize>,
    position: usize,
}

impl PagedAttentionPlan {
    /// A plan for queries (`rows`, query heads · dim). Chunks that share pages should be adjacent, in the order of
    /// their rows: shared pages are then read once for several rows.
    ///
    /// # Errors
    /// A row is out of range or in two chunks, a chunk has too few pages, or out of memory.
    pub fn new(
        chunks: &[PooledQueryChunk],
        heads: Heads,
        rows: usize,
        device: &Device,
    ) -> Result<Self> {
        Self::split(chunks, (heads, rows), device, SPLIT_PAGES)
    }

    /// A plan whose work items have up to `split` pages.
    pub(super) fn split(
        chunks: &[PooledQueryChunk],
        (heads, rows): (Heads, usize),
        device: &Device,
        split: usize,
    ) -> Result<Self> {
        let covered = check_chunks(chunks, rows)?;
        let fits = heads.kv > 0 && heads.query.is_multiple_of(heads.kv);
        check(fits, OP, || {
            format!("{} query heads are not a multiple of {} KV heads", heads.query, heads.kv)
        })?;
        let (decode, prefill): (Vec<&PooledQueryChunk>, Vec<&PooledQueryChunk>) = chunks
            .iter()
            .filter(|chunk| !chunk.rows.is_empty())
            .partition(|chunk| chunk.rows.len() < PREFILL_MIN_QUERIES);
        let prefill = prefill.into_iter().map(|chunk| {
            let tokens = chunk.position + chunk.rows.len();
            let pages = upload(&chunk.pages[..tokens.div_ceil(PAGE_SIZE)], device, OP)?;
            let PooledQueryChunk { rows, position, causal, .. } = chunk.clone();
            Ok(PrefillChunk { rows, position, causal, tokens, pages })
        });
        Ok(Self {
            heads,
            rows,
            pages: chunks.iter().flat_map(|chunk| &chunk.pages).max().map_or(0, |page| page + 1),
            causal: chunks.iter().all(|chunk| chunk.causal),
            kernel: DecodeKernel::in_use(),
            has_uncovered_rows: covered < rows,
            decode: if decode.is_empty() {
                None
            } else {
                Some(DecodeBatch::new(&decode, (heads, rows), device, split)?)
            },
            prefill: prefill.collect::<Result<_>>()?,
        })
    }

    /// Decodes with this kernel.
    #[must_use]
    pub fn with_kernel(self, kernel: DecodeKernel) -> Self {
        Self { kernel, ..self }
    }
}

impl DecodeBatch {
    fn new(
        chunks: &[&PooledQueryChunk],
        (heads, rows): (Heads, usize),
        device: &Device,
        split: usize,
    ) -> Result<Self> {
        let per_block = heads.queries_per_kv().clamp(1, TILE);
        let items = items(chunks, (TILE / per_block).max(1), split);
        let mut positions = vec![0; rows];
        for chunk in chunks {
            for (token, row) in chunk.rows.clone().enumerate() {
                positions[row] =
                    last_visible(chunk.position, token, chunk.rows.len(), chunk.causal);
            }
        }
        let (mut item_list, mut page_list, mut parts) = (Vec::new(), Vec::new(), 0);
        let mut of_rows = vec![Vec::new(); rows];
        for WorkItem { rows, pages, position } in &items {
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
        let item_heads = items.iter().map(|item| item.rows.len() * per_block).max().unwrap_or(0);
        let upload = |values: &[usize]| upload(values, device, OP);
        Ok(Self {
            items: items.len(),
            parts,
            per_block,
            item_heads,
            item_list: upload(&item_list)?,
            page_list: upload(&page_list)?,
            positions: upload(&positions)?,
            part_starts: upload(&part_starts)?,
            part_list: upload(&of_rows.concat())?,
        })
    }
}

/// Splits the chunks' rows by `split` pages; up to `most` consecutive rows with the same pages form one item.
fn items(chunks: &[&PooledQueryChunk], most: usize, split: usize) -> Vec<WorkItem> {
    let last = |chunk: &PooledQueryChunk, row: usize| {
        last_visible(chunk.position, row - chunk.rows.start, chunk.rows.len(), chunk.causal)
    };
    let longest = chunks.iter().map(|chunk| chunk.position + chunk.rows.len()).max().unwrap_or(0);
    let mut items: Vec<WorkItem> = Vec::new();
    for first in (0..longest.div_ceil(PAGE_SIZE)).step_by(split) {
        let begin = items.len();
        for chunk in chunks {
            for row in chunk.rows.clone() {
                let end = (last(chunk, row) / PAGE_SIZE + 1).min(first + split);
                if end <= first {
                    continue;
                }
                let pages = &chunk.pages[first..end];
                match items[begin..].last_mut() {
                    Some(item)
                        if item.rows.end == row
                            && item.rows.len() < most
                            && item.pages == pages =>
                    {
                        item.rows.end += 1;
                    }
                    _ => items.push(WorkItem {
                        rows: row..row + 1,
                        pages: pages.to_vec(),
                        position: first * PAGE_SIZE,
                    }),
                }
            }
        }
    }
    items
}

/// Number of rows that belong to a chunk.
fn check_chunks(chunks: &[PooledQueryChunk], rows: usize) -> Result<usize> {
    let mut taken = vec![false; rows];
    for chunk in chunks {
        let (tokens, pages) = (chunk.position + chunk.rows.len(), chunk.pages.len());
        check(tokens <= pages * PAGE_SIZE, OP, || format!("{pages} pages for {tokens} tokens"))?;
        for row in chunk.rows.clone() {
            let free = row < rows && !std::mem::replace(&mut taken[row], true);
            check(free, OP, || format!("row {row} is out of range or in two chunks"))?;
        }
    }
    Ok(taken.iter().filter(|taken| **taken).count())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(rows: Range<usize>, position: usize, pages: Vec<usize>) -> PooledQueryChunk {
        PooledQueryChunk { rows, position, pages, causal: true }
    }

    #[test]
    fn rows_with_the_same_pages_share_a_work_item() {
        let pages = |own: usize| vec![5, 1, 2, own];
        let chunks: Vec<PooledQueryChunk> =
            (0..3).map(|row| chunk(row..row + 1, 3 * PAGE_SIZE + row, pages(20 + row))).collect();
        let chunks: Vec<&PooledQueryChunk> = chunks.iter().collect();
        let found = items(&chunks, 2, 2);
        let of =
            |rows: Range<usize>, pages: Vec<usize>, position| WorkItem { rows, pages, position };
        let mut expected = vec![of(0..2, vec![5, 1], 0), of(2..3, vec![5, 1], 0)];
        for row in 0..3 {
            expected.push(of(row..row + 1, vec![2, 20 + row], 2 * PAGE_SIZE));
        }
        assert_eq!(found, expected);
    }

    #[test]
    fn a_row_with_fewer_visible_pages_has_its_own_work_item() {
        let chunk = chunk(4..6, PAGE_SIZE - 1, vec![7, 3]);
        let expected = [(4..5, vec![7]), (5..6, vec![7, 3])];
        let expected = expected.map(|(rows, pages)| WorkItem { rows, pages, position: 0 });
        assert_eq!(items(&[&chunk], 8, 2), expected);
    }

    #[test]
    fn rows_out_of_range_or_with_too_few_pages_are_rejected() {
        assert!(check_chunks(&[chunk(0..1, 64, vec![0])], 1).is_err());
        assert!(check_chunks(&[chunk(1..2, 0, vec![0])], 1).is_err());
        assert!(check_chunks(&[chunk(0..1, 0, vec![0]), chunk(0..1, 0, vec![0])], 1).is_err());
        assert_eq!(check_chunks(&[chunk(1..3, 0, vec![0])], 4).unwrap(), 2);
    }
}
