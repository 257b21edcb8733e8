//! Linear layers: `y = x · Wᵀ + b`.

use candle_core::Tensor;

use crate::error::{Result, check};
use crate::math::add;
use crate::matmul::{Into, Threads, View, ViewMut, add_product_over_rows, product};
use crate::memory::{floats, tensor, update};
use crate::panels::{self, Plain};
use crate::parallel;

const OP: &str = "linear";

/// `x · Wᵀ + b`.
///
/// # Shapes
/// `x` (rows, inputs), `weight` (outputs, inputs), `bias` (outputs); gives (rows, outputs).
///
/// # Errors
/// The shapes do not fit, or a tensor is not contiguous `f32` on the CPU.
pub fn forward(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let (rows, inputs) = x.dims2()?;
    let (outputs, columns) = weight.dims2()?;
    check(inputs == columns, OP, || format!("x has {inputs} columns, the weight {columns}"))?;
    let (x, w) = (floats(x, OP)?, floats(weight, OP)?);
    let mut y = vec![0.0; rows * outputs];
    let into = start(&mut y, outputs, bias)?;
    times(&mut y, into, &x, &w, (outputs, inputs));
    tensor(y, (rows, outputs))
}

/// Puts the bias into each row of `y`, if there is one; what is to become of the product then.
pub(crate) fn start(y: &mut [f32], outputs: usize, bias: Option<&Tensor>) -> Result<Into> {
    let Some(bias) = bias else { return Ok(Into::Replace) };
    check(bias.elem_count() == outputs, OP, || format!("the bias has not {outputs} numbers"))?;
    let bias = floats(bias, OP)?;
    parallel::rows(y, outputs, |_, y| {
        for y in y.chunks_mut(outputs) {
            y.copy_from_slice(&bias);
        }
    });
    Ok(Into::Add)
}

/// `y = x · Wᵀ`, or `y += x · Wᵀ`, with `weight` (outputs, inputs).
pub(crate) fn times(
    y: &mut [f32],
    into: Into,
    x: &[f32],
    weight: &[f32],
    (outputs, inputs): (usize, usize),
) {
    panels::product(y, into, x, &Plain { numbers: weight, inputs }, (outputs, inputs));
}

/// `y + x · Wᵀ`, in y's memory.
///
/// # Shapes
/// `x` (rows, inputs), `weight` (outputs, inputs), `y` and the result (rows, outputs).
///
/// # Errors
/// As [`forward`].
pub fn forward_add(x: &Tensor, weight: &Tensor, y: Tensor) -> Result<Tensor> {
    let (rows, inputs) = x.dims2()?;
    let (outputs, columns) = weight.dims2()?;
    check(inputs == columns, OP, || format!("x has {inputs} columns, the weight {columns}"))?;
    check(y.dims() == [rows, outputs], OP, || "what is added to does not fit".into())?;
    let (x, w) = (floats(x, OP)?, floats(weight, OP)?);
    update(&y, OP, |y| times(y, Into::Add, &x, &w, (outputs, inputs)))?;
    Ok(y)
}

/// The gradient of the input: `dy · W`, added to `dx` if there is one.
///
/// # Shapes
/// `dy` (rows, outputs), `weight` (outputs, inputs), `dx` and the result (rows, inputs).
///
/// # Errors
/// As [`forward`].
pub fn backward_input(dy: &Tensor, weight: &Tensor, dx: Option<Tensor>) -> Result<Tensor> {
    let (rows, outputs) = dy.dims2()?;
    let (weight_rows, inputs) = weight.dims2()?;
    check(outputs == weight_rows, OP, || "the gradient does not fit the weight".into())?;
    let (dy, w) = (floats(dy, OP)?, floats(weight, OP)?);
    let (lhs, rhs) = (View::new(&dy, rows, outputs), View::new(&w, outputs, inputs));
    if let Some(dx) = dx {
        check(dx.dims() == [rows, inputs], OP, || "dx does not fit".into())?;
        update(&dx, OP, |dx| {
            product(ViewMut::new(dx, rows, inputs), Into::Add, lhs, rhs, Threads::All);
        })?;
        return Ok(dx);
    }
    let mut dx = vec![0.0; rows * inputs];
    product(ViewMut::new(&mut dx, rows, inputs), Into::Replace, lhs, rhs, Threads::All);
    tensor(dx, (rows, inputs))
}

/// Adds the gradients of the weight (`dyᵀ · x`) and of the bias (the sum of `dy`) to theirs.
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
) -> Result<()> {
    let (rows, inputs) = x.dims2()?;
    let (dy_rows, outputs) = dy.dims2()?;
    check(rows == dy_rows, OP, || format!("x has {rows} rows, dy {dy_rows}"))?;
    check(d_weight.dims() == [outputs, inputs], OP, || "the weight's gradient misfits".into())?;
    let (x, dy) = (floats(x, OP)?, floats(dy, OP)?);
    update(d_weight, OP, |dw| {
        add_product_over_rows(dw, (&dy, outputs), (&x, inputs), rows);
    })?;
    let Some(d_bias) = d_bias else { return Ok(()) };
    check(d_bias.elem_count() == outputs, OP, || "the bias's gradient misfits".into())?;
    update(d_bias, OP, |db| {
        parallel::sum_rows(db, rows, |rows, partial| {
            for dy in dy[rows.start * outputs..rows.end * outputs].chunks(outputs) {
                add(partial, dy);
            }
        });
    })
}
