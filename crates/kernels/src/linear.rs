//! Linear layers: `y = x · Wᵀ + b`.
//!
//! In bf16 the two factors of each of the three products are rounded as they are packed for it: a pass
//! over them, small beside the product's many. The weights and gradients stay f32.

use candle_core::Tensor;

use crate::device::on_device;
use crate::error::{Result, check};
use crate::math::add;
use crate::matmul::{Into, Threads, View, ViewMut, add_product_over_rows, product};
use crate::memory::{floats, tensor, update};
use crate::panels::bf16::{self, Packed};
use crate::panels::{self, Plain};
use crate::parallel;
use crate::precision::Precision;

const OP: &str = "linear";

/// Rows from which on it pays to pack both factors.
const TALL: usize = 512;

/// `x · Wᵀ + b`.
///
/// # Shapes
/// `x` (rows, inputs), `weight` (outputs, inputs), `bias` (outputs); gives (rows, outputs).
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
    check(inputs == columns, OP, || format!("x has {inputs} columns, the weight {columns}"))?;
    on_device!(x, linear::forward_in(x, weight, bias, precision, OP));
    let (x, w) = (floats(x, OP)?, floats(weight, OP)?);
    let (mut y, into) = start(rows, outputs, bias)?;
    times_in(precision, &mut y, into, &x, &w, (outputs, inputs));
    tensor(y, (rows, outputs))
}

/// Memory for a result (rows, outputs) with the bias in each row, if there is one; what is to become of the
/// product then.
pub(crate) fn start(
    rows: usize,
    outputs: usize,
    bias: Option<&Tensor>,
) -> Result<(Vec<f32>, Into)> {
    let Some(bias) = bias else {
        // Threads are not woken for the few rows of a decoding step.
        let y = match rows < TALL {
            true => vec![0.0; rows * outputs],
            false => parallel::filled(rows, outputs, |_, _| ()),
        };
        return Ok((y, Into::Replace));
    };
    check(bias.elem_count() == outputs, OP, || format!("the bias has not {outputs} numbers"))?;
    let bias = floats(bias, OP)?;
    let y = parallel::filled(rows, outputs, |_, y| {
        for y in y.chunks_mut(outputs) {
            y.copy_from_slice(&bias);
        }
    });
    Ok((y, Into::Add))
}

/// Adds a bias to every row.
pub(crate) fn add_bias(rows: &mut [f32], bias: &Tensor) -> Result<()> {
    let bias = floats(bias, OP)?;
    let whole = !bias.is_empty() && rows.len().is_multiple_of(bias.len());
    check(whole, OP, || format!("a bias of {} numbers misfits the rows", bias.len()))?;
    parallel::rows(rows, bias.len(), |_, rows| {
        rows.chunks_mut(bias.len()).for_each(|row| add(row, &bias));
    });
    Ok(())
}

/// `y = x · Wᵀ`, or `y += x · Wᵀ`, with `weight` (outputs, inputs).
pub(crate) fn times(
    y: &mut [f32],
    into: Into,
    x: &[f32],
    weight: &[f32],
    (outputs, inputs): (usize, usize),
) {
    let rows = x.len().checked_div(inputs).unwrap_or_default();
    if rows >= TALL {
        let (x, w) = (View::new(x, rows, inputs), View::new(weight, outputs, inputs).t());
        return product(ViewMut::new(y, rows, outputs), into, x, w, Threads::All);
    }
    panels::product(y, into, x, &Plain { numbers: weight, inputs }, (outputs, inputs));
}

/// [`times`] in a precision.
fn times_in(
    precision: Precision,
    y: &mut [f32],
    into: Into,
    x: &[f32],
    weight: &[f32],
    (outputs, inputs): (usize, usize),
) {
    match precision {
        Precision::F32 => times(y, into, x, weight, (outputs, inputs)),
        Precision::Bf16 => bf16::product(y, into, x, &Packed::new(weight, outputs, inputs)),
    }
}

/// `y + x · Wᵀ`, in y's memory.
///
/// # Shapes
/// `x` (rows, inputs), `weight` (outputs, inputs), `y` and the result (rows, outputs).
///
/// # Errors
/// As [`forward`].
pub fn forward_add(x: &Tensor, weight: &Tensor, y: Tensor, precision: Precision) -> Result<Tensor> {
    let (rows, inputs) = x.dims2()?;
    let (outputs, columns) = weight.dims2()?;
    check(inputs == columns, OP, || format!("x has {inputs} columns, the weight {columns}"))?;
    check(y.dims() == [rows, outputs], OP, || "what is added to does not fit".into())?;
    on_device!(x, linear::forward_add(x, weight, y, precision, OP));
    let (x, w) = (floats(x, OP)?, floats(weight, OP)?);
    update(&y, OP, |y| {
        times_in(precision, y, Into::Add, &x, &w, (outputs, inputs));
    })?;
    Ok(y)
}

/// The gradient of the input: `dy · W`, added to `dx` if there is one.
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
    check(outputs == weight_rows, OP, || "the gradient does not fit the weight".into())?;
    let misfits = dx.as_ref().is_some_and(|dx| dx.dims() != [rows, inputs]);
    check(!misfits, OP, || "dx does not fit".into())?;
    on_device!(dy, linear::backward_input(dy, weight, dx, precision, OP));
    let (dy, w) = (floats(dy, OP)?, floats(weight, OP)?);
    let times = |dx: &mut [f32], into| match precision {
        Precision::F32 => {
            let (lhs, rhs) = (View::new(&dy, rows, outputs), View::new(&w, outputs, inputs));
            product(ViewMut::new(dx, rows, inputs), into, lhs, rhs, Threads::All);
        }
        Precision::Bf16 => {
            bf16::product(dx, into, &dy, &Packed::transposed(&w, outputs, inputs));
        }
    };
    if let Some(dx) = dx {
        update(&dx, OP, |dx| times(dx, Into::Add))?;
        return Ok(dx);
    }
    let mut dx = parallel::filled(rows, inputs, |_, _| ());
    times(&mut dx, Into::Replace);
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
    precision: Precision,
) -> Result<()> {
    let (rows, inputs) = x.dims2()?;
    let (dy_rows, outputs) = dy.dims2()?;
    check(rows == dy_rows, OP, || format!("x has {rows} rows, dy {dy_rows}"))?;
    check(d_weight.dims() == [outputs, inputs], OP, || "the weight's gradient misfits".into())?;
    on_device!(x, linear::backward_weight(x, dy, d_weight, d_bias, precision, OP));
    let (x, dy) = (floats(x, OP)?, floats(dy, OP)?);
    update(d_weight, OP, |dw| match precision {
        Precision::F32 => add_product_over_rows(dw, (&dy, outputs), (&x, inputs), rows),
        Precision::Bf16 => bf16::add_product_over_rows(dw, (&dy, outputs), (&x, inputs), rows),
    })?;
    match d_bias {
        Some(d_bias) => add_bias_gradient(&dy, (rows, outputs), d_bias),
        None => Ok(()),
    }
}

/// Adds the gradient of the bias, the sum of `dy`, to its own: all that is due where the weight is frozen.
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
    check(d_bias.elem_count() == outputs, OP, || "the bias's gradient misfits".into())?;
    update(d_bias, OP, |db| {
        parallel::sum_rows(db, rows, |rows, partial| {
            for dy in dy[rows.start * outputs..rows.end * outputs].chunks(outputs) {
                add(partial, dy);
            }
        });
    })
}
