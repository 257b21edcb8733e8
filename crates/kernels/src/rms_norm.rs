//! RMSNorm (Zhang and Sennrich, 2019).

use candle_core::Tensor;
use multiversion::multiversion;

use crate::device::on_device;
use crate::error::{Result, check};
use crate::math::{dot, sum};
use crate::memory::{floats, tensor, update};
use crate::parallel::{self, Uninit, each};

const OP: &str = "rms_norm";

/// Normalized rows, with what the backward needs.
pub struct RmsNormOutput {
    /// `x · scale · weight`, of x's shape.
    pub y: Tensor,
    /// Reciprocal RMS `1 / sqrt(mean(x²) + eps)` of each row (rows, 1).
    pub scale: Tensor,
}

/// Normalizes the rows of `x` and multiplies them by `weight`.
///
/// # Shapes
/// `x` (rows, width), `weight` (width).
///
/// # Errors
/// The shapes do not fit, or a tensor is not contiguous `f32` on the CPU.
pub fn forward(x: &Tensor, weight: &Tensor, eps: f64) -> Result<RmsNormOutput> {
    let (rows, width) = x.dims2()?;
    let fits = weight.elem_count() == width && width > 0;
    check(fits, OP, || format!("the weight must have {width} elements"))?;
    on_device!(x, rms_norm::forward(x, weight, eps, (rows, width)));
    let (x, w) = (floats(x, OP)?, floats(weight, OP)?);
    let mut scale = vec![0.0; rows];
    let y = parallel::filled_rows_with_column(rows, width, &mut scale, |row, y, scale| {
        normalize(&x[span(row, width)], &w, eps as f32, (y, scale))
    });
    Ok(RmsNormOutput { y: tensor(y, (rows, width))?, scale: tensor(scale, (rows, 1))? })
}

/// Recomputes [`RmsNormOutput::y`] from the input and the saved scales; bit-identical to the forward.
///
/// # Shapes
/// `x` and the result (rows, width), `weight` (width), `scale` (rows, 1).
///
/// # Errors
/// As [`forward`].
pub fn recompute(x: &Tensor, weight: &Tensor, scale: &Tensor) -> Result<Tensor> {
    let (rows, width) = x.dims2()?;
    let fits = weight.elem_count() == width && scale.elem_count() == rows;
    check(fits, OP, || "the weight or the scales do not match x".into())?;
    on_device!(x, rms_norm::recompute(x, weight, scale, (rows, width)));
    let (x, w, scale) = (floats(x, OP)?, floats(weight, OP)?, floats(scale, OP)?);
    let y = parallel::filled_rows(rows, width, |row, y| {
        rescale(&x[span(row, width)], &w, scale[row], y)
    });
    tensor(y, (rows, width))
}

/// Adds the gradient of `x` to `dx` in place, and the weight gradient to `d_weight`; `None` for a frozen weight.
///
/// With `g = dy · weight` and `s` the row's scale: `dx = s·g - s³·x·mean(g·x)`.
///
/// # Shapes
/// `x`, `dy` and `dx` (rows, width); `scale` (rows, 1); `weight` and `d_weight` (width).
///
/// # Errors
/// As [`forward`].
pub fn backward(
    x: &Tensor,
    weight: &Tensor,
    scale: &Tensor,
    dy: &Tensor,
    dx: &Tensor,
    d_weight: Option<&Tensor>,
) -> Result<()> {
    let (rows, width) = x.dims2()?;
    let fits = dy.dims() == [rows, width] && dx.dims() == [rows, width];
    let fits = fits && weight.elem_count() == width;
    check(fits && scale.elem_count() == rows, OP, || "the gradients do not match x".into())?;
    let misfits = d_weight.is_some_and(|d_weight| d_weight.elem_count() != width);
    check(!misfits, OP, || "the shape of the weight gradient is wrong".into())?;
    on_device!(x, rms_norm::backward(x, weight, scale, dy, dx, d_weight, (rows, width)));
    let (x, w, s, dy) = (floats(x, OP)?, floats(weight, OP)?, floats(scale, OP)?, floats(dy, OP)?);
    update(dx, OP, |dx| {
        parallel::rows(dx, width, |first, dx| {
            for (i, dx) in dx.chunks_mut(width).enumerate() {
                let at = span(first + i, width);
                let (x, dy, s) = (&x[at.clone()], &dy[at], s[first + i]);
                add_input_gradient(x, &w, s, dy, dx);
            }
        });
    })?;
    let Some(d_weight) = d_weight else { return Ok(()) };
    update(d_weight, OP, |dw| {
        parallel::sum_rows(dw, rows, |rows, partial| {
            for i in rows {
                let at = span(i, width);
                add_weight_gradient(&x[at.clone()], s[i], &dy[at], partial);
            }
        });
    })
}

fn span(row: usize, width: usize) -> std::ops::Range<usize> {
    row * width..(row + 1) * width
}

/// Writes the normalized row and its scale.
#[multiversion(targets = "simd")]
fn normalize<'o>(
    x: &[f32],
    w: &[f32],
    eps: f32,
    (y, scale): (&'o mut Uninit, &mut f32),
) -> &'o mut [f32] {
    *scale = 1.0 / (dot(x, x) / x.len() as f32 + eps).sqrt();
    scaled(x, w, *scale, y)
}

/// Writes the normalized row with a known scale.
#[multiversion(targets = "simd")]
fn rescale<'o>(x: &[f32], w: &[f32], s: f32, y: &'o mut Uninit) -> &'o mut [f32] {
    scaled(x, w, s, y)
}

#[inline(always)]
fn scaled<'o>(x: &[f32], w: &[f32], s: f32, y: &'o mut Uninit) -> &'o mut [f32] {
    let (x, w) = (&x[..y.len()], &w[..y.len()]);
    each(y, |i| x[i] * s * w[i])
}

#[multiversion(targets = "simd")]
fn add_input_gradient(x: &[f32], w: &[f32], s: f32, dy: &[f32], dx: &mut [f32]) {
    let (x, w, dy) = (&x[..dx.len()], &w[..dx.len()], &dy[..dx.len()]);
    let mean = sum(dx.len(), |j| dy[j] * w[j] * x[j]) / dx.len() as f32;
    let shrink = s * s * s * mean;
    for (((dx, dy), w), x) in dx.iter_mut().zip(dy).zip(w).zip(x) {
        *dx += s * dy * w - shrink * x;
    }
}

#[multiversion(targets = "simd")]
fn add_weight_gradient(x: &[f32], s: f32, dy: &[f32], dw: &mut [f32]) {
    for ((dw, x), dy) in dw.iter_mut().zip(x).zip(dy) {
        *dw += dy * x * s;
    }
}
