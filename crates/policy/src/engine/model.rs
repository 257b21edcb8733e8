//! A decoder's weights as sampling reads them, and one step over them.

use std::ops::Range;
use std::path::Path;

use candle_core::Tensor;
use embodied_r_kernels::Precision;
use embodied_r_kernels::attention::Heads;
use embodied_r_kernels::paged_attention::{self, PageLayout, Run};
use embodied_r_kernels::rope::{self, Angles, Frequencies, Turn};
use embodied_r_kernels::weight::{self, Weight};
use embodied_r_kernels::{memory, rms_norm, swiglu};

use super::pages::{Pages, Write};
use crate::config::ModelConfig;
use crate::error::{Error, Result};
use crate::gguf::{self, GgufModel, GgufTensor};
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
        let tensors = self.parameters();
        let get = |name: &str| {
            let missing = || Error::MissingTensor { name: name.to_owned() };
            tensors.get(name).cloned().ok_or_else(missing)
        };
        let weight = |name: &str| -> Result<Weight> {
            Ok(match precision {
                Precision::F32 => Weight::f32(&get(name)?)?,
                Precision::Bf16 => Weight::bf16(&get(name)?)?,
            })
        };
        InferenceModel::new(self.config().clone(), weight, get)
    }
}

impl InferenceModel {
    /// Reads a model: a folder in Hugging Face's layout, or a GGUF file, whose blocks stay as they are
    /// whatever the precision.
    ///
    /// # Errors
    /// As [`Policy::load`].
    pub fn load(path: &Path, precision: Precision) -> Result<Self> {
        let Some(file) = gguf::find(path)? else {
            return Policy::load(path)?.inference_model(precision);
        };
        let model = GgufModel::open(&file)?;
        let weight = |name: &str| match model.tensor(name)? {
            GgufTensor::Matrix(matrix) => Ok(Weight::quantized(matrix)),
            GgufTensor::Vector(tensor) => Ok(Weight::f32(&tensor)?),
        };
        let vector = |name: &str| model.tensor(name)?.dequantize();
        Self::new(model.config().clone(), weight, vector)
    }

    /// A model of tensors by their canonical names.
    fn new(
        config: ModelConfig,
        weight: impl Fn(&str) -> Result<Weight>,
        vector: impl Fn(&str) -> Result<Tensor>,
    ) -> Result<Self> {
        let layer = |index: usize| -> Result<Layer> {
            let name = |part: &str| format!("model.layers.{index}.{part}");
            let linear = |part: &str| -> Result<Linear> {
                let bias = match config.attention_bias {
                    true => Some(vector(&name(&format!("self_attn.{part}.bias")))?),
                    false => None,
                };
                Ok(Linear { weight: weight(&name(&format!("self_attn.{part}.weight")))?, bias })
            };
            Ok(Layer {
                input_norm: vector(&name("input_layernorm.weight"))?,
                q: linear("q_proj")?,
                k: linear("k_proj")?,
                v: linear("v_proj")?,
                o: weight(&name("self_attn.o_proj.weight"))?,
                post_norm: vector(&name("post_attention_layernorm.weight"))?,
                gate: weight(&name("mlp.gate_proj.weight"))?,
                up: weight(&name("mlp.up_proj.weight"))?,
                down: weight(&name("mlp.down_proj.weight"))?,
                window: config.window(index),
            })
        };
        let embedding = weight("model.embed_tokens.weight")?;
        let head = match config.tie_word_embeddings {
            true => embedding.clone(),
            false => weight("lm_head.weight")?,
        };
        Ok(Self {
            frequencies: config.rope.frequencies(config.head_dim),
            embedding,
            layers: (0..config.num_hidden_layers).map(layer).collect::<Result<_>>()?,
            norm: vector("model.norm.weight")?,
            head,
            config,
        })
    }

    /// The model's shape.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Memory that the keys and values of a token take.
    pub fn kv_bytes_per_token(&self) -> usize {
        let page = PageLayout::new(self.heads()).numbers() * self.config.num_hidden_layers;
        page * size_of::<f32>() / paged_attention::PAGE
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
            let by = [&layer.q, &layer.k, &layer.v].map(|l| (&l.weight, l.bias.as_ref()));
            let [q, k, v] = weight::forward_all(&normed, by)?;
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
            let by = [&layer.gate, &layer.up].map(|weight| (weight, None));
            let [gate, up] = weight::forward_all(&normed, by)?;
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
