//! LayerNorm (Ba and others, 2016).

use candle_core::Tensor;
use multiversion::multiversion;

use crate::device::on_device;
use crate::error::{Result, check};
use crate::linear;
use crate::math::sum;
use crate::memory::{floats, tensor, update};
use crate::parallel::{self, Uninit, each};

const OP: &str = "layer_norm";

/// Normalized rows, with what the backward needs.
pub struct LayerNormOutput {
    /// `(x − mean) · scale · weight + bias`, of x's shape.
    pub y: Tensor,
    /// Mean and `1 / sqrt(variance + eps)` of each row (rows, 2).
    pub stats: Tensor,
}

/// The parameters of a norm, and their gradients.
#[derive(Debug, Clone, Copy)]
pub struct Affine<T> {
    /// (width).
    pub weight: T,
    /// (width).
    pub bias: T,
}

/// Subtracts the mean of each row of `x`, divides by its standard deviation, multiplies by the weight and adds the bias.
///
/// # Shapes
/// `x` (rows, width), weight and bias (width).
///
/// # Errors
/// The shapes do not fit, or a tensor is not contiguous `f32` on the CPU.
pub fn forward(x: &Tensor, affine: Affine<&Tensor>, eps: f64) -> Result<LayerNormOutput> {
    let (rows, width) = fitting(x, affine)?;
    on_device!(x, layer_norm::forward(x, affine, eps, (rows, width)));
    let (x, w, b) = (floats(x, OP)?, floats(affine.weight, OP)?, floats(affine.bias, OP)?);
    let stats: Vec<f32> = parallel::filled_rows(rows, 2, |row, stats| {
        let [mean, scale] = statistics(&x[span(row, width)], eps as f32);
        each(stats, |i| if i == 0 { mean } else { scale })
    });
    let y = parallel::filled_rows(rows, width, |row, y| {
        normalized(&x[span(row, width)], [&w, &b], [stats[2 * row], stats[2 * row + 1]], y)
    });
    Ok(LayerNormOutput { y: tensor(y, (rows, width))?, stats: tensor(stats, (rows, 2))? })
}

/// Recomputes [`LayerNormOutput::y`] from the input and the saved statistics; bit-identical to the forward.
///
/// # Shapes
/// `x` and the result (rows, width), weight and bias (width), `stats` (rows, 2).
///
/// # Errors
/// As [`forward`].
pub fn recompute(x: &Tensor, affine: Affine<&Tensor>, stats: &Tensor) -> Result<Tensor> {
    let (rows, width) = fitting(x, affine)?;
    check(stats.elem_count() == 2 * rows, OP, || "the statistics do not match x".into())?;
    on_device!(x, layer_norm::recompute(x, affine, stats, (rows, width)));
    let (x, w, b) = (floats(x, OP)?, floats(affine.weight, OP)?, floats(affine.bias, OP)?);
    let stats = floats(stats, OP)?;
    let y = parallel::filled_rows(rows, width, |row, y| {
        normalized(&x[span(row, width)], [&w, &b], [stats[2 * row], stats[2 * row + 1]], y)
    });
    tensor(y, (rows, width))
}

/// Adds the gradient of `x` to `dx` in place, and those of weight and bias to `grads`; `None` for a frozen one.
///
/// With `x̂` the normalized row without weight and bias, `g = dy · weight` and `s` the row's scale:
/// `dx = s · (g − mean(g) − x̂ · mean(g · x̂))`.
///
/// # Shapes
/// `x`, `dy` and `dx` (rows, width); `stats` (rows, 2); weight, bias and their gradients (width).
///
/// # Errors
/// As [`forward`].
pub fn backward(
    x: &Tensor,
    affine: Affine<&Tensor>,
    stats: &Tensor,
    dy: &Tensor,
    dx: &Tensor,
    grads: Affine<Option<&Tensor>>,
) -> Result<()> {
    let (rows, width) = fitting(x, affine)?;
    let fits = dy.dims() == [rows, width] && dx.dims() == [rows, width];
    check(fits && stats.elem_count() == 2 * rows, OP, || "the gradients do not match x".into())?;
    let misfits = [grads.weight, grads.bias].iter().flatten().any(|d| d.elem_count() != width);
    check(!misfits, OP, || "the shape of a parameter's gradient is wrong".into())?;
    if let Some(d_bias) = grads.bias {
        linear::backward_bias(dy, d_bias)?;
    }
    on_device!(x, layer_norm::backward(x, affine, stats, dy, dx, grads.weight, (rows, width)));
    let (x, w) = (floats(x, OP)?, floats(affine.weight, OP)?);
    let (stats, dy) = (floats(stats, OP)?, floats(dy, OP)?);
    let of_row = |row: usize| [stats[2 * row], stats[2 * row + 1]];
    update(dx, OP, |dx| {
        parallel::rows(dx, width, |first, dx| {
            for (i, dx) in dx.chunks_mut(width).enumerate() {
                let at = span(first + i, width);
                add_input_gradient(&x[at.clone()], &w, of_row(first + i), &dy[at], dx);
            }
        });
    })?;
    let Some(d_weight) = grads.weight else { return Ok(()) };
    update(d_weight, OP, |dw| {
        parallel::sum_rows(dw, rows, |rows, partial| {
            for row in rows {
                let at = span(row, width);
                add_weight_gradient(&x[at.clone()], of_row(row), &dy[at], partial);
            }
        });
    })
}

/// Rows and width of `x`, which weight and bias fit.
fn fitting(x: &Tensor, Affine { weight, bias }: Affine<&Tensor>) -> Result<(usize, usize)> {
    let (rows, width) = x.dims2()?;
    let fits = width > 0 && weight.elem_count() == width && bias.elem_count() == width;
    check(fits, OP, || format!("weight and bias must have {width} elements"))?;
    Ok((rows, width))
}

fn span(row: usize, width: usize) -> std::ops::Range<usize> {
    row * width..(row + 1) * width
}

/// Mean and reciprocal standard deviation.
#[multiversion(targets = "simd")]
fn statistics(x: &[f32], eps: f32) -> [f32; 2] {
    let width = x.len() as f32;
    let mean = sum(x.len(), |i| x[i]) / width;
    let variance = sum(x.len(), |i| (x[i] - mean) * (x[i] - mean)) / width;
    [mean, 1.0 / (variance + eps).sqrt()]
}

#[multiversion(targets = "simd")]
fn normalized<'o>(
    x: &[f32],
    [w, b]: [&[f32]; 2],
    [mean, scale]: [f32; 2],
    y: &'o mut Uninit,
) -> &'o mut [f32] {
    let (x, w, b) = (&x[..y.len()], &w[..y.len()], &b[..y.len()]);
    each(y, |i| (x[i] - mean) * scale * w[i] + b[i])
}

#[multiversion(targets = "simd")]
fn add_input_gradient(x: &[f32], w: &[f32], [mean, s]: [f32; 2], dy: &[f32], dx: &mut [f32]) {
    let (x, w, dy) = (&x[..dx.len()], &w[..dx.len()], &dy[..dx.len()]);
    let width = dx.len() as f32;
    let of_all = sum(dx.len(), |i| dy[i] * w[i]) / width;
    let along = sum(dx.len(), |i| dy[i] * w[i] * (x[i] - mean) * s) / width;
    for (((dx, dy), w), x) in dx.iter_mut().zip(dy).zip(w).zip(x) {
        *dx += s * (dy * w - of_all - (x - mean) * s * along);
    }
}

#[multiversion(targets = "simd")]
fn add_weight_gradient(x: &[f32], [mean, s]: [f32; 2], dy: &[f32], dw: &mut [f32]) {
    for ((dw, x), dy) in dw.iter_mut().zip(x).zip(dy) {
        *dw += dy * (x - mean) * s;
    }
}
