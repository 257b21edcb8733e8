//! The scheduler: chooses each step's tokens and allocates their KV-cache pages.

use embodied_r_kernels::paged_attention::PAGE_SIZE;

use super::prompt_logprobs::MAX_PROMPT_LOGIT_ROWS;
use super::{Engine, EngineOptions, SequenceGroup};
use crate::error::{Error, Result};
use crate::prompt::TokenKey;

impl EngineOptions {
    /// Rejects options with which no step could run.
    pub(super) fn check(&self) -> Result<()> {
        let Self { max_num_seqs, max_num_batched_tokens, kv_cache_tokens } = *self;
        let reject = |option, found, want| Err(Error::Engine { option, found, want });
        if max_num_seqs == 0 {
            return reject("max_num_seqs", 0, "1 or more".to_owned());
        }
        if max_num_batched_tokens < max_num_seqs {
            let want = format!("at least `max_num_seqs`, which is {max_num_seqs}");
            return reject("max_num_batched_tokens", max_num_batched_tokens, want);
        }
        match kv_cache_tokens {
            Some(tokens) if tokens < PAGE_SIZE => reject(
                "kv_cache_tokens",
                tokens,
                format!("at least one page of {PAGE_SIZE} tokens"),
            ),
            _ => Ok(()),
        }
    }
}

impl Engine {
    /// The running groups of this step, each with its number of tokens; their pages are allocated.
    pub(super) fn schedule(&mut self) -> Vec<(usize, usize)> {
        let mut budget = self.options.max_num_batched_tokens;
        self.reserve_decode_pages();
        let decoding = self.running.iter().filter(|group| group.decodes()).count();
        budget -= decoding.min(budget);
        self.admit(budget);
        let mut chunks = Vec::new();
        let mut logit_rows = MAX_PROMPT_LOGIT_ROWS;
        for (index, group) in self.running.iter().enumerate() {
            if group.decodes() {
                chunks.push((index, 1));
                continue;
            }
            let mut tokens = budget.min(group.len() - group.computed);
            if group.prompt_logprobs.is_some() {
                tokens = tokens.min(logit_rows);
                logit_rows -= tokens;
            }
            budget -= tokens;
            if tokens > 0 {
                chunks.push((index, tokens));
            }
        }
        chunks
    }

    /// Gives every decoding group a page for its next token, preempting the youngest groups if the KV cache is full.
    fn reserve_decode_pages(&mut self) {
        let mut index = 0;
        while index < self.running.len() {
            let group = &mut self.running[index];
            if group.pages.len() * PAGE_SIZE > group.computed {
                index += 1;
            } else if let Some(page) = self.pages.allocate() {
                group.pages.push(page);
            } else {
                self.preempt_youngest();
                // Indices have changed.
                index = 0;
            }
        }
    }

    /// Preempts the youngest running group: it moves to the front of the queue and keeps its tokens, but its keys and
    /// values are recomputed.
    fn preempt_youngest(&mut self) {
        let youngest = (0..self.running.len()).max_by_key(|i| {
            let group = &self.running[*i];
            (group.request, group.samples.last().copied())
        });
        let Some(youngest) = youngest else { return };
        let mut group = self.running.remove(youngest);
        group.release_pages(&mut self.pages);
        self.stats.preemptions += group.samples.len() as u64;
        group.was_preempted = true;
        self.waiting.push_front(group);
    }

    /// Admits queued groups while the sequence limit, the token budget and the KV cache allow.
    fn admit(&mut self, mut budget: usize) {
        let computing =
            |group: &SequenceGroup| if group.decodes() { 0 } else { group.len() - group.computed };
        budget = budget.saturating_sub(self.running.iter().map(computing).sum());
        let mut sequences: usize = self.running.iter().map(|group| group.samples.len()).sum();
        while budget > 0 && sequences < self.options.max_num_seqs {
            let Some(group) = self.waiting.pop_front() else { return };
            let slots = self.options.max_num_seqs - sequences;
            let Some(group) = self.start(group, slots) else { return };
            sequences += group.samples.len();
            budget = budget.saturating_sub(computing(&group));
            self.running.push(group);
        }
    }

    /// Starts a group with its cached prefix and newly allocated pages; `None` leaves it queued while the KV cache is
    /// full. Samples beyond `slots` stay queued.
    fn start(&mut self, mut group: SequenceGroup, slots: usize) -> Option<SequenceGroup> {
        // The last token is always computed: its logits are needed.
        let reusable = match group.prompt_logprobs {
            Some(_) => 0,
            None => group.len() - 1,
        };
        let keys: Vec<TokenKey> = group.keys().take(reusable).collect();
        group.pages = self.pages.match_prefix(&keys);
        group.computed = group.pages.len() * PAGE_SIZE;
        let needed = group.len().div_ceil(PAGE_SIZE) - group.pages.len();
        // Leaves some room for running groups, which would soon be preempted otherwise.
        if !self.pages.has_room(needed + self.running.len().min(1)) && !self.running.is_empty() {
            group.release_pages(&mut self.pages);
            self.waiting.push_front(group);
            return None;
        }
        while group.pages.len() < group.len().div_ceil(PAGE_SIZE) {
            match self.pages.allocate() {
                Some(page) => group.pages.push(page),
                None => {
                    group.release_pages(&mut self.pages);
                    self.waiting.push_front(group);
                    return None;
                }
            }
        }
        group.cached.get_or_insert(group.computed);
        // A sequence that has tokens already starts again.
        if group.ids.is_empty() && !group.was_preempted {
            self.stats.cached_tokens += group.computed as u64;
            self.stats.prefilled_tokens += (group.len() - group.computed) as u64;
        }
        if group.samples.len() > slots {
            let later = group.samples.split_off(slots);
            self.waiting.push_front(SequenceGroup { samples: later, ..group.without_samples() });
        }
        Some(group)
    }

    /// Replaces a group by one sequence for each unfinished sample. They share its full pages; all but one copy the
    /// partial last page, or are queued if the KV cache is full.
    ///
    /// # Errors
    /// The device is out of memory.
    pub(super) fn fork(
        &mut self,
        index: usize,
        mut group: SequenceGroup,
        unfinished: Vec<(usize, u32)>,
    ) -> Result<()> {
        let full = group.computed / PAGE_SIZE;
        self.pages.register_prefix(&group.pages[..full], group.keys());
        let Some((last, others)) = unfinished.split_last() else {
            group.release_pages(&mut self.pages);
            return Ok(());
        };
        let new = |(sample, id): (usize, u32)| {
            let ids = group.ids.iter().copied().chain([id]).collect();
            SequenceGroup { samples: vec![sample], ids, ..group.without_samples() }
        };
        let mut forks = Vec::new();
        for other in others {
            match self.fork_pages(&group.pages, full)? {
                Some(pages) => {
                    forks.push(SequenceGroup { pages, computed: group.computed, ..new(*other) })
                }
                None => {
                    self.stats.preemptions += 1;
                    self.waiting.push_front(new(*other));
                }
            }
        }
        let last =
            SequenceGroup { pages: group.pages.clone(), computed: group.computed, ..new(*last) };
        forks.push(last);
        self.running.splice(index..index, forks);
        Ok(())
    }

    /// The pages for one more sequence: full ones are shared, the partial one is copied.
    fn fork_pages(&mut self, pages: &[usize], full: usize) -> Result<Option<Vec<usize>>> {
        let mut copies = Vec::new();
        for page in &pages[full..] {
            match self.pages.copy(*page)? {
                Some(copy) => copies.push(copy),
                None => {
                    copies.into_iter().for_each(|page| self.pages.release(page));
                    return Ok(None);
                }
            }
        }
        pages[..full].iter().for_each(|page| self.pages.retain(*page));
        Ok(Some([&pages[..full], &copies].concat()))
    }
}

impl SequenceGroup {
    /// A group of the same request without samples, tokens or pages.
    fn without_samples(&self) -> Self {
        Self {
            request: self.request,
            prompt: self.prompt.clone(),
            keys: self.keys.clone(),
            sampling: self.sampling.clone(),
            stream: self.stream,
            first_sample: self.first_sample,
            samples: Vec::new(),
            ids: Vec::new(),
            pages: Vec::new(),
            computed: 0,
            was_preempted: self.was_preempted,
            cached: None,
            prompt_logprobs: None,
        }
    }
}
