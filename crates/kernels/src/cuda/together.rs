//! Products with several weights at once: those that lie one behind the other are one matrix.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_longlong, c_void};

use candle_core::Tensor;

use super::memory::held_as;
use super::product::{Base, Destination, Factor, How, product};
use super::weight::{Held, factors};
use super::{Dtype, Numbers, Stream, create, launch, read, write};
use crate::attention::Heads;
use crate::error::{Error, Result};
use crate::weight::Weight;

unsafe extern "C" {
    fn er_qkv(
        q: *mut c_void,
        k: *mut c_void,
        v: *mut c_void,
        joint: *const c_void,
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
}

/// Weights of one width, each of which begins where the one before it ends.
pub(crate) struct Stack {
    weights: Vec<Tensor>,
    inputs: usize,
}

impl Stack {
    /// The weights as a stack, if they are one: numbers, and neighbours.
    pub(crate) fn of(weights: &[&Weight], op: &'static str) -> Result<Option<Self>> {
        let Some((_, inputs)) = weights.first().map(|weight| weight.shape()) else {
            return Ok(None);
        };
        let mut tensors = Vec::with_capacity(weights.len());
        for weight in weights {
            match weight.device()?.as_ref() {
                Held::Numbers(numbers) if weight.shape().1 == inputs => {
                    tensors.push(numbers.clone())
                }
                _ => return Ok(None),
            }
        }
        let numbers = tensors.iter().map(|tensor| read(tensor, op)).collect::<Result<Vec<_>>>()?;
        let pairs = numbers.windows(2).zip(&tensors);
        let is_one = pairs
            .into_iter()
            .all(|(pair, tensor)| pair[0].is_followed_by(&pair[1], tensor.elem_count()));
        drop(numbers);
        Ok(is_one.then_some(Self { weights: tensors, inputs }))
    }

    /// What its product with `x` has for factors, if it has no need to be converted for that.
    fn factors(&self, x: &Tensor, op: &'static str) -> Result<Option<Dtype>> {
        let factors = factors(x, &self.weights[0], op)?;
        Ok((Dtype::of(&self.weights[0], op)? == factors).then_some(factors))
    }

    /// `count` matrices with as many rows each, transposed, of the whole.
    fn factor(&self, first: &Numbers<'_>, count: usize) -> Factor {
        let rows = self.weights.iter().map(|weight| weight.dims()[0]).sum::<usize>() / count;
        Factor { batch_stride: rows * self.inputs, ..Factor::new(first, rows, self.inputs).t() }
    }
}

/// The products with several weights: one where they are a stack of matrices of one size, without biases.
pub(crate) fn forward_all<const N: usize>(
    x: &Tensor,
    weights: [(&Weight, Option<&Tensor>); N],
    op: &'static str,
) -> Result<[Tensor; N]> {
    let shapes = weights.map(|(weight, _)| weight.shape());
    let alike = shapes.windows(2).all(|pair| pair[0] == pair[1]);
    let bare = weights.iter().all(|(_, bias)| bias.is_none());
    let mut products = None;
    if N > 1 && alike && bare {
        products = batch(x, weights.map(|(weight, _)| weight), op)?;
    }
    let products = match products {
        Some(products) => products,
        None => {
            weights.iter().map(|(weight, bias)| weight.forward(x, *bias)).collect::<Result<_>>()?
        }
    };
    products.try_into().map_err(|_| Error::DeviceStorage { op })
}

/// The products with weights of one size, if they are a stack: each in rows of its own.
fn batch<const N: usize>(
    x: &Tensor,
    weights: [&Weight; N],
    op: &'static str,
) -> Result<Option<Vec<Tensor>>> {
    let Some(stack) = Stack::of(&weights, op)? else { return Ok(None) };
    let Some(factors) = stack.factors(x, op)? else { return Ok(None) };
    let (rows, outputs) = (x.dims()[0], weights[0].shape().0);
    let a = held_as(x, factors, op)?;
    let (a, w) = (read(&a, op)?, read(&stack.weights[0], op)?);
    let (a, w) = (Factor::new(&a, rows, stack.inputs), stack.factor(&w, N));
    let dtype = Dtype::of(x, op)?;
    let all = create(x.device(), (N * rows, outputs), dtype, op, |y| {
        let out = Destination {
            batch_stride: rows * outputs,
            ..Destination::new(y, dtype, rows, outputs)
        };
        let how = How { batch: N, alpha: 1.0, base: Base::Nothing };
        product(x.device(), out, a, w, how, op)
    })?;
    let part = |i: usize| Ok(all.narrow(0, i * rows, rows)?);
    (0..N).map(part).collect::<Result<_>>().map(Some)
}

/// Queries, keys and values of attention, if the weights are a stack: their biases are added, and queries and keys
/// turned by angles whose cosines and sines are (rows, dim / 2) f32.
pub(crate) fn qkv(
    x: &Tensor,
    weights: [(&Weight, Option<&Tensor>); 3],
    (cos, sin): &(Tensor, Tensor),
    heads: Heads,
    op: &'static str,
) -> Result<Option<[Tensor; 3]>> {
    let Some(stack) = Stack::of(&weights.map(|(weight, _)| weight), op)? else { return Ok(None) };
    let Some(factors) = stack.factors(x, op)? else { return Ok(None) };
    let biases = weights.map(|(_, bias)| bias.map(|bias| read(bias, op)?.float()).transpose());
    let [q_bias, k_bias, v_bias] = biases;
    let biases = [q_bias?, k_bias?, v_bias?];
    let bias_dtype = biases.iter().flatten().map(|bias| bias.dtype).next().unwrap_or(Dtype::F32);
    if biases.iter().flatten().any(|bias| bias.dtype != bias_dtype) {
        return Ok(None);
    }
    let biases =
        biases.each_ref().map(|bias| bias.as_ref().map_or(std::ptr::null(), |bias| bias.at));
    let (device, dtype, stream) = (x.device(), Dtype::of(x, op)?, Stream::of(x)?);
    let (rows, width) = (x.dims()[0], heads.query_width() + 2 * heads.kv_width());
    let a = held_as(x, factors, op)?;
    let (a, w) = (read(&a, op)?, read(&stack.weights[0], op)?);
    let (a, w) = (Factor::new(&a, rows, stack.inputs), stack.factor(&w, 1));
    let joint = create(device, (rows, width), dtype, op, |y| {
        product(device, Destination::new(y, dtype, rows, width), a, w, Base::Nothing.into(), op)
    })?;
    let room = |width: usize| create(device, (rows, width), dtype, op, |_| Ok(()));
    let (q, k, v) = (room(heads.query_width())?, room(heads.kv_width())?, room(heads.kv_width())?);
    if rows == 0 {
        return Ok(Some([q, k, v]));
    }
    let (joint, cos, sin) =
        (read(&joint, op)?, read(cos, op)?.of(Dtype::F32)?, read(sin, op)?.of(Dtype::F32)?);
    let [q_bias, k_bias, v_bias] = biases;
    let (n, half) = (rows as c_longlong, (heads.dim / 2) as c_int);
    let (queries, keys) = (heads.query as c_int, heads.kv as c_int);
    write([(&q, dtype), (&k, dtype), (&v, dtype)], op, |[q, k, v]| {
        launch!(
            op,
            er_qkv(
                q, k, v, joint.at, q_bias, k_bias, v_bias, cos.at, sin.at, n, queries, keys, half,
                dtype, bias_dtype, stream
            )
        )
    })?;
    Ok(Some([q, k, v]))
}
