//! The output layer with log-probabilities, and the optimizers.

use candle_core::{Device, Tensor};
use embodied_r_kernels::lm_head::{self, LmHead};
use embodied_r_kernels::memory::{tensor, zeros};
use embodied_r_kernels::{AdamwStep, MuonStep, Precision, adamw, muon};
use rayon::prelude::*;

use super::op::{Op, Prepared, dot, f32_bytes, matrix, uniform, values};

pub(super) fn ops() -> Vec<Op> {
    vec![
        head(256, 512, 8_192),
        head(32, 896, 151_936),
        head_backward(256, 512, 8_192),
        adam(1 << 24),
        orthogonal(8, 256, 704),
    ]
}

fn shape(rows: usize, hidden_size: usize, vocabulary: usize) -> String {
    format!("{rows}x{hidden_size}x{vocabulary}")
}

fn targets(rows: usize, vocabulary: usize) -> Vec<u32> {
    (0..rows).map(|i| (i * 7_919 % vocabulary) as u32).collect()
}

/// A row's logits and their log-sum-exp, in f64.
fn ref_logits(x: &[f32], w: &[f32]) -> (Vec<f64>, f64) {
    let logit = |w: &[f32]| dot(x.iter().copied(), w.iter().copied());
    let logits: Vec<f64> = w.chunks(x.len()).map(logit).collect();
    let top = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let log_sum = top + logits.iter().map(|x| (x - top).exp()).sum::<f64>().ln();
    (logits, log_sum)
}

fn output_layer(weight: &Tensor) -> LmHead<'_> {
    LmHead { weight, temperature: 1.0, precision: Precision::F32 }
}

fn head(rows: usize, hidden_size: usize, vocabulary: usize) -> Op {
    let flops = 2.0 * (rows * hidden_size) as f64 * vocabulary as f64;
    let work = (flops, f32_bytes(rows * hidden_size + hidden_size * vocabulary));
    Op::new("lm_head", shape(rows, hidden_size, vocabulary), work, move || {
        let (x, w) = (matrix(rows, hidden_size, 1)?, matrix(vocabulary, hidden_size, 2)?);
        let ids = targets(rows, vocabulary);
        let (ref_x, ref_w, ref_ids) = (values(&x)?, values(&w)?, ids.clone());
        let reference = move |elements: &[usize]| {
            let at = |row: &usize| {
                let (logits, log_sum) =
                    ref_logits(&ref_x[row * hidden_size..][..hidden_size], &ref_w);
                logits[ref_ids[*row] as usize] - log_sum
            };
            elements.par_iter().map(at).collect()
        };
        let run = move || {
            let logps = lm_head::forward(&x, &output_layer(&w), &ids)?.logps;
            Ok(vec![tensor(logps, rows)?])
        };
        Ok(Prepared::new(run, reference))
    })
}

fn head_backward(rows: usize, hidden_size: usize, vocabulary: usize) -> Op {
    // Recomputed logits, then the gradients of both factors.
    let flops = 6.0 * (rows * hidden_size) as f64 * vocabulary as f64;
    let work = (flops, f32_bytes(2 * rows * hidden_size + 3 * hidden_size * vocabulary));
    Op::new("lm_head backward", shape(rows, hidden_size, vocabulary), work, move || {
        let (x, w) = (matrix(rows, hidden_size, 1)?, matrix(vocabulary, hidden_size, 2)?);
        let (ids, d_logps) = (targets(rows, vocabulary), uniform(rows, 3));
        let scores = lm_head::forward(&x, &output_layer(&w), &ids)?;
        let (ref_x, ref_w) = (values(&x)?, values(&w)?);
        let (ref_ids, ref_d) = (ids.clone(), d_logps.clone());
        // d logits = d · (one-hot - softmax); d hidden = d logits · W.
        let reference = move |elements: &[usize]| {
            let at = |element: &usize| {
                let (row, i) = (element / hidden_size, element % hidden_size);
                let (logits, log_sum) =
                    ref_logits(&ref_x[row * hidden_size..][..hidden_size], &ref_w);
                let weight = |entry: usize| f64::from(ref_w[entry * hidden_size + i]);
                let mean: f64 =
                    logits.iter().enumerate().map(|(e, x)| (x - log_sum).exp() * weight(e)).sum();
                f64::from(ref_d[row]) * (weight(ref_ids[row] as usize) - mean)
            };
            elements.par_iter().map(at).collect()
        };
        let d_weight = zeros(&[vocabulary, hidden_size], &Device::Cpu)?;
        let run = move || {
            let head = output_layer(&w);
            Ok(vec![lm_head::backward(&x, &head, &ids, &scores, &d_logps, Some(&d_weight))?])
        };
        Ok(Prepared::new(run, reference))
    })
}

fn adam(count: usize) -> Op {
    const STEP: AdamwStep = AdamwStep {
        lr: 1e-2,
        beta1: 0.9,
        beta2: 0.95,
        eps: 1e-8,
        weight_decay: 0.1,
        step: 3,
        grad_scale: 0.5,
    };
    // Four arrays are read, three are written.
    Op::new("adamw", format!("{count}"), (15.0 * count as f64, f32_bytes(7 * count)), move || {
        let of = |seed| tensor(uniform(count, seed), count);
        let (p, g, m) = (of(1)?, of(2)?, of(3)?);
        let v = tensor(uniform(count, 4).iter().map(|x| x * x).collect(), count)?;
        let before = [values(&p)?, values(&g)?, values(&m)?, values(&v)?];
        let reference = move |elements: &[usize]| {
            let [p, g, m, v] = &before;
            let at = |i: &usize| {
                let of = |numbers: &[f32]| f64::from(numbers[*i]);
                let g = of(g) * STEP.grad_scale;
                let m = STEP.beta1 * of(m) + (1.0 - STEP.beta1) * g;
                let v = STEP.beta2 * of(v) + (1.0 - STEP.beta2) * g * g;
                let m = m / (1.0 - STEP.beta1.powi(3));
                let v = v / (1.0 - STEP.beta2.powi(3));
                let kept = of(p) * (1.0 - STEP.lr * STEP.weight_decay);
                kept - STEP.lr * m / (v.sqrt() + STEP.eps)
            };
            elements.iter().map(at).collect()
        };
        let run = move || {
            adamw(&p, &g, &m, &v, &STEP)?;
            Ok(vec![p.clone()])
        };
        Ok(Prepared::new(run, reference))
    })
}

/// Several matrices in parallel, one per thread.
fn orthogonal(matrices: usize, rows: usize, columns: usize) -> Op {
    const STEP: MuonStep =
        MuonStep { lr: 1e-2, momentum: 0.95, weight_decay: 0.1, grad_scale: 0.5 };
    let iteration = 4 * rows * rows * columns + 2 * rows * rows * rows;
    let work = (5.0 * (matrices * iteration) as f64, f32_bytes(matrices * rows * columns * 5));
    let shape = format!("{matrices} of {rows}x{columns}");
    let mut op = Op::new("muon", shape, work, move || {
        let of = |seed: usize| {
            let seed = 3 * seed as u64;
            Ok([
                matrix(rows, columns, seed)?,
                matrix(rows, columns, seed + 1)?,
                matrix(rows, columns, seed + 2)?,
            ])
        };
        let all: Vec<_> = (0..matrices).map(of).collect::<embodied_r_kernels::Result<_>>()?;
        let first = [values(&all[0][0])?, values(&all[0][1])?, values(&all[0][2])?];
        let reference = move |elements: &[usize]| {
            let [p, g, m] = &first;
            let rate = STEP.lr * 0.2 * (rows.max(columns) as f64).sqrt();
            let direction = (0..p.len()).map(|i| {
                let g = f64::from(g[i]) * STEP.grad_scale;
                let m = STEP.momentum * f64::from(m[i]) + (1.0 - STEP.momentum) * g;
                STEP.momentum * m + (1.0 - STEP.momentum) * g
            });
            let direction = newton_schulz(direction.collect(), rows, columns);
            let kept = 1.0 - STEP.lr * STEP.weight_decay;
            elements.iter().map(|i| kept * f64::from(p[*i]) - rate * direction[*i]).collect()
        };
        let run = move || {
            all.par_iter().try_for_each(|[p, g, m]| muon(p, g, m, &STEP))?;
            Ok(vec![all[0][0].clone()])
        };
        Ok(Prepared::new(run, reference))
    });
    // Rounding grows over the five iterations.
    op.tolerance = 1e-4;
    op
}

/// Newton–Schulz with the quintic of Jordan et al. (2024), for a matrix with no more rows than columns.
fn newton_schulz(mut x: Vec<f64>, rows: usize, columns: usize) -> Vec<f64> {
    let norm = x.iter().map(|x| x * x).sum::<f64>().sqrt();
    x.iter_mut().for_each(|x| *x /= norm);
    for _ in 0..5 {
        let row = |i: usize| &x[i * columns..(i + 1) * columns];
        let gram: Vec<f64> = (0..rows * rows)
            .map(|i| row(i / rows).iter().zip(row(i % rows)).map(|(a, b)| a * b).sum())
            .collect();
        let square = times(&gram, &gram, rows, rows);
        let mut factor: Vec<f64> =
            gram.iter().zip(&square).map(|(g, s)| -4.7750 * g + 2.0315 * s).collect();
        (0..rows).for_each(|i| factor[i * rows + i] += 3.4445);
        x = times(&factor, &x, rows, columns);
    }
    x
}

/// The product of a square matrix and one with `columns` columns.
fn times(a: &[f64], b: &[f64], rows: usize, columns: usize) -> Vec<f64> {
    let mut out = vec![0.0; rows * columns];
    for (a, out) in a.chunks(rows).zip(out.chunks_mut(columns)) {
        for (a, b) in a.iter().zip(b.chunks(columns)) {
            out.iter_mut().zip(b).for_each(|(out, b)| *out += a * b);
        }
    }
    out
}
