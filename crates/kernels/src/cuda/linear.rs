//! Linear layers on the device.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_longlong, c_void};

use candle_core::Tensor;

use super::memory::held_as;
use super::product::{Base, Destination, Factor, factor_dtype, into_tensor, product};
use super::{Dtype, Stream, create, launch, read, sums, write};
use crate::error::{Result, check};
use crate::matmul::Into;
use crate::precision::Precision;

unsafe extern "C" {
    fn er_rows(
        to: *mut c_void,
        row: *const c_void,
        rows: c_longlong,
        width: c_int,
        keep: f32,
        dtype: Dtype,
        row_dtype: Dtype,
        stream: Stream,
    ) -> c_int;
    fn er_column_parts(
        parts: *mut c_void,
        x: *const c_void,
        rows: c_longlong,
        width: c_int,
        part_rows: c_int,
        dtype: Dtype,
        stream: Stream,
    ) -> c_int;
}

/// What the factors of a product of `x` are held as: bf16 activations are multiplied as bf16 in any case.
pub(crate) fn factors(x: &Tensor, precision: Precision, op: &'static str) -> Result<Dtype> {
    Ok(factor_dtype(Dtype::of(x, op)?, precision == Precision::Bf16))
}

/// `x · Wᵀ + b`, with factors held as `factors` and the result as `x`.
pub(crate) fn forward(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    factors: Dtype,
    op: &'static str,
) -> Result<Tensor> {
    let (rows, outputs, inputs) = (x.dims()[0], weight.dims()[0], weight.dims()[1]);
    let (dtype, stream) = (Dtype::of(x, op)?, Stream::of(x)?);
    let (a, w) = (held_as(x, factors, op)?, held_as(weight, factors, op)?);
    let (a, w) = (read(&a, op)?, read(&w, op)?);
    let (a, w) = (Factor::new(&a, rows, inputs), Factor::new(&w, outputs, inputs).t());
    create(x.device(), (rows, outputs), dtype, op, |y| {
        let into = match bias {
            None => Into::Replace,
            Some(bias) => {
                set_rows(y, dtype, bias, (rows, outputs), 0.0, stream, op)?;
                Into::Add
            }
        };
        let out = Destination::new(y, dtype, rows, outputs);
        product(x.device(), out, a, w, into.into(), op)
    })
}

/// `base + x · Wᵀ`, held as the base.
pub(crate) fn forward_onto(
    x: &Tensor,
    weight: &Tensor,
    base: &Tensor,
    factors: Dtype,
    op: &'static str,
) -> Result<Tensor> {
    let (rows, outputs, inputs) = (x.dims()[0], weight.dims()[0], weight.dims()[1]);
    let (a, w) = (held_as(x, factors, op)?, held_as(weight, factors, op)?);
    let (a, w, base) = (read(&a, op)?, read(&w, op)?, read(base, op)?.float()?);
    let (a, w) = (Factor::new(&a, rows, inputs), Factor::new(&w, outputs, inputs).t());
    create(x.device(), (rows, outputs), base.dtype, op, |y| {
        let out = Destination::new(y, base.dtype, rows, outputs);
        product(x.device(), out, a, w, Base::At(base.at).into(), op)
    })
}

/// [`forward`] in a precision.
pub(crate) fn forward_in(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    precision: Precision,
    op: &'static str,
) -> Result<Tensor> {
    forward(x, weight, bias, factors(x, precision, op)?, op)
}

/// `y + x · Wᵀ`, in y's memory.
pub(crate) fn forward_add(
    x: &Tensor,
    weight: &Tensor,
    y: Tensor,
    precision: Precision,
    op: &'static str,
) -> Result<Tensor> {
    add(x, weight, &y, factors(x, precision, op)?, op)?;
    Ok(y)
}

/// Every row of what lies at `to` becomes `keep` times itself and `row`.
pub(super) fn set_rows(
    to: *mut c_void,
    dtype: Dtype,
    row: &Tensor,
    (rows, width): (usize, usize),
    keep: f32,
    stream: Stream,
    op: &'static str,
) -> Result<()> {
    check(row.elem_count() == width, op, || format!("the bias has not {width} numbers"))?;
    if rows * width == 0 {
        return Ok(());
    }
    let row = read(row, op)?.float()?;
    let (rows, width) = (rows as c_longlong, width as c_int);
    launch!(op, er_rows(to, row.at, rows, width, keep, dtype, row.dtype, stream))
}

/// `y += x · Wᵀ`, in place.
pub(crate) fn add(
    x: &Tensor,
    weight: &Tensor,
    y: &Tensor,
    factors: Dtype,
    op: &'static str,
) -> Result<()> {
    let (rows, outputs, inputs) = (x.dims()[0], weight.dims()[0], weight.dims()[1]);
    let (a, w) = (held_as(x, factors, op)?, held_as(weight, factors, op)?);
    let (a, w) = (read(&a, op)?, read(&w, op)?);
    let (a, w) = (Factor::new(&a, rows, inputs), Factor::new(&w, outputs, inputs).t());
    into_tensor(y, (rows, outputs), a, w, Into::Add.into(), op)
}

/// Adds a bias to every row of `y`, in place.
pub(crate) fn add_bias(y: &Tensor, bias: &Tensor, op: &'static str) -> Result<()> {
    let (shape, dtype, stream) = (y.dims2()?, Dtype::of(y, op)?, Stream::of(y)?);
    write([(y, dtype)], op, |[y]| set_rows(y, dtype, bias, shape, 1.0, stream, op))
}

/// `dy · W`, added to `dx` if there is one.
pub(crate) fn backward_input(
    dy: &Tensor,
    weight: &Tensor,
    dx: Option<Tensor>,
    precision: Precision,
    op: &'static str,
) -> Result<Tensor> {
    let (rows, outputs, inputs) = (dy.dims()[0], weight.dims()[0], weight.dims()[1]);
    let factors = factors(dy, precision, op)?;
    let (a, w) = (held_as(dy, factors, op)?, held_as(weight, factors, op)?);
    let (a, w) = (read(&a, op)?, read(&w, op)?);
    let (a, w) = (Factor::new(&a, rows, outputs), Factor::new(&w, outputs, inputs));
    if let Some(dx) = dx {
        into_tensor(&dx, (rows, inputs), a, w, Into::Add.into(), op)?;
        return Ok(dx);
    }
    let dtype = Dtype::of(dy, op)?;
    create(dy.device(), (rows, inputs), dtype, op, |dx| {
        let out = Destination::new(dx, dtype, rows, inputs);
        product(dy.device(), out, a, w, Into::Replace.into(), op)
    })
}

/// Adds `dyᵀ · x` to the f32 `d_weight`, and the sum of `dy` to the f32 `d_bias`.
pub(crate) fn backward_weight(
    x: &Tensor,
    dy: &Tensor,
    d_weight: &Tensor,
    d_bias: Option<&Tensor>,
    precision: Precision,
    op: &'static str,
) -> Result<()> {
    let ((rows, inputs), (_, outputs)) = (x.dims2()?, dy.dims2()?);
    let factors = factors(x, precision, op)?;
    let (a, b) = (held_as(dy, factors, op)?, held_as(x, factors, op)?);
    {
        let (a, b) = (read(&a, op)?, read(&b, op)?);
        let (a, b) = (Factor::new(&a, rows, outputs).t(), Factor::new(&b, rows, inputs));
        into_tensor(d_weight, (outputs, inputs), a, b, Into::Add.into(), op)?;
    }
    match d_bias {
        Some(d_bias) => backward_bias(dy, d_bias, op),
        None => Ok(()),
    }
}

/// Adds the sum of `dy` over its rows to the f32 `d_bias`.
pub(crate) fn backward_bias(dy: &Tensor, d_bias: &Tensor, op: &'static str) -> Result<()> {
    let (rows, outputs) = dy.dims2()?;
    check(d_bias.elem_count() == outputs, op, || "the bias's gradient misfits".into())?;
    let (device, stream) = (dy.device(), Stream::of(dy)?);
    let dy = read(dy, op)?.float()?;
    let (n, m) = (rows as c_longlong, outputs as c_int);
    sums::add_over_rows(d_bias, device, (rows, outputs), op, |parts, part_rows| {
        launch!(op, er_column_parts(parts, dy.at, n, m, part_rows as c_int, dy.dtype, stream))
    })
}
