//! A decoder's weights as sampling reads them, and one step over them.

use std::borrow::Cow;
use std::cell::RefCell;
use std::ops::Range;
use std::path::Path;

use candle_core::Tensor;
use embodied_r_kernels::Precision;
use embodied_r_kernels::attention::{Attended, Heads};
use embodied_r_kernels::paged_attention::{self, PageLayout, Run};
use embodied_r_kernels::rope::{self, Angles, Frequencies, Turn};
use embodied_r_kernels::weight::{Weight, WeightFormat};
use embodied_r_kernels::{embedding, memory, rms_norm, swiglu};

use super::linear::{self, Linear, LowRank};
use super::pages::{Pages, Write};
use crate::config::ModelConfig;
use crate::error::{Error, Result};
use crate::gguf::{self, GgufModel, GgufTensor};
use crate::lora::{self, Adapter, Module};
use crate::policy::Policy;
use crate::prompt::{Place, Prompt};
use crate::tape::Tape;
use crate::weights;

/// A decoder's weights as sampling reads them.
pub struct InferenceModel {
    config: ModelConfig,
    frequencies: Frequencies,
    embedding: Weight,
    layers: Vec<Layer>,
    norm: Tensor,
    head: Weight,
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

impl Policy {
    /// The weights for sampling: in f32 they are shared with the policy, so that a later change is
    /// seen; in bf16 they are a copy of what the policy has now. An adapter's are shared either way.
    ///
    /// # Errors
    /// There is no room for the copy.
    pub fn inference_model(&self, precision: Precision) -> Result<InferenceModel> {
        self.inference(|weight| match precision {
            Precision::F32 => Weight::f32(weight),
            Precision::Bf16 => Weight::bf16(weight),
        })
    }

    /// The weights for a rollout, as they are now. Where all of them are trained, it is a copy in f32 too,
    /// which samples sooner and is gone before the update's gradients come.
    ///
    /// # Errors
    /// As [`Self::inference_model`].
    pub fn sampler(&self, precision: Precision) -> Result<InferenceModel> {
        match self.trains_all() {
            true => self.inference(|weight| Weight::in_format(weight, precision.into())),
            false => self.inference_model(precision),
        }
    }

    fn inference(
        &self,
        weight: impl Fn(&Tensor) -> embodied_r_kernels::Result<Weight>,
    ) -> Result<InferenceModel> {
        let tensors = self.weights();
        let get = |name: &str| tensors.get(name).cloned().ok_or_else(|| missing(name));
        let weight = |name: &str| Ok(weight(&get(name)?)?);
        let low_rank = |name: &str| {
            let get = |part: &str| self.parameters().get(&format!("{name}.{part}"));
            match (&self.lora, get(lora::A), get(lora::B)) {
                (Some(lora), Some(a), Some(b)) => LowRank::new(a, b, lora.config.scale()).map(Some),
                _ => Ok(None),
            }
        };
        InferenceModel::new(self.config().clone(), weight, get, low_rank)
    }
}

fn missing(name: &str) -> Error {
    Error::MissingTensor { name: name.to_owned() }
}

impl InferenceModel {
    /// Reads a model: a folder in Hugging Face's layout, whose matrices are held in `format`, or a GGUF file, whose
    /// blocks stay as they are. An adapter's folder gives the model that it stands on with the adapter: merged
    /// into weights that are numbers, and beside blocks.
    ///
    /// # Errors
    /// As [`Policy::load`].
    pub fn load(path: &Path, format: WeightFormat) -> Result<Self> {
        let base = lora::base_of(path)?;
        let Some(file) = gguf::find(base.as_deref().unwrap_or(path))? else {
            return match base {
                Some(_) => Self::of_policy(Policy::load(path)?, format),
                None => Self::of_folder(path, format),
            };
        };
        let model = GgufModel::open(&file)?;
        let adapter = base.map(|_| Adapter::open(path, model.config())).transpose()?;
        // Rows of the embedding are looked up too, beside which nothing can stand.
        let beside = |name: &str| {
            let adapter = adapter.as_ref().filter(|adapter| !adapter.replaces(name))?;
            adapter.pair(name).filter(|_| name.starts_with("model.layers."))
        };
        let changed = |name: &str| {
            let tensor = model.tensor(name)?.dequantize()?;
            if let Some(adapter) = &adapter {
                adapter.apply_to(name, &tensor)?;
            }
            Ok(tensor)
        };
        let weight = |name: &str| {
            let stays = beside(name).is_some()
                || !adapter.as_ref().is_some_and(|adapter| adapter.changes(name));
            match model.tensor(name)? {
                GgufTensor::Matrix(matrix) if stays => Ok(Weight::quantized(matrix)),
                _ => Ok(Weight::f32(&changed(name)?)?),
            }
        };
        let low_rank = |name: &str| match beside(&format!("{name}.weight")) {
            Some(pair) => LowRank::new(&pair.a, &pair.b, pair.scale).map(Some),
            None => Ok(None),
        };
        Self::new(model.config().clone(), weight, changed, low_rank)
    }

    /// A folder's model. A tensor is read when its turn comes, so that no more than one of them is there as f32.
    fn of_folder(dir: &Path, format: WeightFormat) -> Result<Self> {
        let config = ModelConfig::from_dir(dir)?;
        let tensors = weights::find(dir, &weights::open(dir)?, &config)?;
        let read = |name: &str| tensors.get(name).ok_or_else(|| missing(name))?.read(name);
        let weight = |name: &str| Ok(Weight::in_format(&read(name)?, format)?);
        Self::new(config, weight, read, |_| Ok(None))
    }

    /// The model of a policy, whose tensors go as soon as their copies are there.
    fn of_policy(policy: Policy, format: WeightFormat) -> Result<Self> {
        let (config, tensors) = policy.into_weights();
        let tensors = RefCell::new(tensors);
        let take = |name: &str| tensors.borrow_mut().swap_remove(name).ok_or_else(|| missing(name));
        let weight = |name: &str| Ok(Weight::in_format(&take(name)?, format)?);
        Self::new(config, weight, take, |_| Ok(None))
    }

    /// A model of tensors by their canonical names, and of what stands beside its linear modules.
    fn new(
        config: ModelConfig,
        weight: impl Fn(&str) -> Result<Weight>,
        vector: impl Fn(&str) -> Result<Tensor>,
        low_rank: impl Fn(&str) -> Result<Option<LowRank>>,
    ) -> Result<Self> {
        let layer = |index: usize| -> Result<Layer> {
            let norm = |name: &str| vector(&format!("model.layers.{index}.{name}.weight"));
            let linear = |module: Module| -> Result<Linear> {
                let name = module.name(index);
                let bias = match config.attention_bias && module.has_bias() {
                    true => Some(vector(&format!("{name}.bias"))?),
                    false => None,
                };
                let weight = weight(&format!("{name}.weight"))?;
                Ok(Linear { weight, bias, low_rank: low_rank(&name)? })
            };
            Ok(Layer {
                input_norm: norm("input_layernorm")?,
                q: linear(Module::Q)?,
                k: linear(Module::K)?,
                v: linear(Module::V)?,
                o: linear(Module::O)?,
                post_norm: norm("post_attention_layernorm")?,
                gate: linear(Module::Gate)?,
                up: linear(Module::Up)?,
                down: linear(Module::Down)?,
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

    /// The heads of its attention.
    pub(super) fn heads(&self) -> Heads {
        Heads {
            query: self.config.num_attention_heads,
            kv: self.config.num_key_value_heads,
            dim: self.config.head_dim,
        }
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
        let mut x = self.embedding.rows(&batch.ids)?;
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
        Ok(self.head.forward(&normed.y, None)?)
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
        let middle = layer.o.forward_add(attended, residual)?;
        let normed = rms_norm::forward(&middle, &layer.post_norm, self.config.rms_norm_eps)?;
        let [gate, up] = linear::forward_all(&normed.y, [&layer.gate, &layer.up])?;
        let y = layer.down.forward_add(&swiglu::forward(&gate, &up)?, &middle)?;
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
