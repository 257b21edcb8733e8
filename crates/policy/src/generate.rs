//! Sampling with a key-value cache and continuous batching.
//!
//! A request's prompt is computed once for all of its samples. A finished sequence leaves the batch
//! at once and makes room for the next request, so that no step waits for the longest completion.

mod cache;
mod sampler;

use embodied_r_kernels::decode_attention::{self, DecodeGroup, Row};
use embodied_r_kernels::{attention, embedding, linear, memory, rms_norm};

use crate::decoder::{attention_input, attention_output, feed_forward};
use crate::error::{Error, Result};
use crate::packed::{Group, PackedBatch};
use crate::policy::Policy;
use crate::random::Stream;
use cache::{Cache, LayerCache};
use sampler::sample;

/// How tokens are drawn.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 takes the likeliest token always.
    pub temperature: f64,
    /// Draw among so many of the likeliest tokens; 0 means all.
    pub top_k: usize,
    /// Draw among the likeliest tokens that together have this probability; 1 means all.
    pub top_p: f64,
    /// Most tokens of a completion.
    pub max_new_tokens: usize,
    /// Tokens that end a completion; they are part of it.
    pub stop_ids: Vec<u32>,
}

/// A prompt and how many completions are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Ids of the prompt; at least one.
    pub prompt: Vec<u32>,
    /// Number of completions.
    pub samples: usize,
    /// Seed of this request: random numbers depend on (stream, sample, position) alone.
    pub stream: u64,
}

/// Why a completion ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// It drew a stop token.
    Stop,
    /// It reached the most tokens allowed, or the model's longest sequence.
    Length,
}

/// A completion.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Its tokens, the stop token included.
    pub ids: Vec<u32>,
    /// Each token's natural log-probability under the full softmax at the sampling temperature
    /// (at 1 for temperature 0), whatever top-k and top-p left.
    pub logps: Vec<f32>,
    /// Why it ended.
    pub finish: Finish,
}

/// What happens while completions are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum GenerateEvent {
    /// A step drew so many tokens.
    Tokens(usize),
    /// A completion is finished.
    Finished {
        /// Index of its request.
        request: usize,
        /// Index among the request's samples.
        sample: usize,
    },
}

/// Sequences decoded together, at most.
const MAX_SEQUENCES: usize = 256;

/// Prompt tokens computed together, at most (a longer prompt goes alone).
const PREFILL_TOKENS: usize = 8192;

impl Policy {
    /// Completes each request's prompt `samples` times.
    ///
    /// Gives the samples in the order of the requests. The result depends neither on the order in
    /// which sequences finish nor on what else is asked for, up to rounding.
    ///
    /// # Errors
    /// A prompt is empty, has an id outside the vocabulary, or leaves no room for a token; the
    /// sampling's numbers are out of range.
    pub fn generate(
        &self,
        requests: &[Request],
        sampling: &Sampling,
        on_event: &dyn Fn(GenerateEvent),
    ) -> Result<Vec<Vec<Sample>>> {
        sampler::check(sampling)?;
        for (index, request) in requests.iter().enumerate() {
            self.check_request(request).map_err(|fault| Error::Sequence { index, fault })?;
        }
        let mut engine = Engine { policy: self, sampling, on_event, active: Vec::new() };
        let blank = Sample { ids: Vec::new(), logps: Vec::new(), finish: Finish::Length };
        let mut done: Vec<Vec<Sample>> =
            requests.iter().map(|request| vec![blank.clone(); request.samples]).collect();
        if sampling.max_new_tokens == 0 {
            return Ok(done);
        }
        let mut next = 0;
        loop {
            let admitted = engine.admissible(&requests[next..]);
            if admitted > 0 {
                engine.prefill(requests, next..next + admitted)?;
                next += admitted;
            } else if engine.active.is_empty() {
                return Ok(done);
            } else {
                engine.decode()?;
            }
            engine.retire(&mut done);
        }
    }

    fn check_request(&self, request: &Request) -> Result<(), String> {
        let most = self.config().max_position_embeddings;
        if request.prompt.len() >= most {
            let length = request.prompt.len();
            return Err(format!("{length} tokens leave no room, the model takes at most {most}"));
        }
        Ok(())
    }
}

/// A completion that is being drawn.
struct Sequence {
    request: usize,
    sample: usize,
    stream: Stream,
    prompt: std::sync::Arc<Cache>,
    own: Cache,
    result: Sample,
    finished: bool,
}

struct Engine<'a> {
    policy: &'a Policy,
    sampling: &'a Sampling,
    on_event: &'a dyn Fn(GenerateEvent),
    active: Vec<Sequence>,
}

impl Engine<'_> {
    /// How many of the waiting requests may be prefilled now.
    fn admissible(&self, waiting: &[Request]) -> usize {
        let (mut sequences, mut tokens, mut count) = (self.active.len(), 0, 0);
        for request in waiting {
            sequences += request.samples;
            tokens += request.prompt.len();
            let full = sequences > MAX_SEQUENCES || tokens > PREFILL_TOKENS;
            if full && (count > 0 || !self.active.is_empty()) {
                break;
            }
            count += 1;
        }
        count
    }

    /// Computes the prompts of `which` together and draws the first token of each sample.
    fn prefill(&mut self, requests: &[Request], which: std::ops::Range<usize>) -> Result<()> {
        let policy = self.policy;
        let groups: Vec<Group> = requests[which.clone()]
            .iter()
            .map(|request| Group { prompt: request.prompt.clone(), completions: Vec::new() })
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
        let logits = self.logits(&embedding::gather(&x, &last)?)?;
        let rows = memory::floats(&logits, "sample")?;
        let first = self.active.len();
        for ((index, cache), row) in which.zip(caches).zip(rows.chunks(config.vocab_size)) {
            let prompt = std::sync::Arc::new(cache);
            for sample in 0..requests[index].samples {
                self.active.push(Sequence {
                    request: index,
                    sample,
                    stream: Stream::new(requests[index].stream, sample as u64),
                    prompt: prompt.clone(),
                    own: Cache::empty(config.num_hidden_layers),
                    result: Sample { ids: vec![], logps: vec![], finish: Finish::Length },
                    finished: false,
                });
            }
            let new = self.active.len() - requests[index].samples;
            sample(self.sampling, &mut self.active[new..], |_| row);
        }
        self.settle(first);
        Ok(())
    }

    /// One more token for every active sequence.
    fn decode(&mut self) -> Result<()> {
        let policy = self.policy;
        let (eps, heads) = (policy.config().rms_norm_eps, policy.heads());
        // Sequences of one prompt stand together: they were admitted together.
        let ids: Vec<usize> =
            self.active.iter().filter_map(|s| s.result.ids.last()).map(|id| *id as usize).collect();
        let width = heads.kv_width();
        let position = |s: &Sequence| s.prompt.tokens(width) + s.result.ids.len() - 1;
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
        let logits = self.logits(&x)?;
        let rows = memory::floats(&logits, "sample")?;
        let vocabulary = policy.config().vocab_size;
        sample(self.sampling, &mut self.active, |i| &rows[i * vocabulary..(i + 1) * vocabulary]);
        self.settle(0);
        Ok(())
    }

    /// The logits of each row (rows, vocabulary).
    fn logits(&self, x: &candle_core::Tensor) -> Result<candle_core::Tensor> {
        let decoder = &self.policy.decoder;
        let normed = rms_norm::forward(x, &decoder.norm, self.policy.config().rms_norm_eps)?;
        Ok(linear::forward(&normed.y, &decoder.head, None)?)
    }

    /// Marks the sequences from `first` on that their newest token has ended.
    fn settle(&mut self, first: usize) {
        let most = self.policy.config().max_position_embeddings;
        let width = self.policy.heads().kv_width();
        for sequence in &mut self.active[first..] {
            let ids = &sequence.result.ids;
            let length = sequence.prompt.tokens(width) + ids.len();
            if ids.last().is_some_and(|id| self.sampling.stop_ids.contains(id)) {
                sequence.result.finish = Finish::Stop;
                sequence.finished = true;
            } else if ids.len() >= self.sampling.max_new_tokens || length >= most {
                sequence.finished = true;
            }
        }
        (self.on_event)(GenerateEvent::Tokens(self.active.len() - first));
    }

    /// Takes the finished sequences out.
    fn retire(&mut self, done: &mut [Vec<Sample>]) {
        for sequence in self.active.extract_if(.., |sequence| sequence.finished) {
            let Sequence { request, sample, result, .. } = sequence;
            done[request][sample] = result;
            (self.on_event)(GenerateEvent::Finished { request, sample });
        }
    }
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
