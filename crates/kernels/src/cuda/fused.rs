//! Fused projections: weights that are contiguous in memory form one GEMM operand.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_longlong, c_void};

use candle_core::Tensor;

use super::gemm::{Addend, Destination, GemmOptions, Operand, gemm};
use super::memory::cast;
use super::weight::{DeviceWeight, operand_dtype};
use super::{DeviceSlice, Dtype, Stream, create, launch, read, row_width, write_all};
use crate::attention::Heads;
use crate::error::{Error, Result};
use crate::qkv::head_norm::HeadNorm;
use crate::qkv::rotary::{Qkv, Rotary};
use crate::weight::Weight;

unsafe extern "C" {
    fn er_qkv(
        q: *mut c_void,
        k: *mut c_void,
        v: *mut c_void,
        fused: *const c_void,
        q_bias: *const c_void,
        k_bias: *const c_void,
        v_bias: *const c_void,
        cos: *const c_void,
        sin: *const c_void,
        rows: c_longlong,
        heads: c_int,
        kv_heads: c_int,
        half: c_int,
        dtype: Dtype,
        bias_dtype: Dtype,
        stream: Stream,
    ) -> c_int;
    fn er_qkv_norm(
        q: *mut c_void,
        k: *mut c_void,
        v: *mut c_void,
        raw_q: *mut c_void,
        raw_k: *mut c_void,
        fused: *const c_void,
        q_norm: *const c_void,
        k_norm: *const c_void,
        cos: *const c_void,
        sin: *const c_void,
        rows: c_longlong,
        heads: c_int,
        kv_heads: c_int,
        half: c_int,
        eps: f32,
        dtype: Dtype,
        norm_dtype: Dtype,
        stream: Stream,
    ) -> c_int;
}

/// Weights with the same inputs, contiguous in memory.
pub(crate) struct FusedWeights {
    first: Tensor,
    /// Total rows.
    rows: usize,
    inputs: usize,
}

impl FusedWeights {
    /// The weights as one operand, if they are dense and contiguous.
    pub(crate) fn of(weights: &[&Weight], op: &'static str) -> Result<Option<Self>> {
        let Some((_, inputs)) = weights.first().map(|weight| weight.shape()) else {
            return Ok(None);
        };
        let mut tensors = Vec::with_capacity(weights.len());
        for weight in weights {
            match weight.device()?.as_ref() {
                DeviceWeight::Dense(values) if weight.shape().1 == inputs => {
                    tensors.push(values.clone())
                }
                _ => return Ok(None),
            }
        }
        let values = tensors.iter().map(|tensor| read(tensor, op)).collect::<Result<Vec<_>>>()?;
        let mut pairs = values.windows(2).zip(&tensors);
        let contiguous =
            pairs.all(|(pair, tensor)| pair[0].is_followed_by(&pair[1], tensor.elem_count()));
        let rows = weights.iter().map(|weight| weight.shape().0).sum();
        Ok(contiguous.then(|| Self { first: tensors[0].clone(), rows, inputs }))
    }

    /// Operand dtype of the GEMM with `x`, if the weights need no conversion.
    fn operand_dtype(&self, x: &Tensor, op: &'static str) -> Result<Option<Dtype>> {
        let operand_dtype = operand_dtype(x, &self.first, op)?;
        Ok((Dtype::of(&self.first, op)? == operand_dtype).then_some(operand_dtype))
    }

    /// A batch of `count` transposed matrices with the same number of rows.
    fn operand(&self, first: &DeviceSlice<'_>, count: usize) -> Operand {
        let rows = self.rows / count;
        Operand { batch_stride: rows * self.inputs, ..Operand::new(first, rows, self.inputs).t() }
    }
}

/// Products with several weights: one batched GEMM if the weights are contiguous, of one shape and without biases.
pub(crate) fn forward_all<const N: usize>(
    x: &Tensor,
    weights: [(&Weight, Option<&Tensor>); N],
    op: &'static str,
) -> Result<[Tensor; N]> {
    let shapes = weights.map(|(weight, _)| weight.shape());
    let alike = shapes.windows(2).all(|pair| pair[0] == pair[1]);
    let bare = weights.iter().all(|(_, bias)| bias.is_none());
    let mut outputs = None;
    if N > 1 && alike && bare {
        outputs = batch(x, weights.map(|(weight, _)| weight), op)?;
    }
    let outputs = match outputs {
        Some(outputs) => outputs,
        None => {
            weights.iter().map(|(weight, bias)| weight.forward(x, *bias)).collect::<Result<_>>()?
        }
    };
    outputs.try_into().map_err(|_| Error::DeviceStorage { op })
}

/// One batched GEMM with contiguous weights of one shape.
fn batch<const N: usize>(
    x: &Tensor,
    weights: [&Weight; N],
    op: &'static str,
) -> Result<Option<Vec<Tensor>>> {
    let Some(fused) = FusedWeights::of(&weights, op)? else { return Ok(None) };
    let Some(operand_dtype) = fused.operand_dtype(x, op)? else { return Ok(None) };
    let (rows, outputs) = (x.dims()[0], weights[0].shape().0);
    let a = cast(x, operand_dtype, op)?;
    let (a, w) = (read(&a, op)?, read(&fused.first, op)?);
    let (a, w) = (Operand::new(&a, rows, fused.inputs), fused.operand(&w, N));
    let dtype = Dtype::of(x, op)?;
    let all = create(x.device(), (N * rows, outputs), dtype, op, |y| {
        let out = Destination {
            batch_stride: rows * outputs,
            ..Destination::new(y, dtype, rows, outputs)
        };
        let options = GemmOptions { batch: N, alpha: 1.0, addend: Addend::Zero, beta: 1.0 };
        gemm(x.device(), out, a, w, options, op)
    })?;
    let part = |i: usize| Ok(all.narrow(0, i * rows, rows)?);
    (0..N).map(part).collect::<Result<_>>().map(Some)
}

/// QKV projection as one GEMM, if the weights are contiguous; a kernel adds the biases or normalizes heads, and applies
/// RoPE. `None` if the operands need conversions, or for both biases and norms, which no family has.
pub(crate) fn qkv(
    x: &Tensor,
    weights: [(&Weight, Option<&Tensor>); 3],
    rotary: Rotary<'_>,
    heads: Heads,
    op: &'static str,
) -> Result<Option<Qkv>> {
    let biases = weights.map(|(_, bias)| bias);
    let vectors = match rotary.norms {
        Some(norms) if biases.iter().all(Option::is_none) => {
            let [q, k] = norms.map(|norm| Some(norm.weight));
            [q, k, None]
        }
        Some(_) => return Ok(None),
        None => biases,
    };
    let Some(vectors) = Vectors::of(vectors, op)? else { return Ok(None) };
    let Some(fused) = FusedWeights::of(&weights.map(|(weight, _)| weight), op)? else {
        return Ok(None);
    };
    let Some(operand_dtype) = fused.operand_dtype(x, op)? else { return Ok(None) };
    let (device, dtype) = (x.device(), Dtype::of(x, op)?);
    let (rows, width) = (x.dims()[0], heads.q_size() + 2 * heads.kv_size());
    row_width(width, op)?;
    let a = cast(x, operand_dtype, op)?;
    let (a, w) = (read(&a, op)?, read(&fused.first, op)?);
    let (a, w) = (Operand::new(&a, rows, fused.inputs), fused.operand(&w, 1));
    let projected = create(device, (rows, width), dtype, op, |y| {
        gemm(device, Destination::new(y, dtype, rows, width), a, w, Addend::Zero.into(), op)
    })?;
    split(&projected, &vectors, rotary, heads, op).map(Some)
}

/// The vectors of a fused projection: biases of queries, keys and values, or norms of queries and keys.
struct Vectors<'a> {
    slices: [Option<DeviceSlice<'a>>; 3],
    dtype: Dtype,
}

impl<'a> Vectors<'a> {
    /// `None` if their dtypes differ.
    fn of(vectors: [Option<&'a Tensor>; 3], op: &'static str) -> Result<Option<Self>> {
        let [first, second, third] =
            vectors.map(|vector| vector.map(|vector| read(vector, op)?.expect_float()).transpose());
        let slices = [first?, second?, third?];
        let dtype = slices.iter().flatten().map(|vector| vector.dtype).next();
        let dtype = dtype.unwrap_or(Dtype::F32);
        let alike = slices.iter().flatten().all(|vector| vector.dtype == dtype);
        Ok(alike.then_some(Self { slices, dtype }))
    }

    fn pointers(&self) -> [*const c_void; 3] {
        self.slices
            .each_ref()
            .map(|vector| vector.as_ref().map_or(std::ptr::null(), |vector| vector.ptr))
    }
}

/// Splits the projections (rows, queries + 2 · keys) and applies what follows them. Cosines and sines are (rows, dim / 2)
/// f32.
fn split(
    projected: &Tensor,
    vectors: &Vectors<'_>,
    rotary: Rotary<'_>,
    heads: Heads,
    op: &'static str,
) -> Result<Qkv> {
    let Rotary { norms, cos_sin, keeps_unnormed } = rotary;
    let (rows, dtype) = (projected.dims()[0], Dtype::of(projected, op)?);
    let uninit = |width: usize| create(projected.device(), (rows, width), dtype, op, |_| Ok(()));
    let (q, k, v) = (uninit(heads.q_size())?, uninit(heads.kv_size())?, uninit(heads.kv_size())?);
    let unnormed = match norms {
        Some(_) if keeps_unnormed => Some([uninit(heads.q_size())?, uninit(heads.kv_size())?]),
        _ => None,
    };
    if rows == 0 {
        return Ok(Qkv { q, k, v, unnormed });
    }
    let (cos, sin) = cos_sin.on(projected.device())?;
    let (stream, projected) = (Stream::of(projected)?, read(projected, op)?);
    let (cos, sin) = (read(cos, op)?, read(sin, op)?);
    let (cos, sin) = (cos.expect_dtype(Dtype::F32)?, sin.expect_dtype(Dtype::F32)?);
    let [first, second, third] = vectors.pointers();
    let (n, half) = (rows as c_longlong, (heads.dim / 2) as c_int);
    let (queries, keys) = (heads.query as c_int, heads.kv as c_int);
    let raw = unnormed.iter().flatten();
    let outputs: Vec<_> = [&q, &k, &v].into_iter().chain(raw).map(|it| (it, dtype)).collect();
    write_all(&outputs, op, |outputs| {
        let of = |index: usize| outputs.get(index).copied().unwrap_or(std::ptr::null_mut());
        let [q, k, v, raw_q, raw_k] = [0, 1, 2, 3, 4].map(of);
        match norms {
            None => launch!(
                op,
                er_qkv(
                    q,
                    k,
                    v,
                    projected.ptr,
                    first,
                    second,
                    third,
                    cos.ptr,
                    sin.ptr,
                    n,
                    queries,
                    keys,
                    half,
                    dtype,
                    vectors.dtype,
                    stream
                )
            ),
            Some([HeadNorm { eps, .. }, _]) => launch!(
                op,
                er_qkv_norm(
                    q,
                    k,
                    v,
                    raw_q,
                    raw_k,
                    projected.ptr,
                    first,
                    second,
                    cos.ptr,
                    sin.ptr,
                    n,
                    queries,
                    keys,
                    half,
                    eps as f32,
                    dtype,
                    vectors.dtype,
                    stream
                )
            ),
        }
    })?;
    Ok(Qkv { q, k, v, unnormed })
}
