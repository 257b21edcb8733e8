//! Products with weights.

use super::{Case, Maker, Output};
use crate::attention::Heads;
use crate::error::Result;
use crate::quantized::BlockFormat;
use crate::rope::{Angles, Frequencies};
use crate::weight::{self, Weight, WeightFormat};
use crate::{linear, qkv};

/// Rows, inputs and outputs.
const SHAPES: [(usize, usize, usize); 6] =
    [(5, 64, 32), (1, 7, 3), (70, 33, 65), (1, 256, 130), (200, 40, 9), (9, 512, 33)];

pub(super) fn add(cases: &mut Vec<Case>) {
    for (rows, inputs, outputs) in SHAPES {
        at(cases, rows, inputs, outputs);
    }
    for (rows, query, kv, half) in [(5, 4, 2, 32), (1, 16, 2, 64), (3, 3, 1, 20), (130, 2, 2, 5)] {
        let heads = Heads { query, kv, dim: 2 * half };
        let shape = format!("{rows} x ({query} + 2 x {kv}) x {}", 2 * half);
        cases.push(Case::new("qkv", shape, move |maker| queries_keys_values(maker, rows, heads)));
    }
}

/// The cases of one shape.
pub(super) fn at(cases: &mut Vec<Case>, rows: usize, inputs: usize, outputs: usize) {
    let shape = format!("{rows} x {inputs} -> {outputs}");
    let run = move |maker: &Maker| layer(maker, rows, inputs, outputs);
    cases.push(Case::new("linear", shape.clone(), run));
    let run = move |maker: &Maker| sampled(maker, rows, inputs, outputs);
    cases.push(Case::new("weight", shape.clone(), run));
    let run = move |maker: &Maker| together(maker, rows, inputs, outputs);
    cases.push(Case::new("weights side by side", shape, run));
}

fn layer(maker: &Maker, rows: usize, inputs: usize, outputs: usize) -> Result<Vec<Output>> {
    let precision = maker.precision();
    let (x, dy) = (maker.noise(1, &[rows, inputs])?, maker.noise(2, &[rows, outputs])?);
    let (weight, bias) = (maker.f32(3, &[outputs, inputs])?, maker.f32(4, &[outputs])?);
    let plain = linear::forward(&x, &weight, None, precision)?;
    let biased = linear::forward(&x, &weight, Some(&bias), precision)?;
    let residual = maker.noise(5, &[rows, outputs])?;
    let added = linear::forward_add(&x, &weight, residual, precision)?;
    let dx = linear::backward_input(&dy, &weight, None, precision)?;
    let more = maker.noise(6, &[rows, inputs])?;
    let more = linear::backward_input(&dy, &weight, Some(more), precision)?;
    let (d_weight, d_bias) = (maker.f32(7, &[outputs, inputs])?, maker.f32(8, &[outputs])?);
    linear::backward_weight(&x, &dy, &d_weight, Some(&d_bias), precision)?;
    let alone = maker.f32(9, &[outputs])?;
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

/// Weights in memory of their own, and side by side, where products may be one.
fn together(maker: &Maker, rows: usize, inputs: usize, outputs: usize) -> Result<Vec<Output>> {
    let x = maker.noise(1, &[rows, inputs])?;
    let format = WeightFormat::from(maker.precision());
    let weight = |seed| Weight::in_format(&maker.f32(seed, &[outputs, inputs])?, format);
    let wide = Weight::in_format(&maker.f32(4, &[outputs + 1, inputs])?, format)?;
    let [a, b, wide] = weight::side_by_side([weight(2)?, weight(3)?, wide])?;
    let bias = maker.f32(5, &[outputs])?;
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

fn queries_keys_values(maker: &Maker, rows: usize, heads: Heads) -> Result<Vec<Output>> {
    const INPUTS: usize = 48;
    let x = maker.noise(1, &[rows, INPUTS])?;
    let widths = [heads.query_width(), heads.kv_width(), heads.kv_width()];
    let format = WeightFormat::from(maker.precision());
    let weight = |part: usize| {
        Weight::in_format(&maker.f32(2 + part as u64, &[widths[part], INPUTS])?, format)
    };
    let weights = weight::side_by_side([weight(0)?, weight(1)?, weight(2)?])?;
    let bias = |part: usize| maker.f32(5 + part as u64, &[widths[part]]);
    let biases = [bias(0)?, bias(1)?, bias(2)?];
    let half = heads.dim / 2;
    let inverse = (0..half).map(|i| 10_000f32.powf(-(i as f32) / half as f32)).collect();
    let positions: Vec<usize> = (0..rows).map(|row| row * 37).collect();
    let angles = Angles::new(&positions, &Frequencies { inverse, attention_factor: 1.1 });
    let mut results = Vec::new();
    let names = ["q", "k", "v", "q without biases", "k without biases", "v without biases"];
    let mut names = names.into_iter();
    for with_biases in [true, false] {
        let part = |part: usize| (&weights[part], with_biases.then_some(&biases[part]));
        let parts = qkv::forward(&x, [part(0), part(1), part(2)], &angles, heads)?;
        let named = names.by_ref().zip(parts);
        results.extend(named.map(|(name, part)| maker.chained(name, part, 2)));
    }
    Ok(results)
}

fn sampled(maker: &Maker, rows: usize, inputs: usize, outputs: usize) -> Result<Vec<Output>> {
    let x = maker.noise(1, &[rows, inputs])?;
    let (numbers, bias) = (maker.f32(2, &[outputs, inputs])?, maker.f32(3, &[outputs])?);
    let format = WeightFormat::from(maker.precision());
    let weight = Weight::in_format(&numbers, format)?;
    let y = weight.forward(&x, Some(&bias))?;
    let more = weight.forward_add(&x, &maker.noise(4, &[rows, outputs])?, Some(&bias))?;
    let picked = weight.rows(&[outputs - 1, 0, outputs / 2])?;
    let [first, second] = weight::forward_all(&x, [(&weight, Some(&bias)), (&weight, None)])?;
    let mut results = vec![
        Output::near("y", y),
        Output::near("y added", more),
        Output::exact("rows", picked),
        Output::near("first of two", first),
        Output::near("second of two", second),
    ];
    for (format, names) in [
        (BlockFormat::Q8_0, ["rows of Q8_0", "y of Q8_0", "y of Q8_0 added"]),
        (BlockFormat::Q4K, ["rows of Q4_K", "y of Q4_K", "y of Q4_K added"]),
    ] {
        if format.row_bytes(inputs).is_none() {
            continue;
        }
        let blocks = Weight::in_format(&numbers, WeightFormat::Blocks(format))?;
        let more = maker.noise(4, &[rows, outputs])?;
        // Rows are bf16 on a device.
        results.push(Output::rounded(names[0], blocks.rows(&[outputs - 1, 0, outputs - 1])?));
        results.push(Output::near(names[1], blocks.forward(&x, Some(&bias))?));
        results.push(Output::near(names[2], blocks.forward_add(&x, &more, Some(&bias))?));
    }
    Ok(results)
}
