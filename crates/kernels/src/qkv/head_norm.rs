//! RoPE on queries or keys, after a norm over each head in the families that have one (Qwen3).

use candle_core::Tensor;

use crate::error::{Result, check};
use crate::memory;
use crate::rms_norm::{self, RmsNormOutput};
use crate::rope::{self, CosSinCache, Rotation};

const OP: &str = "head_norm";

/// An RMSNorm over each head of queries or keys.
#[derive(Debug, Clone, Copy)]
pub struct HeadNorm<'a> {
    /// Its weight (head size).
    pub weight: &'a Tensor,
    /// Its epsilon.
    pub eps: f64,
}

/// Queries or keys as attention takes them.
#[derive(Debug)]
pub struct Rotated {
    /// (rows, heads · dim).
    pub y: Tensor,
    /// What the backward of the norm needs: [`RmsNormOutput::scale`] of each head (rows · heads, 1).
    pub scale: Option<Tensor>,
}

/// Normalizes each head of `x`, if there is a norm, and rotates it. Without a norm this is in place.
///
/// # Shapes
/// `x` (rows, heads · dim).
///
/// # Errors
/// The norm or the cos/sin cache has another head size, or as [`rms_norm::forward`] and [`rope::rotate`].
pub fn forward(x: &Tensor, norm: Option<HeadNorm<'_>>, cos_sin: &CosSinCache) -> Result<Rotated> {
    let Some(HeadNorm { weight, eps }) = norm else {
        rope::rotate(x, cos_sin, Rotation::Forward)?;
        return Ok(Rotated { y: x.clone(), scale: None });
    };
    let RmsNormOutput { y, scale } = rms_norm::forward(&heads(x, weight)?, weight, eps)?;
    let y = memory::reshape(&y, x.dims2()?)?;
    rope::rotate(&y, cos_sin, Rotation::Forward)?;
    Ok(Rotated { y, scale: Some(scale) })
}

/// What the backward of a norm over heads takes.
#[derive(Debug, Clone, Copy)]
pub struct HeadNormInputs<'a> {
    /// Queries or keys before the norm (rows, heads · dim).
    pub x: &'a Tensor,
    /// The norm's weight (head size).
    pub weight: &'a Tensor,
    /// [`Rotated::scale`].
    pub scale: &'a Tensor,
    /// The gradient of the weight (head size), which is added to; `None` if it is frozen.
    pub d_weight: Option<&'a Tensor>,
}

/// The gradient of what [`forward`] took from that of [`Rotated::y`], whose memory is used.
///
/// # Shapes
/// `dy` and the result (rows, heads · dim).
///
/// # Errors
/// As [`forward`].
pub fn backward(
    norm: Option<HeadNormInputs<'_>>,
    dy: Tensor,
    cos_sin: &CosSinCache,
) -> Result<Tensor> {
    rope::rotate(&dy, cos_sin, Rotation::Backward)?;
    let Some(HeadNormInputs { x, weight, scale, d_weight }) = norm else { return Ok(dy) };
    let dx = memory::zeros_like(x)?;
    let [x, dy, dx_heads] = [x, &dy, &dx].map(|tensor| heads(tensor, weight));
    rms_norm::backward(&x?, weight, scale, &dy?, &dx_heads?, d_weight)?;
    Ok(dx)
}

/// The heads of `x` as rows, in its memory.
fn heads(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let ((rows, width), dim) = (x.dims2()?, weight.elem_count());
    let fits = dim > 0 && width.is_multiple_of(dim);
    check(fits, OP, || format!("a width of {width} is not a multiple of the norm's {dim}"))?;
    memory::reshape(x, (rows * (width / dim), dim))
}
