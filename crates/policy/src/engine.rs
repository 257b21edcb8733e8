//! Sampling with continuous batching.
//!
//! Requests enter and leave at any step. [`Engine::step`] computes some tokens for all of them that
//! are running and gives what was drawn; whoever drives the engine hands it on.

mod cache;

use std::collections::VecDeque;
use std::sync::Arc;

use candle_core::Tensor;
use embodied_r_kernels::decode_attention::{self, DecodeGroup, Row};
use embodied_r_kernels::{attention, embedding, linear, memory, rms_norm};
use rayon::prelude::*;

use crate::config::ModelConfig;
use crate::decoder::{attention_input, attention_output, feed_forward};
use crate::error::{Error, Result};
use crate::generate::{Finish, Request};
use crate::packed::{Group, PackedBatch};
use crate::policy::Policy;
use crate::random::Stream;
use crate::sampling::{History, Sampling, Token, draw};
use cache::{Cache, LayerCache};

/// A decoder's weights as sampling reads them.
pub struct InferenceModel {
    policy: Policy,
}

impl InferenceModel {
    /// The model's shape.
    pub fn config(&self) -> &ModelConfig {
        self.policy.config()
    }
}

impl Policy {
    /// The same weights for sampling: in f32 they are shared, and a later change of the policy's is
    /// seen.
    ///
    /// # Errors
    /// There is no room for what is not shared.
    pub fn inference_model(&self) -> Result<InferenceModel> {
        Ok(InferenceModel { policy: self.shared() })
    }
}

/// What an engine may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineOptions {
    /// Sequences that are decoded together, at most.
    pub max_num_seqs: usize,
    /// Tokens that a step computes, at most: one for each sequence that decodes, and prompts in
    /// chunks of what is left.
    pub max_num_batched_tokens: usize,
    /// Tokens whose keys and values are kept, at most; none: as many as the requests need.
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
    waiting: VecDeque<Waiting>,
    active: Vec<Sequence>,
    next_id: u64,
    stats: EngineStats,
}

struct Waiting {
    id: RequestId,
    request: Request,
    sampling: Arc<Sampling>,
    cancelled: Vec<usize>,
}

/// A completion that is being drawn.
struct Sequence {
    request: RequestId,
    sample: usize,
    sampling: Arc<Sampling>,
    stream: Stream,
    prompt_ids: Arc<[u32]>,
    prompt: Arc<Cache>,
    own: Cache,
    ids: Vec<u32>,
    finish: Option<Finish>,
}

/// Prompt tokens computed together, at most (a longer prompt goes alone).
const PREFILL_TOKENS: usize = 8192;

impl Engine {
    /// An engine without requests.
    ///
    /// # Errors
    /// An option is 0.
    pub fn new(model: Arc<InferenceModel>, options: EngineOptions) -> Result<Self> {
        Ok(Self {
            model,
            options,
            waiting: VecDeque::new(),
            active: Vec::new(),
            next_id: 0,
            stats: EngineStats::default(),
        })
    }

    /// Takes a request into the queue.
    ///
    /// # Errors
    /// [`Error::Sampling`], or [`Error::Sequence`] if the prompt is empty, has an id outside the
    /// vocabulary or leaves no room for a token.
    pub fn add(&mut self, request: &Request, sampling: &Arc<Sampling>) -> Result<RequestId> {
        sampling.check()?;
        self.check(request).map_err(|fault| Error::Sequence { index: 0, fault })?;
        let id = RequestId(self.next_id);
        self.next_id += 1;
        let (request, sampling) = (request.clone(), sampling.clone());
        self.waiting.push_back(Waiting { id, request, sampling, cancelled: Vec::new() });
        Ok(id)
    }

    fn check(&self, request: &Request) -> Result<(), String> {
        let config = self.model.config();
        let (length, most) = (request.prompt.len(), config.max_position_embeddings);
        if length == 0 {
            return Err("the prompt is empty".into());
        }
        if length >= most {
            return Err(format!("{length} tokens leave no room, the model takes at most {most}"));
        }
        match request.prompt.iter().find(|id| **id as usize >= config.vocab_size) {
            Some(id) => Err(format!("id {id} is outside the vocabulary of {}", config.vocab_size)),
            None => Ok(()),
        }
    }

    /// Ends a request: nothing more comes of it.
    pub fn cancel(&mut self, request: RequestId) {
        self.waiting.retain(|waiting| waiting.id != request);
        self.active.retain(|sequence| sequence.request != request);
    }

    /// Ends one sample of a request: nothing more comes of it.
    pub fn cancel_sample(&mut self, request: RequestId, sample: usize) {
        for waiting in &mut self.waiting {
            if waiting.id == request {
                waiting.cancelled.push(sample);
            }
        }
        self.active.retain(|s| s.request != request || s.sample != sample);
    }

    /// Whether a step has anything to do.
    pub fn has_work(&self) -> bool {
        !self.waiting.is_empty() || !self.active.is_empty()
    }

    /// How the engine is doing.
    pub fn stats(&self) -> EngineStats {
        EngineStats {
            waiting: self.waiting.iter().map(|waiting| waiting.request.samples).sum(),
            running: self.active.len(),
            ..self.stats
        }
    }

    /// Computes up to the budget of tokens, and gives what was drawn and what has ended.
    ///
    /// # Errors
    /// The decoder cannot go on.
    pub fn step(&mut self) -> Result<Vec<Output>> {
        let admitted = self.admissible();
        let mut outputs = Vec::new();
        if admitted > 0 {
            self.prefill(admitted, &mut outputs)?;
        } else if !self.active.is_empty() {
            self.decode(&mut outputs)?;
        }
        self.active.retain(|sequence| sequence.finish.is_none());
        Ok(outputs)
    }

    /// How many of the waiting requests may be prefilled now.
    fn admissible(&self) -> usize {
        let (mut sequences, mut tokens, mut count) = (self.active.len(), 0, 0);
        for Waiting { request, .. } in &self.waiting {
            sequences += request.samples;
            tokens += request.prompt.len();
            let full = sequences > self.options.max_num_seqs || tokens > PREFILL_TOKENS;
            if full && (count > 0 || !self.active.is_empty()) {
                break;
            }
            count += 1;
        }
        count
    }

    /// Computes the first prompts together and draws the first token of each sample.
    fn prefill(&mut self, count: usize, outputs: &mut Vec<Output>) -> Result<()> {
        let admitted: Vec<Waiting> = self.waiting.drain(..count).collect();
        let model = self.model.clone();
        let policy = &model.policy;
        let groups: Vec<Group> = admitted
            .iter()
            .map(|w| Group { prompt: w.request.prompt.clone(), completions: Vec::new() })
            .collect();
        let config = policy.config();
        let batch = PackedBatch::new(&groups, config.vocab_size, config.max_position_embeddings)?;
        let pass = policy.pass(&batch);
        let mut caches: Vec<Cache> = groups.iter().map(|_| Cache::default()).collect();
        let mut x = embedding::gather(&policy.decoder.embedding, &batch.ids)?;
        for layer in &policy.decoder.layers {
            let (_, p) = attention_input(layer, &x, &pass.angles, pass.eps)?;
            let attended = attention::forward(&p.q, &p.k, &p.v, pass.spans, pass.heads)?;
            let (k, v) = (memory::floats(&p.k, "cache")?, memory::floats(&p.v, "cache")?);
            let width = pass.heads.kv_width();
            for (cache, span) in caches.iter_mut().zip(&batch.spans) {
                let at = span.prompt.start * width..span.prompt.end * width;
                cache.layers.push(LayerCache { k: k[at.clone()].to_vec(), v: v[at].to_vec() });
            }
            let middle = attention_output(layer, &x, &attended.out)?;
            x = feed_forward(layer, &middle, pass.eps)?.0;
        }
        let last: Vec<usize> = batch.spans.iter().map(|span| span.prompt.end - 1).collect();
        let logits = logits(policy, &embedding::gather(&x, &last)?)?;
        let rows = memory::floats(&logits, "sample")?;
        let first = self.active.len();
        let mut row_of = Vec::new();
        for (row, (waiting, cache)) in admitted.into_iter().zip(caches).enumerate() {
            let Waiting { id, request, sampling, cancelled } = waiting;
            let (prompt, prompt_ids) = (Arc::new(cache), Arc::<[u32]>::from(request.prompt));
            self.stats.prefilled_tokens += prompt_ids.len() as u64;
            for sample in (0..request.samples).filter(|sample| !cancelled.contains(sample)) {
                row_of.push(row);
                self.active.push(Sequence {
                    request: id,
                    sample,
                    sampling: sampling.clone(),
                    stream: Stream::new(request.stream, sample as u64),
                    prompt_ids: prompt_ids.clone(),
                    prompt: prompt.clone(),
                    own: Cache::empty(config.num_hidden_layers),
                    ids: Vec::new(),
                    finish: None,
                });
            }
        }
        let vocabulary = config.vocab_size;
        self.draw(first, |i| &rows[row_of[i] * vocabulary..][..vocabulary], outputs);
        Ok(())
    }

    /// One more token for every active sequence.
    fn decode(&mut self, outputs: &mut Vec<Output>) -> Result<()> {
        let model = self.model.clone();
        let policy = &model.policy;
        let (eps, heads) = (policy.config().rms_norm_eps, policy.heads());
        // Sequences of one prompt stand together: they were admitted together.
        let ids: Vec<usize> =
            self.active.iter().filter_map(|s| s.ids.last()).map(|id| *id as usize).collect();
        let width = heads.kv_width();
        let position = |s: &Sequence| s.prompt.tokens(width) + s.ids.len() - 1;
        let positions: Vec<usize> = self.active.iter().map(position).collect();
        let angles = policy.angles(&positions);
        let mut x = embedding::gather(&policy.decoder.embedding, &ids)?;
        for (index, layer) in policy.decoder.layers.iter().enumerate() {
            let (_, p) = attention_input(layer, &x, &angles, eps)?;
            {
                let (k, v) = (memory::floats(&p.k, "cache")?, memory::floats(&p.v, "cache")?);
                for (row, sequence) in self.active.iter_mut().enumerate() {
                    let at = row * width..(row + 1) * width;
                    sequence.own.layers[index].k.extend_from_slice(&k[at.clone()]);
                    sequence.own.layers[index].v.extend_from_slice(&v[at]);
                }
            }
            let groups = groups(&self.active, index);
            let attended =
                decode_attention::forward(&memory::floats(&p.q, "decode")?, &groups, heads)?;
            let attended = memory::tensor(attended, (ids.len(), heads.query_width()))?;
            let middle = attention_output(layer, &x, &attended)?;
            x = feed_forward(layer, &middle, eps)?.0;
        }
        let logits = logits(policy, &x)?;
        let rows = memory::floats(&logits, "sample")?;
        let vocabulary = policy.config().vocab_size;
        self.draw(0, |i| &rows[i * vocabulary..(i + 1) * vocabulary], outputs);
        Ok(())
    }

    /// Draws a token for each sequence from `first` on, from `logits(index)`.
    fn draw<'a>(
        &mut self,
        first: usize,
        logits: impl Fn(usize) -> &'a [f32] + Sync,
        outputs: &mut Vec<Output>,
    ) {
        let sequences = &mut self.active[first..];
        let tokens: Vec<Token> = sequences
            .par_iter()
            .enumerate()
            .map(|(i, s)| {
                let history = History { prompt: &s.prompt_ids, completion: &s.ids };
                draw(logits(i), &s.sampling, history, s.stream.uniform(s.ids.len() as u64))
            })
            .collect();
        let most = self.model.config().max_position_embeddings;
        self.stats.generated_tokens += tokens.len() as u64;
        for (s, token) in sequences.iter_mut().zip(tokens) {
            s.ids.push(token.id);
            let full = s.ids.len() >= s.sampling.max_new_tokens
                || s.prompt_ids.len() + s.ids.len() >= most;
            s.finish = match s.sampling.stop_ids.contains(&token.id) {
                true => Some(Finish::Stop),
                false => full.then_some(Finish::Length),
            };
            let (request, sample) = (s.request, s.sample);
            outputs.push(Output::Token { request, sample, token });
            if let Some(finish) = s.finish {
                outputs.push(Output::Finished { request, sample, finish });
            }
        }
    }
}

/// The logits of each row (rows, vocabulary).
fn logits(policy: &Policy, x: &Tensor) -> Result<Tensor> {
    let decoder = &policy.decoder;
    let normed = rms_norm::forward(x, &decoder.norm, policy.config().rms_norm_eps)?;
    Ok(linear::forward(&normed.y, &decoder.head, None)?)
}

/// The sequences' caches of one layer, those of one prompt together.
fn groups(active: &[Sequence], layer: usize) -> Vec<DecodeGroup<'_>> {
    let mut groups: Vec<DecodeGroup<'_>> = Vec::new();
    let mut request = None;
    for (row, sequence) in active.iter().enumerate() {
        if request != Some(sequence.request) {
            let prompt = sequence.prompt.layers[layer].view();
            groups.push(DecodeGroup { prompt, rows: Vec::new() });
            request = Some(sequence.request);
        }
        if let Some(group) = groups.last_mut() {
            group.rows.push(Row { row, own: sequence.own.layers[layer].view() });
        }
    }
    groups
}
