//! Rotary position embedding, half-rotated as in Llama and Qwen (Su et al., 2021), plain and multimodal.

use candle_core::Tensor;
use multiversion::multiversion;

use crate::device::on_device;
use crate::error::{Result, check};
use crate::memory::update;
use crate::parallel;

const OP: &str = "rope";

/// How fast each pair of a head's numbers turns, and what the embedding scales by.
#[derive(Debug, Clone, PartialEq)]
pub struct Frequencies {
    /// Radians a position, one for each pair: half a head's size.
    pub inverse: Vec<f32>,
    /// Scales cosines and sines, and with them every query and key; 1 but for YaRN.
    pub attention_factor: f32,
}

/// Cosines and sines of the positions of a batch, shared by all of its layers.
pub struct Angles {
    cos: Vec<f32>,
    sin: Vec<f32>,
    half: usize,
    /// Cosines and sines (tokens, half) on the device, once they are needed there.
    #[cfg(device)]
    device: std::sync::OnceLock<(Tensor, Tensor)>,
}

impl Angles {
    /// Angles `position · inverse frequency` for each token.
    ///
    /// The product is rounded to `f32` as in `transformers` and vLLM: models are trained with these
    /// angles, and exact ones are 1e-4 apart in log-probabilities at 4,000 tokens.
    pub fn new(positions: &[usize], frequencies: &Frequencies) -> Self {
        let inverse = &frequencies.inverse;
        let angles = positions.iter().flat_map(|p| inverse.iter().map(|f| *p as f32 * f));
        Self::of(angles, frequencies)
    }

    /// Angles of tokens that have a place in time, height and width (M-RoPE, Qwen2-VL).
    ///
    /// The pairs are split into `sections`: those of section i turn by a token's i-th position. A
    /// token with three equal positions has the angles that [`Self::new`] gives.
    ///
    /// # Shapes
    /// `positions` (tokens) of (time, height, width); the sections add up to the number of pairs.
    ///
    /// # Errors
    /// The sections do not add up.
    pub fn multimodal(
        positions: &[[usize; 3]],
        sections: [usize; 3],
        frequencies: &Frequencies,
    ) -> Result<Self> {
        let inverse = &frequencies.inverse;
        check(sections.iter().sum::<usize>() == inverse.len(), OP, || {
            format!("sections {sections:?} do not add up to {} pairs", inverse.len())
        })?;
        let axes: Vec<usize> =
            (0..3).flat_map(|axis| std::iter::repeat_n(axis, sections[axis])).collect();
        let axes = &axes;
        let angles = positions.iter().flat_map(|position| {
            inverse.iter().zip(axes).map(|(f, axis)| position[*axis] as f32 * f)
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
            half: frequencies.inverse.len(),
            #[cfg(device)]
            device: std::sync::OnceLock::new(),
        }
    }

    /// Cosines and sines on a device. A batch is on one device, the first that asks.
    #[cfg(device)]
    pub(crate) fn on(&self, device: &candle_core::Device) -> Result<&(Tensor, Tensor)> {
        if let Some(there) = self.device.get() {
            return Ok(there);
        }
        let shape = (self.tokens(), self.half);
        let upload = |numbers: &[f32]| {
            let tensor = Tensor::from_slice(numbers, shape, &candle_core::Device::Cpu)?;
            crate::memory::to_device(&tensor, device)
        };
        let there = (upload(&self.cos)?, upload(&self.sin)?);
        Ok(self.device.get_or_init(|| there))
    }

    /// Tokens that there are angles for.
    pub fn tokens(&self) -> usize {
        self.cos.len() / self.half.max(1)
    }
}

/// Which way to turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// The forward pass.
    Forward,
    /// The backward pass: a gradient is turned back by the same angles and scaled by the same factor.
    Backward,
}

/// Turns every head of `x` in place, and scales it by the attention factor.
///
/// # Shapes
/// `x` (tokens, heads · 2 · half), with `half` inverse frequencies in `angles`.
///
/// # Errors
/// The shapes do not fit, or the tensor is not contiguous `f32` on the CPU.
pub fn rotate(x: &Tensor, angles: &Angles, turn: Turn) -> Result<()> {
    let (tokens, width) = x.dims2()?;
    let half = angles.half;
    check(half > 0 && width % (2 * half) == 0, OP, || "the heads are not of that size".into())?;
    check(tokens == angles.tokens(), OP, || {
        format!("{tokens} tokens, but angles for {}", angles.tokens())
    })?;
    let sign = if turn == Turn::Forward { 1.0 } else { -1.0 };
    on_device!(x, elementwise::rope(x, angles.on(x.device())?, half, sign, OP));
    update(x, OP, |x| {
        parallel::rows(x, width, |first, x| {
            for (i, token) in x.chunks_mut(width).enumerate() {
                let at = (first + i) * half..(first + i + 1) * half;
                let (cos, sin) = (&angles.cos[at.clone()], &angles.sin[at]);
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
