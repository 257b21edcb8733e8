//! Rotary position embedding in the half-rotated (NeoX) layout of Llama and Qwen (Su et al., 2021), plain and
//! multimodal.

use std::sync::OnceLock;

use candle_core::Tensor;
use multiversion::multiversion;

use crate::device::on_device;
use crate::error::{Result, check};
use crate::memory::update;
pub use crate::mrope::MropeSections;
use crate::parallel;

const OP: &str = "rope";

/// Rotary frequencies and scaling.
#[derive(Debug, Clone, PartialEq)]
pub struct Frequencies {
    /// Inverse frequencies, in radians per position: one per pair, half the head size.
    pub inv_freq: Vec<f32>,
    /// Scale of cosines and sines, and so of queries and keys; 1 except for YaRN.
    pub attention_factor: f32,
}

/// Cos/sin cache for the positions of a batch, shared by all layers and by forward and backward. It is computed on
/// first use, where the rotated tensors are.
#[derive(Debug)]
pub struct CosSinCache {
    /// Position ids: one per token, or three for M-RoPE.
    positions: Vec<usize>,
    /// The pairs that use each position id of a token; `None` if it has a single one.
    sections: Option<MropeSections>,
    frequencies: Frequencies,
    /// Cosines and sines (tokens, half).
    host: OnceLock<(Vec<f32>, Vec<f32>)>,
    /// The same on the device.
    #[cfg(device)]
    device: OnceLock<(Tensor, Tensor)>,
}

impl CosSinCache {
    /// Cosines and sines of `position · inv_freq` for each token.
    ///
    /// The product is rounded to `f32` as in `transformers` and vLLM: models are trained with these angles. Exact
    /// angles would shift log-probabilities by 1e-4 at 4,000 tokens.
    pub fn new(positions: &[usize], frequencies: &Frequencies) -> Self {
        Self::of(positions.to_vec(), None, frequencies)
    }

    /// Cosines and sines for 3-D position ids (M-RoPE, Qwen2-VL).
    ///
    /// `sections` say which of a token's position ids a pair uses. A token with three equal ids has the values of
    /// [`Self::new`].
    ///
    /// # Shapes
    /// `positions` (tokens) of (temporal, height, width); the sections sum to the number of pairs.
    ///
    /// # Errors
    /// The sections do not sum to the number of pairs.
    pub fn multimodal(
        positions: &[[usize; 3]],
        sections: MropeSections,
        frequencies: &Frequencies,
    ) -> Result<Self> {
        let (pairs, sizes) = (frequencies.inv_freq.len(), sections.sizes);
        check(sizes.iter().sum::<usize>() == pairs, OP, || {
            format!("M-RoPE sections {sizes:?} do not sum to {pairs} pairs")
        })?;
        Ok(Self::of(positions.as_flattened().to_vec(), Some(sections), frequencies))
    }

    fn of(
        positions: Vec<usize>,
        sections: Option<MropeSections>,
        frequencies: &Frequencies,
    ) -> Self {
        Self {
            positions,
            sections,
            frequencies: frequencies.clone(),
            host: OnceLock::new(),
            #[cfg(device)]
            device: OnceLock::new(),
        }
    }

    /// Position ids per token.
    fn axes(&self) -> usize {
        if self.sections.is_some() { 3 } else { 1 }
    }

    /// Cosines and sines on the CPU.
    fn on_host(&self) -> &(Vec<f32>, Vec<f32>) {
        if let Some(cached) = self.host.get() {
            return cached;
        }
        // Not within `get_or_init`: a worker that waits for its part could enter it again.
        let computed = self.computed();
        self.host.get_or_init(|| computed)
    }

    fn computed(&self) -> (Vec<f32>, Vec<f32>) {
        let Frequencies { inv_freq, attention_factor } = &self.frequencies;
        let (half, axes) = (inv_freq.len(), self.axes());
        let axis_of = |pair| self.sections.map_or(0, |sections| sections.axis(pair));
        let axis: Vec<usize> = (0..half).map(axis_of).collect();
        let filled = |of: fn(f64) -> f64| {
            parallel::filled_rows(self.tokens(), half, |token, values| {
                let position = &self.positions[token * axes..][..axes];
                parallel::each(values, |pair| {
                    let angle = position[axis[pair]] as f32 * inv_freq[pair];
                    of(f64::from(angle)) as f32 * attention_factor
                })
            })
        };
        (filled(f64::cos), filled(f64::sin))
    }

    /// Cosines and sines on a device, where they are computed; cached for the first device, as a batch is on one
    /// device.
    #[cfg(device)]
    pub(crate) fn on(&self, device: &candle_core::Device) -> Result<&(Tensor, Tensor)> {
        if let Some(cached) = self.device.get() {
            return Ok(cached);
        }
        let Self { positions, sections, frequencies, .. } = self;
        let frequencies = (&frequencies.inv_freq[..], frequencies.attention_factor);
        let cached = crate::cuda::rope::cos_sin(positions, *sections, frequencies, device, OP)?;
        Ok(self.device.get_or_init(|| cached))
    }

    /// Head size that they rotate.
    pub(crate) fn dim(&self) -> usize {
        2 * self.frequencies.inv_freq.len()
    }

    /// Number of tokens.
    pub fn tokens(&self) -> usize {
        self.positions.len() / self.axes()
    }
}

/// Direction of the rotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rotation {
    /// The forward pass.
    Forward,
    /// The backward pass: gradients are rotated by the negative angles, with the same scale.
    Backward,
}

/// Rotates every head of `x` in place, and scales it by the attention factor.
///
/// # Shapes
/// `x` (tokens, heads · 2 · half), with `half` the number of inverse frequencies.
///
/// # Errors
/// The shapes do not fit, or the tensor is not contiguous `f32` on the CPU.
pub fn rotate(x: &Tensor, cos_sin: &CosSinCache, rotation: Rotation) -> Result<()> {
    let (tokens, width) = x.dims2()?;
    let half = cos_sin.dim() / 2;
    check(half > 0 && width % (2 * half) == 0, OP, || {
        "the head size differs from the cos/sin cache's".into()
    })?;
    check(tokens == cos_sin.tokens(), OP, || {
        format!("{tokens} tokens, but cosines and sines for {}", cos_sin.tokens())
    })?;
    let sign = if rotation == Rotation::Forward { 1.0 } else { -1.0 };
    on_device!(x, rope::rope(x, cos_sin.on(x.device())?, half, sign, OP));
    let (cos, sin) = cos_sin.on_host();
    update(x, OP, |x| {
        parallel::rows(x, width, |first, x| {
            for (i, token) in x.chunks_mut(width).enumerate() {
                let at = (first + i) * half..(first + i + 1) * half;
                let (cos, sin) = (&cos[at.clone()], &sin[at]);
                rotate_heads(token, cos, sin, sign);
            }
        });
    })
}

#[multiversion(targets = "simd")]
fn rotate_heads(token: &mut [f32], cos: &[f32], sin: &[f32], sign: f32) {
    for head in token.chunks_mut(2 * cos.len()) {
        let (a, b) = head.split_at_mut(cos.len());
        for (((a, b), c), s) in a.iter_mut().zip(b).zip(cos).zip(sin) {
            let s = sign * s;
            (*a, *b) = (*a * c - *b * s, *b * c + *a * s);
        }
    }
}
