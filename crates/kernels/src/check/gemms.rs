//! GEMMs with weights.

use candle_core::{DType, Device};

use super::case::{Case, CaseInputs, Output};
use crate::attention::Heads;
use crate::error::Result;
use crate::linear;
use crate::precision::Precision;
use crate::qkv;
use crate::qkv::head_norm::{self, HeadNorm, HeadNormInputs};
use crate::qkv::rotary::{Qkv, Rotary};
use crate::quantized::{BlockFormat, QuantizedMatrix};
use crate::rope::{CosSinCache, Frequencies};
use crate::weight::{self, Weight, WeightFormat};

/// Rows, inputs and outputs.
const SHAPES: [(usize, usize, usize); 9] = [
    (5, 64, 32),
    (1, 7, 3),
    (70, 33, 65),
    (1, 256, 130),
    (200, 40, 9),
    (9, 512, 33),
    (40, 544, 70),
    (128, 256, 31),
    (129, 256, 9),
];

/// Inputs and outputs of Qwen2.5-3B's products, and of products whose rows are not aligned, so that cuBLASLt has no
/// algorithm in bf16.
const MODEL_SHAPES: [(usize, usize); 4] =
    [(2_048, 2_560), (2_048, 11_008), (11_008, 2_048), (2_047, 1_001)];

/// Rows of decoding steps.
const MODEL_ROWS: [usize; 3] = [1, 8, 64];

/// Inputs and outputs of Qwen2.5-3B's LM head.
const HEAD: (usize, usize) = (2_048, 151_936);

/// Products at a model's sizes, which are too slow for the emulation.
pub(super) fn add_model_sizes(cases: &mut Vec<Case>) {
    for (rows, (inputs, outputs)) in
        MODEL_ROWS.into_iter().flat_map(|rows| MODEL_SHAPES.map(|shape| (rows, shape)))
    {
        let shape = format!("{rows} x {inputs} -> {outputs}");
        let run = move |case: &CaseInputs| layer(case, rows, inputs, outputs);
        cases.push(Case::new("linear", shape.clone(), run));
        // The batch of two products shares its input, with a batch stride of 0.
        let run = move |case: &CaseInputs| pair(case, rows, inputs, outputs);
        cases.push(Case::new("two projections", shape, run));
    }
    let (inputs, outputs) = HEAD;
    let rows: Vec<String> = MODEL_ROWS.map(|rows| rows.to_string()).into();
    let shape = format!("{} x {inputs} -> {outputs}", rows.join(", "));
    cases.push(Case::new("linear", shape, |case| heads(case, MODEL_ROWS, HEAD)));
}

pub(super) fn add(cases: &mut Vec<Case>) {
    for (rows, inputs, outputs) in SHAPES {
        at(cases, rows, inputs, outputs);
    }
    for (rows, query, kv, half) in
        [(5, 4, 2, 32), (1, 16, 2, 64), (3, 3, 1, 20), (130, 2, 2, 5), (7, 6, 2, 36)]
    {
        let heads = Heads { query, kv, dim: 2 * half };
        let shape = format!("{rows} x ({query} + 2 x {kv}) x {}", 2 * half);
        cases.push(Case::new("qkv", shape, move |case| queries_keys_values(case, rows, heads)));
    }
    for (rows, heads, half) in [(5, 4, 32), (1, 16, 64), (130, 3, 5), (70, 2, 36)] {
        let shape = format!("{rows} x {heads} x {}", 2 * half);
        cases.push(Case::new("head_norm", shape, move |case| head_norms(case, rows, heads, half)));
    }
}

/// The cases of one shape.
pub(super) fn at(cases: &mut Vec<Case>, rows: usize, inputs: usize, outputs: usize) {
    let shape = format!("{rows} x {inputs} -> {outputs}");
    let run = move |case: &CaseInputs| layer(case, rows, inputs, outputs);
    cases.push(Case::new("linear", shape.clone(), run));
    let run = move |case: &CaseInputs| sampling_weight(case, rows, inputs, outputs);
    cases.push(Case::new("weight", shape.clone(), run));
    let run = move |case: &CaseInputs| fused(case, rows, inputs, outputs);
    cases.push(Case::new("fused projections", shape, run));
}

fn layer(case: &CaseInputs, rows: usize, inputs: usize, outputs: usize) -> Result<Vec<Output>> {
    let precision = case.precision();
    let (x, dy) = (case.noise(1, &[rows, inputs])?, case.noise(2, &[rows, outputs])?);
    let (weight, bias) = (case.f32(3, &[outputs, inputs])?, case.f32(4, &[outputs])?);
    let plain = linear::forward(&x, &weight, None, precision)?;
    let biased = linear::forward(&x, &weight, Some(&bias), precision)?;
    let residual = case.noise(5, &[rows, outputs])?;
    let added = linear::forward_add(&x, &weight, residual, precision)?;
    let dx = linear::backward_input(&dy, &weight, None, precision)?;
    let more = case.noise(6, &[rows, inputs])?;
    let more = linear::backward_input(&dy, &weight, Some(more), precision)?;
    let (d_weight, d_bias) = (case.f32(7, &[outputs, inputs])?, case.f32(8, &[outputs])?);
    linear::backward_weight(&x, &dy, &d_weight, Some(&d_bias), precision)?;
    let alone = case.f32(9, &[outputs])?;
    linear::backward_bias(&dy, &alone)?;
    Ok(vec![
        Output::near("y", plain),
        Output::near("y with a bias", biased),
        Output::near("y added", added),
        Output::near("dx", dx),
        Output::near("dx added", more),
        Output::near("d_weight", d_weight),
        Output::near("d_bias", d_bias),
        Output::near("d_bias alone", alone),
    ])
}

/// Products of several numbers of rows with one large weight.
fn heads<const N: usize>(
    case: &CaseInputs,
    rows: [usize; N],
    (inputs, outputs): (usize, usize),
) -> Result<Vec<Output>> {
    let weight =
        Weight::in_format(&case.f32(1, &[outputs, inputs])?, WeightFormat::from(case.precision()))?;
    let product = |rows: usize| {
        let y = weight.forward(&case.noise(2 + rows as u64, &[rows, inputs])?, None)?;
        Ok(Output::near("y", y))
    };
    rows.into_iter().map(product).collect()
}

/// Two projections of one input.
fn pair(case: &CaseInputs, rows: usize, inputs: usize, outputs: usize) -> Result<Vec<Output>> {
    let x = case.noise(1, &[rows, inputs])?;
    let format = WeightFormat::from(case.precision());
    let weight = |seed| Weight::in_format(&case.f32(seed, &[outputs, inputs])?, format);
    let [a, b] = weight::fuse_projections([weight(2)?, weight(3)?])?;
    let [first, second] = weight::forward_all(&x, [(&a, None), (&b, None)])?;
    Ok(vec![Output::near("first", first), Output::near("second", second)])
}

/// Fused projections: weights stored contiguously, where the projections can run as one GEMM.
fn fused(case: &CaseInputs, rows: usize, inputs: usize, outputs: usize) -> Result<Vec<Output>> {
    let x = case.noise(1, &[rows, inputs])?;
    let format = WeightFormat::from(case.precision());
    let weight = |seed| Weight::in_format(&case.f32(seed, &[outputs, inputs])?, format);
    let wide = Weight::in_format(&case.f32(4, &[outputs + 1, inputs])?, format)?;
    let [a, b, wide] = weight::fuse_projections([weight(2)?, weight(3)?, wide])?;
    let bias = case.f32(5, &[outputs])?;
    let [first, second] = weight::forward_all(&x, [(&a, None), (&b, None)])?;
    let [biased, other] = weight::forward_all(&x, [(&a, Some(&bias)), (&b, None)])?;
    let [alone, larger] = weight::forward_all(&x, [(&b, None), (&wide, None)])?;
    Ok(vec![
        Output::near("first", first),
        Output::near("second", second),
        Output::near("first with a bias", biased),
        Output::near("second without", other),
        Output::near("first of two sizes", alone),
        Output::near("second of two sizes", larger),
    ])
}

fn queries_keys_values(case: &CaseInputs, rows: usize, heads: Heads) -> Result<Vec<Output>> {
    const INPUTS: usize = 48;
    let x = case.noise(1, &[rows, INPUTS])?;
    let widths = [heads.q_size(), heads.kv_size(), heads.kv_size()];
    let format = WeightFormat::from(case.precision());
    let weight = |part: usize| {
        Weight::in_format(&case.f32(2 + part as u64, &[widths[part], INPUTS])?, format)
    };
    let weights = weight::fuse_projections([weight(0)?, weight(1)?, weight(2)?])?;
    let bias = |part: usize| case.f32(5 + part as u64, &[widths[part]]);
    let biases = [bias(0)?, bias(1)?, bias(2)?];
    let half = heads.dim / 2;
    let inv_freq = (0..half).map(|i| 10_000f32.powf(-(i as f32) / half as f32)).collect();
    let positions: Vec<usize> = (0..rows).map(|row| row * 37).collect();
    let cos_sin = CosSinCache::new(&positions, &Frequencies { inv_freq, attention_factor: 1.1 });
    let norm = |seed| case.f32(seed, &[heads.dim]);
    let norms = [norm(8)?, norm(9)?];
    let norms = norms.each_ref().map(|weight| HeadNorm { weight, eps: 1e-6 });
    let run = |with_biases: bool, norms: Option<[HeadNorm<'_>; 2]>| {
        let part = |part: usize| (&weights[part], with_biases.then_some(&biases[part]));
        let rotary = Rotary { norms, cos_sin: &cos_sin, keeps_unnormed: true };
        qkv::forward_normed(&x, [part(0), part(1), part(2)], rotary, heads)
    };
    let mut results = Vec::new();
    let (biased, bare) = (run(true, None)?, run(false, None)?);
    let (normed, both) = (run(false, Some(norms))?, run(true, Some(norms))?);
    for (names, Qkv { q, k, v, .. }) in [
        (["q", "k", "v"], &biased),
        (["q without biases", "k without biases", "v without biases"], &bare),
    ] {
        let parts = names.into_iter().zip([q, k, v]);
        results.extend(parts.map(|(name, part)| case.chained(name, part.clone(), 2)));
    }
    for (names, Qkv { q, k, v, unnormed }) in [
        (["q normed", "k normed", "v beside", "q before", "k before"], normed),
        (["q of both", "k of both", "v of both", "q before, biased", "k before, biased"], both),
    ] {
        let parts = [q, k, v].into_iter().chain(unnormed.into_iter().flatten());
        results
            .extend(names.into_iter().zip(parts).map(|(name, part)| case.chained(name, part, 3)));
    }
    Ok(results)
}

/// Norms over heads, with the rotation, forward and backward.
fn head_norms(case: &CaseInputs, rows: usize, heads: usize, half: usize) -> Result<Vec<Output>> {
    let (width, dim) = (heads * 2 * half, 2 * half);
    let inv_freq = (0..half).map(|i| 10_000f32.powf(-(i as f32) / half as f32)).collect();
    let positions: Vec<usize> = (0..rows).map(|row| row * 37).collect();
    let cos_sin = CosSinCache::new(&positions, &Frequencies { inv_freq, attention_factor: 1.1 });
    let (x, dy) = (case.noise(1, &[rows, width])?, case.noise(2, &[rows, width])?);
    let (weight, d_weight) = (case.f32(3, &[dim])?, case.f32(4, &[dim])?);
    let rotated = head_norm::forward(&x, Some(HeadNorm { weight: &weight, eps: 1e-6 }), &cos_sin)?;
    let mut results = vec![case.chained("y", rotated.y, 2)];
    if let Some(scale) = rotated.scale {
        let inputs =
            HeadNormInputs { x: &x, weight: &weight, scale: &scale, d_weight: Some(&d_weight) };
        let dx = head_norm::backward(Some(inputs), dy, &cos_sin)?;
        results.extend([case.chained("dx", dx, 2), case.chained("d_weight", d_weight, 2)]);
        results.push(Output::near("scale", scale));
    }
    Ok(results)
}

fn sampling_weight(
    case: &CaseInputs,
    rows: usize,
    inputs: usize,
    outputs: usize,
) -> Result<Vec<Output>> {
    let x = case.noise(1, &[rows, inputs])?;
    let (values, bias) = (case.f32(2, &[outputs, inputs])?, case.f32(3, &[outputs])?);
    let format = WeightFormat::from(case.precision());
    let weight = Weight::in_format(&values, format)?;
    let y = weight.forward(&x, Some(&bias))?;
    let more = weight.forward_add(&x, &case.noise(4, &[rows, outputs])?, Some(&bias))?;
    let picked = weight.rows(&[outputs - 1, 0, outputs / 2])?;
    let [first, second] = weight::forward_all(&x, [(&weight, Some(&bias)), (&weight, None)])?;
    let mut results = vec![
        Output::near("y", y),
        Output::near("y added", more),
        Output::exact("rows", picked),
        Output::near("first of two", first),
        Output::near("second of two", second),
    ];
    let activations = match case.precision() {
        Precision::F32 => DType::F32,
        Precision::Bf16 => DType::BF16,
    };
    for (format, names) in [
        (BlockFormat::Q8_0, ["rows of Q8_0", "y of Q8_0", "y of Q8_0 added", "f32 y of Q8_0"]),
        (BlockFormat::Q4K, ["rows of Q4_K", "y of Q4_K", "y of Q4_K added", "f32 y of Q4_K"]),
    ] {
        if format.row_bytes(inputs).is_none() {
            continue;
        }
        let blocks = QuantizedMatrix::quantize(&values.to_device(&Device::Cpu)?, format)?;
        let blocks = Weight::quantized_on(&blocks, case.device(), activations)?;
        let more = case.noise(4, &[rows, outputs])?;
        // Looked-up rows are bf16 on a device.
        results.push(Output::rounded(names[0], blocks.rows(&[outputs - 1, 0, outputs - 1])?));
        results.push(Output::near(names[1], blocks.forward(&x, Some(&bias))?));
        results.push(Output::near(names[2], blocks.forward_add(&x, &more, Some(&bias))?));
        // The input of an LM head, which is rounded for many rows.
        let y = blocks.forward(&case.f32(6, &[rows, inputs])?, Some(&bias))?;
        results.push(case.chained(names[3], y, 2));
    }
    Ok(results)
}
