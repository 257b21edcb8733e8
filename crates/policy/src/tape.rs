//! What a rollout keeps of its passes, so that the update need not make them again.
//!
//! A policy learns from what it has just drawn: the forward pass of its update gives the numbers that the rollout
//! has computed already, to rounding. They stand on the tape in the order in which they were computed, and are
//! gathered for a backward layer by layer. They hold as long as the weights that they were made with.

use std::collections::HashMap;

use candle_core::Tensor;
use embodied_r_kernels::table::{self, Table};

use crate::config::ModelConfig;
use crate::decoder::{Activations, PromptKv};
use crate::error::Result;
use crate::packed::Group;

/// How much of its passes a rollout keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TapeOptions {
    /// Layers, from the last on, that keep all that their backward needs. The others keep their inputs, keys and
    /// values, and are computed again from these.
    pub layers: usize,
    /// Tokens that are kept, at most: of sequences that are not there as a whole nothing is of use.
    pub tokens: usize,
}

/// What a rollout has kept. Its memory serves one rollout after the other.
pub struct Tape {
    tokens: usize,
    layers: Vec<TapeLayer>,
    /// For each token its row in what is kept of those that the last layer computed to their end.
    ends: Vec<Option<usize>>,
    /// The last layer's output at these (ends, hidden).
    output: Table,
    sequences: HashMap<Vec<u32>, Sequences>,
}

/// The rows of a prompt's tokens, and of the completions behind it.
struct Sequences {
    prompt: Vec<usize>,
    completions: HashMap<Vec<u32>, Vec<usize>>,
}

/// What one layer keeps.
struct TapeLayer {
    /// The input, keys and values.
    always: [Table; 3],
    whole: Option<Whole>,
}

/// The rest of what a layer's backward needs, in the order of [`Activations::new`].
struct Whole {
    input_scale: Table,
    ends: [Table; 7],
}

impl TapeLayer {
    fn tables(&mut self) -> impl Iterator<Item = &mut Table> {
        let whole = self.whole.iter_mut();
        let whole =
            whole.flat_map(|Whole { input_scale, ends }| ends.iter_mut().chain([input_scale]));
        self.always.iter_mut().chain(whole)
    }
}

impl Tape {
    /// An empty one for a model of the shape `config`.
    pub fn new(config: &ModelConfig, options: TapeOptions) -> Self {
        let TapeOptions { layers, tokens } = options;
        let table = |width| Table::new(tokens, width);
        let Widths { always, input_scale, ends } = Widths::of(config);
        let whole = || Whole { input_scale: table(input_scale), ends: ends.map(table) };
        let all = config.num_hidden_layers;
        let layer = |index: usize| TapeLayer {
            always: always.map(table),
            whole: (index + layers >= all).then(whole),
        };
        Self {
            tokens,
            layers: (0..all).map(layer).collect(),
            ends: Vec::new(),
            output: table(config.hidden_size),
            sequences: HashMap::new(),
        }
    }

    /// Without what it holds.
    pub(crate) fn cleared(mut self) -> Self {
        self.layers.iter_mut().flat_map(TapeLayer::tables).for_each(Table::clear);
        self.output.clear();
        self.ends.clear();
        self.sequences.clear();
        self
    }

    /// Whether there is room for so many tokens more.
    pub(crate) fn has_room(&self, tokens: usize) -> bool {
        self.ends.len() + tokens <= self.tokens
    }

    /// Takes what the layer at `index` has computed for a step's tokens: its input, keys, values and the scale of its
    /// first norm, and of those that it has computed to their end what [`Activations::new`] takes.
    pub(crate) fn push_layer(
        &mut self,
        index: usize,
        [input, k, v, input_scale]: [&Tensor; 4],
        ends: [&Tensor; 7],
    ) -> Result<()> {
        let TapeLayer { always, whole } = &mut self.layers[index];
        let mut pushes: Vec<(&mut Table, &Tensor)> = always.iter_mut().zip([input, k, v]).collect();
        if let Some(whole) = whole {
            pushes.push((&mut whole.input_scale, input_scale));
            pushes.extend(whole.ends.iter_mut().zip(ends));
        }
        Ok(table::push_all(pushes)?)
    }

    /// Takes the last layer's output for `ends` of a step's tokens, in order, or for all; gives the row of the first
    /// token.
    pub(crate) fn push(
        &mut self,
        tokens: usize,
        ends: Option<&[usize]>,
        output: &Tensor,
    ) -> Result<usize> {
        let (first, mut end) = (self.ends.len(), self.output.rows());
        self.output.push(output)?;
        self.ends.resize(first + tokens, None);
        let mut number = |row: usize| {
            self.ends[first + row] = Some(end);
            end += 1;
        };
        match ends {
            Some(ends) => ends.iter().for_each(|row| number(*row)),
            None => (0..tokens).for_each(number),
        }
        Ok(first)
    }

    /// Takes note of the rows of a prompt and a completion: of all its tokens but the last, which was not computed.
    pub(crate) fn insert(&mut self, prompt: &[u32], completion: Vec<u32>, mut rows: Vec<usize>) {
        let own = rows.split_off(prompt.len());
        let sequences = self
            .sequences
            .entry(prompt.to_vec())
            .or_insert_with(|| Sequences { prompt: rows, completions: HashMap::new() });
        sequences.completions.insert(completion, own);
    }

    /// Whether the update of `group` need not compute its forward.
    pub fn holds(&self, group: &Group) -> bool {
        self.sequences.contains_key(&group.prompt) && self.behind(group).is_some()
    }

    /// The passes of `groups`, packed end to end, of which the rows `ends` are computed to their end; nothing unless
    /// all of them are there.
    pub(crate) fn packed(&self, groups: &[Group], ends: &[usize]) -> Option<Taped<'_>> {
        let mut rows = Vec::new();
        for group in groups {
            rows.extend(&self.sequences.get(&group.prompt)?.prompt);
            self.add_completions(group, &mut rows)?;
        }
        let ends = ends.iter().map(|row| self.ends[rows[*row]]).collect::<Option<_>>()?;
        Some(Taped { tape: self, rows, ends })
    }

    /// As [`Self::packed`], of a group's completions without the prompt, all rows of which are computed to their end.
    pub(crate) fn behind(&self, group: &Group) -> Option<Taped<'_>> {
        let mut rows = Vec::new();
        self.add_completions(group, &mut rows)?;
        let ends = rows.iter().map(|row| self.ends[*row]).collect::<Option<_>>()?;
        Some(Taped { tape: self, rows, ends })
    }

    fn add_completions(&self, group: &Group, rows: &mut Vec<usize>) -> Option<()> {
        for ids in group.completions.iter().filter(|ids| !ids.is_empty()) {
            rows.extend(self.sequences.get(&group.prompt)?.completions.get(ids)?);
        }
        Some(())
    }
}

/// A pass that was made before, row by row of a batch.
pub(crate) struct Taped<'t> {
    tape: &'t Tape,
    rows: Vec<usize>,
    /// The rows that the last layer computed to its end, in what is kept of such.
    ends: Vec<usize>,
}

impl Taped<'_> {
    /// The input of the layer at `index`, and the rest of what its backward needs if it was kept.
    pub(crate) fn layer(&self, index: usize) -> Result<(Tensor, Option<Activations>)> {
        let TapeLayer { always: [input, k, v], whole } = &self.tape.layers[index];
        let input = input.gather(&self.rows)?;
        let Some(whole) = whole else { return Ok((input, None)) };
        let last = index + 1 == self.tape.layers.len();
        let ends = if last { &self.ends } else { &self.rows };
        let [q, out, log_sum_exp, middle, post_scale, gate, up] = &whole.ends;
        let of_all = |table: &Table| table.gather(&self.rows);
        let of_ends = |table: &Table| table.gather(ends);
        let activations = Activations::new(
            [of_all(&whole.input_scale)?, of_all(k)?, of_all(v)?],
            [
                of_ends(q)?,
                of_ends(out)?,
                of_ends(log_sum_exp)?,
                of_ends(middle)?,
                of_ends(post_scale)?,
                of_ends(gate)?,
                of_ends(up)?,
            ],
        );
        Ok((input, Some(activations)))
    }

    /// The keys and values of the layer at `index`, for completions behind them.
    pub(crate) fn prompt_kv(&self, index: usize) -> Result<PromptKv> {
        let [_, k, v] = &self.tape.layers[index].always;
        Ok(PromptKv::new(k.gather(&self.rows)?, v.gather(&self.rows)?)?)
    }

    /// The last layer's output at the rows that it computed to its end (ends, hidden).
    pub(crate) fn output(&self) -> Result<Tensor> {
        Ok(self.tape.output.gather(&self.ends)?)
    }
}

/// Numbers that a layer keeps of a token, by table.
struct Widths {
    always: [usize; 3],
    input_scale: usize,
    ends: [usize; 7],
}

impl Widths {
    fn of(config: &ModelConfig) -> Self {
        let (heads, hidden, inner) =
            (config.num_attention_heads, config.hidden_size, config.intermediate_size);
        let queries = heads * config.head_dim;
        let keys = config.num_key_value_heads * config.head_dim;
        Self {
            always: [hidden, keys, keys],
            input_scale: 1,
            ends: [queries, queries, heads, hidden, 1, inner, inner],
        }
    }
}

impl ModelConfig {
    /// Memory of a tape that is full, at most.
    pub fn tape_bytes(&self, TapeOptions { layers, tokens }: TapeOptions) -> usize {
        let Widths { always, input_scale, ends } = Widths::of(self);
        let always = self.num_hidden_layers * always.iter().sum::<usize>();
        let whole = layers * (input_scale + ends.iter().sum::<usize>());
        tokens * (always + whole + self.hidden_size) * size_of::<f32>()
    }
}
