//! A decoder for inference, and its forward pass over a batch.

mod load;

use std::borrow::Cow;
use std::ops::Range;

use candle_core::{DType, Device, Tensor};
use embodied_r_kernels::attention::{AttentionOutput, Heads};
use embodied_r_kernels::paged_attention::{PAGE_SIZE, PageLayout};
use embodied_r_kernels::rope::{CosSinCache, Frequencies};
use embodied_r_kernels::weight::Weight;
use embodied_r_kernels::{embedding, memory, rms_norm, swiglu};

use super::chunk::SequenceChunk;
use super::linear::{self, Layer, Linear, QueryRows};
use super::page_allocator::PageAllocator;
use crate::activation_cache::ActivationCache;
use crate::config::ModelConfig;
use crate::error::Result;
use crate::image_rows;
use crate::prompt::{MropePosition, Prompt};
use crate::tensor_parallel::{Shard, TensorParallel};

/// Kernels and matmuls that a GPU launches per layer of a decoding step: input norm; fused QKV matmul, and its split with RoPE;
/// KV-cache store; split attention and its merge; output projection; post-attention norm; fused gate and up matmul,
/// SwiGLU; down projection.
pub const LAUNCHES_PER_LAYER: usize = 11;

/// A decoder for inference, or one rank's tensor-parallel shard of it.
pub struct InferenceModel {
    config: ModelConfig,
    frequencies: Frequencies,
    embedding: Weight,
    layers: Vec<Layer>,
    norm: Tensor,
    head: Weight,
    /// This rank's shard.
    shard: Shard,
    ranks: TensorParallel,
}

/// The tokens of a step.
#[derive(Default)]
pub(super) struct Batch {
    /// Token ids.
    pub(super) ids: Vec<usize>,
    /// Position ids for RoPE.
    positions: Vec<MropePosition>,
    /// Image features in place of placeholder tokens.
    images: Vec<ImageRows>,
    /// One chunk per sequence, concatenated.
    pub(super) chunks: Vec<SequenceChunk>,
}

/// Image features for consecutive rows of a batch.
struct ImageRows {
    /// The first row in the batch.
    row: usize,
    /// The image's tokens in these rows.
    tokens: Range<usize>,
    /// The number of the image's tokens.
    count: usize,
    /// (levels · count, hidden).
    features: Tensor,
}

impl ImageRows {
    /// Adds to the output `y` of the layer `index` what the image adds there; `output_rows` are the rows that `y` has, if not
    /// all.
    fn add_to(&self, index: usize, y: &Tensor, output_rows: Option<&[usize]>) -> Result<()> {
        let first = (index + 1) * self.count;
        if first >= self.features.dims()[0] {
            return Ok(());
        }
        let of_level = first + self.tokens.start..first + self.tokens.end;
        let added = memory::rows(&self.features, of_level)?;
        let added = memory::to_dtype(&memory::to_device(&added, y.device())?, y.dtype())?;
        let rows: Vec<usize> = (self.row..self.row + self.tokens.len()).collect();
        image_rows::add_rows(y, (&rows, &added), output_rows)
    }
}

impl Batch {
    /// Adds the position ids and image embeddings of the tokens `range` of a sequence that begins with `prompt`; `row`
    /// is the batch row of the first.
    pub(super) fn add_positions(&mut self, prompt: &Prompt, range: Range<usize>, row: usize) {
        self.positions.extend(range.clone().map(|index| prompt.position(index)));
        for (at, tokens, image) in prompt.image_rows(range) {
            // An engine refuses prompts without embeddings.
            if let Some(features) = image.embeddings.clone() {
                let (row, count) = (row + at.start, image.tokens());
                self.images.push(ImageRows { row, tokens, count, features });
            }
        }
    }
}

/// The tokens of a batch whose layer output is computed.
struct Queries<'a> {
    /// Their rows; `None` for all.
    rows: Option<Vec<usize>>,
    chunks: Cow<'a, [SequenceChunk]>,
    cos_sin: CosSinCache,
}

impl<'a> Queries<'a> {
    /// All tokens.
    fn all(batch: &'a Batch, model: &InferenceModel) -> Result<Self> {
        let cos_sin = model.cos_sin(&batch.positions)?;
        Ok(Self { rows: None, chunks: Cow::Borrowed(&batch.chunks), cos_sin })
    }

    /// The tokens whose logits are needed; `None` if all are.
    fn with_logits(batch: &'a Batch, model: &InferenceModel) -> Result<Option<Self>> {
        let selected = || batch.chunks.iter().filter(|chunk| chunk.logits > 0);
        let last_rows = |chunk: &SequenceChunk| chunk.rows.end - chunk.logits..chunk.rows.end;
        let rows: Vec<usize> = selected().flat_map(last_rows).collect();
        if rows.len() == batch.ids.len() {
            return Ok(None);
        }
        let positions: Vec<MropePosition> = rows.iter().map(|row| batch.positions[*row]).collect();
        let mut row = 0;
        let last_tokens = |chunk: &SequenceChunk| {
            row += chunk.logits;
            SequenceChunk {
                rows: row - chunk.logits..row,
                position: chunk.position + chunk.rows.len() - chunk.logits,
                ..chunk.clone()
            }
        };
        let chunks = selected().map(last_tokens).collect();
        Ok(Some(Self { cos_sin: model.cos_sin(&positions)?, rows: Some(rows), chunks }))
    }

    /// The rows, if not all have queries.
    fn of_rows(&self) -> Option<QueryRows<'_>> {
        self.rows.as_deref().map(|rows| QueryRows { rows, cos_sin: &self.cos_sin })
    }

    /// Number of queries.
    fn count(&self, batch: &Batch) -> usize {
        self.rows.as_ref().map_or(batch.ids.len(), Vec::len)
    }
}

impl InferenceModel {
    /// The model's configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// KV-cache bytes per token, on this rank.
    pub fn kv_bytes_per_token(&self) -> usize {
        let page = PageLayout::new(self.heads()).elements() * self.config.num_hidden_layers;
        page * self.embedding.dtype().size_in_bytes() / PAGE_SIZE
    }

    /// The cosines and sines for these positions.
    fn cos_sin(&self, positions: &[MropePosition]) -> Result<CosSinCache> {
        Ok(self.config.rope.cos_sin(positions, &self.frequencies)?)
    }

    /// The device that holds the weights.
    pub(super) fn device(&self) -> &Device {
        self.norm.device()
    }

    /// The attention heads on this rank.
    pub(super) fn heads(&self) -> Heads {
        self.shard.heads
    }

    /// The tensor-parallel ranks.
    pub fn ranks(&self) -> &TensorParallel {
        &self.ranks
    }

    /// The tokens' embeddings. The vocabulary is sharded, so each row comes from one rank.
    fn embed(&self, ids: &[usize]) -> Result<Tensor> {
        if self.ranks.is_single_rank() {
            return Ok(self.embedding.rows(ids)?);
        }
        let own = self.shard.vocabulary_range();
        let x = memory::zeros(&[ids.len(), self.config.hidden_size], self.device())?;
        for (row, id) in ids.iter().enumerate().filter(|(_, id)| own.contains(id)) {
            memory::copy_rows(&x, row, &self.embedding.rows(&[id - own.start])?, 0..1)?;
        }
        let x = self.ranks.all_reduce(x)?;
        Ok(memory::to_dtype(&x, self.embedding.dtype())?)
    }

    /// `residual + x · Wᵀ` of a row-parallel module, summed over the ranks.
    fn row_parallel(&self, module: &Linear, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        if self.ranks.is_single_rank() {
            return module.forward_add(x, residual);
        }
        // The residual stream is replicated, so only the first rank adds it.
        let partial = match self.ranks.is_first() {
            true => module.forward_add(x, residual)?,
            false => module.forward(x)?,
        };
        self.ranks.all_reduce(partial)
    }

    /// Runs a batch: stores its keys and values in the cache, records activations if `activation_cache` has
    /// room, and returns the needed logits (tokens that need them, vocabulary).
    pub(super) fn step(
        &self,
        batch: &Batch,
        pages: &mut PageAllocator,
        activation_cache: Option<&mut ActivationCache>,
    ) -> Result<Tensor> {
        let mut activation_cache = activation_cache.filter(|cache| cache.has_room(batch.ids.len()));
        let (all, with_logits) = (Queries::all(batch, self)?, Queries::with_logits(batch, self)?);
        // For the other tokens, the last layer only computes keys and values.
        let last = with_logits.as_ref().unwrap_or(&all);
        let step_writes = pages.cache.step_writes(&batch.chunks)?;
        let all_metadata = pages.cache.attention_metadata(&all.chunks, batch.ids.len())?;
        let last_metadata = match &with_logits {
            Some(queries) => {
                &pages.cache.attention_metadata(&queries.chunks, queries.count(batch))?
            }
            None => &all_metadata,
        };
        let mut x = self.embed(&batch.ids)?;
        for ImageRows { row, tokens, features, .. } in &batch.images {
            image_rows::insert(&x, *row, features, tokens.clone())?;
        }
        let pass = linear::Pass {
            heads: self.heads(),
            eps: self.config.rms_norm_eps,
            cos_sin: &all.cos_sin,
            records: activation_cache.is_some(),
        };
        for (index, layer) in self.layers.iter().enumerate() {
            let is_last = index + 1 == self.layers.len();
            let (queries, metadata) =
                if is_last { (last, last_metadata) } else { (&all, &all_metadata) };
            let normed = rms_norm::forward(&x, &layer.input_norm, self.config.rms_norm_eps)?;
            let projected = linear::project_qkv(layer, &normed.y, pass, queries.of_rows())?;
            let residual = match &queries.rows {
                Some(rows) => embedding::gather(&x, rows)?,
                None => x.clone(),
            };
            pages.cache.store(index, &step_writes, (&projected.k, &projected.v))?;
            let attended = pages.cache.attend(index, &projected.q, metadata, layer.window)?;
            let LayerOutput { y, middle, scale, gate, up } =
                self.after_attention(layer, &attended.out, &residual)?;
            if let Some(cache) = &mut activation_cache {
                let AttentionOutput { out, log_sum_exp } = &attended;
                let [q, k] = projected.recorded();
                let outputs = [q, out, log_sum_exp, &middle, &scale, &gate, &up];
                cache.push_layer(index, [&x, k, &projected.v, &normed.scale], outputs)?;
            }
            let output_rows = queries.rows.as_deref();
            batch.images.iter().try_for_each(|image| image.add_to(index, &y, output_rows))?;
            x = y;
        }
        if let Some(cache) = activation_cache {
            let first = cache.push(batch.ids.len(), last.rows.as_deref(), &x)?;
            pages.record_activation_rows(&step_writes.writes, first);
        }
        let normed = rms_norm::forward(&x, &self.norm, self.config.rms_norm_eps)?;
        // Logits are f32 in every precision.
        let normed = memory::to_dtype(&normed.y, DType::F32)?;
        let logits = self.head.forward(&normed, None)?;
        self.ranks.all_gather_columns(logits, &self.shard.vocabulary)
    }

    /// The rest of a layer after attention: output projection and MLP.
    fn after_attention(
        &self,
        layer: &Layer,
        attended: &Tensor,
        residual: &Tensor,
    ) -> Result<LayerOutput> {
        let middle = self.row_parallel(&layer.o, attended, residual)?;
        let normed = rms_norm::forward(&middle, &layer.post_norm, self.config.rms_norm_eps)?;
        let [gate, up] = linear::forward_all(&normed.y, [&layer.gate, &layer.up])?;
        let y = self.row_parallel(&layer.down, &swiglu::forward(&gate, &up)?, &middle)?;
        Ok(LayerOutput { y, middle, scale: normed.scale, gate, up })
    }
}

/// A layer's output, and its activations after attention.
struct LayerOutput {
    y: Tensor,
    /// The residual stream after attention.
    middle: Tensor,
    /// The scale of the norm over `middle`.
    scale: Tensor,
    gate: Tensor,
    up: Tensor,
}
