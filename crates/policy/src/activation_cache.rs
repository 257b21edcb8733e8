//! The activation cache: activations of a rollout, reused by the update in place of its forward pass.
//!
//! On-policy training scores the completions it has just sampled, so the update's forward pass equals the rollout's up
//! to rounding. The rollout records activations in the order of its steps; the backward gathers them layer by layer.
//! They are valid until the weights change.

use std::collections::HashMap;

use candle_core::Tensor;
use embodied_r_kernels::row_buffer::{self, RowBuffer};

use crate::config::ModelConfig;
use crate::decoder::Activations;
use crate::error::Result;
use crate::packed::Group;
use crate::prompt::Prompt;

/// Size of an activation cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActivationCacheOptions {
    /// Number of layers, from the last down, that record all activations. The others record their inputs, keys and
    /// values, from which the backward recomputes the rest.
    pub layers: usize,
    /// Capacity in tokens. Only sequences that fit as a whole are usable.
    pub tokens: usize,
}

/// Activations recorded by a rollout. The memory is reused across rollouts.
pub struct ActivationCache {
    tokens: usize,
    layers: Vec<CachedLayer>,
    /// For each token its row in `output`, if the last layer computed its output.
    output_rows: Vec<Option<usize>>,
    /// The last layer's output (output rows, hidden).
    output: RowBuffer,
    sequences: HashMap<Prompt, Sequences>,
}

/// The rows of a prompt's tokens, and of its completions.
struct Sequences {
    prompt: Vec<usize>,
    completions: HashMap<Vec<u32>, Vec<usize>>,
}

/// The recorded activations of one layer.
struct CachedLayer {
    /// The input, and keys and values as [`Activations`] has them.
    always: [RowBuffer; 3],
    full: Option<FullActivations>,
}

/// The remaining activations for the backward, in the order of [`Activations::new`].
struct FullActivations {
    input_scale: RowBuffer,
    outputs: [RowBuffer; 7],
}

impl CachedLayer {
    fn tables(&mut self) -> impl Iterator<Item = &mut RowBuffer> {
        let full = self.full.iter_mut();
        let full = full.flat_map(|FullActivations { input_scale, outputs }| {
            outputs.iter_mut().chain([input_scale])
        });
        self.always.iter_mut().chain(full)
    }
}

impl ActivationCache {
    /// An empty cache for a model of `config`.
    pub fn new(config: &ModelConfig, options: ActivationCacheOptions) -> Self {
        let ActivationCacheOptions { layers, tokens } = options;
        let table = |width| RowBuffer::new(tokens, width);
        let RowSizes { always, input_scale, outputs } = RowSizes::of(config);
        let full =
            || FullActivations { input_scale: table(input_scale), outputs: outputs.map(table) };
        let all = config.num_hidden_layers;
        let layer = |index: usize| CachedLayer {
            always: always.map(table),
            full: (index + layers >= all).then(full),
        };
        Self {
            tokens,
            layers: (0..all).map(layer).collect(),
            output_rows: Vec::new(),
            output: table(config.hidden_size),
            sequences: HashMap::new(),
        }
    }

    /// Clears the cache and keeps its memory.
    pub(crate) fn cleared(mut self) -> Self {
        self.layers.iter_mut().flat_map(CachedLayer::tables).for_each(RowBuffer::clear);
        self.output.clear();
        self.output_rows.clear();
        self.sequences.clear();
        self
    }

    /// Whether `tokens` more tokens fit.
    pub(crate) fn has_room(&self, tokens: usize) -> bool {
        self.output_rows.len() + tokens <= self.tokens
    }

    /// Records the activations of the layer at `index` for a step's tokens: input, keys, values and the scale of the
    /// input norm, and for the output rows the remaining inputs of [`Activations::new`].
    pub(crate) fn push_layer(
        &mut self,
        index: usize,
        [input, k, v, input_scale]: [&Tensor; 4],
        outputs: [&Tensor; 7],
    ) -> Result<()> {
        let CachedLayer { always, full } = &mut self.layers[index];
        let mut pushes: Vec<(&mut RowBuffer, &Tensor)> =
            always.iter_mut().zip([input, k, v]).collect();
        if let Some(full) = full {
            pushes.push((&mut full.input_scale, input_scale));
            pushes.extend(full.outputs.iter_mut().zip(outputs));
        }
        Ok(row_buffer::push_all(pushes)?)
    }

    /// Records the last layer's output for the rows `output_rows` of a step, or for all; returns the row of the step's
    /// first token.
    pub(crate) fn push(
        &mut self,
        tokens: usize,
        output_rows: Option<&[usize]>,
        output: &Tensor,
    ) -> Result<usize> {
        let (first, mut end) = (self.output_rows.len(), self.output.rows());
        self.output.push(output)?;
        self.output_rows.resize(first + tokens, None);
        let mut assign = |row: usize| {
            self.output_rows[first + row] = Some(end);
            end += 1;
        };
        match output_rows {
            Some(output_rows) => output_rows.iter().for_each(|row| assign(*row)),
            None => (0..tokens).for_each(assign),
        }
        Ok(first)
    }

    /// Registers the rows of a prompt and its completion, without the last token, which was sampled but not computed.
    pub(crate) fn insert(&mut self, prompt: &Prompt, completion: Vec<u32>, mut rows: Vec<usize>) {
        let own = rows.split_off(prompt.len());
        let sequences = self
            .sequences
            .entry(prompt.clone())
            .or_insert_with(|| Sequences { prompt: rows, completions: HashMap::new() });
        sequences.completions.insert(completion, own);
    }

    /// Whether all activations of `group` are recorded.
    pub fn contains(&self, group: &Group) -> bool {
        self.sequences.contains_key(&group.prompt) && self.completions(group).is_some()
    }

    /// The activations of `groups` packed without padding, with the output rows `output_rows`; `None` unless all are
    /// recorded.
    pub(crate) fn packed(
        &self,
        groups: &[Group],
        output_rows: &[usize],
    ) -> Option<CachedActivations<'_>> {
        let mut rows = Vec::new();
        for group in groups {
            rows.extend(&self.sequences.get(&group.prompt)?.prompt);
            self.add_completions(group, &mut rows)?;
        }
        let output_rows =
            output_rows.iter().map(|row| self.output_rows[rows[*row]]).collect::<Option<_>>()?;
        Some(CachedActivations { cache: self, rows, output_rows })
    }

    /// As [`Self::packed`], for a group's completions without the prompt; every row is an output row.
    pub(crate) fn completions(&self, group: &Group) -> Option<CachedActivations<'_>> {
        let mut rows = Vec::new();
        self.add_completions(group, &mut rows)?;
        let output_rows = rows.iter().map(|row| self.output_rows[*row]).collect::<Option<_>>()?;
        Some(CachedActivations { cache: self, rows, output_rows })
    }

    fn add_completions(&self, group: &Group, rows: &mut Vec<usize>) -> Option<()> {
        for ids in group.completions.iter().filter(|ids| !ids.is_empty()) {
            rows.extend(self.sequences.get(&group.prompt)?.completions.get(ids)?);
        }
        Some(())
    }
}

/// The recorded activations of a batch.
pub(crate) struct CachedActivations<'t> {
    cache: &'t ActivationCache,
    rows: Vec<usize>,
    /// The output rows, as rows of [`ActivationCache::output`].
    output_rows: Vec<usize>,
}

impl CachedActivations<'_> {
    /// The input of the layer at `index`, and its remaining activations if they were recorded.
    pub(crate) fn layer(&self, index: usize) -> Result<(Tensor, Option<Activations>)> {
        let CachedLayer { always: [input, k, v], full } = &self.cache.layers[index];
        let input = input.gather(&self.rows)?;
        let Some(full) = full else { return Ok((input, None)) };
        let last = index + 1 == self.cache.layers.len();
        let output_rows = if last { &self.output_rows } else { &self.rows };
        let [q, out, log_sum_exp, middle, post_scale, gate, up] = &full.outputs;
        let all_rows = |table: &RowBuffer| table.gather(&self.rows);
        let output_rows_of = |table: &RowBuffer| table.gather(output_rows);
        let activations = Activations::new(
            [all_rows(&full.input_scale)?, all_rows(k)?, all_rows(v)?],
            [
                output_rows_of(q)?,
                output_rows_of(out)?,
                output_rows_of(log_sum_exp)?,
                output_rows_of(middle)?,
                output_rows_of(post_scale)?,
                output_rows_of(gate)?,
                output_rows_of(up)?,
            ],
        );
        Ok((input, Some(activations)))
    }

    /// The keys and values of the layer at `index`, as they were saved.
    pub(crate) fn saved_kv(&self, index: usize) -> Result<[Tensor; 2]> {
        let [_, k, v] = &self.cache.layers[index].always;
        Ok([k.gather(&self.rows)?, v.gather(&self.rows)?])
    }

    /// The last layer's output at the output rows (output rows, hidden).
    pub(crate) fn output(&self) -> Result<Tensor> {
        Ok(self.cache.output.gather(&self.output_rows)?)
    }
}

/// Elements per token of each table of a layer.
struct RowSizes {
    always: [usize; 3],
    input_scale: usize,
    outputs: [usize; 7],
}

impl RowSizes {
    fn of(config: &ModelConfig) -> Self {
        let (heads, hidden, intermediate) =
            (config.num_attention_heads, config.hidden_size, config.intermediate_size);
        let queries = heads * config.head_dim;
        let keys = config.num_key_value_heads * config.head_dim;
        Self {
            always: [hidden, keys, keys],
            input_scale: 1,
            outputs: [queries, queries, heads, hidden, 1, intermediate, intermediate],
        }
    }
}

impl ModelConfig {
    /// Bytes of a full activation cache.
    pub fn activation_cache_bytes(
        &self,
        ActivationCacheOptions { layers, tokens }: ActivationCacheOptions,
    ) -> usize {
        let RowSizes { always, input_scale, outputs } = RowSizes::of(self);
        let always = self.num_hidden_layers * always.iter().sum::<usize>();
        let full = layers * (input_scale + outputs.iter().sum::<usize>());
        tokens * (always + full + self.hidden_size) * size_of::<f32>()
    }
}
