//! Row-wise, memory-bound operations.

use candle_core::Device;
use embodied_r_kernels::memory::{tensor, zeros};
use embodied_r_kernels::rope::{CosSinCache, Frequencies, Rotation, rotate};
use embodied_r_kernels::sample::{Scan, Truncation};
use embodied_r_kernels::{embedding, rms_norm, swiglu};
use rayon::prelude::*;

use super::op::{Op, Prepared, f32_bytes, matrix, uniform, values};

/// Rows in decoding and in prefill.
const ROWS: [usize; 2] = [16, 2_048];

const HIDDEN_SIZE: usize = 896;
const INTERMEDIATE_SIZE: usize = 4_864;

const HEAD_DIM: usize = 64;
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

/// The reciprocal root mean square of a row.
fn inverse_rms(x: &[f32]) -> f64 {
    let squares: f64 = x.iter().map(|x| f64::from(*x).powi(2)).sum();
    1.0 / (squares / x.len() as f64 + EPS).sqrt()
}

fn norm(rows: usize) -> Op {
    let work = (4.0 * (rows * HIDDEN_SIZE) as f64, f32_bytes(2 * rows * HIDDEN_SIZE));
    Op::new("rms_norm", format!("{rows}x{HIDDEN_SIZE}"), work, move || {
        let (x, w) = (matrix(rows, HIDDEN_SIZE, 1)?, tensor(uniform(HIDDEN_SIZE, 2), HIDDEN_SIZE)?);
        let (ref_x, ref_w) = (values(&x)?, values(&w)?);
        let reference = move |elements: &[usize]| {
            let at = |element: &usize| {
                let row = &ref_x[element / HIDDEN_SIZE * HIDDEN_SIZE..][..HIDDEN_SIZE];
                f64::from(ref_x[*element])
                    * inverse_rms(row)
                    * f64::from(ref_w[element % HIDDEN_SIZE])
            };
            elements.iter().map(at).collect()
        };
        Ok(Prepared::new(move || Ok(vec![rms_norm::forward(&x, &w, EPS)?.y]), reference))
    })
}

fn norm_backward(rows: usize) -> Op {
    let work = (8.0 * (rows * HIDDEN_SIZE) as f64, f32_bytes(4 * rows * HIDDEN_SIZE));
    Op::new("rms_norm backward", format!("{rows}x{HIDDEN_SIZE}"), work, move || {
        let (x, w) = (matrix(rows, HIDDEN_SIZE, 1)?, tensor(uniform(HIDDEN_SIZE, 2), HIDDEN_SIZE)?);
        let dy = matrix(rows, HIDDEN_SIZE, 3)?;
        let scale = rms_norm::forward(&x, &w, EPS)?.scale;
        let (ref_x, ref_w, ref_dy) = (values(&x)?, values(&w)?, values(&dy)?);
        // With r = 1 / rms: dx = r · (w · dy) - x · r³ · mean(x · w · dy).
        let reference = move |elements: &[usize]| {
            let at = |element: &usize| {
                let row = element / HIDDEN_SIZE * HIDDEN_SIZE;
                let (x, dy) = (&ref_x[row..row + HIDDEN_SIZE], &ref_dy[row..row + HIDDEN_SIZE]);
                let term = |i: usize| f64::from(ref_w[i]) * f64::from(dy[i]);
                let mean = (0..HIDDEN_SIZE).map(|i| f64::from(x[i]) * term(i)).sum::<f64>()
                    / HIDDEN_SIZE as f64;
                let (r, i) = (inverse_rms(x), element % HIDDEN_SIZE);
                r * term(i) - f64::from(x[i]) * r.powi(3) * mean
            };
            elements.iter().map(at).collect()
        };
        let (dx, d_weight) =
            (zeros(&[rows, HIDDEN_SIZE], &Device::Cpu)?, zeros(&[HIDDEN_SIZE], &Device::Cpu)?);
        let run = move || {
            rms_norm::backward(&x, &w, &scale, &dy, &dx, Some(&d_weight))?;
            Ok(vec![dx.clone()])
        };
        Ok(Prepared::new(run, reference))
    })
}

fn rope(rows: usize) -> Op {
    let work = (3.0 * (rows * HIDDEN_SIZE) as f64, f32_bytes(2 * rows * HIDDEN_SIZE));
    Op::new("rope", format!("{rows}x{HIDDEN_SIZE}"), work, move || {
        let inverse = |i: usize| THETA.powf(-2.0 * i as f64 / HEAD_DIM as f64) as f32;
        let inverse: Vec<f32> = (0..HEAD_DIM / 2).map(inverse).collect();
        let frequencies = Frequencies { inv_freq: inverse.clone(), attention_factor: 1.0 };
        let angles = CosSinCache::new(&(0..rows).collect::<Vec<_>>(), &frequencies);
        let x = matrix(rows, HIDDEN_SIZE, 1)?;
        let ref_x = values(&x)?;
        let reference = move |elements: &[usize]| {
            let at = |element: &usize| {
                let within = element % HEAD_DIM;
                // The angle is rounded to f32, as in training.
                let angle = (element / HIDDEN_SIZE) as f32 * inverse[within % (HEAD_DIM / 2)];
                let (sin, cos) = f64::from(angle).sin_cos();
                let (sign, other) = match within < HEAD_DIM / 2 {
                    true => (-1.0, element + HEAD_DIM / 2),
                    false => (1.0, element - HEAD_DIM / 2),
                };
                f64::from(ref_x[*element]) * cos + sign * f64::from(ref_x[other]) * sin
            };
            elements.iter().map(at).collect()
        };
        let run = move || {
            rotate(&x, &angles, Rotation::Forward)?;
            Ok(vec![x.clone()])
        };
        Ok(Prepared::new(run, reference))
    })
}

fn sigmoid(x: f32) -> f64 {
    1.0 / (1.0 + (-f64::from(x)).exp())
}

fn gated(rows: usize) -> Op {
    let work = (0.0, f32_bytes(3 * rows * INTERMEDIATE_SIZE));
    Op::new("swiglu", format!("{rows}x{INTERMEDIATE_SIZE}"), work, move || {
        let (gate, up) = (matrix(rows, INTERMEDIATE_SIZE, 1)?, matrix(rows, INTERMEDIATE_SIZE, 2)?);
        let (g, u) = (values(&gate)?, values(&up)?);
        let reference = move |elements: &[usize]| {
            let at = |i: &usize| f64::from(g[*i]) * sigmoid(g[*i]) * f64::from(u[*i]);
            elements.iter().map(at).collect()
        };
        Ok(Prepared::new(move || Ok(vec![swiglu::forward(&gate, &up)?]), reference))
    })
}

fn gated_backward(rows: usize) -> Op {
    // In place, so each repetition copies its inputs.
    let work = (0.0, f32_bytes((5 + 4) * rows * INTERMEDIATE_SIZE));
    Op::new("swiglu backward", format!("{rows}x{INTERMEDIATE_SIZE}"), work, move || {
        let (gate, up) = (matrix(rows, INTERMEDIATE_SIZE, 1)?, matrix(rows, INTERMEDIATE_SIZE, 2)?);
        let dy = matrix(rows, INTERMEDIATE_SIZE, 3)?;
        let (g, u, d) = (values(&gate)?, values(&up)?, values(&dy)?);
        let reference = move |elements: &[usize]| {
            let at = |element: &usize| {
                let i = element % g.len();
                let (s, x) = (sigmoid(g[i]), f64::from(g[i]));
                let of = match *element < g.len() {
                    true => f64::from(u[i]) * s * (1.0 + x * (1.0 - s)),
                    false => x * s,
                };
                f64::from(d[i]) * of
            };
            elements.iter().map(at).collect()
        };
        let run = move || {
            let (d_gate, d_up) = swiglu::backward(gate.copy()?, up.copy()?, &dy)?;
            Ok(vec![d_gate, d_up])
        };
        Ok(Prepared::new(run, reference))
    })
}

/// Rows of the embedding table.
const ENTRIES: usize = 32_768;

fn indices(rows: usize) -> Vec<usize> {
    (0..rows).map(|i| i * 7_919 % ENTRIES).collect()
}

fn gather(rows: usize) -> Op {
    let work = (0.0, f32_bytes(2 * rows * HIDDEN_SIZE));
    Op::new("embedding", format!("{rows}x{HIDDEN_SIZE}"), work, move || {
        let (table, at) = (matrix(ENTRIES, HIDDEN_SIZE, 1)?, indices(rows));
        let (entries, from) = (values(&table)?, at.clone());
        let reference = move |elements: &[usize]| {
            let entry =
                |element: &usize| from[element / HIDDEN_SIZE] * HIDDEN_SIZE + element % HIDDEN_SIZE;
            elements.iter().map(|element| f64::from(entries[entry(element)])).collect()
        };
        Ok(Prepared::new(move || Ok(vec![embedding::gather(&table, &at)?]), reference))
    })
}

fn scatter_add(rows: usize) -> Op {
    let work = ((rows * HIDDEN_SIZE) as f64, f32_bytes(3 * rows * HIDDEN_SIZE));
    Op::new("embedding backward", format!("{rows}x{HIDDEN_SIZE}"), work, move || {
        let (table, at) = (zeros(&[ENTRIES, HIDDEN_SIZE], &Device::Cpu)?, indices(rows));
        let dy = matrix(rows, HIDDEN_SIZE, 1)?;
        let (d, to) = (values(&dy)?, at.clone());
        let reference = move |elements: &[usize]| {
            let at = |element: &usize| {
                let rows = to.iter().enumerate().filter(|(_, to)| **to == element / HIDDEN_SIZE);
                rows.map(|(row, _)| f64::from(d[row * HIDDEN_SIZE + element % HIDDEN_SIZE])).sum()
            };
            elements.iter().map(at).collect()
        };
        let run = move || {
            embedding::scatter_add(&table, &at, &dy)?;
            Ok(vec![table.clone()])
        };
        Ok(Prepared::new(run, reference))
    })
}

/// Samples a token for each of 16 sequences; the check compares the log-probabilities of the sampled tokens.
fn sampling(name: &'static str, to: Truncation) -> Op {
    const SEQUENCES: usize = 16;
    let work = (0.0, f32_bytes(SEQUENCES * VOCABULARY));
    Op::new(name, format!("{SEQUENCES}x{VOCABULARY}"), work, move || {
        let logits: Vec<f32> = uniform(SEQUENCES * VOCABULARY, 1).iter().map(|x| 4.0 * x).collect();
        let uniforms = uniform(SEQUENCES, 2).iter().map(|x| f64::from(x.abs())).collect::<Vec<_>>();
        let draw = move |logits: &[f32], row: usize| {
            let scan = Scan::new(logits, 1.0);
            let drawn = match to == Truncation::default() {
                true => scan.draw(uniforms[row]),
                false => scan.truncated(&to).draw(uniforms[row]),
            };
            drawn.map(|token| (token, scan.log_probability(token) as f32))
        };
        let ref_logits = logits.clone();
        let ref_draw = draw.clone();
        let reference = move |elements: &[usize]| {
            let at = |row: &usize| {
                let logits = &ref_logits[row * VOCABULARY..][..VOCABULARY];
                let total: f64 = logits.iter().map(|x| f64::from(*x).exp()).sum();
                let drawn = ref_draw(logits, *row);
                drawn.map_or(f64::NAN, |(token, _)| f64::from(logits[token]) - total.ln())
            };
            elements.iter().map(at).collect()
        };
        let run = move || {
            let logps: Vec<f32> = logits
                .par_chunks(VOCABULARY)
                .enumerate()
                .map(|(row, logits)| draw(logits, row).map_or(f32::NAN, |(_, logp)| logp))
                .collect();
            Ok(vec![tensor(logps, SEQUENCES)?])
        };
        Ok(Prepared::new(run, reference))
    })
}
