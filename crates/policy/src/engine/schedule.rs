//! What a step computes, and where its keys and values go.

use embodied_r_kernels::paged_attention::PAGE;

use super::{Engine, EngineOptions, Job};
use crate::error::{Error, Result};
use crate::prompt::TokenKey;

impl EngineOptions {
    /// Refuses options with which no step could be made.
    pub(super) fn check(&self) -> Result<()> {
        let Self { max_num_seqs, max_num_batched_tokens, kv_cache_tokens } = *self;
        let refuse = |option, found, want| Err(Error::Engine { option, found, want });
        if max_num_seqs == 0 {
            return refuse("max_num_seqs", 0, "1 or more".to_owned());
        }
        if max_num_batched_tokens < max_num_seqs {
            let want = format!("`max_num_seqs`, which is {max_num_seqs}, or more");
            return refuse("max_num_batched_tokens", max_num_batched_tokens, want);
        }
        match kv_cache_tokens {
            Some(tokens) if tokens < PAGE => {
                refuse("kv_cache_tokens", tokens, format!("a page of {PAGE} tokens or more"))
            }
            _ => Ok(()),
        }
    }
}

impl Engine {
    /// The running jobs of this step with the number of tokens that each computes; there are pages
    /// for them.
    pub(super) fn schedule(&mut self) -> Vec<(usize, usize)> {
        let mut budget = self.options.max_num_batched_tokens;
        self.make_room();
        let decoding = self.running.iter().filter(|job| job.decodes()).count();
        budget -= decoding.min(budget);
        self.admit(budget);
        let mut chunks = Vec::new();
        for (index, job) in self.running.iter().enumerate() {
            if job.decodes() {
                chunks.push((index, 1));
                continue;
            }
            let tokens = budget.min(job.len() - job.computed);
            budget -= tokens;
            if tokens > 0 {
                chunks.push((index, tokens));
            }
        }
        chunks
    }

    /// Puts back the youngest jobs until every decoding one has a page for its next token.
    fn make_room(&mut self) {
        let mut index = 0;
        while index < self.running.len() {
            let job = &mut self.running[index];
            if job.pages.len() * PAGE > job.computed {
                index += 1;
            } else if let Some(page) = self.pages.take() {
                job.pages.push(page);
            } else {
                self.put_back();
                // Places have changed.
                index = 0;
            }
        }
    }

    /// Puts the youngest running job back to the front of the queue. Its tokens stay, its keys and
    /// values are computed again.
    fn put_back(&mut self) {
        let youngest = (0..self.running.len()).max_by_key(|i| {
            let job = &self.running[*i];
            (job.request, job.samples.last().copied())
        });
        let Some(youngest) = youngest else { return };
        let mut job = self.running.remove(youngest);
        job.leave(&mut self.pages);
        self.stats.preemptions += job.samples.len() as u64;
        self.waiting.push_front(job);
    }

    /// Lets waiting jobs begin while there is room for their sequences and a page for their tokens.
    fn admit(&mut self, mut budget: usize) {
        let computing = |job: &Job| if job.decodes() { 0 } else { job.len() - job.computed };
        budget = budget.saturating_sub(self.running.iter().map(computing).sum());
        let mut sequences: usize = self.running.iter().map(|job| job.samples.len()).sum();
        while budget > 0 && sequences < self.options.max_num_seqs {
            let Some(job) = self.waiting.pop_front() else { return };
            let slots = self.options.max_num_seqs - sequences;
            let Some(job) = self.begin(job, slots) else { return };
            sequences += job.samples.len();
            budget = budget.saturating_sub(computing(&job));
            self.running.push(job);
        }
    }

    /// The job with the pages that are known already and a first one of its own, or nothing (and it
    /// waits on) while there is no room. Samples beyond `slots` wait on.
    fn begin(&mut self, mut job: Job, slots: usize) -> Option<Job> {
        // The last token is computed in any case: its logits are wanted.
        let keys: Vec<TokenKey> = job.keys().take(job.len() - 1).collect();
        job.pages = self.pages.find(&keys);
        job.computed = job.pages.len() * PAGE;
        let wanted = job.len().div_ceil(PAGE) - job.pages.len();
        // A little room is left for those that run, or they would soon be put back.
        if !self.pages.has_room(wanted + self.running.len().min(1)) && !self.running.is_empty() {
            job.leave(&mut self.pages);
            self.waiting.push_front(job);
            return None;
        }
        while job.pages.len() < job.len().div_ceil(PAGE) {
            match self.pages.take() {
                Some(page) => job.pages.push(page),
                None => {
                    job.leave(&mut self.pages);
                    self.waiting.push_front(job);
                    return None;
                }
            }
        }
        self.stats.cached_tokens += job.computed as u64;
        self.stats.prefilled_tokens += (job.len() - job.computed) as u64;
        if job.samples.len() > slots {
            let later = job.samples.split_off(slots);
            self.waiting.push_front(Job { samples: later, ..job.again() });
        }
        Some(job)
    }

    /// Puts a job for each of the samples that go on in the place of the job that they come from.
    /// They share its full pages; all but one get a copy of the last one, or wait if there is none.
    ///
    /// # Errors
    /// The device has no room for a copy.
    pub(super) fn fork(
        &mut self,
        index: usize,
        mut job: Job,
        going_on: Vec<(usize, u32)>,
    ) -> Result<()> {
        let full = job.computed / PAGE;
        // Whoever begins with the same tokens can have them from now on.
        self.pages.publish(&job.pages[..full], job.keys());
        let Some((last, others)) = going_on.split_last() else {
            job.leave(&mut self.pages);
            return Ok(());
        };
        let new = |(sample, id): (usize, u32)| {
            let ids = job.ids.iter().copied().chain([id]).collect();
            Job { samples: vec![sample], ids, ..job.again() }
        };
        let mut forks = Vec::new();
        for other in others {
            match self.forked(&job.pages, full)? {
                Some(pages) => forks.push(Job { pages, computed: job.computed, ..new(*other) }),
                None => {
                    self.stats.preemptions += 1;
                    self.waiting.push_front(new(*other));
                }
            }
        }
        let last = Job { pages: job.pages.clone(), computed: job.computed, ..new(*last) };
        forks.push(last);
        self.running.splice(index..index, forks);
        Ok(())
    }

    /// The same pages for one more sequence: the full ones shared, what is behind them copied.
    fn forked(&mut self, pages: &[usize], full: usize) -> Result<Option<Vec<usize>>> {
        let mut copies = Vec::new();
        for page in &pages[full..] {
            match self.pages.copy(*page)? {
                Some(copy) => copies.push(copy),
                None => {
                    copies.into_iter().for_each(|page| self.pages.leave(page));
                    return Ok(None);
                }
            }
        }
        pages[..full].iter().for_each(|page| self.pages.share(*page));
        Ok(Some([&pages[..full], &copies].concat()))
    }
}

impl Job {
    /// A job for the same request without samples, tokens or pages.
    fn again(&self) -> Self {
        Self {
            request: self.request,
            prompt: self.prompt.clone(),
            keys: self.keys.clone(),
            sampling: self.sampling.clone(),
            stream: self.stream,
            samples: Vec::new(),
            ids: Vec::new(),
            pages: Vec::new(),
            computed: 0,
        }
    }
}
