//! Allocates KV-cache pages: reference-counted, with prefix caching.

use std::collections::{BTreeMap, HashMap};

use candle_core::Device;
use embodied_r_kernels::paged_attention::PAGE_SIZE;

use super::kv_cache::{KvCache, KvCacheShape, PageWrite};
use crate::error::Result;
use crate::prompt::TokenKey;

/// The page allocator of an engine.
pub(super) struct PageAllocator {
    /// The pages' keys and values.
    pub(super) cache: KvCache,
    /// Maximum number of pages.
    capacity: Option<usize>,
    pages: Vec<Page>,
    /// Unreferenced pages without reusable content.
    free: Vec<usize>,
    /// The prefix cache: full pages by their tokens and the page before them.
    prefixes: HashMap<PrefixKey, usize>,
    /// Unreferenced pages of the prefix cache by release time: evicted in LRU order.
    evictable: BTreeMap<u64, usize>,
    clock: u64,
}

/// Identifies a full page's content by its tokens and the serial number of the page before it. Keys and
/// values depend on the tokens and their whole prefix.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct PrefixKey {
    before: Option<u64>,
    keys: Box<[TokenKey]>,
}

#[derive(Default)]
struct Page {
    ref_count: usize,
    /// Unique per allocation, so that a reused page never matches its former content.
    serial: u64,
    prefix: Option<PrefixKey>,
    released_at: u64,
    /// The activation-cache rows of the page's first tokens.
    activation_rows: Vec<usize>,
}

impl PageAllocator {
    /// An allocator without pages, for a model on `device`.
    pub(super) fn new(shape: KvCacheShape, device: &Device) -> Self {
        Self {
            capacity: shape.capacity,
            cache: KvCache::new(shape, device),
            pages: Vec::new(),
            free: Vec::new(),
            prefixes: HashMap::new(),
            evictable: BTreeMap::new(),
            clock: 0,
        }
    }

    /// Pages in use.
    pub(super) fn used(&self) -> usize {
        self.pages.len() - self.free.len() - self.evictable.len()
    }

    /// Pages that only the prefix cache holds.
    pub(super) fn evictable(&self) -> usize {
        self.evictable.len()
    }

    /// Maximum number of pages in use.
    pub(super) fn capacity(&self) -> Option<usize> {
        self.capacity
    }

    /// Whether `needed` more pages can be allocated.
    pub(super) fn has_room(&self, needed: usize) -> bool {
        self.capacity.is_none_or(|capacity| self.used() + needed <= capacity)
    }

    /// Allocates a page with a reference count of 1; `None` if the cache is full.
    pub(super) fn allocate(&mut self) -> Option<usize> {
        let at_limit = self.capacity.is_some_and(|capacity| self.pages.len() >= capacity);
        let page = match self.free.pop() {
            Some(page) => page,
            // Without a capacity, evict cached prefixes before allocating more memory.
            None if at_limit || self.capacity.is_none() && !self.evictable.is_empty() => {
                let (_, page) = self.evictable.pop_first()?;
                self.evict(page);
                page
            }
            None => {
                self.cache.add_page();
                self.pages.push(Page::default());
                self.pages.len() - 1
            }
        };
        self.clock += 1;
        self.pages[page].serial = self.clock;
        self.pages[page].ref_count = 1;
        self.pages[page].activation_rows.clear();
        Some(page)
    }

    /// Adds a reference to a page.
    pub(super) fn retain(&mut self, page: usize) {
        if self.pages[page].ref_count == 0 {
            self.evictable.remove(&self.pages[page].released_at);
        }
        self.pages[page].ref_count += 1;
    }

    /// Drops a reference to a page. Without references, a page of the prefix cache stays until it is evicted.
    pub(super) fn release(&mut self, page: usize) {
        self.clock += 1;
        let clock = self.clock;
        let released = &mut self.pages[page];
        released.ref_count -= 1;
        if released.ref_count > 0 {
            return;
        }
        if released.prefix.is_some() {
            released.released_at = clock;
            self.evictable.insert(clock, page);
        } else {
            self.free.push(page);
        }
    }

    /// Copies a page for exclusive use; `None` if the cache is full.
    ///
    /// # Errors
    /// The device is out of memory.
    pub(super) fn copy(&mut self, page: usize) -> Result<Option<usize>> {
        let Some(copy) = self.allocate() else { return Ok(None) };
        self.pages[copy].activation_rows = self.pages[page].activation_rows.clone();
        self.cache.copy_page(page, copy)?;
        Ok(Some(copy))
    }

    /// Records the activation-cache rows of the tokens stored by `writes`; row `first` is the batch's first token.
    pub(super) fn record_activation_rows(&mut self, writes: &[PageWrite], first: usize) {
        for PageWrite { page, slot, rows } in writes {
            let activation_rows = &mut self.pages[*page].activation_rows;
            activation_rows.truncate(*slot);
            // Rows are only usable without gaps before them.
            if activation_rows.len() == *slot {
                activation_rows.extend(first + rows.start..first + rows.end);
            }
        }
    }

    /// The activation-cache rows of the first `tokens` tokens of `pages`, if all are recorded.
    pub(super) fn activation_rows(&self, pages: &[usize], tokens: usize) -> Option<Vec<usize>> {
        let mut rows = Vec::with_capacity(tokens);
        for page in pages {
            let needed = (tokens - rows.len()).min(PAGE_SIZE);
            rows.extend(self.pages[*page].activation_rows.get(..needed)?);
        }
        (rows.len() == tokens).then_some(rows)
    }

    /// Adds a sequence's full pages to the prefix cache.
    pub(super) fn register_prefix(
        &mut self,
        pages: &[usize],
        keys: impl Iterator<Item = TokenKey>,
    ) {
        let keys: Vec<TokenKey> = keys.collect();
        let mut before = None;
        for (page, keys) in pages.iter().zip(keys.chunks_exact(PAGE_SIZE)) {
            if self.pages[*page].prefix.is_none() {
                let prefix = PrefixKey { before, keys: keys.into() };
                if self.prefixes.contains_key(&prefix) {
                    // A concurrent sequence has already registered the same prefix.
                    return;
                }
                self.prefixes.insert(prefix.clone(), *page);
                self.pages[*page].prefix = Some(prefix);
            }
            before = Some(self.pages[*page].serial);
        }
    }

    /// The cached pages of the longest prefix of these tokens, each with a reference added.
    pub(super) fn match_prefix(&mut self, keys: &[TokenKey]) -> Vec<usize> {
        let mut found = Vec::new();
        let mut before = None;
        for keys in keys.chunks_exact(PAGE_SIZE) {
            let Some(page) = self.prefixes.get(&PrefixKey { before, keys: keys.into() }).copied()
            else {
                break;
            };
            self.retain(page);
            before = Some(self.pages[page].serial);
            found.push(page);
        }
        found
    }

    fn evict(&mut self, page: usize) {
        if let Some(prefix) = self.pages[page].prefix.take() {
            self.prefixes.remove(&prefix);
        }
    }
}

#[cfg(test)]
mod tests {
    use embodied_r_kernels::attention::Heads;

    use super::*;

    /// An allocator for a model of one layer on the CPU.
    fn pages(capacity: Option<usize>) -> PageAllocator {
        let heads = Heads { query: 2, kv: 1, dim: 4 };
        PageAllocator::new(KvCacheShape { heads, layers: 1, capacity }, &Device::Cpu)
    }

    fn ids(pages: u32) -> Vec<TokenKey> {
        (0..TokenKey::from(pages) * PAGE_SIZE as TokenKey).collect()
    }

    #[test]
    fn sequences_with_the_same_prefix_share_its_pages() {
        let mut pages = pages(None);
        let own = [pages.allocate().unwrap(), pages.allocate().unwrap()];
        pages.register_prefix(&own, ids(2).into_iter());
        let mut longer = ids(2);
        longer.push(7);
        assert_eq!(pages.match_prefix(&longer), own);
        let mut other = ids(2);
        other[PAGE_SIZE] = 9999;
        assert_eq!(pages.match_prefix(&other), own[..1]);
        other[0] = 9999;
        assert!(pages.match_prefix(&other).is_empty());
    }

    #[test]
    fn released_pages_stay_in_the_prefix_cache_until_they_are_evicted() {
        let mut pages = pages(Some(2));
        let first = pages.allocate().unwrap();
        pages.register_prefix(&[first], ids(1).into_iter());
        pages.release(first);
        assert_eq!((pages.used(), pages.match_prefix(&ids(1))), (0, vec![first]));
        pages.release(first);
        let taken = [pages.allocate().unwrap(), pages.allocate().unwrap()];
        assert_ne!(taken[0], taken[1]);
        assert_eq!(pages.allocate(), None);
        assert!(pages.match_prefix(&ids(1)).is_empty());
    }

    #[test]
    fn a_reused_page_does_not_match_as_the_prefix_of_its_former_successor() {
        let mut pages = pages(Some(2));
        let own = [pages.allocate().unwrap(), pages.allocate().unwrap()];
        pages.register_prefix(&own, ids(2).into_iter());
        own.iter().for_each(|page| pages.release(*page));
        // The first page is the least recently used.
        let again = pages.allocate().unwrap();
        assert_eq!(again, own[0]);
        let other: Vec<TokenKey> = (5000..5000 + PAGE_SIZE as TokenKey).collect();
        pages.register_prefix(&[again], other.iter().copied());
        let mut mixed = other;
        mixed.extend(&ids(2)[PAGE_SIZE..]);
        assert_eq!(pages.match_prefix(&mixed), [again]);
    }

    #[test]
    fn activation_rows_of_a_page_are_recorded_without_gaps_only() {
        let mut pages = pages(Some(1));
        let page = pages.allocate().unwrap();
        let write = |slot, rows| [PageWrite { page, slot, rows }];
        // The tokens before these were not recorded.
        pages.record_activation_rows(&write(3, 0..2), 10);
        assert_eq!(
            (pages.activation_rows(&[page], 2), pages.activation_rows(&[page], 5)),
            (None, None)
        );
        pages.record_activation_rows(&write(0, 0..3), 20);
        pages.record_activation_rows(&write(3, 1..3), 30);
        assert_eq!(pages.activation_rows(&[page], 5), Some(vec![20, 21, 22, 31, 32]));
        pages.record_activation_rows(&write(2, 0..1), 40);
        assert_eq!(pages.activation_rows(&[page], 3), Some(vec![20, 21, 40]));
        assert_eq!(pages.activation_rows(&[page], 4), None);
        // A new allocation of the page starts without rows.
        pages.release(page);
        let again = pages.allocate().unwrap();
        assert_eq!((again, pages.activation_rows(&[again], 1)), (page, None));
    }

    #[test]
    fn a_shared_page_is_free_after_its_last_release() {
        let mut pages = pages(Some(1));
        let page = pages.allocate().unwrap();
        pages.retain(page);
        pages.release(page);
        assert_eq!(pages.allocate(), None);
        pages.release(page);
        assert_eq!(pages.allocate(), Some(page));
    }
}
