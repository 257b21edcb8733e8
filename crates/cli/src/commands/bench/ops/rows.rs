//! Operations on rows, which memory bounds.

use candle_core::Device;
use embodied_r_kernels::memory::{tensor, zeros};
use embodied_r_kernels::rope::{Angles, Frequencies, Turn, rotate};
use embodied_r_kernels::sample::{Scan, Truncation};
use embodied_r_kernels::{embedding, rms_norm, swiglu};
use rayon::prelude::*;

use super::op::{Op, Prepared, f32_bytes, matrix, numbers, values};

/// Rows as in decoding and in prefill.
const ROWS: [usize; 2] = [16, 2_048];

/// A hidden state's width, and that of the feed-forward layer.
const WIDTH: usize = 896;
const WIDE: usize = 4_864;

/// Size of a head, and the base of the angles.
const HEAD: usize = 64;
const THETA: f64 = 1e6;

const EPS: f64 = 1e-6;

/// Entries of Qwen's vocabulary.
const VOCABULARY: usize = 151_936;

pub(super) fn ops() -> Vec<Op> {
    let mut ops = Vec::new();
    ops.extend(ROWS.map(norm));
    ops.push(norm_backward(2_048));
    ops.extend(ROWS.map(rope));
    ops.extend(ROWS.map(gated));
    ops.push(gated_backward(2_048));
    ops.push(gather(2_048));
    ops.push(scatter_add(2_048));
    ops.push(sampling("sampling", Truncation::default()));
    ops.push(sampling("sampling, top-k 50", Truncation { top_k: 50, ..Truncation::default() }));
    ops.push(sampling("sampling, top-p 0.95", Truncation { top_p: 0.95, ..Truncation::default() }));
    ops
}

/// One over the root of the mean square of a row.
fn inverse_rms(x: &[f32]) -> f64 {
    let squares: f64 = x.iter().map(|x| f64::from(*x).powi(2)).sum();
    1.0 / (squares / x.len() as f64 + EPS).sqrt()
}

fn norm(rows: usize) -> Op {
    let work = (4.0 * (rows * WIDTH) as f64, f32_bytes(2 * rows * WIDTH));
    Op::new("rms_norm", format!("{rows}x{WIDTH}"), work, move || {
        let (x, w) = (matrix(rows, WIDTH, 1)?, tensor(numbers(WIDTH, 2), WIDTH)?);
        let (plain_x, plain_w) = (values(&x)?, values(&w)?);
        let plain = move |places: &[usize]| {
            let at = |place: &usize| {
                let row = &plain_x[place / WIDTH * WIDTH..][..WIDTH];
                f64::from(plain_x[*place]) * inverse_rms(row) * f64::from(plain_w[place % WIDTH])
            };
            places.iter().map(at).collect()
        };
        Ok(Prepared::new(move || Ok(vec![rms_norm::forward(&x, &w, EPS)?.y]), plain))
    })
}

fn norm_backward(rows: usize) -> Op {
    let work = (8.0 * (rows * WIDTH) as f64, f32_bytes(4 * rows * WIDTH));
    Op::new("rms_norm backward", format!("{rows}x{WIDTH}"), work, move || {
        let (x, w) = (matrix(rows, WIDTH, 1)?, tensor(numbers(WIDTH, 2), WIDTH)?);
        let dy = matrix(rows, WIDTH, 3)?;
        let scale = rms_norm::forward(&x, &w, EPS)?.scale;
        let (plain_x, plain_w, plain_dy) = (values(&x)?, values(&w)?, values(&dy)?);
        // With r = 1 / rms: dx = r · (w · dy) - x · r³ · mean(x · w · dy).
        let plain = move |places: &[usize]| {
            let at = |place: &usize| {
                let row = place / WIDTH * WIDTH;
                let (x, dy) = (&plain_x[row..row + WIDTH], &plain_dy[row..row + WIDTH]);
                let term = |i: usize| f64::from(plain_w[i]) * f64::from(dy[i]);
                let mean =
                    (0..WIDTH).map(|i| f64::from(x[i]) * term(i)).sum::<f64>() / WIDTH as f64;
                let (r, i) = (inverse_rms(x), place % WIDTH);
                r * term(i) - f64::from(x[i]) * r.powi(3) * mean
            };
            places.iter().map(at).collect()
        };
        let (dx, d_weight) = (zeros(&[rows, WIDTH], &Device::Cpu)?, zeros(&[WIDTH], &Device::Cpu)?);
        let run = move || {
            rms_norm::backward(&x, &w, &scale, &dy, &dx, Some(&d_weight))?;
            Ok(vec![dx.clone()])
        };
        Ok(Prepared::new(run, plain))
    })
}

fn rope(rows: usize) -> Op {
    let work = (3.0 * (rows * WIDTH) as f64, f32_bytes(2 * rows * WIDTH));
    Op::new("rope", format!("{rows}x{WIDTH}"), work, move || {
        let inverse = |i: usize| THETA.powf(-2.0 * i as f64 / HEAD as f64) as f32;
        let inverse: Vec<f32> = (0..HEAD / 2).map(inverse).collect();
        let frequencies = Frequencies { inverse: inverse.clone(), attention_factor: 1.0 };
        let angles = Angles::new(&(0..rows).collect::<Vec<_>>(), &frequencies);
        let x = matrix(rows, WIDTH, 1)?;
        let plain_x = values(&x)?;
        let plain = move |places: &[usize]| {
            let at = |place: &usize| {
                let within = place % HEAD;
                // An angle is rounded to f32, as where the models were trained.
                let angle = (place / WIDTH) as f32 * inverse[within % (HEAD / 2)];
                let (sin, cos) = f64::from(angle).sin_cos();
                let (sign, other) = match within < HEAD / 2 {
                    true => (-1.0, place + HEAD / 2),
                    false => (1.0, place - HEAD / 2),
                };
                f64::from(plain_x[*place]) * cos + sign * f64::from(plain_x[other]) * sin
            };
            places.iter().map(at).collect()
        };
        let run = move || {
            rotate(&x, &angles, Turn::Forward)?;
            Ok(vec![x.clone()])
        };
        Ok(Prepared::new(run, plain))
    })
}

fn sigmoid(x: f32) -> f64 {
    1.0 / (1.0 + (-f64::from(x)).exp())
}

fn gated(rows: usize) -> Op {
    let work = (0.0, f32_bytes(3 * rows * WIDE));
    Op::new("swiglu", format!("{rows}x{WIDE}"), work, move || {
        let (gate, up) = (matrix(rows, WIDE, 1)?, matrix(rows, WIDE, 2)?);
        let (g, u) = (values(&gate)?, values(&up)?);
        let plain = move |places: &[usize]| {
            let at = |i: &usize| f64::from(g[*i]) * sigmoid(g[*i]) * f64::from(u[*i]);
            places.iter().map(at).collect()
        };
        Ok(Prepared::new(move || Ok(vec![swiglu::forward(&gate, &up)?]), plain))
    })
}

fn gated_backward(rows: usize) -> Op {
    // It works in place: each repetition has copies of its own.
    let work = (0.0, f32_bytes((5 + 4) * rows * WIDE));
    Op::new("swiglu backward", format!("{rows}x{WIDE}"), work, move || {
        let (gate, up) = (matrix(rows, WIDE, 1)?, matrix(rows, WIDE, 2)?);
        let dy = matrix(rows, WIDE, 3)?;
        let (g, u, d) = (values(&gate)?, values(&up)?, values(&dy)?);
        let plain = move |places: &[usize]| {
            let at = |place: &usize| {
                let i = place % g.len();
                let (s, x) = (sigmoid(g[i]), f64::from(g[i]));
                let of = match *place < g.len() {
                    true => f64::from(u[i]) * s * (1.0 + x * (1.0 - s)),
                    false => x * s,
                };
                f64::from(d[i]) * of
            };
            places.iter().map(at).collect()
        };
        let run = move || {
            let (d_gate, d_up) = swiglu::backward(gate.copy()?, up.copy()?, &dy)?;
            Ok(vec![d_gate, d_up])
        };
        Ok(Prepared::new(run, plain))
    })
}

/// Entries of the table that is looked into, and which of them.
const ENTRIES: usize = 32_768;

fn indices(rows: usize) -> Vec<usize> {
    (0..rows).map(|i| i * 7_919 % ENTRIES).collect()
}

fn gather(rows: usize) -> Op {
    let work = (0.0, f32_bytes(2 * rows * WIDTH));
    Op::new("embedding", format!("{rows}x{WIDTH}"), work, move || {
        let (table, at) = (matrix(ENTRIES, WIDTH, 1)?, indices(rows));
        let (entries, from) = (values(&table)?, at.clone());
        let plain = move |places: &[usize]| {
            let entry = |place: &usize| from[place / WIDTH] * WIDTH + place % WIDTH;
            places.iter().map(|place| f64::from(entries[entry(place)])).collect()
        };
        Ok(Prepared::new(move || Ok(vec![embedding::gather(&table, &at)?]), plain))
    })
}

fn scatter_add(rows: usize) -> Op {
    let work = ((rows * WIDTH) as f64, f32_bytes(3 * rows * WIDTH));
    Op::new("embedding backward", format!("{rows}x{WIDTH}"), work, move || {
        let (table, at) = (zeros(&[ENTRIES, WIDTH], &Device::Cpu)?, indices(rows));
        let dy = matrix(rows, WIDTH, 1)?;
        let (d, to) = (values(&dy)?, at.clone());
        let plain = move |places: &[usize]| {
            let at = |place: &usize| {
                let rows = to.iter().enumerate().filter(|(_, to)| **to == place / WIDTH);
                rows.map(|(row, _)| f64::from(d[row * WIDTH + place % WIDTH])).sum()
            };
            places.iter().map(at).collect()
        };
        let run = move || {
            embedding::scatter_add(&table, &at, &dy)?;
            Ok(vec![table.clone()])
        };
        Ok(Prepared::new(run, plain))
    })
}

/// A token for each of 16 sequences; what is checked is the drawn tokens' log-probabilities.
fn sampling(name: &'static str, to: Truncation) -> Op {
    const SEQUENCES: usize = 16;
    let work = (0.0, f32_bytes(SEQUENCES * VOCABULARY));
    Op::new(name, format!("{SEQUENCES}x{VOCABULARY}"), work, move || {
        let logits: Vec<f32> = numbers(SEQUENCES * VOCABULARY, 1).iter().map(|x| 4.0 * x).collect();
        let uniforms = numbers(SEQUENCES, 2).iter().map(|x| f64::from(x.abs())).collect::<Vec<_>>();
        let draw = move |logits: &[f32], row: usize| {
            let scan = Scan::new(logits, 1.0);
            let drawn = match to == Truncation::default() {
                true => scan.draw(uniforms[row]),
                false => scan.kept(&to).draw(uniforms[row]),
            };
            drawn.map(|token| (token, scan.log_probability(token) as f32))
        };
        let plain_logits = logits.clone();
        let plain_draw = draw.clone();
        let plain = move |places: &[usize]| {
            let at = |row: &usize| {
                let logits = &plain_logits[row * VOCABULARY..][..VOCABULARY];
                let total: f64 = logits.iter().map(|x| f64::from(*x).exp()).sum();
                let drawn = plain_draw(logits, *row);
                drawn.map_or(f64::NAN, |(token, _)| f64::from(logits[token]) - total.ln())
            };
            places.iter().map(at).collect()
        };
        let run = move || {
            let logps: Vec<f32> = logits
                .par_chunks(VOCABULARY)
                .enumerate()
                .map(|(row, logits)| draw(logits, row).map_or(f32::NAN, |(_, logp)| logp))
                .collect();
            Ok(vec![tensor(logps, SEQUENCES)?])
        };
        Ok(Prepared::new(run, plain))
    })
}
