//! Linear layers on the device.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_longlong, c_void};

use candle_core::Tensor;

use super::gemm::{Addend, Destination, Operand, gemm, gemm_dtype, gemm_into};
use super::memory::cast;
use super::{Dtype, Stream, create, launch, read, row_sums, row_width, write};
use crate::error::{Result, check};
use crate::matmul::WriteMode;
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

/// Operand dtype of a GEMM with `x`: bf16 activations always use bf16.
pub(crate) fn operand_dtype(x: &Tensor, precision: Precision, op: &'static str) -> Result<Dtype> {
    Ok(gemm_dtype(Dtype::of(x, op)?, precision == Precision::Bf16))
}

/// `x · Wᵀ + b`, with operands of `operand_dtype` and the result in x's dtype.
pub(crate) fn forward(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    operand_dtype: Dtype,
    op: &'static str,
) -> Result<Tensor> {
    let (rows, outputs, inputs) = (x.dims()[0], weight.dims()[0], weight.dims()[1]);
    let (dtype, stream) = (Dtype::of(x, op)?, Stream::of(x)?);
    let (a, w) = (cast(x, operand_dtype, op)?, cast(weight, operand_dtype, op)?);
    let (a, w) = (read(&a, op)?, read(&w, op)?);
    let (a, w) = (Operand::new(&a, rows, inputs), Operand::new(&w, outputs, inputs).t());
    create(x.device(), (rows, outputs), dtype, op, |y| {
        let into = match bias {
            None => WriteMode::Overwrite,
            Some(bias) => {
                set_rows(y, dtype, bias, (rows, outputs), 0.0, stream, op)?;
                WriteMode::Accumulate
            }
        };
        let out = Destination::new(y, dtype, rows, outputs);
        gemm(x.device(), out, a, w, into.into(), op)
    })
}

/// `base + x · Wᵀ`, in the base's dtype.
pub(crate) fn forward_onto(
    x: &Tensor,
    weight: &Tensor,
    base: &Tensor,
    operand_dtype: Dtype,
    op: &'static str,
) -> Result<Tensor> {
    let (rows, outputs, inputs) = (x.dims()[0], weight.dims()[0], weight.dims()[1]);
    let (a, w) = (cast(x, operand_dtype, op)?, cast(weight, operand_dtype, op)?);
    let (a, w, base) = (read(&a, op)?, read(&w, op)?, read(base, op)?.expect_float()?);
    let (a, w) = (Operand::new(&a, rows, inputs), Operand::new(&w, outputs, inputs).t());
    create(x.device(), (rows, outputs), base.dtype, op, |y| {
        let out = Destination::new(y, base.dtype, rows, outputs);
        gemm(x.device(), out, a, w, Addend::At(base.ptr).into(), op)
    })
}

/// [`forward`] in the given precision.
pub(crate) fn forward_in(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    precision: Precision,
    op: &'static str,
) -> Result<Tensor> {
    forward(x, weight, bias, operand_dtype(x, precision, op)?, op)
}

/// `y + x · Wᵀ`, in place.
pub(crate) fn forward_add(
    x: &Tensor,
    weight: &Tensor,
    y: Tensor,
    precision: Precision,
    op: &'static str,
) -> Result<Tensor> {
    add(x, weight, &y, operand_dtype(x, precision, op)?, op)?;
    Ok(y)
}

/// `to = keep · to + row`, for every row.
pub(super) fn set_rows(
    to: *mut c_void,
    dtype: Dtype,
    row: &Tensor,
    (rows, width): (usize, usize),
    keep: f32,
    stream: Stream,
    op: &'static str,
) -> Result<()> {
    check(row.elem_count() == width, op, || format!("the bias must have {width} elements"))?;
    if rows * width == 0 {
        return Ok(());
    }
    let row = read(row, op)?.expect_float()?;
    let (rows, width) = (rows as c_longlong, row_width(width, op)?);
    launch!(op, er_rows(to, row.ptr, rows, width, keep, dtype, row.dtype, stream))
}

/// `y += x · Wᵀ`, in place.
pub(crate) fn add(
    x: &Tensor,
    weight: &Tensor,
    y: &Tensor,
    operand_dtype: Dtype,
    op: &'static str,
) -> Result<()> {
    let (rows, outputs, inputs) = (x.dims()[0], weight.dims()[0], weight.dims()[1]);
    let (a, w) = (cast(x, operand_dtype, op)?, cast(weight, operand_dtype, op)?);
    let (a, w) = (read(&a, op)?, read(&w, op)?);
    let (a, w) = (Operand::new(&a, rows, inputs), Operand::new(&w, outputs, inputs).t());
    gemm_into(y, (rows, outputs), a, w, WriteMode::Accumulate.into(), op)
}

/// Adds a bias to every row of `y`, in place.
pub(crate) fn add_bias(y: &Tensor, bias: &Tensor, op: &'static str) -> Result<()> {
    let (shape, dtype, stream) = (y.dims2()?, Dtype::of(y, op)?, Stream::of(y)?);
    write([(y, dtype)], op, |[y]| set_rows(y, dtype, bias, shape, 1.0, stream, op))
}

/// `dy · W`, added to `dx` if given.
pub(crate) fn backward_input(
    dy: &Tensor,
    weight: &Tensor,
    dx: Option<Tensor>,
    precision: Precision,
    op: &'static str,
) -> Result<Tensor> {
    let (rows, outputs, inputs) = (dy.dims()[0], weight.dims()[0], weight.dims()[1]);
    let operand_dtype = operand_dtype(dy, precision, op)?;
    let (a, w) = (cast(dy, operand_dtype, op)?, cast(weight, operand_dtype, op)?);
    let (a, w) = (read(&a, op)?, read(&w, op)?);
    let (a, w) = (Operand::new(&a, rows, outputs), Operand::new(&w, outputs, inputs));
    if let Some(dx) = dx {
        gemm_into(&dx, (rows, inputs), a, w, WriteMode::Accumulate.into(), op)?;
        return Ok(dx);
    }
    let dtype = Dtype::of(dy, op)?;
    create(dy.device(), (rows, inputs), dtype, op, |dx| {
        let out = Destination::new(dx, dtype, rows, inputs);
        gemm(dy.device(), out, a, w, WriteMode::Overwrite.into(), op)
    })
}

/// Accumulates `dyᵀ · x` in the f32 `d_weight`, and the column sums of `dy` in the f32 `d_bias`.
pub(crate) fn backward_weight(
    x: &Tensor,
    dy: &Tensor,
    d_weight: &Tensor,
    d_bias: Option<&Tensor>,
    precision: Precision,
    op: &'static str,
) -> Result<()> {
    let ((rows, inputs), (_, outputs)) = (x.dims2()?, dy.dims2()?);
    let operand_dtype = operand_dtype(x, precision, op)?;
    let (a, b) = (cast(dy, operand_dtype, op)?, cast(x, operand_dtype, op)?);
    {
        let (a, b) = (read(&a, op)?, read(&b, op)?);
        let (a, b) = (Operand::new(&a, rows, outputs).t(), Operand::new(&b, rows, inputs));
        gemm_into(d_weight, (outputs, inputs), a, b, WriteMode::Accumulate.into(), op)?;
    }
    match d_bias {
        Some(d_bias) => backward_bias(dy, d_bias, op),
        None => Ok(()),
    }
}

/// Accumulates the column sums of `dy` in the f32 `d_bias`.
pub(crate) fn backward_bias(dy: &Tensor, d_bias: &Tensor, op: &'static str) -> Result<()> {
    let (rows, outputs) = dy.dims2()?;
    check(d_bias.elem_count() == outputs, op, || "the shape of the bias gradient is wrong".into())?;
    let (device, stream) = (dy.device(), Stream::of(dy)?);
    let dy = read(dy, op)?.expect_float()?;
    let (n, m) = (rows as c_longlong, outputs as c_int);
    row_sums::add_over_rows(d_bias, device, (rows, outputs), op, |parts, part_rows| {
        launch!(op, er_column_parts(parts, dy.ptr, n, m, part_rows as c_int, dy.dtype, stream))
    })
}
