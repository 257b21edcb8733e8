//! One decoder layer, forward and backward.

use candle_core::Tensor;
use embodied_r_kernels::attention::{self, AttentionOutput, Pattern};
use embodied_r_kernels::qkv::head_norm::{self, HeadNorm, HeadNormInputs, Rotated};
use embodied_r_kernels::rms_norm::{self, RmsNormOutput};
use embodied_r_kernels::rope::{self, Rotation};
use embodied_r_kernels::{Result, embedding, memory, swiglu};

use super::gradients::LayerGradients;
use super::{Layer, OutputRows, Pass};
use crate::config::ModelConfig;
use crate::layer::Size;

/// Queries, keys and values as the backward takes them: with norms over heads, queries and keys before the norms, else
/// after RoPE.
struct Projected {
    q: Tensor,
    k: Tensor,
    v: Tensor,
}

/// A prompt's keys and values in one layer after RoPE, and their gradients, which its completions
/// accumulate.
#[derive(Clone)]
pub(crate) struct PromptKv {
    k: Tensor,
    v: Tensor,
    dk: Tensor,
    dv: Tensor,
}

impl PromptKv {
    /// With zero gradients.
    fn new(k: Tensor, v: Tensor) -> Result<Self> {
        let zeros = |x: &Tensor| memory::zeros(x.dims(), x.device());
        let (dk, dv) = (zeros(&k)?, zeros(&v)?);
        Ok(Self { k, v, dk, dv })
    }
}

/// How a pass shares a prompt's keys and values with other passes.
#[derive(Clone, Copy)]
pub(crate) enum PromptSharing<'a> {
    /// It does not.
    None,
    /// The tokens are completions of this prompt: they attend to it and add to its gradients.
    Completions(&'a PromptKv),
    /// The tokens are this prompt, whose completions have added to its gradients.
    Prompt(&'a PromptKv),
}

impl PromptSharing<'_> {
    /// The keys and values that the tokens attend to.
    fn visible_kv(self, [k, v]: [&Tensor; 2]) -> Result<(Tensor, Tensor)> {
        Ok(match self {
            Self::Completions(prompt) => {
                (memory::concat_rows(&[&prompt.k, k])?, memory::concat_rows(&[&prompt.v, v])?)
            }
            Self::None | Self::Prompt(_) => (k.clone(), v.clone()),
        })
    }

    /// The gradients of the tokens' own queries, keys and values; those of a shared prompt are accumulated.
    fn own_gradients(
        self,
        d: attention::AttentionGradients,
    ) -> Result<attention::AttentionGradients> {
        match self {
            Self::None => Ok(d),
            Self::Completions(prompt) => {
                let (ahead, all) = (prompt.k.dims()[0], d.k.dims()[0]);
                memory::add(&prompt.dk, &memory::rows(&d.k, 0..ahead)?)?;
                memory::add(&prompt.dv, &memory::rows(&d.v, 0..ahead)?)?;
                let own = |x: &Tensor| memory::rows(x, ahead..all);
                Ok(attention::AttentionGradients { k: own(&d.k)?, v: own(&d.v)?, q: d.q })
            }
            Self::Prompt(prompt) => {
                memory::add(&d.k, &prompt.dk)?;
                memory::add(&d.v, &prompt.dv)?;
                Ok(d)
            }
        }
    }
}

/// A layer's activations that its backward needs, besides the input.
pub(crate) struct Activations {
    input_scale: Tensor,
    projected: Projected,
    attended: AttentionOutput,
    middle: Tensor,
    post_scale: Tensor,
    gate: Tensor,
    up: Tensor,
    /// Cheap to recompute from the others.
    recomputable: Option<Recomputable>,
}

/// Activations that take elementwise operations and no matmul to recompute.
struct Recomputable {
    input_normed: Tensor,
    /// Queries and keys.
    rotated: [Rotated; 2],
    post_normed: Tensor,
    product: Tensor,
}

impl Activations {
    /// The activations of a rollout. For all tokens: the scale of the input norm, keys and values. For the output rows:
    /// queries, attention output and log-sum-exp, the residual stream after attention, the scale of the post-attention
    /// norm, and the gate and up projections.
    pub(crate) fn new(
        [input_scale, k, v]: [Tensor; 3],
        [q, out, log_sum_exp, middle, post_scale, gate, up]: [Tensor; 7],
    ) -> Self {
        let attended = AttentionOutput { out, log_sum_exp };
        let projected = Projected { q, k, v };
        Self { input_scale, projected, attended, middle, post_scale, gate, up, recomputable: None }
    }

    /// Keys and values as they are saved.
    pub(crate) fn saved_kv(&self) -> [Tensor; 2] {
        let Projected { k, v, .. } = &self.projected;
        [k.clone(), v.clone()]
    }

    /// Drops the activations that are cheaper to recompute than to keep until the backward.
    pub(crate) fn without_recomputable(self) -> Self {
        Self { recomputable: None, ..self }
    }

    /// Elements saved per token, for memory estimates.
    pub(crate) fn elements_per_token(config: &ModelConfig) -> usize {
        let [hidden, queries, keys, inner] = sizes(config);
        hidden + 2 * queries + 2 * keys + 2 * inner
    }

    /// Additional elements per token that are live while a layer is computed.
    pub(crate) fn workspace_per_token(config: &ModelConfig) -> usize {
        let [hidden, queries, keys, inner] = sizes(config);
        let normed = if config.model_type.family().has_qk_norm { queries + keys } else { 0 };
        2 * hidden + inner + normed
    }
}

fn sizes(config: &ModelConfig) -> [usize; 4] {
    [Size::Hidden, Size::Queries, Size::Keys, Size::Inner].map(|size| size.of(config))
}

/// Queries of the output rows, and keys and values of all rows, from the normalized input; without norms over heads, RoPE
/// is applied.
///
/// # Shapes
/// `normed` (tokens, hidden).
fn project_qkv(
    layer: &Layer,
    normed: &Tensor,
    pass: &Pass<'_>,
    output_rows: Option<&OutputRows<'_>>,
) -> Result<Projected> {
    let last = output_rows.map_or(pass, |output_rows| &output_rows.pass);
    let q = layer.q.forward(&gather_rows(normed, output_rows)?, last)?;
    let k = layer.k.forward(normed, pass)?;
    let v = layer.v.forward(normed, pass)?;
    if layer.qk_norms.is_none() {
        rope::rotate(&q, &last.cos_sin, Rotation::Forward)?;
        rope::rotate(&k, &pass.cos_sin, Rotation::Forward)?;
    }
    Ok(Projected { q, k, v })
}

/// Saved queries or keys as attention takes them.
fn rotated(saved: &Tensor, norm: Option<HeadNorm<'_>>, pass: &Pass<'_>) -> Result<Rotated> {
    match norm {
        Some(_) => head_norm::forward(saved, norm, &pass.cos_sin),
        None => Ok(Rotated { y: saved.clone(), scale: None }),
    }
}

/// What the backward of a norm over heads takes, from what the norm took and its scales.
fn norm_inputs<'a>(
    saved: &'a Option<(Tensor, Tensor)>,
    norm: Option<HeadNorm<'a>>,
    d_weight: Option<&'a Tensor>,
) -> Option<HeadNormInputs<'a>> {
    let ((x, scale), HeadNorm { weight, .. }) = (saved.as_ref()?, norm?);
    Some(HeadNormInputs { x, weight, scale, d_weight })
}

/// The output rows of `x`.
fn gather_rows(x: &Tensor, output_rows: Option<&OutputRows<'_>>) -> Result<Tensor> {
    match output_rows {
        Some(output_rows) => embedding::gather(x, &output_rows.rows),
        None => Ok(x.clone()),
    }
}

/// The inverse of [`gather_rows`]: the output rows among all `rows`, zero elsewhere.
fn scatter_rows(x: Tensor, rows: usize, output_rows: Option<&OutputRows<'_>>) -> Result<Tensor> {
    let Some(output_rows) = output_rows else { return Ok(x) };
    let all = memory::zero_rows(rows, &x)?;
    embedding::scatter_add(&all, &output_rows.rows, &x)?;
    Ok(all)
}

/// The MLP: its output, and the activations that its backward needs.
fn feed_forward(layer: &Layer, middle: &Tensor, pass: &Pass<'_>) -> Result<(Tensor, FeedForward)> {
    let normed = rms_norm::forward(middle, &layer.post_norm, pass.eps)?;
    let gate = layer.gate.forward(&normed.y, pass)?;
    let up = layer.up.forward(&normed.y, pass)?;
    let product = swiglu::forward(&gate, &up)?;
    let y = layer.down.forward_add(&product, memory::copy(middle)?, pass)?;
    Ok((y, FeedForward { normed, gate, up, product }))
}

/// The MLP's activations.
struct FeedForward {
    normed: RmsNormOutput,
    gate: Tensor,
    up: Tensor,
    product: Tensor,
}

impl Layer {
    fn pattern(&self, pass: &Pass<'_>) -> Pattern {
        Pattern { heads: pass.heads, window: self.window, causal: true }
    }

    /// A prompt's keys and values for its completions' passes, from those that its pass saved ([`Activations::saved_kv`]) or
    /// that a rollout recorded.
    pub(crate) fn prompt_kv(&self, [k, v]: [Tensor; 2], pass: &Pass<'_>) -> Result<PromptKv> {
        let [_, norm] = self.head_norms(pass);
        PromptKv::new(rotated(&k, norm, pass)?.y, v)
    }

    /// The norms over heads of queries and keys.
    fn head_norms(&self, pass: &Pass<'_>) -> [Option<HeadNorm<'_>>; 2] {
        let norm = |weight| HeadNorm { weight, eps: pass.eps };
        self.qk_norms.as_ref().map_or([None; 2], |norms| norms.each_ref().map(norm).map(Some))
    }

    /// The layer's output, for `output_rows` only if given, and the activations that its backward needs.
    ///
    /// # Shapes
    /// `x` (tokens, hidden) and the output (output rows or tokens, hidden).
    pub(crate) fn forward(
        &self,
        x: &Tensor,
        pass: &Pass<'_>,
        output_rows: Option<&OutputRows<'_>>,
        sharing: PromptSharing<'_>,
    ) -> Result<(Tensor, Activations)> {
        let input_normed = rms_norm::forward(x, &self.input_norm, pass.eps)?;
        let projected = project_qkv(self, &input_normed.y, pass, output_rows)?;
        let residual = match output_rows {
            Some(_) => gather_rows(x, output_rows)?,
            None => memory::copy(x)?,
        };
        let [q_norm, k_norm] = self.head_norms(pass);
        let own_k = rotated(&projected.k, k_norm, pass)?;
        let pass = output_rows.map_or(pass, |output_rows| &output_rows.pass);
        let own_q = rotated(&projected.q, q_norm, pass)?;
        let (k, v) = sharing.visible_kv([&own_k.y, &projected.v])?;
        let attended = attention::forward(&own_q.y, &k, &v, &pass.spans, self.pattern(pass))?;
        let middle = self.o.forward_add(&attended.out, residual, pass)?;
        let (y, FeedForward { normed, gate, up, product }) = feed_forward(self, &middle, pass)?;
        let recomputable = Recomputable {
            input_normed: input_normed.y,
            rotated: [own_q, own_k],
            post_normed: normed.y,
            product,
        };
        let saved = Activations {
            input_scale: input_normed.scale,
            projected,
            attended,
            middle,
            post_scale: normed.scale,
            gate,
            up,
            recomputable: Some(recomputable),
        };
        Ok((y, saved))
    }

    /// The gradient of the layer's input from that of its output; adds the gradients of trained tensors to `grads`.
    ///
    /// # Shapes
    /// `x` and the result (tokens, hidden), `dy` like the output.
    pub(crate) fn backward(
        &self,
        x: &Tensor,
        saved: Activations,
        dy: Tensor,
        grads: &LayerGradients,
        (all, output_rows): (&Pass<'_>, Option<&OutputRows<'_>>),
        sharing: PromptSharing<'_>,
    ) -> Result<Tensor> {
        let (pass, all_rows) =
            (output_rows.map_or(all, |output_rows| &output_rows.pass), x.dims()[0]);
        // Activations are freed as soon as they are used: memory of a long batch peaks here.
        let Activations {
            input_scale,
            projected,
            attended,
            middle,
            post_scale,
            gate,
            up,
            recomputable,
        } = saved;
        let (input_normed, own, post_normed, product) = match recomputable {
            Some(recomputable) => (
                Some(recomputable.input_normed),
                Some(recomputable.rotated),
                Some(recomputable.post_normed),
                recomputable.product,
            ),
            None => (None, None, None, swiglu::forward(&gate, &up)?),
        };
        let normed = |normed: Option<Tensor>, x: &Tensor, weight: &Tensor, scale: &Tensor| {
            normed.map_or_else(|| rms_norm::recompute(x, weight, scale), Ok)
        };
        let d_product = self.down.backward(&product, &dy, None, &grads.down, pass)?;
        drop(product);
        let (d_gate, d_up) = swiglu::backward(gate, up, &d_product)?;
        drop(d_product);
        let post_normed = normed(post_normed, &middle, &self.post_norm, &post_scale)?;
        let d_normed = self.gate.backward(&post_normed, &d_gate, None, &grads.gate, pass)?;
        drop(d_gate);
        let d_normed = self.up.backward(&post_normed, &d_up, Some(d_normed), &grads.up, pass)?;
        drop((d_up, post_normed));
        // From here on, `dy` is the gradient of the residual stream.
        let d_weight = grads.post_norm.as_ref();
        rms_norm::backward(&middle, &self.post_norm, &post_scale, &d_normed, &dy, d_weight)?;
        drop((middle, d_normed));
        let d_attended = self.o.backward(&attended.out, &dy, None, &grads.o, pass)?;
        let [q_norm, k_norm] = self.head_norms(all);
        let [q, own_k] = match own {
            Some(own) => own,
            None => [rotated(&projected.q, q_norm, pass)?, rotated(&projected.k, k_norm, all)?],
        };
        let (k, v) = sharing.visible_kv([&own_k.y, &projected.v])?;
        let (inputs, pattern) = ((&q.y, &k, &v), self.pattern(pass));
        let d = attention::backward(inputs, &attended, &d_attended, &pass.spans, pattern)?;
        // What the backward of the norms takes; without norms, nothing is kept.
        let [of_q, of_k] = [(q, projected.q), (own_k, projected.k)]
            .map(|(rotated, saved)| rotated.scale.map(|scale| (saved, scale)));
        drop((projected.v, k, v, attended, d_attended));
        let attention::AttentionGradients { q: d_q, k: d_k, v: d_v } = sharing.own_gradients(d)?;
        let [d_q_norm, d_k_norm] = grads
            .qk_norms
            .as_ref()
            .map_or([None; 2], |d_norms| d_norms.each_ref().map(Option::as_ref));
        let d_q = head_norm::backward(norm_inputs(&of_q, q_norm, d_q_norm), d_q, &pass.cos_sin)?;
        let d_k = head_norm::backward(norm_inputs(&of_k, k_norm, d_k_norm), d_k, &all.cos_sin)?;
        drop((of_q, of_k));
        let normed = normed(input_normed, x, &self.input_norm, &input_scale)?;
        let d_normed =
            self.q.backward(&gather_rows(&normed, output_rows)?, &d_q, None, &grads.q, pass)?;
        let (d_normed, dy) = (
            scatter_rows(d_normed, all_rows, output_rows)?,
            scatter_rows(dy, all_rows, output_rows)?,
        );
        let d_normed = self.k.backward(&normed, &d_k, Some(d_normed), &grads.k, all)?;
        let d_normed = self.v.backward(&normed, &d_v, Some(d_normed), &grads.v, all)?;
        let d_weight = grads.input_norm.as_ref();
        rms_norm::backward(x, &self.input_norm, &input_scale, &d_normed, &dy, d_weight)?;
        Ok(dy)
    }
}
