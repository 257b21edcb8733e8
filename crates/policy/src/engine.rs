//! The inference engine: continuous batching over a paged KV cache.
//!
//! Requests enter and leave at any step. [`Engine::step`] computes a budget of tokens: one for each
//! decoding sequence, and chunked prefill with the rest. Sequences with a common prefix share its pages
//! by reference, within a request's samples as well as across requests (prefix caching). When the cache
//! is full, the youngest sequence is preempted and later recomputed. A request's output is bit-identical
//! whatever other requests are in the batch.

mod chunk;
mod kv_cache;
mod linear;
mod logit_rows;
mod model;
mod page_allocator;
mod prompt_logprobs;
mod request;
mod schedule;

use std::collections::VecDeque;
use std::sync::Arc;

use candle_core::Tensor;
use embodied_r_kernels::paged_attention::PAGE_SIZE;
use embodied_r_kernels::thread_pool;
use embodied_r_random::Stream;

use crate::activation_cache::ActivationCache;
use crate::error::{Error, Result};
use crate::prompt::{Prompt, TokenKey, text_key};
use crate::sampling::{History, Row, SampledToken, SamplingParams, TokenLogprobs, draw_rows};
use chunk::SequenceChunk;
use kv_cache::KvCacheShape;
use logit_rows::LogitRows;
use model::Batch;
pub use model::{InferenceModel, LAUNCHES_PER_LAYER};
use page_allocator::PageAllocator;
pub use request::{FinishReason, GenerationRequest};

/// Limits of an engine, named as in vLLM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineOptions {
    /// Maximum number of concurrent sequences.
    pub max_num_seqs: usize,
    /// Maximum number of tokens per step: one for each decoding sequence, and chunked prefill with the
    /// rest.
    pub max_num_batched_tokens: usize,
    /// Capacity of the KV cache in tokens; `None` grows it with the running sequences.
    pub kv_cache_tokens: Option<usize>,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self { max_num_seqs: 256, max_num_batched_tokens: 2048, kv_cache_tokens: None }
    }
}

/// Identifies a request within an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(u64);

/// An output of a step.
#[derive(Debug, Clone, PartialEq)]
pub enum EngineOutput {
    /// A prompt is computed; precedes the tokens of its samples. If the samples of a request start in several steps,
    /// the first of these outputs counts.
    Prefilled {
        /// Its request.
        request: RequestId,
        /// Prompt tokens found in the prefix cache.
        cached_tokens: usize,
        /// Of the prompt's tokens after the first, if [`SamplingParams::prompt_logprobs`] requests them.
        logprobs: Option<Vec<TokenLogprobs>>,
    },
    /// A token was sampled.
    Token {
        /// Its request.
        request: RequestId,
        /// Index of the sample within the request.
        sample: usize,
        /// The token.
        token: SampledToken,
    },
    /// A completion has finished; it produces no further outputs.
    Finished {
        /// Its request.
        request: RequestId,
        /// Index of the sample within the request.
        sample: usize,
        /// Why it finished.
        finish_reason: FinishReason,
    },
    /// The model's logits for a sample are not finite: it ends without a further token.
    NonFinite {
        /// Its request.
        request: RequestId,
        /// Index of the sample within the request.
        sample: usize,
    },
}

/// What happens to a sample whose logits are not finite, because of a NaN weight or an overflow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NonFiniteLogits {
    /// It ends with [`EngineOutput::NonFinite`].
    End,
    /// It goes on, with NaN as the log-probability: the trainer then skips the update and reports why.
    Sample,
}

/// Statistics of an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EngineStats {
    /// Queued sequences.
    pub waiting: usize,
    /// Sequences that are prefilling or decoding.
    pub running: usize,
    /// KV cache in use by running sequences, in tokens of whole pages.
    pub kv_cache_tokens: usize,
    /// KV cache that no sequence uses, kept for prompts with the same prefix until its pages are needed.
    pub prefix_cache_tokens: usize,
    /// Capacity of the KV cache in tokens, if bounded.
    pub kv_cache_capacity: Option<usize>,
    /// Prompt tokens computed so far, without recomputation after preemptions.
    pub prefilled_tokens: u64,
    /// Prompt tokens served from the prefix cache so far, without those of preempted sequences that start again.
    pub cached_tokens: u64,
    /// Tokens sampled so far.
    pub generated_tokens: u64,
    /// Sequences preempted so far because the KV cache was full.
    pub preemptions: u64,
}

/// An inference engine with continuous batching.
pub struct Engine {
    model: Arc<InferenceModel>,
    options: EngineOptions,
    pages: PageAllocator,
    /// Queued groups, the oldest first.
    waiting: VecDeque<SequenceGroup>,
    /// Groups that are prefilling, and decoding sequences; those of one prompt are adjacent.
    running: Vec<SequenceGroup>,
    next_id: u64,
    stats: EngineStats,
    /// Records the steps' activations for the update, if enabled.
    activation_cache: Option<ActivationCache>,
    non_finite: NonFiniteLogits,
}

/// A prompt with the samples to draw from it or, after its first sampled token, a single sequence.
struct SequenceGroup {
    request: RequestId,
    prompt: Arc<Prompt>,
    /// The prompt tokens' keys for prefix caching.
    keys: Arc<[TokenKey]>,
    sampling: Arc<SamplingParams>,
    stream: u64,
    /// Index of sample 0 in the stream.
    first_sample: usize,
    /// Indices of the samples to draw; exactly one if `ids` is not empty.
    samples: Vec<usize>,
    /// The sample's tokens so far.
    ids: Vec<u32>,
    /// The page table: KV-cache pages from the prompt's first token on.
    pages: Vec<usize>,
    /// Tokens whose keys and values are cached.
    computed: usize,
    /// Whether it was preempted before, so that its prompt is counted already.
    was_preempted: bool,
    /// Prompt tokens that the prefix cache had when the group started.
    cached: Option<usize>,
    /// Of the prompt's tokens after the first, if requested and not yet reported.
    prompt_logprobs: Option<Vec<TokenLogprobs>>,
}

impl SequenceGroup {
    /// Number of tokens of the prompt and the sample so far.
    fn len(&self) -> usize {
        self.prompt.len() + self.ids.len()
    }

    /// The tokens from position `first` on.
    fn tokens(&self, first: usize) -> impl Iterator<Item = u32> + '_ {
        let ids = first.saturating_sub(self.prompt.len());
        self.prompt.ids().iter().skip(first).chain(self.ids.iter().skip(ids)).copied()
    }

    /// The tokens' keys for prefix caching.
    fn keys(&self) -> impl Iterator<Item = TokenKey> + '_ {
        self.keys.iter().copied().chain(self.ids.iter().map(|id| text_key(*id)))
    }

    /// Releases the pages. Their content stays in the prefix cache until it is evicted.
    fn release_pages(&mut self, pages: &mut PageAllocator) {
        let full = self.computed / PAGE_SIZE;
        pages.register_prefix(&self.pages[..full], self.keys());
        self.pages.drain(..).for_each(|page| pages.release(page));
        self.computed = 0;
    }

    /// Whether the sequence is decoding: one token is left to compute before the next is sampled.
    fn decodes(&self) -> bool {
        !self.ids.is_empty() && self.computed + 1 == self.len()
    }
}

impl Engine {
    /// An engine without requests.
    ///
    /// # Errors
    /// [`Error::Engine`] for an option that is 0 or inconsistent with another.
    pub fn new(model: Arc<InferenceModel>, options: EngineOptions) -> Result<Self> {
        options.check()?;
        let capacity = options.kv_cache_tokens.map(|tokens| tokens / PAGE_SIZE);
        let (heads, layers) = (model.heads(), model.config().num_hidden_layers);
        let pages = PageAllocator::new(KvCacheShape { heads, layers, capacity }, model.device());
        Ok(Self {
            model,
            options,
            pages,
            waiting: VecDeque::new(),
            running: Vec::new(),
            next_id: 0,
            stats: EngineStats::default(),
            activation_cache: None,
            non_finite: NonFiniteLogits::End,
        })
    }

    /// Sets what happens to samples with non-finite logits.
    pub(crate) fn with_non_finite(self, non_finite: NonFiniteLogits) -> Self {
        Self { non_finite, ..self }
    }

    /// Records the activations of the following steps for the update.
    pub(crate) fn record_activations(&mut self, activation_cache: ActivationCache) {
        self.activation_cache = Some(activation_cache);
    }

    /// The recorded activations of the finished completions.
    pub(crate) fn into_activation_cache(self) -> Option<ActivationCache> {
        self.activation_cache
    }

    /// Queues a request.
    ///
    /// # Errors
    /// [`Error::Sampling`], or [`Error::Sequence`] if the prompt is empty, has an id outside the
    /// vocabulary, fills the context, or may exceed the KV cache.
    pub fn add(
        &mut self,
        request: &GenerationRequest,
        sampling: &Arc<SamplingParams>,
    ) -> Result<RequestId> {
        sampling.check()?;
        sampling.check_ids(self.model.config().vocab_size)?;
        self.check(request, sampling).map_err(|fault| Error::Sequence { index: 0, fault })?;
        let id = RequestId(self.next_id);
        self.next_id += 1;
        if request.samples > 0 {
            self.waiting.push_back(SequenceGroup {
                request: id,
                prompt: Arc::new(request.prompt.clone()),
                keys: request.prompt.keys().into(),
                sampling: sampling.clone(),
                stream: request.stream,
                first_sample: request.first_sample,
                samples: (0..request.samples).collect(),
                ids: Vec::new(),
                pages: Vec::new(),
                computed: 0,
                was_preempted: false,
                cached: None,
                prompt_logprobs: sampling.prompt_logprobs.map(|_| Vec::new()),
            });
        }
        Ok(id)
    }

    fn check(&self, request: &GenerationRequest, sampling: &SamplingParams) -> Result<(), String> {
        let config = self.model.config();
        let (length, max_len) = (request.prompt.len(), config.max_position_embeddings);
        if length == 0 {
            return Err("the prompt is empty".into());
        }
        if length >= max_len {
            return Err(format!(
                "{length} prompt tokens leave no room for a completion, the context length is {max_len}"
            ));
        }
        if sampling.max_new_tokens == 0 {
            return Err("`max_new_tokens` must be 1 or more, not 0".into());
        }
        if let Some(id) = request.prompt.ids().iter().find(|id| **id as usize >= config.vocab_size)
        {
            return Err(format!(
                "token id {id} is outside the vocabulary of {}",
                config.vocab_size
            ));
        }
        if request.prompt.images().iter().any(|image| image.embeddings.is_none()) {
            return Err("an image of the prompt has no embeddings".into());
        }
        match request.prompt.image_hidden_size() {
            Some(_) if config.rope.mrope_section.is_none() => {
                return Err("the prompt has an image, but the model is text-only".into());
            }
            Some(width) if width != config.hidden_size => {
                let hidden = config.hidden_size;
                return Err(format!(
                    "image embeddings have hidden size {width}, the model has {hidden}"
                ));
            }
            _ => {}
        }
        // The last token's keys and values are not needed.
        let longest = max_len.min(length + sampling.max_new_tokens) - 1;
        match self.pages.capacity() {
            Some(capacity) if longest.div_ceil(PAGE_SIZE) > capacity => {
                let cached = capacity * PAGE_SIZE;
                Err(format!("up to {longest} tokens, the KV cache holds {cached}, enlarge it"))
            }
            _ => Ok(()),
        }
    }

    /// Cancels a request: it produces no further outputs.
    pub fn cancel(&mut self, request: RequestId) {
        self.remove_groups(|group| group.request == request);
    }

    /// Cancels one sample of a request: it produces no further outputs.
    pub fn cancel_sample(&mut self, request: RequestId, sample: usize) {
        for group in self.waiting.iter_mut().chain(&mut self.running) {
            if group.request == request {
                group.samples.retain(|other| *other != sample);
            }
        }
        self.remove_groups(|group| group.samples.is_empty());
    }

    /// Removes the groups for which `ended` holds.
    fn remove_groups(&mut self, ended: impl Fn(&SequenceGroup) -> bool) {
        self.waiting.retain(|group| !ended(group));
        for mut group in self.running.extract_if(.., |group| ended(group)) {
            group.release_pages(&mut self.pages);
        }
    }

    /// Whether requests are queued or running.
    pub fn has_work(&self) -> bool {
        !self.waiting.is_empty() || !self.running.is_empty()
    }

    /// Current statistics.
    pub fn stats(&self) -> EngineStats {
        let samples = |group: &SequenceGroup| group.samples.len();
        EngineStats {
            waiting: self.waiting.iter().map(samples).sum(),
            running: self.running.iter().map(samples).sum(),
            kv_cache_tokens: self.pages.used() * PAGE_SIZE,
            prefix_cache_tokens: self.pages.evictable() * PAGE_SIZE,
            kv_cache_capacity: self.pages.capacity().map(|pages| pages * PAGE_SIZE),
            ..self.stats
        }
    }

    /// Runs one step: computes up to the token budget, and returns sampled tokens and finished samples.
    ///
    /// # Errors
    /// The decoder fails.
    pub fn step(&mut self) -> Result<Vec<EngineOutput>> {
        let chunks = self.schedule();
        let mut batch = Batch::default();
        let mut ready = Vec::new();
        let mut outputs = Vec::new();
        let mut requested = Vec::new();
        for (index, tokens) in chunks {
            let group = &mut self.running[index];
            let (rows, position) = (batch.ids.len()..batch.ids.len() + tokens, group.computed);
            batch.ids.extend(group.tokens(position).take(tokens).map(|id| id as usize));
            batch.add_positions(&group.prompt, position..position + tokens, rows.start);
            group.computed += tokens;
            let is_ready = group.computed == group.len();
            if is_ready {
                ready.push(index);
            }
            let logits = match group.prompt_logprobs {
                Some(_) => tokens,
                None => usize::from(is_ready),
            };
            requested.push(LogitRows { group: index, position, rows: logits, is_ready });
            let pages = group.pages[..group.computed.div_ceil(PAGE_SIZE)].to_vec();
            batch.chunks.push(SequenceChunk { rows, position, pages, logits });
        }
        if batch.ids.is_empty() {
            return Ok(Vec::new());
        }
        // Keeps worker threads awake: a step consists of many short operations.
        let device = self.model.device().clone();
        thread_pool::with_spinning_workers(&device, || {
            let logits =
                self.model.step(&batch, &mut self.pages, self.activation_cache.as_mut())?;
            let logits = self.take_prompt_logprobs(&requested, logits)?;
            self.report_prefilled(&ready, &mut outputs);
            self.draw(&ready, &logits, &mut outputs)
        })?;
        Ok(outputs)
    }

    /// Samples the next token for each sample of the groups `ready`, each from its row of logits.
    fn draw(
        &mut self,
        ready: &[usize],
        logits: &Tensor,
        outputs: &mut Vec<EngineOutput>,
    ) -> Result<()> {
        let suppressed = &self.model.config().placeholder_token_ids;
        let row = |index: &usize| {
            let SequenceGroup { prompt, ids, sampling, stream, first_sample, samples, .. } =
                &self.running[*index];
            let uniform = |sample: &usize| {
                let stream = Stream::new(*stream, (first_sample + sample) as u64);
                stream.uniform(ids.len() as u64)
            };
            Row {
                sampling,
                history: History { prompt: prompt.ids(), completion: ids, suppressed },
                uniforms: samples.iter().map(uniform).collect(),
            }
        };
        let rows: Vec<Row<'_>> = ready.iter().map(row).collect();
        let drawn = draw_rows(logits, &rows)?;
        // From the last to the first, so that indices of earlier groups stay valid.
        for (index, tokens) in ready.iter().zip(drawn).rev() {
            self.append_tokens(*index, tokens, outputs)?;
        }
        Ok(())
    }

    /// Appends sampled tokens to a group's samples; unfinished ones continue as sequences of their own.
    fn append_tokens(
        &mut self,
        index: usize,
        tokens: Vec<SampledToken>,
        outputs: &mut Vec<EngineOutput>,
    ) -> Result<()> {
        let max_len = self.model.config().max_position_embeddings;
        let group = &mut self.running[index];
        let mut unfinished = Vec::new();
        for (sample, token) in group.samples.iter().copied().zip(tokens) {
            let (request, id) = (group.request, token.id);
            // No entry of such a row has a weight, so the token is arbitrary.
            if token.logp.is_nan() && self.non_finite == NonFiniteLogits::End {
                outputs.push(EngineOutput::NonFinite { request, sample });
                continue;
            }
            self.stats.generated_tokens += 1;
            outputs.push(EngineOutput::Token { request, sample, token });
            let finish_reason = if group.sampling.stop_ids.contains(&id) {
                Some(FinishReason::Stop)
            } else if group.ids.len() + 1 >= group.sampling.max_new_tokens
                || group.len() + 1 >= max_len
            {
                Some(FinishReason::Length)
            } else {
                None
            };
            match finish_reason {
                Some(finish_reason) => {
                    outputs.push(EngineOutput::Finished { request, sample, finish_reason });
                    if let Some(activation_cache) = &mut self.activation_cache
                        && let Some(rows) = self.pages.activation_rows(&group.pages, group.computed)
                    {
                        let ids = group.ids.iter().copied().chain([id]).collect();
                        activation_cache.insert(&group.prompt, ids, rows);
                    }
                }
                None => unfinished.push((sample, id)),
            }
        }
        match unfinished[..] {
            [(_, id)] if group.samples.len() == 1 && !group.ids.is_empty() => {
                group.ids.push(id);
                Ok(())
            }
            _ => {
                let group = self.running.remove(index);
                self.fork(index, group, unfinished)
            }
        }
    }
}

#[cfg(test)]
mod tests;
