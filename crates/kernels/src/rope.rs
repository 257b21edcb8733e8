//! Rotary position embedding in the half-rotated (NeoX) layout of Llama and Qwen (Su et al., 2021), plain and
//! multimodal.

use candle_core::Tensor;
use multiversion::multiversion;

use crate::device::on_device;
use crate::error::{Result, check};
use crate::memory::update;
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

/// Cos/sin cache for the positions of a batch, shared by all layers.
pub struct CosSinCache {
    cos: Vec<f32>,
    sin: Vec<f32>,
    half: usize,
    /// Cosines and sines (tokens, half) on the device, uploaded on first use.
    #[cfg(device)]
    device: std::sync::OnceLock<(Tensor, Tensor)>,
}

impl CosSinCache {
    /// Cosines and sines of `position · inv_freq` for each token.
    ///
    /// The product is rounded to `f32` as in `transformers` and vLLM: models are trained with these angles. Exact
    /// angles would shift log-probabilities by 1e-4 at 4,000 tokens.
    pub fn new(positions: &[usize], frequencies: &Frequencies) -> Self {
        let inv_freq = &frequencies.inv_freq;
        let angles = positions.iter().flat_map(|p| inv_freq.iter().map(|f| *p as f32 * f));
        Self::of(angles, frequencies)
    }

    /// Cosines and sines for 3-D position ids (M-RoPE, Qwen2-VL).
    ///
    /// The pairs are split into `sections`: section i uses a token's i-th position id. A token with three equal ids
    /// has the values of [`Self::new`].
    ///
    /// # Shapes
    /// `positions` (tokens) of (temporal, height, width); the sections sum to the number of pairs.
    ///
    /// # Errors
    /// The sections do not sum to the number of pairs.
    pub fn multimodal(
        positions: &[[usize; 3]],
        sections: [usize; 3],
        frequencies: &Frequencies,
    ) -> Result<Self> {
        let inv_freq = &frequencies.inv_freq;
        check(sections.iter().sum::<usize>() == inv_freq.len(), OP, || {
            format!("M-RoPE sections {sections:?} do not sum to {} pairs", inv_freq.len())
        })?;
        let axes: Vec<usize> =
            (0..3).flat_map(|axis| std::iter::repeat_n(axis, sections[axis])).collect();
        let axes = &axes;
        let angles = positions.iter().flat_map(|position| {
            inv_freq.iter().zip(axes).map(|(f, axis)| position[*axis] as f32 * f)
        });
        Ok(Self::of(angles, frequencies))
    }

    fn of(angles: impl Iterator<Item = f32>, frequencies: &Frequencies) -> Self {
        let factor = frequencies.attention_factor;
        let scaled = |angle: f32| {
            let (sin, cos) = f64::from(angle).sin_cos();
            (cos as f32 * factor, sin as f32 * factor)
        };
        let (cos, sin) = angles.map(scaled).unzip();
        Self {
            cos,
            sin,
            half: frequencies.inv_freq.len(),
            #[cfg(device)]
            device: std::sync::OnceLock::new(),
        }
    }

    /// Cosines and sines on a device; cached for the first device, as a batch is on one device.
    #[cfg(device)]
    pub(crate) fn on(&self, device: &candle_core::Device) -> Result<&(Tensor, Tensor)> {
        if let Some(cached) = self.device.get() {
            return Ok(cached);
        }
        let shape = (self.tokens(), self.half);
        let upload = |values: &[f32]| {
            let tensor = Tensor::from_slice(values, shape, &candle_core::Device::Cpu)?;
            crate::memory::to_device(&tensor, device)
        };
        let cached = (upload(&self.cos)?, upload(&self.sin)?);
        Ok(self.device.get_or_init(|| cached))
    }

    /// Head size that they rotate.
    pub(crate) fn dim(&self) -> usize {
        2 * self.half
    }

    /// Number of tokens.
    pub fn tokens(&self) -> usize {
        self.cos.len() / self.half.max(1)
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
    let half = cos_sin.half;
    check(half > 0 && width % (2 * half) == 0, OP, || {
        "the head size differs from the cos/sin cache's".into()
    })?;
    check(tokens == cos_sin.tokens(), OP, || {
        format!("{tokens} tokens, but cosines and sines for {}", cos_sin.tokens())
    })?;
    let sign = if rotation == Rotation::Forward { 1.0 } else { -1.0 };
    on_device!(x, elementwise::rope(x, cos_sin.on(x.device())?, half, sign, OP));
    update(x, OP, |x| {
        parallel::rows(x, width, |first, x| {
            for (i, token) in x.chunks_mut(width).enumerate() {
                let at = (first + i) * half..(first + i + 1) * half;
                let (cos, sin) = (&cos_sin.cos[at.clone()], &cos_sin.sin[at]);
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
