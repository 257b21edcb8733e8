//! Sampling with continuous batching.
//!
//! Requests enter and leave at any step. [`Engine::step`] computes a budget of tokens: one for each
//! sequence that decodes, and chunks of prompts with what is left. Keys and values lie in pages;
//! sequences that begin alike share them by reference, be it the samples of a prompt or a system
//! prompt across requests. When pages run out, the youngest sequence is put back and computed again
//! later. What a request gives depends on it alone, to the bit.

mod cache;
mod linear;
mod model;
mod pages;
mod schedule;

use std::collections::VecDeque;
use std::sync::Arc;

use candle_core::Tensor;
use embodied_r_kernels::paged_attention::PAGE;
use embodied_r_kernels::pool;

use crate::error::{Error, Result};
use crate::generate::{Finish, Request};
use crate::prompt::{Prompt, TokenKey, text_key};
use crate::random::Stream;
use crate::sampling::{History, Row, Sampling, Token, draw_rows};
use crate::tape::Tape;
use cache::CacheShape;
pub use model::InferenceModel;
use model::{Batch, Part};
use pages::Pages;

/// What an engine may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineOptions {
    /// Sequences that are decoded together, at most.
    pub max_num_seqs: usize,
    /// Tokens that a step computes, at most: one for each sequence that decodes, and prompts in
    /// chunks of what is left.
    pub max_num_batched_tokens: usize,
    /// Tokens whose keys and values are kept, at most; none: as many as the running sequences need.
    pub kv_cache_tokens: Option<usize>,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self { max_num_seqs: 256, max_num_batched_tokens: 2048, kv_cache_tokens: None }
    }
}

/// Names a request of an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(u64);

/// What a step gives.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// A token was drawn.
    Token {
        /// Its request.
        request: RequestId,
        /// Index among the request's samples.
        sample: usize,
        /// The token.
        token: Token,
    },
    /// A completion is finished; nothing more comes of it.
    Finished {
        /// Its request.
        request: RequestId,
        /// Index among the request's samples.
        sample: usize,
        /// Why.
        finish: Finish,
    },
}

/// How an engine is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EngineStats {
    /// Sequences that wait for their turn.
    pub waiting: usize,
    /// Sequences that are being decoded or prefilled.
    pub running: usize,
    /// Tokens whose keys and values are kept.
    pub kv_cache_tokens: usize,
    /// Tokens whose keys and values can be kept, if that is bounded.
    pub kv_cache_capacity: Option<usize>,
    /// Prompt tokens computed so far.
    pub prefilled_tokens: u64,
    /// Prompt tokens that were taken from the cache so far.
    pub cached_tokens: u64,
    /// Tokens drawn so far.
    pub generated_tokens: u64,
    /// Sequences put back so far because memory ran out.
    pub preemptions: u64,
}

/// Draws completions for requests that come and go.
pub struct Engine {
    model: Arc<InferenceModel>,
    options: EngineOptions,
    pages: Pages,
    /// What waits for its turn, the oldest first.
    waiting: VecDeque<Job>,
    /// What has its turn: jobs whose tokens are being computed, and sequences that are decoded,
    /// those of one prompt side by side.
    running: Vec<Job>,
    next_id: u64,
    stats: EngineStats,
    /// What is kept of the steps, if it is wanted.
    tape: Option<Tape>,
}

/// A prompt for some samples of a request or, once it has drawn a token, one sample.
struct Job {
    request: RequestId,
    prompt: Arc<Prompt>,
    /// What the prompt's tokens are known by.
    keys: Arc<[TokenKey]>,
    sampling: Arc<Sampling>,
    stream: u64,
    /// Indices of the samples that are to be drawn; one, if there are `ids`.
    samples: Vec<usize>,
    /// The sample's tokens so far.
    ids: Vec<u32>,
    /// Pages of keys and values, from the prompt's first token on.
    pages: Vec<usize>,
    /// Tokens whose keys and values are in the pages.
    computed: usize,
}

impl Job {
    /// Tokens of the prompt and the sample so far.
    fn len(&self) -> usize {
        self.prompt.len() + self.ids.len()
    }

    /// The tokens from position `first` on.
    fn tokens(&self, first: usize) -> impl Iterator<Item = u32> + '_ {
        let ids = first.saturating_sub(self.prompt.len());
        self.prompt.ids().iter().skip(first).chain(self.ids.iter().skip(ids)).copied()
    }

    /// What the tokens are known by.
    fn keys(&self) -> impl Iterator<Item = TokenKey> + '_ {
        self.keys.iter().copied().chain(self.ids.iter().map(|id| text_key(*id)))
    }

    /// Gives the pages back. What stands in them stays known for whoever begins with the same tokens.
    fn leave(&mut self, pages: &mut Pages) {
        let full = self.computed / PAGE;
        pages.publish(&self.pages[..full], self.keys());
        self.pages.drain(..).for_each(|page| pages.leave(page));
        self.computed = 0;
    }

    /// Whether one token is left to compute before the next one can be drawn.
    fn decodes(&self) -> bool {
        !self.ids.is_empty() && self.computed + 1 == self.len()
    }
}

impl Engine {
    /// An engine without requests.
    ///
    /// # Errors
    /// [`Error::Engine`] names an option that is 0 or does not fit another.
    pub fn new(model: Arc<InferenceModel>, options: EngineOptions) -> Result<Self> {
        options.check()?;
        let capacity = options.kv_cache_tokens.map(|tokens| tokens / PAGE);
        let (heads, layers) = (model.heads(), model.config().num_hidden_layers);
        let pages = Pages::new(CacheShape { heads, layers, capacity }, model.device());
        Ok(Self {
            model,
            options,
            pages,
            waiting: VecDeque::new(),
            running: Vec::new(),
            next_id: 0,
            stats: EngineStats::default(),
            tape: None,
        })
    }

    /// Keeps on `tape` from now on what an update needs of the steps.
    pub(crate) fn record(&mut self, tape: Tape) {
        self.tape = Some(tape);
    }

    /// What was kept of the completions that have ended.
    pub(crate) fn into_tape(self) -> Option<Tape> {
        self.tape
    }

    /// Takes a request into the queue.
    ///
    /// # Errors
    /// [`Error::Sampling`], or [`Error::Sequence`] if the prompt is empty, has an id outside the
    /// vocabulary, leaves no room for a token, or needs more keys and values than may be kept.
    pub fn add(&mut self, request: &Request, sampling: &Arc<Sampling>) -> Result<RequestId> {
        sampling.check()?;
        sampling.check_ids(self.model.config().vocab_size)?;
        self.check(request, sampling).map_err(|fault| Error::Sequence { index: 0, fault })?;
        let id = RequestId(self.next_id);
        self.next_id += 1;
        if request.samples > 0 {
            self.waiting.push_back(Job {
                request: id,
                prompt: Arc::new(request.prompt.clone()),
                keys: request.prompt.keys().into(),
                sampling: sampling.clone(),
                stream: request.stream,
                samples: (0..request.samples).collect(),
                ids: Vec::new(),
                pages: Vec::new(),
                computed: 0,
            });
        }
        Ok(id)
    }

    fn check(&self, request: &Request, sampling: &Sampling) -> Result<(), String> {
        let config = self.model.config();
        let (length, most) = (request.prompt.len(), config.max_position_embeddings);
        if length == 0 {
            return Err("the prompt is empty".into());
        }
        if length >= most {
            return Err(format!("{length} tokens leave no room, the model takes at most {most}"));
        }
        if sampling.max_new_tokens == 0 {
            return Err("`max_new_tokens` is 0, want 1 or more".into());
        }
        if let Some(id) = request.prompt.ids().iter().find(|id| **id as usize >= config.vocab_size)
        {
            return Err(format!("id {id} is outside the vocabulary of {}", config.vocab_size));
        }
        match request.prompt.inserted_width() {
            Some(_) if config.rope.mrope_section.is_none() => {
                return Err("there is an image in it, and the model is one of text alone".into());
            }
            Some(width) if width != config.hidden_size => {
                let hidden = config.hidden_size;
                return Err(format!("an image in it is {width} wide, the model {hidden}"));
            }
            _ => {}
        }
        // The last token's keys and values are not needed.
        let longest = most.min(length + sampling.max_new_tokens) - 1;
        match self.pages.capacity() {
            Some(capacity) if longest.div_ceil(PAGE) > capacity => {
                let kept = capacity * PAGE;
                Err(format!("up to {longest} tokens, the cache holds {kept}, make it larger"))
            }
            _ => Ok(()),
        }
    }

    /// Ends a request: nothing more comes of it.
    pub fn cancel(&mut self, request: RequestId) {
        self.drop_jobs(|job| job.request == request);
    }

    /// Ends one sample of a request: nothing more comes of it.
    pub fn cancel_sample(&mut self, request: RequestId, sample: usize) {
        for job in self.waiting.iter_mut().chain(&mut self.running) {
            if job.request == request {
                job.samples.retain(|other| *other != sample);
            }
        }
        self.drop_jobs(|job| job.samples.is_empty());
    }

    /// Takes out the jobs for which `ended` holds.
    fn drop_jobs(&mut self, ended: impl Fn(&Job) -> bool) {
        self.waiting.retain(|job| !ended(job));
        for mut job in self.running.extract_if(.., |job| ended(job)) {
            job.leave(&mut self.pages);
        }
    }

    /// Whether a step has anything to do.
    pub fn has_work(&self) -> bool {
        !self.waiting.is_empty() || !self.running.is_empty()
    }

    /// How the engine is doing.
    pub fn stats(&self) -> EngineStats {
        let samples = |job: &Job| job.samples.len();
        EngineStats {
            waiting: self.waiting.iter().map(samples).sum(),
            running: self.running.iter().map(samples).sum(),
            kv_cache_tokens: self.pages.used() * PAGE,
            kv_cache_capacity: self.pages.capacity().map(|pages| pages * PAGE),
            ..self.stats
        }
    }

    /// Computes up to the budget of tokens, and gives what was drawn and what has ended.
    ///
    /// # Errors
    /// The decoder cannot go on.
    pub fn step(&mut self) -> Result<Vec<Output>> {
        let chunks = self.schedule();
        let mut batch = Batch::default();
        let mut ready = Vec::new();
        for (index, tokens) in chunks {
            let job = &mut self.running[index];
            let (rows, position) = (batch.ids.len()..batch.ids.len() + tokens, job.computed);
            batch.ids.extend(job.tokens(position).take(tokens).map(|id| id as usize));
            batch.add_places(&job.prompt, position..position + tokens, rows.start);
            job.computed += tokens;
            let wanted = job.computed == job.len();
            if wanted {
                ready.push(index);
            }
            let pages = job.pages[..job.computed.div_ceil(PAGE)].to_vec();
            batch.parts.push(Part { rows, position, pages, wanted });
        }
        if batch.ids.is_empty() {
            return Ok(Vec::new());
        }
        // Otherwise threads would be put to sleep and woken for each of the step's many short parts.
        let device = self.model.device().clone();
        pool::awake(&device, || {
            let logits = self.model.step(&batch, &mut self.pages, self.tape.as_mut())?;
            self.draw(&ready, &logits)
        })
    }

    /// Draws the next token for each sample of the jobs `ready`, each from its row of logits.
    fn draw(&mut self, ready: &[usize], logits: &Tensor) -> Result<Vec<Output>> {
        let row = |index: &usize| {
            let Job { prompt, ids, sampling, stream, samples, .. } = &self.running[*index];
            let uniform =
                |sample: &usize| Stream::new(*stream, *sample as u64).uniform(ids.len() as u64);
            Row {
                sampling,
                history: History { prompt: prompt.ids(), completion: ids },
                uniforms: samples.iter().map(uniform).collect(),
            }
        };
        let rows: Vec<Row<'_>> = ready.iter().map(row).collect();
        let drawn = draw_rows(logits, &rows)?;
        let mut outputs = Vec::new();
        // From the last on, so that the jobs that follow keep their places.
        for (index, tokens) in ready.iter().zip(drawn).rev() {
            self.settle(*index, tokens, &mut outputs)?;
        }
        Ok(outputs)
    }

    /// Gives a job's samples their tokens; those that have not ended go on in its place.
    fn settle(
        &mut self,
        index: usize,
        tokens: Vec<Token>,
        outputs: &mut Vec<Output>,
    ) -> Result<()> {
        self.stats.generated_tokens += tokens.len() as u64;
        let most = self.model.config().max_position_embeddings;
        let job = &mut self.running[index];
        let mut going_on = Vec::new();
        for (sample, token) in job.samples.iter().copied().zip(tokens) {
            let (request, id) = (job.request, token.id);
            outputs.push(Output::Token { request, sample, token });
            let finish = if job.sampling.stop_ids.contains(&id) {
                Some(Finish::Stop)
            } else if job.ids.len() + 1 >= job.sampling.max_new_tokens || job.len() + 1 >= most {
                Some(Finish::Length)
            } else {
                None
            };
            match finish {
                Some(finish) => {
                    outputs.push(Output::Finished { request, sample, finish });
                    if let Some(tape) = &mut self.tape
                        && job.prompt.is_text()
                        && let Some(rows) = self.pages.taped(&job.pages, job.computed)
                    {
                        let ids = job.ids.iter().copied().chain([id]).collect();
                        tape.insert(job.prompt.ids(), ids, rows);
                    }
                }
                None => going_on.push((sample, id)),
            }
        }
        match going_on[..] {
            [(_, id)] if job.samples.len() == 1 && !job.ids.is_empty() => {
                job.ids.push(id);
                Ok(())
            }
            _ => {
                let job = self.running.remove(index);
                self.fork(index, job, going_on)
            }
        }
    }
}

#[cfg(test)]
mod tests;
