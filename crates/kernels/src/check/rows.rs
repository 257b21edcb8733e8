//! Row-wise and elementwise operations.

use super::case::{Case, CaseInputs, Output};
use crate::dropout::{self, DropoutMask};
use crate::error::Result;
use crate::gelu::{self, Gelu};
use crate::layer_norm::{self, Affine};
use crate::rope::{CosSinCache, Frequencies, MropeSections, Rotation, rotate};
use crate::{embedding, memory, rms_norm, swiglu};

/// Rows and widths: common sizes, one row, no rows, widths that are not multiples of a warp or a pack, more than a
/// block.
const SHAPES: [(usize, usize); 7] =
    [(5, 64), (1, 7), (3, 100), (70, 33), (2, 2048), (2, 2500), (0, 16)];

pub(super) fn add(cases: &mut Vec<Case>) {
    for (rows, width) in SHAPES {
        at(cases, rows, width);
    }
    for (tokens, heads, half) in
        [(5, 2, 64), (1, 1, 1), (3, 3, 20), (130, 2, 5), (3, 1, 300), (0, 1, 8)]
    {
        let shape = format!("{tokens} x {heads} x {}", 2 * half);
        cases.push(Case::new("rope", shape.clone(), move |case| {
            rotated(case, tokens, heads, half, None)
        }));
        let sections = [half / 2, half - half / 2 - half / 4, half / 4];
        for sections in [MropeSections::consecutive(sections), MropeSections::interleaved(sections)]
        {
            cases.push(Case::new("m-rope", shape.clone(), move |case| {
                rotated(case, tokens, heads, half, Some(sections))
            }));
        }
    }
}

/// The cases of one shape.
pub(super) fn at(cases: &mut Vec<Case>, rows: usize, width: usize) {
    let mut case = |op, run: fn(&CaseInputs, usize, usize) -> Result<Vec<Output>>| {
        let shape = format!("{rows} x {width}");
        cases.push(Case::new(op, shape, move |case| run(case, rows, width)));
    };
    case("rms_norm", normed);
    case("swiglu", gated);
    case("gelu", activated);
    case("layer_norm", centered);
    case("scale_rows", scaled);
    case("dropout", dropped);
    case("embedding", lookup);
}

fn normed(case: &CaseInputs, rows: usize, width: usize) -> Result<Vec<Output>> {
    let (x, weight) = (case.noise(1, &[rows, width])?, case.f32(2, &[width])?);
    let normed = rms_norm::forward(&x, &weight, 1e-6)?;
    let recomputed = rms_norm::recompute(&x, &weight, &normed.scale)?;
    let (dy, dx) = (case.noise(3, &[rows, width])?, case.noise(4, &[rows, width])?);
    let d_weight = case.f32(5, &[width])?;
    rms_norm::backward(&x, &weight, &normed.scale, &dy, &dx, Some(&d_weight))?;
    Ok(vec![
        Output::near("y", normed.y),
        Output::near("scale", normed.scale),
        Output::near("y recomputed", recomputed),
        Output::near("dx", dx),
        Output::near("d_weight", d_weight),
    ])
}

fn gated(case: &CaseInputs, rows: usize, width: usize) -> Result<Vec<Output>> {
    let noise = |seed| case.noise(seed, &[rows, width]);
    let (gate, up) = (noise(1)?, noise(2)?);
    let y = swiglu::forward(&gate, &up)?;
    let (d_gate, d_up) = swiglu::backward(gate, up, &noise(3)?)?;
    Ok(vec![Output::near("y", y), Output::near("d_gate", d_gate), Output::near("d_up", d_up)])
}

fn activated(case: &CaseInputs, rows: usize, width: usize) -> Result<Vec<Output>> {
    let noise = |seed| case.noise(seed, &[rows, width]);
    let mut outputs = Vec::new();
    let names = [(Gelu::Exact, ["y", "dx"]), (Gelu::Tanh, ["y by tanh", "dx by tanh"])];
    for (gelu, [name, of_dx]) in names {
        let x = noise(1)?;
        outputs.push(Output::near(name, gelu::forward(&x, gelu)?));
        outputs.push(Output::near(of_dx, gelu::backward(x, &noise(2)?, gelu)?));
    }
    Ok(outputs)
}

fn centered(case: &CaseInputs, rows: usize, width: usize) -> Result<Vec<Output>> {
    let x = case.noise(1, &[rows, width])?;
    let (weight, bias) = (case.f32(2, &[width])?, case.f32(3, &[width])?);
    let affine = Affine { weight: &weight, bias: &bias };
    let normed = layer_norm::forward(&x, affine, 1e-6)?;
    let recomputed = layer_norm::recompute(&x, affine, &normed.stats)?;
    let (dy, dx) = (case.noise(4, &[rows, width])?, case.noise(5, &[rows, width])?);
    let (d_weight, d_bias) = (case.f32(6, &[width])?, case.f32(7, &[width])?);
    let grads = Affine { weight: Some(&d_weight), bias: Some(&d_bias) };
    layer_norm::backward(&x, affine, &normed.stats, &dy, &dx, grads)?;
    Ok(vec![
        Output::near("y", normed.y),
        Output::near("stats", normed.stats),
        Output::near("y recomputed", recomputed),
        Output::near("dx", dx),
        Output::near("d_weight", d_weight),
        Output::near("d_bias", d_bias),
    ])
}

fn scaled(case: &CaseInputs, rows: usize, width: usize) -> Result<Vec<Output>> {
    let x = case.noise(1, &[rows, width])?;
    let factors: Vec<f32> = (0..rows).map(|row| (row % 5) as f32 - 1.5).collect();
    memory::scale_rows(&x, &factors)?;
    Ok(vec![Output::near("y", x)])
}

fn dropped(case: &CaseInputs, rows: usize, width: usize) -> Result<Vec<Output>> {
    let noise = |seed| case.noise(seed, &[rows, width]);
    let keys: Vec<u64> =
        (0..rows as u64).map(|row| row.wrapping_mul(0x1234_5678_9abc_def1)).collect();
    let mask = DropoutMask { keys: &keys, site: 3, p: 0.3 };
    let y = dropout::forward(&noise(1)?, &mask)?;
    let dx = noise(2)?;
    dropout::backward(&noise(3)?, &mask, &dx)?;
    Ok(vec![Output::near("y", y), Output::near("dx", dx)])
}

fn lookup(case: &CaseInputs, rows: usize, width: usize) -> Result<Vec<Output>> {
    const ENTRIES: usize = 11;
    let table = case.f32(1, &[ENTRIES, width])?;
    // Some entries several times, one never.
    let indices: Vec<usize> = (0..rows).map(|row| row * row * 7 % (ENTRIES - 1)).collect();
    let found = embedding::gather(&table, &indices)?;
    let rounded = embedding::gather_cast(&table, &indices, case.precision())?;
    let d_table = case.f32(2, &[ENTRIES, width])?;
    embedding::scatter_add(&d_table, &indices, &case.noise(3, &[rows, width])?)?;
    let d_rows = case.noise(4, &[ENTRIES, width])?;
    let once: Vec<usize> = (0..rows.min(ENTRIES)).rev().collect();
    embedding::scatter_add(&d_rows, &once, &case.noise(5, &[once.len(), width])?)?;
    Ok(vec![
        Output::exact("y", found),
        Output::exact("y in its precision", rounded),
        Output::exact("d_table", d_table),
        Output::near("d_rows", d_rows),
    ])
}

fn rotated(
    case: &CaseInputs,
    tokens: usize,
    heads: usize,
    half: usize,
    sections: Option<MropeSections>,
) -> Result<Vec<Output>> {
    let x = case.noise(1, &[tokens, heads * 2 * half])?;
    let inv_freq = (0..half).map(|i| 10_000f32.powf(-(i as f32) / half as f32)).collect();
    let frequencies = Frequencies { inv_freq, attention_factor: 1.1 };
    let cos_sin = match sections {
        None => {
            let positions: Vec<usize> = (0..tokens).map(|token| token * 37).collect();
            CosSinCache::new(&positions, &frequencies)
        }
        Some(sections) => {
            let positions: Vec<[usize; 3]> =
                (0..tokens).map(|token| [token * 37, token % 11, 40_000 - 3 * token]).collect();
            CosSinCache::multimodal(&positions, sections, &frequencies)?
        }
    };
    rotate(&x, &cos_sin, Rotation::Forward)?;
    let back = case.noise(2, &[tokens, heads * 2 * half])?;
    rotate(&back, &cos_sin, Rotation::Backward)?;
    Ok(vec![Output::near("y", x), Output::near("dx", back)])
}
