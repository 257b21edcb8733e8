//! A decoder's weights as sampling reads them, and one step over them.

use std::ops::Range;

use candle_core::Tensor;
use embodied_r_kernels::Precision;
use embodied_r_kernels::attention::Heads;
use embodied_r_kernels::paged_attention::{self, Run};
use embodied_r_kernels::rope::{self, Angles, Frequencies, Turn};
use embodied_r_kernels::weight::Weight;
use embodied_r_kernels::{memory, rms_norm, swiglu};

use super::pages::{Pages, Write};
use crate::config::ModelConfig;
use crate::decoder::{self, Decoder};
use crate::error::Result;
use crate::policy::Policy;

/// A decoder's weights as sampling reads them.
pub struct InferenceModel {
    config: ModelConfig,
    frequencies: Frequencies,
    embedding: Weight,
    layers: Vec<Layer>,
    norm: Tensor,
    head: Weight,
}

struct Linear {
    weight: Weight,
    bias: Option<Tensor>,
}

struct Layer {
    input_norm: Tensor,
    q: Linear,
    k: Linear,
    v: Linear,
    o: Weight,
    post_norm: Tensor,
    gate: Weight,
    up: Weight,
    down: Weight,
    window: Option<usize>,
}

/// Tokens that a step computes.
pub(super) struct Batch {
    /// Ids of the tokens.
    pub(super) ids: Vec<usize>,
    /// Positions of the tokens in their sequences.
    pub(super) positions: Vec<usize>,
    /// The sequences' parts, end to end.
    pub(super) parts: Vec<Part>,
    /// Rows whose logits are wanted.
    pub(super) wanted: Vec<usize>,
}

/// Consecutive tokens of one sequence.
pub(super) struct Part {
    /// Their rows.
    pub(super) rows: Range<usize>,
    /// Position of the first.
    pub(super) position: usize,
    /// The sequence's pages, from its beginning up to the last of these tokens.
    pub(super) pages: Vec<usize>,
}

impl Policy {
    /// The weights for sampling: in f32 they are shared with the policy, so that a later change is
    /// seen; in bf16 they are a copy of what the policy has now.
    ///
    /// # Errors
    /// There is no room for the copy.
    pub fn inference_model(&self, precision: Precision) -> Result<InferenceModel> {
        InferenceModel::new(self.config().clone(), &self.decoder, precision)
    }
}

impl InferenceModel {
    fn new(config: ModelConfig, from: &Decoder, precision: Precision) -> Result<Self> {
        let weight = |tensor: &Tensor| match precision {
            Precision::F32 => Weight::f32(tensor),
            Precision::Bf16 => Weight::bf16(tensor),
        };
        let linear = |from: &decoder::Linear| -> Result<Linear> {
            Ok(Linear { weight: weight(&from.weight)?, bias: from.bias.clone() })
        };
        let layer = |from: &decoder::Layer| -> Result<Layer> {
            Ok(Layer {
                input_norm: from.input_norm.clone(),
                q: linear(&from.q)?,
                k: linear(&from.k)?,
                v: linear(&from.v)?,
                o: weight(&from.o)?,
                post_norm: from.post_norm.clone(),
                gate: weight(&from.gate)?,
                up: weight(&from.up)?,
                down: weight(&from.down)?,
                window: from.window,
            })
        };
        let embedding = weight(&from.embedding)?;
        let head = match config.tie_word_embeddings {
            true => embedding.clone(),
            false => weight(&from.head)?,
        };
        Ok(Self {
            frequencies: config.rope.frequencies(config.head_dim),
            embedding,
            layers: from.layers.iter().map(layer).collect::<Result<_>>()?,
            norm: from.norm.clone(),
            head,
            config,
        })
    }

    /// The model's shape.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The heads of its attention.
    pub(super) fn heads(&self) -> Heads {
        Heads {
            query: self.config.num_attention_heads,
            kv: self.config.num_key_value_heads,
            dim: self.config.head_dim,
        }
    }

    /// Computes a batch: keys and values of its tokens go to the pages, and the logits of the wanted
    /// rows are given (wanted, vocabulary).
    pub(super) fn step(&self, batch: &Batch, pages: &mut Pages) -> Result<Tensor> {
        let (eps, heads) = (self.config.rms_norm_eps, self.heads());
        let angles = Angles::new(&batch.positions, &self.frequencies);
        let writes = writes(&batch.parts);
        let mut x = self.embedding.rows(&batch.ids)?;
        for (index, layer) in self.layers.iter().enumerate() {
            let normed = rms_norm::forward(&x, &layer.input_norm, eps)?.y;
            let project = |by: &Linear| by.weight.forward(&normed, by.bias.as_ref());
            let (q, k, v) = (project(&layer.q)?, project(&layer.k)?, project(&layer.v)?);
            rope::rotate(&q, &angles, Turn::Forward)?;
            rope::rotate(&k, &angles, Turn::Forward)?;
            pages.store(
                index,
                &writes,
                &memory::floats(&k, "cache")?,
                &memory::floats(&v, "cache")?,
            )?;
            let attended = {
                let run = |part: &Part| Run {
                    rows: part.rows.clone(),
                    position: part.position,
                    pages: part.pages.iter().map(|page| pages.layer(*page, index)).collect(),
                };
                let runs: Vec<Run<'_>> = batch.parts.iter().map(run).collect();
                let q = memory::floats(&q, "attention")?;
                paged_attention::forward(&q, &runs, heads, layer.window)?
            };
            let attended = memory::tensor(attended, (batch.ids.len(), heads.query_width()))?;
            let middle = layer.o.forward_add(&attended, &x)?;
            let normed = rms_norm::forward(&middle, &layer.post_norm, eps)?.y;
            let (gate, up) = (layer.gate.forward(&normed, None)?, layer.up.forward(&normed, None)?);
            x = layer.down.forward_add(&swiglu::forward(&gate, &up)?, &middle)?;
        }
        let wanted = embodied_r_kernels::embedding::gather(&x, &batch.wanted)?;
        let normed = rms_norm::forward(&wanted, &self.norm, eps)?;
        Ok(self.head.forward(&normed.y, None)?)
    }
}

/// Where the keys and values of a batch go.
fn writes(parts: &[Part]) -> Vec<Write> {
    let mut writes = Vec::new();
    for Part { rows, position, pages } in parts {
        let mut row = rows.start;
        while row < rows.end {
            let at = position + row - rows.start;
            let slot = at % paged_attention::PAGE;
            let end = rows.end.min(row + paged_attention::PAGE - slot);
            writes.push(Write { page: pages[at / paged_attention::PAGE], slot, rows: row..end });
            row = end;
        }
    }
    writes
}
