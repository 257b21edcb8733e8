//! RoPE on the device: cosines and sines, and the rotation.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_longlong, c_void};

use candle_core::{Device, Tensor};

use super::{Dtype, Stream, create, launch, read, row_width, upload, write};
use crate::error::Result;
use crate::mrope::MropeSections;

unsafe extern "C" {
    fn er_cos_sin(
        cos: *mut c_void,
        sin: *mut c_void,
        positions: *const c_void,
        inv_freq: *const f32,
        tokens: c_longlong,
        half: c_int,
        axes: c_int,
        second: c_int,
        third: c_int,
        interleaved: c_int,
        factor: f32,
        stream: Stream,
    ) -> c_int;
    fn er_rope(
        x: *mut c_void,
        cos: *const c_void,
        sin: *const c_void,
        tokens: c_longlong,
        heads: c_int,
        half: c_int,
        sign: f32,
        dtype: Dtype,
        stream: Stream,
    ) -> c_int;
}

/// Cosines and sines (tokens, half) f32. Only the positions are uploaded: one id per token, or three with `sections`.
pub(crate) fn cos_sin(
    positions: &[usize],
    sections: Option<MropeSections>,
    (inv_freq, factor): (&[f32], f32),
    device: &Device,
    op: &'static str,
) -> Result<(Tensor, Tensor)> {
    let axes = if sections.is_some() { 3 } else { 1 };
    let (tokens, half) = (positions.len() / axes, inv_freq.len());
    let pairs = row_width(half, op)?;
    let uninit = || create(device, (tokens, half), Dtype::F32, op, |_| Ok(()));
    let (cos, sin) = (uninit()?, uninit()?);
    if tokens * half == 0 {
        return Ok((cos, sin));
    }
    let whole = MropeSections::consecutive([half, 0, 0]);
    let MropeSections { sizes, interleaved } = sections.unwrap_or(whole);
    let [temporal, height, width] = sizes.map(|pairs| pairs as c_int);
    // Of consecutive sections where they begin, else their sizes.
    let (second, third) = if interleaved { (height, width) } else { (temporal, temporal + height) };
    let interleaved = c_int::from(interleaved);
    let stream = Stream::of_device(device)?;
    let positions = upload(positions, device, op)?;
    let positions = read(&positions, op)?;
    let (n, axes) = (tokens as c_longlong, axes as c_int);
    write([(&cos, Dtype::F32), (&sin, Dtype::F32)], op, |[cos, sin]| {
        let (positions, inv_freq) = (positions.ptr, inv_freq.as_ptr());
        launch!(
            op,
            er_cos_sin(
                cos,
                sin,
                positions,
                inv_freq,
                n,
                pairs,
                axes,
                second,
                third,
                interleaved,
                factor,
                stream
            )
        )
    })?;
    Ok((cos, sin))
}

/// Rotates every head of `x` (tokens, heads · 2 · half); cosines and sines are (tokens, half) f32.
pub(crate) fn rope(
    x: &Tensor,
    (cos, sin): &(Tensor, Tensor),
    half: usize,
    sign: f32,
    op: &'static str,
) -> Result<()> {
    let (tokens, width) = x.dims2()?;
    if x.elem_count() == 0 {
        return Ok(());
    }
    row_width(width, op)?;
    let (stream, dtype) = (Stream::of(x)?, Dtype::of(x, op)?);
    let (cos, sin) =
        (read(cos, op)?.expect_dtype(Dtype::F32)?, read(sin, op)?.expect_dtype(Dtype::F32)?);
    let (tokens, heads) = (tokens as c_longlong, (width / (2 * half)) as c_int);
    write([(x, dtype)], op, |[x]| {
        launch!(op, er_rope(x, cos.ptr, sin.ptr, tokens, heads, half as c_int, sign, dtype, stream))
    })
}
