//! Rotary position embedding, half-rotated as in Llama and Qwen (Su et al., 2021).

use candle_core::Tensor;
use multiversion::multiversion;

use crate::error::{Result, check};
use crate::memory::update;
use crate::parallel;

const OP: &str = "rope";

/// Cosines and sines of the positions of a batch, shared by all of its layers.
pub struct Angles {
    cos: Vec<f32>,
    sin: Vec<f32>,
    half: usize,
}

impl Angles {
    /// Angles `position · inverse_frequency` for each token, taken in f64.
    pub fn new(positions: &[usize], inverse_frequencies: &[f64]) -> Self {
        let angle = positions
            .iter()
            .flat_map(|p| inverse_frequencies.iter().map(move |frequency| *p as f64 * frequency));
        let (sin, cos) = angle.map(f64::sin_cos).map(|(s, c)| (s as f32, c as f32)).unzip();
        Self { cos, sin, half: inverse_frequencies.len() }
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
    /// The backward pass: a gradient is turned back by the same angles.
    Backward,
}

/// Turns every head of `x` in place.
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
