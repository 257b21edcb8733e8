//! A decoder's weights as sampling reads them, and one step over them.

mod load;

use std::borrow::Cow;
use std::ops::Range;

use candle_core::Tensor;
use embodied_r_kernels::attention::{Attended, Heads};
use embodied_r_kernels::paged_attention::{self, PageLayout, Run};
use embodied_r_kernels::rope::{self, Angles, Frequencies, Turn};
use embodied_r_kernels::weight::Weight;
use embodied_r_kernels::{embedding, memory, rms_norm, swiglu};

use super::linear::{self, Linear};
use super::pages::{Pages, Write};
use crate::config::ModelConfig;
use crate::error::Result;
use crate::prompt::{Place, Prompt};
use crate::tape::Tape;
use crate::tensor_parallel::{Split, TensorParallel};

/// A decoder's weights as sampling reads them, or one rank's part of them.
pub struct InferenceModel {
    config: ModelConfig,
    frequencies: Frequencies,
    embedding: Weight,
    layers: Vec<Layer>,
    norm: Tensor,
    head: Weight,
    /// This rank's parts of them.
    split: Split,
    ranks: TensorParallel,
}

struct Layer {
    input_norm: Tensor,
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    post_norm: Tensor,
    gate: Linear,
    up: Linear,
    down: Linear,
    window: Option<usize>,
}

/// Tokens that a step computes.
#[derive(Default)]
pub(super) struct Batch {
    /// Ids of the tokens.
    pub(super) ids: Vec<usize>,
    /// Places of the tokens, which they are turned by.
    places: Vec<Place>,
    /// What stands in the place of some tokens.
    inserts: Vec<Inserted>,
    /// The sequences' parts, end to end.
    pub(super) parts: Vec<Part>,
}

/// Consecutive tokens of one sequence.
#[derive(Clone)]
pub(super) struct Part {
    /// Their rows.
    pub(super) rows: Range<usize>,
    /// Position of the first.
    pub(super) position: usize,
    /// The sequence's pages, from its beginning up to the last of these tokens.
    pub(super) pages: Vec<usize>,
    /// Whether the logits of the last of them are wanted.
    pub(super) wanted: bool,
}

/// What stands in some rows of a batch in place of their tokens' own embeddings.
struct Inserted {
    /// The first of the rows.
    row: usize,
    /// The rows of the embeddings that stand there.
    rows: Range<usize>,
    embeddings: Tensor,
}

impl Batch {
    /// Adds the places of the tokens `range` of a sequence that begins with `prompt`, and what is inserted among
    /// them; the first of them has the row `row`.
    pub(super) fn add_places(&mut self, prompt: &Prompt, range: Range<usize>, row: usize) {
        self.places.extend(range.clone().map(|index| prompt.place(index)));
        for (tokens, rows, embeddings) in prompt.inserted(range) {
            let embeddings = embeddings.clone();
            self.inserts.push(Inserted { row: row + tokens.start, rows, embeddings });
        }
    }
}

/// Tokens of a batch that a layer computes to its end.
struct Queries<'a> {
    /// Their rows, unless all are.
    rows: Option<Vec<usize>>,
    parts: Cow<'a, [Part]>,
    angles: Angles,
}

impl<'a> Queries<'a> {
    /// All tokens.
    fn all(batch: &'a Batch, model: &InferenceModel) -> Result<Self> {
        let angles = model.angles(&batch.places)?;
        Ok(Self { rows: None, parts: Cow::Borrowed(&batch.parts), angles })
    }

    /// Those whose logits are wanted.
    fn wanted(batch: &'a Batch, model: &InferenceModel) -> Result<Self> {
        let wanted = || batch.parts.iter().filter(|part| part.wanted);
        let rows: Vec<usize> = wanted().map(|part| part.rows.end - 1).collect();
        if rows.len() == batch.ids.len() {
            return Self::all(batch, model);
        }
        let places: Vec<Place> = rows.iter().map(|row| batch.places[*row]).collect();
        let alone = |(row, part): (usize, &Part)| Part {
            rows: row..row + 1,
            position: part.position + part.rows.len() - 1,
            ..part.clone()
        };
        let parts = wanted().enumerate().map(alone).collect();
        Ok(Self { angles: model.angles(&places)?, rows: Some(rows), parts })
    }
}

impl InferenceModel {
    /// The model's shape.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Memory that the keys and values of a token take, on this rank.
    pub fn kv_bytes_per_token(&self) -> usize {
        let page = PageLayout::new(self.heads()).numbers() * self.config.num_hidden_layers;
        page * size_of::<f32>() / paged_attention::PAGE
    }

    /// What the tokens at such places are turned by.
    fn angles(&self, places: &[Place]) -> Result<Angles> {
        match self.config.rope.mrope_section {
            Some(sections) => Ok(Angles::multimodal(places, sections, &self.frequencies)?),
            None => {
                let positions: Vec<usize> = places.iter().map(|place| place[0]).collect();
                Ok(Angles::new(&positions, &self.frequencies))
            }
        }
    }

    /// The heads of its attention, on this rank.
    pub(super) fn heads(&self) -> Heads {
        self.split.heads
    }

    /// The ranks that hold its parts.
    pub fn ranks(&self) -> &TensorParallel {
        &self.ranks
    }

    /// The tokens' embeddings. Each is on one rank.
    fn embedded(&self, ids: &[usize]) -> Result<Tensor> {
        if self.ranks.is_alone() {
            return Ok(self.embedding.rows(ids)?);
        }
        let own = self.split.own_vocabulary();
        let x = memory::zeros(&[ids.len(), self.config.hidden_size])?;
        for (row, id) in ids.iter().enumerate().filter(|(_, id)| own.contains(id)) {
            memory::copy_rows(&x, row, &self.embedding.rows(&[id - own.start])?, 0..1)?;
        }
        self.ranks.sum(x)
    }

    /// `residual + x · Wᵀ` of a module that is split by its inputs.
    fn joined(&self, module: &Linear, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        if self.ranks.is_alone() {
            return module.forward_add(x, residual);
        }
        // The residual stream is the same on all ranks, and counts once.
        let part = match self.ranks.is_first() {
            true => module.forward_add(x, residual)?,
            false => module.forward(x)?,
        };
        self.ranks.sum(part)
    }

    /// Computes a batch: keys and values of its tokens go to the pages, and the logits that are wanted
    /// are given (parts that want them, vocabulary). A tape that has room keeps the rest.
    pub(super) fn step(
        &self,
        batch: &Batch,
        pages: &mut Pages,
        tape: Option<&mut Tape>,
    ) -> Result<Tensor> {
        let mut tape = tape.filter(|tape| tape.has_room(batch.ids.len()));
        let (all, wanted) = (Queries::all(batch, self)?, Queries::wanted(batch, self)?);
        let writes = writes(&batch.parts);
        let mut x = self.embedded(&batch.ids)?;
        for Inserted { row, rows, embeddings } in &batch.inserts {
            memory::copy_rows(&x, *row, embeddings, rows.clone())?;
        }
        for (index, layer) in self.layers.iter().enumerate() {
            // Of other tokens nobody looks at more than the last layer's keys and values.
            let queries = if index + 1 == self.layers.len() { &wanted } else { &all };
            let normed = rms_norm::forward(&x, &layer.input_norm, self.config.rms_norm_eps)?;
            let ([q, k, v], residual) = layer.projected(&normed.y, &x, queries)?;
            rope::rotate(&q, &queries.angles, Turn::Forward)?;
            rope::rotate(&k, &all.angles, Turn::Forward)?;
            pages.store(
                index,
                &writes,
                &memory::floats(&k, "cache")?,
                &memory::floats(&v, "cache")?,
            )?;
            let attended = self.attended((index, layer), &q, queries, pages)?;
            let Finished { y, middle, scale, gate, up } =
                self.finished(layer, &attended.out, &residual)?;
            if let Some(tape) = &mut tape {
                let Attended { out, log_sum_exp } = &attended;
                let ends = [&q, out, log_sum_exp, &middle, &scale, &gate, &up];
                tape.push_layer(index, [&x, &k, &v, &normed.scale], ends)?;
            }
            x = y;
        }
        if let Some(tape) = tape {
            pages.tape(&writes, tape.push(batch.ids.len(), wanted.rows.as_deref(), &x)?);
        }
        let normed = rms_norm::forward(&x, &self.norm, self.config.rms_norm_eps)?;
        let logits = self.head.forward(&normed.y, None)?;
        self.ranks.side_by_side(logits, &self.split.vocabulary)
    }

    /// What a layer's queries see of the values in the pages (queries, query heads · dim).
    fn attended(
        &self,
        (index, layer): (usize, &Layer),
        q: &Tensor,
        queries: &Queries<'_>,
        pages: &Pages,
    ) -> Result<Attended> {
        let run = |part: &Part| Run {
            rows: part.rows.clone(),
            position: part.position,
            pages: part.pages.iter().map(|page| pages.layer(*page, index)).collect(),
            causal: true,
        };
        let runs: Vec<Run<'_>> = queries.parts.iter().map(run).collect();
        Ok(paged_attention::forward(q, &runs, self.heads(), layer.window)?)
    }

    /// The rest of a layer behind its attention.
    fn finished(&self, layer: &Layer, attended: &Tensor, residual: &Tensor) -> Result<Finished> {
        let middle = self.joined(&layer.o, attended, residual)?;
        let normed = rms_norm::forward(&middle, &layer.post_norm, self.config.rms_norm_eps)?;
        let [gate, up] = linear::forward_all(&normed.y, [&layer.gate, &layer.up])?;
        let y = self.joined(&layer.down, &swiglu::forward(&gate, &up)?, &middle)?;
        Ok(Finished { y, middle, scale: normed.scale, gate, up })
    }
}

/// A layer's output, and what the rest of the layer behind its attention computes on the way.
struct Finished {
    y: Tensor,
    /// The residual stream behind the attention.
    middle: Tensor,
    /// Of the norm over it.
    scale: Tensor,
    gate: Tensor,
    up: Tensor,
}

impl Layer {
    /// Queries, keys and values of the normalised input, and the input `x` of the queries' tokens.
    fn projected(
        &self,
        normed: &Tensor,
        x: &Tensor,
        queries: &Queries<'_>,
    ) -> Result<([Tensor; 3], Tensor)> {
        let Some(rows) = &queries.rows else {
            return Ok((linear::forward_all(normed, [&self.q, &self.k, &self.v])?, x.clone()));
        };
        let [k, v] = linear::forward_all(normed, [&self.k, &self.v])?;
        let [q] = linear::forward_all(&embedding::gather(normed, rows)?, [&self.q])?;
        Ok(([q, k, v], embedding::gather(x, rows)?))
    }
}

/// Where the keys and values of a batch go.
fn writes(parts: &[Part]) -> Vec<Write> {
    let mut writes = Vec::new();
    for Part { rows, position, pages, .. } in parts {
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
