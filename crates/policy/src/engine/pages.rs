//! Pages of keys and values: shared by reference, kept for prompts that begin alike.

use std::collections::{BTreeMap, HashMap};

use candle_core::Device;
use embodied_r_kernels::paged_attention::PAGE;

use super::cache::{Cache, CacheShape, Write};
use crate::error::Result;
use crate::prompt::TokenKey;

/// The pages of an engine.
pub(super) struct Pages {
    /// What stands in them.
    pub(super) cache: Cache,
    /// Most pages that may be made.
    capacity: Option<usize>,
    pages: Vec<Page>,
    /// Pages that nobody uses and nothing is known of.
    free: Vec<usize>,
    /// Full pages by what stands in them and before them.
    known: HashMap<Content, usize>,
    /// Known pages that nobody uses, by when they were left, the longest unused first.
    unused: BTreeMap<u64, usize>,
    clock: u64,
}

/// What a full page holds: its tokens, and the page before it by its serial number. Tokens and all
/// that stands before them decide keys and values.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Content {
    before: Option<u64>,
    keys: Box<[TokenKey]>,
}

#[derive(Default)]
struct Page {
    users: usize,
    /// Never given twice, so that a page that has been reused is not taken for what it was.
    serial: u64,
    content: Option<Content>,
    left: u64,
    /// The rows of the page's first tokens on a tape.
    taped: Vec<usize>,
}

impl Pages {
    /// None yet, of a model whose tensors are on `device`.
    pub(super) fn new(shape: CacheShape, device: &Device) -> Self {
        Self {
            capacity: shape.capacity,
            cache: Cache::new(shape, device),
            pages: Vec::new(),
            free: Vec::new(),
            known: HashMap::new(),
            unused: BTreeMap::new(),
            clock: 0,
        }
    }

    /// Pages in use.
    pub(super) fn used(&self) -> usize {
        self.pages.len() - self.free.len() - self.unused.len()
    }

    /// Most pages that may be in use.
    pub(super) fn capacity(&self) -> Option<usize> {
        self.capacity
    }

    /// Whether so many pages can be taken.
    pub(super) fn has_room(&self, wanted: usize) -> bool {
        self.capacity.is_none_or(|capacity| self.used() + wanted <= capacity)
    }

    /// A page for one user, or nothing if there is no room.
    pub(super) fn take(&mut self) -> Option<usize> {
        let at_limit = self.capacity.is_some_and(|capacity| self.pages.len() >= capacity);
        let page = match self.free.pop() {
            Some(page) => page,
            // Without a limit, what is known of earlier prompts is no reason to take more memory.
            None if at_limit || self.capacity.is_none() && !self.unused.is_empty() => {
                let (_, page) = self.unused.pop_first()?;
                self.forget(page);
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
        self.pages[page].users = 1;
        self.pages[page].taped.clear();
        Some(page)
    }

    /// One more user of a page.
    pub(super) fn share(&mut self, page: usize) {
        if self.pages[page].users == 0 {
            self.unused.remove(&self.pages[page].left);
        }
        self.pages[page].users += 1;
    }

    /// One user less. What is known of the page stays until its memory is needed.
    pub(super) fn leave(&mut self, page: usize) {
        self.clock += 1;
        let clock = self.clock;
        let left = &mut self.pages[page];
        left.users -= 1;
        if left.users > 0 {
            return;
        }
        if left.content.is_some() {
            left.left = clock;
            self.unused.insert(clock, page);
        } else {
            self.free.push(page);
        }
    }

    /// A page with the same numbers for a user of its own, or nothing if there is no room.
    ///
    /// # Errors
    /// The device has no room for it.
    pub(super) fn copy(&mut self, page: usize) -> Result<Option<usize>> {
        let Some(copy) = self.take() else { return Ok(None) };
        self.pages[copy].taped = self.pages[page].taped.clone();
        self.cache.copy_page(page, copy)?;
        Ok(Some(copy))
    }

    /// Takes note that a tape has the tokens that were stored by `writes`, the batch's first one in row `first`.
    pub(super) fn tape(&mut self, writes: &[Write], first: usize) {
        for Write { page, slot, rows } in writes {
            let taped = &mut self.pages[*page].taped;
            taped.truncate(*slot);
            // Behind tokens that no tape has these are of no use.
            if taped.len() == *slot {
                taped.extend(first + rows.start..first + rows.end);
            }
        }
    }

    /// The rows on a tape of the `tokens` tokens that stand in `pages`, if it has them all.
    pub(super) fn taped(&self, pages: &[usize], tokens: usize) -> Option<Vec<usize>> {
        let mut rows = Vec::with_capacity(tokens);
        for page in pages {
            let wanted = (tokens - rows.len()).min(PAGE);
            rows.extend(self.pages[*page].taped.get(..wanted)?);
        }
        (rows.len() == tokens).then_some(rows)
    }

    /// Makes the full pages of a sequence known by its tokens.
    pub(super) fn publish(&mut self, pages: &[usize], keys: impl Iterator<Item = TokenKey>) {
        let keys: Vec<TokenKey> = keys.collect();
        let mut before = None;
        for (page, keys) in pages.iter().zip(keys.chunks_exact(PAGE)) {
            if self.pages[*page].content.is_none() {
                let content = Content { before, keys: keys.into() };
                if self.known.contains_key(&content) {
                    // Another sequence computed the same at the same time; its pages are the known ones.
                    return;
                }
                self.known.insert(content.clone(), *page);
                self.pages[*page].content = Some(content);
            }
            before = Some(self.pages[*page].serial);
        }
    }

    /// The known pages that a sequence of these tokens begins with, for one more user.
    pub(super) fn find(&mut self, keys: &[TokenKey]) -> Vec<usize> {
        let mut found = Vec::new();
        let mut before = None;
        for keys in keys.chunks_exact(PAGE) {
            let Some(page) = self.known.get(&Content { before, keys: keys.into() }).copied() else {
                break;
            };
            self.share(page);
            before = Some(self.pages[page].serial);
            found.push(page);
        }
        found
    }

    fn forget(&mut self, page: usize) {
        if let Some(content) = self.pages[page].content.take() {
            self.known.remove(&content);
        }
    }
}

#[cfg(test)]
mod tests {
    use embodied_r_kernels::attention::Heads;

    use super::*;

    /// Pages of a model of one layer on the CPU.
    fn pages(capacity: Option<usize>) -> Pages {
        let heads = Heads { query: 2, kv: 1, dim: 4 };
        Pages::new(CacheShape { heads, layers: 1, capacity }, &Device::Cpu)
    }

    fn ids(pages: u32) -> Vec<TokenKey> {
        (0..TokenKey::from(pages) * PAGE as TokenKey).collect()
    }

    #[test]
    fn pages_of_a_prompt_are_found_by_whoever_begins_with_the_same_tokens() {
        let mut pages = pages(None);
        let own = [pages.take().unwrap(), pages.take().unwrap()];
        pages.publish(&own, ids(2).into_iter());
        let mut longer = ids(2);
        longer.push(7);
        assert_eq!(pages.find(&longer), own);
        let mut other = ids(2);
        other[PAGE] = 9999;
        assert_eq!(pages.find(&other), own[..1]);
        other[0] = 9999;
        assert!(pages.find(&other).is_empty());
    }

    #[test]
    fn what_is_left_stays_known_until_its_memory_is_needed() {
        let mut pages = pages(Some(2));
        let first = pages.take().unwrap();
        pages.publish(&[first], ids(1).into_iter());
        pages.leave(first);
        assert_eq!((pages.used(), pages.find(&ids(1))), (0, vec![first]));
        pages.leave(first);
        let taken = [pages.take().unwrap(), pages.take().unwrap()];
        assert_ne!(taken[0], taken[1]);
        assert_eq!(pages.take(), None);
        assert!(pages.find(&ids(1)).is_empty());
    }

    #[test]
    fn a_page_that_was_reused_is_not_taken_for_the_beginning_of_what_followed_it() {
        let mut pages = pages(Some(2));
        let own = [pages.take().unwrap(), pages.take().unwrap()];
        pages.publish(&own, ids(2).into_iter());
        own.iter().for_each(|page| pages.leave(*page));
        // The first page is the one unused for longest.
        let again = pages.take().unwrap();
        assert_eq!(again, own[0]);
        let other: Vec<TokenKey> = (5000..5000 + PAGE as TokenKey).collect();
        pages.publish(&[again], other.iter().copied());
        let mut mixed = other;
        mixed.extend(&ids(2)[PAGE..]);
        assert_eq!(pages.find(&mixed), [again]);
    }

    #[test]
    fn a_page_is_on_the_tape_as_far_as_all_of_it_before_is() {
        let mut pages = pages(Some(1));
        let page = pages.take().unwrap();
        let write = |slot, rows| [Write { page, slot, rows }];
        // What stands before these was computed without a tape.
        pages.tape(&write(3, 0..2), 10);
        assert_eq!((pages.taped(&[page], 2), pages.taped(&[page], 5)), (None, None));
        pages.tape(&write(0, 0..3), 20);
        pages.tape(&write(3, 1..3), 30);
        assert_eq!(pages.taped(&[page], 5), Some(vec![20, 21, 22, 31, 32]));
        pages.tape(&write(2, 0..1), 40);
        assert_eq!(pages.taped(&[page], 3), Some(vec![20, 21, 40]));
        assert_eq!(pages.taped(&[page], 4), None);
        // A page for someone else holds nothing of this.
        pages.leave(page);
        let again = pages.take().unwrap();
        assert_eq!((again, pages.taped(&[again], 1)), (page, None));
    }

    #[test]
    fn a_shared_page_is_free_when_its_last_user_has_left() {
        let mut pages = pages(Some(1));
        let page = pages.take().unwrap();
        pages.share(page);
        pages.leave(page);
        assert_eq!(pages.take(), None);
        pages.leave(page);
        assert_eq!(pages.take(), Some(page));
    }
}
