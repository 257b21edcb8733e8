//! A decoder's weights as sampling reads them, and one step over them.

mod load;

use std::borrow::Cow;
use std::ops::Range;

use candle_core::{DType, Device, Tensor};
use embodied_r_kernels::attention::{Attended, Heads};
use embodied_r_kernels::paged_attention::{PAGE, PageLayout};
use embodied_r_kernels::rope::{self, Angles, Frequencies, Turn};
use embodied_r_kernels::weight::Weight;
use embodied_r_kernels::{embedding, memory, rms_norm, swiglu};

use super::linear::{self, Linear};
use super::pages::Pages;
use crate::config::ModelConfig;
use crate::error::{During as _, Result};
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

/// The weights of one layer.
type Layer = crate::layer::Layer<Linear>;

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

    /// Those whose logits are wanted, unless all are.
    fn wanted(batch: &'a Batch, model: &InferenceModel) -> Result<Option<Self>> {
        let wanted = || batch.parts.iter().filter(|part| part.wanted);
        let rows: Vec<usize> = wanted().map(|part| part.rows.end - 1).collect();
        if rows.len() == batch.ids.len() {
            return Ok(None);
        }
        let places: Vec<Place> = rows.iter().map(|row| batch.places[*row]).collect();
        let alone = |(row, part): (usize, &Part)| Part {
            rows: row..row + 1,
            position: part.position + part.rows.len() - 1,
            ..part.clone()
        };
        let parts = wanted().enumerate().map(alone).collect();
        Ok(Some(Self { angles: model.angles(&places)?, rows: Some(rows), parts }))
    }

    /// How many there are.
    fn count(&self, batch: &Batch) -> usize {
        self.rows.as_ref().map_or(batch.ids.len(), Vec::len)
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
        page * self.embedding.dtype().size_in_bytes() / PAGE
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

    /// Where it computes.
    pub(super) fn device(&self) -> &Device {
        self.norm.device()
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
        let x = memory::zeros(&[ids.len(), self.config.hidden_size], self.device())?;
        for (row, id) in ids.iter().enumerate().filter(|(_, id)| own.contains(id)) {
            memory::copy_rows(&x, row, &self.embedding.rows(&[id - own.start])?, 0..1)?;
        }
        let x = self.ranks.sum(x)?;
        x.to_dtype(self.embedding.dtype()).during("look tokens up")
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
        // Of other tokens nobody looks at more than the last layer's keys and values.
        let last = wanted.as_ref().unwrap_or(&all);
        let places = pages.cache.places(&batch.parts)?;
        let all_seen = pages.cache.seen(&all.parts, batch.ids.len())?;
        let last_seen = match &wanted {
            Some(wanted) => &pages.cache.seen(&wanted.parts, wanted.count(batch))?,
            None => &all_seen,
        };
        let mut x = self.embedded(&batch.ids)?;
        for Inserted { row, rows, embeddings } in &batch.inserts {
            let embeddings = embeddings.to_device(x.device()).and_then(|e| e.to_dtype(x.dtype()));
            memory::copy_rows(&x, *row, &embeddings.during("insert a picture")?, rows.clone())?;
        }
        for (index, layer) in self.layers.iter().enumerate() {
            let is_last = index + 1 == self.layers.len();
            let (queries, seen) = if is_last { (last, last_seen) } else { (&all, &all_seen) };
            let normed = rms_norm::forward(&x, &layer.input_norm, self.config.rms_norm_eps)?;
            let ([q, k, v], residual) = self.projected(layer, (&normed.y, &x), &all, queries)?;
            pages.cache.store(index, &places, (&k, &v))?;
            let attended = pages.cache.attend(index, &q, seen, layer.window)?;
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
            let first = tape.push(batch.ids.len(), last.rows.as_deref(), &x)?;
            pages.tape(&places.writes, first);
        }
        let normed = rms_norm::forward(&x, &self.norm, self.config.rms_norm_eps)?;
        // Of factors of fewer bits too, logits are f32.
        let normed = normed.y.to_dtype(DType::F32).during("normalise the last layer's output")?;
        let logits = self.head.forward(&normed, None)?;
        self.ranks.side_by_side(logits, &self.split.vocabulary)
    }

    /// Queries, keys and values of the normalised input, the former two turned by their positions, and the input `x` of
    /// the queries' tokens.
    fn projected(
        &self,
        layer: &Layer,
        (normed, x): (&Tensor, &Tensor),
        all: &Queries<'_>,
        queries: &Queries<'_>,
    ) -> Result<([Tensor; 3], Tensor)> {
        let Layer { q, k, v, .. } = layer;
        let Some(rows) = &queries.rows else {
            let angles = &all.angles;
            let parts = linear::queries_keys_values(normed, [q, k, v], angles, self.heads())?;
            return Ok((parts, x.clone()));
        };
        let [k, v] = linear::forward_all(normed, [k, v])?;
        let [q] = linear::forward_all(&embedding::gather(normed, rows)?, [q])?;
        rope::rotate(&q, &queries.angles, Turn::Forward)?;
        rope::rotate(&k, &all.angles, Turn::Forward)?;
        Ok(([q, k, v], embedding::gather(x, rows)?))
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
