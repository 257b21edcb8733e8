//! The output layer with log-probabilities, and the optimizers.

use candle_core::{DType, Device, Tensor};
use embodied_r_kernels::lm_head::{self, LmHead};
use embodied_r_kernels::memory::{tensor, zeros};
use embodied_r_kernels::{AdamwStep, MuonStep, Precision, Result, adamw, muon};
use rayon::prelude::*;

use super::op::{Op, Prepared, f32_bytes, matrix, uniform, values};

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

/// Logits in f64. The weight is converted in parts: all of a large one would take a gigabyte.
fn ref_logits(hidden: &Tensor, weight: &Tensor) -> Result<Tensor> {
    const ENTRIES: usize = 8_192;
    let (hidden, vocabulary) = (hidden.to_dtype(DType::F64)?, weight.dim(0)?);
    let part = |first: usize| {
        let weight = weight.narrow(0, first, ENTRIES.min(vocabulary - first))?;
        hidden.matmul(&weight.to_dtype(DType::F64)?.t()?)
    };
    let parts = (0..vocabulary).step_by(ENTRIES).map(part);
    Ok(Tensor::cat(&parts.collect::<candle_core::Result<Vec<_>>>()?, 1)?)
}

/// The log-sum-exp of a row of logits.
fn log_sum_exp(logits: &[f64]) -> f64 {
    let top = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    top + logits.iter().map(|x| (x - top).exp()).sum::<f64>().ln()
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
        let (ref_x, ref_w, ref_ids) = (x.clone(), w.clone(), ids.clone());
        let reference = move |elements: &[usize]| {
            let logits = ref_logits(&ref_x, &ref_w)?.to_vec2::<f64>()?;
            let at =
                |row: &usize| logits[*row][ref_ids[*row] as usize] - log_sum_exp(&logits[*row]);
            Ok(elements.iter().map(at).collect())
        };
        let run = move || {
            let logps = lm_head::forward(&x, &output_layer(&w), &ids)?.logps;
            Ok(vec![tensor(logps, rows)?])
        };
        Ok(Prepared::with_products(run, reference))
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
        let (ref_x, ref_w) = (x.clone(), w.clone());
        let (ref_ids, ref_d) = (ids.clone(), d_logps.clone());
        // d logits = d · (one-hot - softmax); d hidden = d logits · W.
        let reference = move |elements: &[usize]| {
            let mut d_logits = ref_logits(&ref_x, &ref_w)?.to_vec2::<f64>()?;
            for ((row, target), d) in d_logits.iter_mut().zip(&ref_ids).zip(&ref_d) {
                let (log_sum, d) = (log_sum_exp(row), f64::from(*d));
                row.iter_mut().for_each(|x| *x = -d * (*x - log_sum).exp());
                row[*target as usize] += d;
            }
            let d_logits = Tensor::new(d_logits, &Device::Cpu)?;
            let d_hidden = d_logits.matmul(&ref_w.to_dtype(DType::F64)?)?;
            let d_hidden = d_hidden.flatten_all()?.to_vec1::<f64>()?;
            Ok(elements.iter().map(|element| d_hidden[*element]).collect())
        };
        let d_weight = zeros(&[vocabulary, hidden_size], &Device::Cpu)?;
        let run = move || {
            let head = output_layer(&w);
            Ok(vec![lm_head::backward(&x, &head, &ids, &scores, &d_logps, Some(&d_weight))?])
        };
        Ok(Prepared::with_products(run, reference))
    })
}

/// A step of AdamW, after two others.
pub(super) const ADAMW_STEP: AdamwStep = AdamwStep {
    lr: 1e-2,
    beta1: 0.9,
    beta2: 0.95,
    eps: 1e-8,
    weight_decay: 0.1,
    step: 3,
    grad_scale: 0.5,
};

fn adam(count: usize) -> Op {
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
                let g = of(g) * ADAMW_STEP.grad_scale;
                let m = ADAMW_STEP.beta1 * of(m) + (1.0 - ADAMW_STEP.beta1) * g;
                let v = ADAMW_STEP.beta2 * of(v) + (1.0 - ADAMW_STEP.beta2) * g * g;
                let m = m / (1.0 - ADAMW_STEP.beta1.powi(3));
                let v = v / (1.0 - ADAMW_STEP.beta2.powi(3));
                let kept = of(p) * (1.0 - ADAMW_STEP.lr * ADAMW_STEP.weight_decay);
                kept - ADAMW_STEP.lr * m / (v.sqrt() + ADAMW_STEP.eps)
            };
            elements.iter().map(at).collect()
        };
        let run = move || {
            adamw(&p, &g, &m, &v, &ADAMW_STEP)?;
            Ok(vec![p.clone()])
        };
        Ok(Prepared::new(run, reference))
    })
}

/// Several matrices in parallel, one per thread.
fn orthogonal(matrices: usize, rows: usize, columns: usize) -> Op {
    const ADAMW_STEP: MuonStep = MuonStep {
        lr: 1e-2,
        momentum: 0.95,
        weight_decay: 0.1,
        grad_scale: 0.5,
        precision: Precision::F32,
    };
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
            let rate = ADAMW_STEP.lr * 0.2 * (rows.max(columns) as f64).sqrt();
            let direction = (0..p.len()).map(|i| {
                let g = f64::from(g[i]) * ADAMW_STEP.grad_scale;
                let m = ADAMW_STEP.momentum * f64::from(m[i]) + (1.0 - ADAMW_STEP.momentum) * g;
                ADAMW_STEP.momentum * m + (1.0 - ADAMW_STEP.momentum) * g
            });
            let direction = Tensor::from_vec(direction.collect(), (rows, columns), &Device::Cpu)?;
            let direction = newton_schulz(&direction)?.flatten_all()?.to_vec1::<f64>()?;
            let kept = 1.0 - ADAMW_STEP.lr * ADAMW_STEP.weight_decay;
            Ok(elements.iter().map(|i| kept * f64::from(p[*i]) - rate * direction[*i]).collect())
        };
        let run = move || {
            all.par_iter().try_for_each(|[p, g, m]| muon(p, g, m, &ADAMW_STEP))?;
            Ok(vec![all[0][0].clone()])
        };
        Ok(Prepared::with_products(run, reference))
    });
    // Rounding grows over the five iterations.
    op.tolerance = 1e-4;
    op
}

/// Newton–Schulz with the quintic of Jordan et al. (2024), for a matrix with no more rows than columns.
fn newton_schulz(x: &Tensor) -> Result<Tensor> {
    let norm = x.sqr()?.sum_all()?.sqrt()?;
    let mut x = x.broadcast_div(&norm)?;
    let identity = Tensor::eye(x.dim(0)?, DType::F64, &Device::Cpu)?;
    for _ in 0..5 {
        let gram = x.matmul(&x.t()?)?;
        let factor = ((&identity * 3.4445)? - (&gram * 4.7750)?)?;
        x = (factor + (gram.matmul(&gram)? * 2.0315)?)?.matmul(&x)?;
    }
    Ok(x)
}
