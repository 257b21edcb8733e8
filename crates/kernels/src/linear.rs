//! Linear layers: `y = x · Wᵀ + b`.
//!
//! In bf16 both operands of each GEMM are rounded while they are packed: one pass over them, cheap compared with the
//! GEMM. Weights and gradients stay f32.

use candle_core::Tensor;

use crate::device::on_device;
use crate::error::{Result, check};
use crate::math::add;
use crate::matmul::{Threads, View, ViewMut, WriteMode, accumulate_weight_grad, gemm, product};
use crate::memory::{floats, tensor, update};
use crate::panels::bf16::{self, PackedBf16};
use crate::panels::{self, RowMajorF32};
use crate::parallel;
use crate::precision::Precision;

const OP: &str = "linear";

/// Rows from which packing both operands pays off.
const TALL: usize = 512;

/// `x · Wᵀ + b`.
///
/// # Shapes
/// `x` (rows, inputs), `weight` (outputs, inputs), `bias` (outputs); returns (rows, outputs).
///
/// # Errors
/// The shapes do not fit, or a tensor is not contiguous `f32` on the CPU.
pub fn forward(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    precision: Precision,
) -> Result<Tensor> {
    let (rows, inputs) = x.dims2()?;
    let (outputs, columns) = weight.dims2()?;
    check(inputs == columns, OP, || {
        format!("x has {inputs} columns, but the weight has {columns} inputs")
    })?;
    on_device!(x, linear::forward_in(x, weight, bias, precision, OP));
    let (x, w) = (floats(x, OP)?, floats(weight, OP)?);
    if bias.is_none() && rows >= TALL && precision == Precision::F32 {
        let (x, w) = (View::new(&x, rows, inputs), View::new(&w, outputs, inputs));
        return tensor(product(x, w.t(), Threads::All), (rows, outputs));
    }
    let (mut y, mode) = start(rows, outputs, bias)?;
    matmul_in(precision, &mut y, mode, &x, &w, (outputs, inputs));
    tensor(y, (rows, outputs))
}

/// An output buffer (rows, outputs) initialized with the bias, and the mode in which the GEMM writes to it.
pub(crate) fn start(
    rows: usize,
    outputs: usize,
    bias: Option<&Tensor>,
) -> Result<(Vec<f32>, WriteMode)> {
    let Some(bias) = bias else {
        // A decoding step has few rows: waking threads costs more than it saves.
        let y = match rows < TALL {
            true => vec![0.0; rows * outputs],
            false => parallel::zeros(rows * outputs),
        };
        return Ok((y, WriteMode::Overwrite));
    };
    check(bias.elem_count() == outputs, OP, || format!("the bias must have {outputs} elements"))?;
    let bias = floats(bias, OP)?;
    let y = parallel::filled_rows(rows, outputs, |_, y| y.write_copy_of_slice(&bias));
    Ok((y, WriteMode::Accumulate))
}

/// A copy of the rows `y`, plus the bias.
pub(crate) fn plus_bias(
    y: &[f32],
    (rows, outputs): (usize, usize),
    bias: Option<&Tensor>,
) -> Result<Vec<f32>> {
    let bias = bias.map(|bias| floats(bias, OP)).transpose()?;
    let misfits = bias.as_ref().is_some_and(|bias| bias.len() != outputs);
    check(!misfits, OP, || format!("the bias must have {outputs} elements"))?;
    let mut sum = match rows < TALL {
        true => y.to_vec(),
        false => parallel::filled(y.len(), |first, sum| {
            sum.write_copy_of_slice(&y[first..first + sum.len()])
        }),
    };
    if let Some(bias) = bias {
        parallel::rows(&mut sum, outputs.max(1), |_, sum| {
            sum.chunks_mut(outputs.max(1)).for_each(|row| add(row, &bias));
        });
    }
    Ok(sum)
}

/// `y = x · Wᵀ`, or `y += x · Wᵀ`, with `weight` (outputs, inputs).
pub(crate) fn matmul_f32(
    y: &mut [f32],
    mode: WriteMode,
    x: &[f32],
    weight: &[f32],
    (outputs, inputs): (usize, usize),
) {
    let rows = x.len().checked_div(inputs).unwrap_or_default();
    if rows >= TALL {
        let (x, w) = (View::new(x, rows, inputs), View::new(weight, outputs, inputs).t());
        return gemm(ViewMut::new(y, rows, outputs), mode, x, w, Threads::All);
    }
    panels::matmul(y, mode, x, &RowMajorF32 { data: weight, inputs }, (outputs, inputs));
}

/// [`matmul_f32`] in the given precision.
fn matmul_in(
    precision: Precision,
    y: &mut [f32],
    mode: WriteMode,
    x: &[f32],
    weight: &[f32],
    (outputs, inputs): (usize, usize),
) {
    match precision {
        Precision::F32 => matmul_f32(y, mode, x, weight, (outputs, inputs)),
        Precision::Bf16 => bf16::matmul(y, mode, x, &PackedBf16::new(weight, outputs, inputs)),
    }
}

/// `y + x · Wᵀ`, in place.
///
/// # Shapes
/// `x` (rows, inputs), `weight` (outputs, inputs), `y` and the result (rows, outputs).
///
/// # Errors
/// As [`forward`].
pub fn forward_add(x: &Tensor, weight: &Tensor, y: Tensor, precision: Precision) -> Result<Tensor> {
    let (rows, inputs) = x.dims2()?;
    let (outputs, columns) = weight.dims2()?;
    check(inputs == columns, OP, || {
        format!("x has {inputs} columns, but the weight has {columns} inputs")
    })?;
    check(y.dims() == [rows, outputs], OP, || "`y` differs from (rows, outputs) in shape".into())?;
    on_device!(x, linear::forward_add(x, weight, y, precision, OP));
    let (x, w) = (floats(x, OP)?, floats(weight, OP)?);
    update(&y, OP, |y| {
        matmul_in(precision, y, WriteMode::Accumulate, &x, &w, (outputs, inputs));
    })?;
    Ok(y)
}

/// The input gradient `dy · W`, added to `dx` if given.
///
/// # Shapes
/// `dy` (rows, outputs), `weight` (outputs, inputs), `dx` and the result (rows, inputs).
///
/// # Errors
/// As [`forward`].
pub fn backward_input(
    dy: &Tensor,
    weight: &Tensor,
    dx: Option<Tensor>,
    precision: Precision,
) -> Result<Tensor> {
    let (rows, outputs) = dy.dims2()?;
    let (weight_rows, inputs) = weight.dims2()?;
    check(outputs == weight_rows, OP, || "`dy` does not match the weight's outputs".into())?;
    let misfits = dx.as_ref().is_some_and(|dx| dx.dims() != [rows, inputs]);
    check(!misfits, OP, || "`dx` differs from (rows, inputs) in shape".into())?;
    on_device!(dy, linear::backward_input(dy, weight, dx, precision, OP));
    let (dy, w) = (floats(dy, OP)?, floats(weight, OP)?);
    let (lhs, rhs) = (View::new(&dy, rows, outputs), View::new(&w, outputs, inputs));
    if let Some(dx) = dx {
        update(&dx, OP, |dx| match precision {
            Precision::F32 => {
                let dx = ViewMut::new(dx, rows, inputs);
                gemm(dx, WriteMode::Accumulate, lhs, rhs, Threads::All);
            }
            Precision::Bf16 => {
                let w = PackedBf16::transposed(&w, outputs, inputs);
                bf16::matmul(dx, WriteMode::Accumulate, &dy, &w);
            }
        })?;
        return Ok(dx);
    }
    let dx = match precision {
        Precision::F32 => product(lhs, rhs, Threads::All),
        Precision::Bf16 => {
            let mut dx = parallel::zeros(rows * inputs);
            let w = PackedBf16::transposed(&w, outputs, inputs);
            bf16::matmul(&mut dx, WriteMode::Overwrite, &dy, &w);
            dx
        }
    };
    tensor(dx, (rows, inputs))
}

/// Accumulates the weight gradient (`dyᵀ · x`) and the bias gradient (column sums of `dy`).
///
/// # Shapes
/// `x` (rows, inputs), `dy` (rows, outputs), `d_weight` (outputs, inputs), `d_bias` (outputs).
///
/// # Errors
/// As [`forward`].
pub fn backward_weight(
    x: &Tensor,
    dy: &Tensor,
    d_weight: &Tensor,
    d_bias: Option<&Tensor>,
    precision: Precision,
) -> Result<()> {
    let (rows, inputs) = x.dims2()?;
    let (dy_rows, outputs) = dy.dims2()?;
    check(rows == dy_rows, OP, || format!("x has {rows} rows, but dy has {dy_rows}"))?;
    check(d_weight.dims() == [outputs, inputs], OP, || {
        "the shape of the weight gradient is wrong".into()
    })?;
    on_device!(x, linear::backward_weight(x, dy, d_weight, d_bias, precision, OP));
    let (x, dy) = (floats(x, OP)?, floats(dy, OP)?);
    update(d_weight, OP, |dw| match precision {
        Precision::F32 => accumulate_weight_grad(dw, (&dy, outputs), (&x, inputs), rows),
        Precision::Bf16 => bf16::accumulate_weight_grad(dw, (&dy, outputs), (&x, inputs), rows),
    })?;
    match d_bias {
        Some(d_bias) => add_bias_gradient(&dy, (rows, outputs), d_bias),
        None => Ok(()),
    }
}

/// Accumulates those gradients of [`backward_weight`] that are given; frozen tensors have none.
///
/// # Shapes
/// As [`backward_weight`].
///
/// # Errors
/// As [`forward`].
pub fn backward_parameters(
    x: &Tensor,
    dy: &Tensor,
    d_weight: Option<&Tensor>,
    d_bias: Option<&Tensor>,
    precision: Precision,
) -> Result<()> {
    match (d_weight, d_bias) {
        (Some(d_weight), d_bias) => backward_weight(x, dy, d_weight, d_bias, precision),
        (None, Some(d_bias)) => backward_bias(dy, d_bias),
        (None, None) => Ok(()),
    }
}

/// Accumulates the bias gradient, the column sums of `dy`: for frozen weights.
///
/// # Shapes
/// `dy` (rows, outputs), `d_bias` (outputs).
///
/// # Errors
/// As [`forward`].
pub fn backward_bias(dy: &Tensor, d_bias: &Tensor) -> Result<()> {
    let shape = dy.dims2()?;
    on_device!(dy, linear::backward_bias(dy, d_bias, OP));
    add_bias_gradient(&floats(dy, OP)?, shape, d_bias)
}

fn add_bias_gradient(dy: &[f32], (rows, outputs): (usize, usize), d_bias: &Tensor) -> Result<()> {
    check(d_bias.elem_count() == outputs, OP, || "the shape of the bias gradient is wrong".into())?;
    update(d_bias, OP, |db| {
        parallel::sum_rows(db, rows, |rows, partial| {
            for dy in dy[rows.start * outputs..rows.end * outputs].chunks(outputs) {
                add(partial, dy);
            }
        });
    })
}
