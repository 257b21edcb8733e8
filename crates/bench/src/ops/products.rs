//! Linear layers.

use candle_core::{DType, Device, Tensor};
use embodied_r_kernels::memory::zeros;
use embodied_r_kernels::quantized::{BlockFormat, ByteRange, QuantizedMatrix};
use embodied_r_kernels::weight::Weight;
use embodied_r_kernels::{Precision, Result, linear};

use super::op::{Op, Prepared, dot, f32_bytes, matrix, values};

/// Rows in decoding, and in prefill and training.
const ROWS: [usize; 5] = [1, 4, 16, 64, 2048];

/// Input and output features of a layer.
const LAYERS: [(usize, usize); 3] = [(512, 1_408), (896, 4_864), (2_048, 2_048)];

pub(super) fn ops() -> Vec<Op> {
    let layers = LAYERS.into_iter().flat_map(|layer| ROWS.map(|rows| (rows, layer)));
    let mut ops: Vec<Op> = layers.map(|(rows, layer)| forward(rows, layer)).collect();
    // The output layer over a small vocabulary.
    ops.push(forward(1, (512, 8_192)));
    let layers = LAYERS.into_iter().flat_map(|layer| ROWS.map(|rows| (rows, layer)));
    ops.extend(layers.map(|(rows, layer)| bf16(rows, layer)));
    ops.push(bf16(1, (512, 8_192)));
    for format in [BlockFormat::Q8_0, BlockFormat::Q4K] {
        ops.extend([1, 16, 2_048].map(|rows| quantized(format, rows, (2_048, 2_048))));
    }
    for layer in LAYERS {
        for precision in [Precision::F32, Precision::Bf16] {
            ops.push(backward_input(2_048, layer, precision));
            ops.push(backward_weight(2_048, layer, precision));
        }
    }
    ops
}

fn shape(rows: usize, (inputs, outputs): (usize, usize)) -> String {
    format!("{rows}x{inputs}x{outputs}")
}

fn work(rows: usize, (inputs, outputs): (usize, usize)) -> (f64, f64) {
    let numbers = rows * inputs + inputs * outputs + rows * outputs;
    (2.0 * (rows * inputs * outputs) as f64, f32_bytes(numbers))
}

fn forward(rows: usize, layer: (usize, usize)) -> Op {
    let (inputs, outputs) = layer;
    Op::new("linear", shape(rows, layer), work(rows, layer), move || {
        let (x, w) = (matrix(rows, inputs, 1)?, matrix(outputs, inputs, 2)?);
        let (x_rows, w_rows) = (values(&x)?, values(&w)?);
        let reference =
            move |elements: &[usize]| products(elements, &x_rows, &w_rows, (inputs, outputs));
        Ok(Prepared::new(
            move || Ok(vec![linear::forward(&x, &w, None, Precision::F32)?]),
            reference,
        ))
    })
}

/// A weight packed as bf16; `x` is rounded to bf16 too.
fn bf16(rows: usize, layer: (usize, usize)) -> Op {
    let (inputs, outputs) = layer;
    let (flops, _) = work(rows, layer);
    let bytes = f32_bytes(rows * inputs + rows * outputs) + f32_bytes(inputs * outputs) / 2.0;
    let make = move || {
        let (x, w) = (matrix(rows, inputs, 1)?, matrix(outputs, inputs, 2)?);
        let weight = Weight::bf16(&w)?;
        let (x_rows, w_rows) = (rounded(&x)?, rounded(&w)?);
        let reference =
            move |elements: &[usize]| products(elements, &x_rows, &w_rows, (inputs, outputs));
        Ok(Prepared::new(move || Ok(vec![weight.forward(&x, None)?]), reference))
    };
    let mut op = Op::new("linear", shape(rows, layer), (flops, bytes), make);
    op.dtype = "bfloat16";
    op
}

/// A weight in a GGUF block format.
fn quantized(format: BlockFormat, rows: usize, layer: (usize, usize)) -> Op {
    let (inputs, outputs) = layer;
    let (flops, _) = work(rows, layer);
    let stored = outputs * format.row_bytes(inputs).unwrap_or_default();
    let bytes = f32_bytes(rows * inputs + rows * outputs) + stored as f64;
    let make = move || {
        let x = matrix(rows, inputs, 1)?;
        // Bytes that give small scales at any offset of a block.
        let blocks: Vec<u8> = (0..stored).map(|i| [7, 36, 21, 40][i % 4]).collect();
        let matrix = QuantizedMatrix::new(format, outputs, inputs, ByteRange::from(blocks))?;
        let (x_rows, w_rows) = (values(&x)?, values(&matrix.dequantize()?)?);
        let reference =
            move |elements: &[usize]| products(elements, &x_rows, &w_rows, (inputs, outputs));
        let weight = Weight::quantized(&matrix)?;
        Ok(Prepared::new(move || Ok(vec![weight.forward(&x, None)?]), reference))
    };
    let mut op = Op::new("linear", shape(rows, layer), (flops, bytes), make);
    op.dtype = format.name();
    op
}

/// The elements as rounded in this precision.
fn factor(of: &Tensor, precision: Precision) -> Result<Vec<f32>> {
    match precision {
        Precision::F32 => values(of),
        Precision::Bf16 => rounded(of),
    }
}

/// The elements rounded to bf16.
fn rounded(of: &Tensor) -> Result<Vec<f32>> {
    values(&of.to_dtype(DType::BF16)?.to_dtype(DType::F32)?)
}

/// Elements of `x · wᵀ`.
fn products(
    elements: &[usize],
    x: &[f32],
    w: &[f32],
    (inputs, outputs): (usize, usize),
) -> Vec<f64> {
    let at = |element: &usize| {
        let (first, of) = (element / outputs * inputs, element % outputs * inputs);
        dot(x[first..first + inputs].iter().copied(), w[of..of + inputs].iter().copied())
    };
    elements.iter().map(at).collect()
}

fn backward_input(rows: usize, layer: (usize, usize), precision: Precision) -> Op {
    let (inputs, outputs) = layer;
    let make = move || {
        let (dy, w) = (matrix(rows, outputs, 1)?, matrix(outputs, inputs, 2)?);
        let (ref_dy, ref_w) = (factor(&dy, precision)?, factor(&w, precision)?);
        let reference = move |elements: &[usize]| {
            let at = |element: &usize| {
                let dy = &ref_dy[element / inputs * outputs..][..outputs];
                dot(dy.iter().copied(), ref_w[element % inputs..].iter().step_by(inputs).copied())
            };
            elements.iter().map(at).collect()
        };
        let run = move || Ok(vec![linear::backward_input(&dy, &w, None, precision)?]);
        Ok(Prepared::new(run, reference))
    };
    let mut op = Op::new("linear backward, input", shape(rows, layer), work(rows, layer), make);
    op.dtype = precision.dtype();
    op
}

fn backward_weight(rows: usize, layer: (usize, usize), precision: Precision) -> Op {
    let (inputs, outputs) = layer;
    let make = move || {
        let (x, dy) = (matrix(rows, inputs, 1)?, matrix(rows, outputs, 2)?);
        let (ref_x, ref_dy) = (factor(&x, precision)?, factor(&dy, precision)?);
        let reference = move |elements: &[usize]| {
            let at = |element: &usize| {
                let dy = ref_dy[element / inputs..].iter().step_by(outputs);
                dot(dy.copied(), ref_x[element % inputs..].iter().step_by(inputs).copied())
            };
            elements.iter().map(at).collect()
        };
        let d_weight = zeros(&[outputs, inputs], &Device::Cpu)?;
        let run = move || {
            linear::backward_weight(&x, &dy, &d_weight, None, precision)?;
            Ok(vec![d_weight.clone()])
        };
        Ok(Prepared::new(run, reference))
    };
    let mut op = Op::new("linear backward, weight", shape(rows, layer), work(rows, layer), make);
    op.dtype = precision.dtype();
    op
}
