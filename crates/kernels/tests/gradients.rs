//! Each operation against candle's composition of the same formula, with candle's autograd.

#![allow(clippy::expect_used)]

mod noise;

use candle_core::{D, DType, Device, Tensor, Var};
use embodied_r_kernels::layer_norm::{self, Affine};
use embodied_r_kernels::lm_head::{self, LmHead};
use embodied_r_kernels::qkv::head_norm::{self, HeadNorm, HeadNormInputs, Rotated};
use embodied_r_kernels::rope::{self, CosSinCache, Frequencies, Rotation};
use embodied_r_kernels::{Precision, embedding, linear, memory, rms_norm, swiglu};
use noise::noise;

type Result = std::result::Result<(), Box<dyn std::error::Error>>;

fn zeros_like(t: &Tensor) -> Tensor {
    t.zeros_like().and_then(|z| z.copy()).expect("zeros")
}

#[track_caller]
fn close(actual: &Tensor, expected: &Tensor, tolerance: f32) {
    let difference =
        (actual - expected).and_then(|d| d.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>());
    let difference = difference.expect("same shape");
    assert!(difference < tolerance, "differ by {difference}");
}

/// Enough rows for several tasks.
const ROWS: usize = 700;

#[test]
fn the_inputs_stay_the_same() {
    let found = noise(&[3]).to_vec1::<f32>().unwrap();
    let expected = [-0.45276, 2.65061, -0.98860];
    assert!(found.iter().zip(expected).all(|(x, y)| (x - y).abs() < 1e-5), "{found:?}");
}

#[test]
fn rms_norm_and_its_gradients() -> Result {
    let (x, w, dy) = (
        Var::from_tensor(&noise(&[ROWS, 48]))?,
        Var::from_tensor(&noise(&[48]))?,
        noise(&[ROWS, 48]),
    );
    let scale = (x.sqr()?.mean_keepdim(D::Minus1)? + 1e-6)?.sqrt()?.recip()?;
    let expected = x.broadcast_mul(&scale)?.broadcast_mul(&w)?;
    let grads = (&expected * &dy)?.sum_all()?.backward()?;
    let normed = rms_norm::forward(&x, &w, 1e-6)?;
    close(&normed.y, &expected, 1e-5);
    let recomputed = rms_norm::recompute(&x, &w, &normed.scale)?;
    assert_eq!(recomputed.to_vec2::<f32>()?, normed.y.to_vec2::<f32>()?);
    let (dx, dw) = (zeros_like(&x), zeros_like(&w));
    rms_norm::backward(&x, &w, &normed.scale, &dy, &dx, Some(&dw))?;
    close(&dx, grads.get(&x).ok_or("dx")?, 1e-5);
    close(&dw, grads.get(&w).ok_or("dw")?, 1e-3);
    let frozen = zeros_like(&x);
    rms_norm::backward(&x, &w, &normed.scale, &dy, &frozen, None)?;
    close(&frozen, &dx, 1e-9);
    Ok(())
}

#[test]
fn layer_norm_and_its_gradients() -> Result {
    // One value per row, and more than a register's.
    for width in [1, 48, 100] {
        let noise_of = |shape: &[usize]| Var::from_tensor(&(noise(shape) + 0.7)?);
        let (x, w, b) = (noise_of(&[ROWS, width])?, noise_of(&[width])?, noise_of(&[width])?);
        let dy = noise(&[ROWS, width]);
        let apart = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
        let scale = (apart.sqr()?.mean_keepdim(D::Minus1)? + 1e-6)?.sqrt()?.recip()?;
        let expected = apart.broadcast_mul(&scale)?.broadcast_mul(&w)?.broadcast_add(&b)?;
        let grads = (&expected * &dy)?.sum_all()?.backward()?;
        let affine = Affine { weight: w.as_tensor(), bias: b.as_tensor() };
        let normed = layer_norm::forward(&x, affine, 1e-6)?;
        close(&normed.y, &expected, 2e-5);
        let recomputed = layer_norm::recompute(&x, affine, &normed.stats)?;
        assert_eq!(recomputed.to_vec2::<f32>()?, normed.y.to_vec2::<f32>()?);
        let (dx, dw, db) = (zeros_like(&x), zeros_like(&w), zeros_like(&b));
        let all = Affine { weight: Some(&dw), bias: Some(&db) };
        layer_norm::backward(&x, affine, &normed.stats, &dy, &dx, all)?;
        let largest = if width == 1 { 0.05 } else { 3e-5 };
        close(&dx, grads.get(&x).ok_or("dx")?, largest);
        close(&dw, grads.get(&w).ok_or("dw")?, 2e-3);
        close(&db, grads.get(&b).ok_or("db")?, 1e-3);
        let (frozen, none) = (zeros_like(&x), Affine { weight: None, bias: None });
        layer_norm::backward(&x, affine, &normed.stats, &dy, &frozen, none)?;
        close(&frozen, &dx, 1e-9);
    }
    Ok(())
}

#[test]
fn norms_over_heads_with_rope_and_their_gradients() -> Result {
    const HEADS: usize = 3;
    const DIM: usize = 10;
    let frequencies =
        Frequencies { inv_freq: vec![1.0, 0.5, 0.2, 0.1, 0.01], attention_factor: 1.3 };
    let positions: Vec<usize> = (0..ROWS).map(|row| row * 3).collect();
    let cos_sin = CosSinCache::new(&positions, &frequencies);
    let angles = |of: fn(f64) -> f64| {
        let angle = |row: usize, pair: usize| (row * 3) as f32 * frequencies.inv_freq[pair % 5];
        let values = (0..ROWS * DIM).map(|i| 1.3 * of(f64::from(angle(i / DIM, i % DIM))) as f32);
        Tensor::from_vec(values.collect(), (ROWS, 1, DIM), &Device::Cpu)
    };
    let (cos, sin) = (angles(f64::cos)?, angles(f64::sin)?);
    let (x, w) = (noise(&[ROWS, HEADS * DIM]), noise(&[DIM]));
    let (x, w, dy) = (Var::from_tensor(&x)?, Var::from_tensor(&w)?, noise(&[ROWS, HEADS * DIM]));
    let heads = x.reshape((ROWS, HEADS, DIM))?;
    let scale = (heads.sqr()?.mean_keepdim(D::Minus1)? + 1e-6)?.sqrt()?.recip()?;
    let normed = heads.broadcast_mul(&scale)?.broadcast_mul(&w)?;
    let (first, second) = (normed.narrow(2, 0, DIM / 2)?, normed.narrow(2, DIM / 2, DIM / 2)?);
    let turned = Tensor::cat(&[&second.neg()?, &first], 2)?;
    let expected = (normed.broadcast_mul(&cos)? + turned.broadcast_mul(&sin)?)?;
    let expected = expected.reshape((ROWS, HEADS * DIM))?;
    let grads = (&expected * &dy)?.sum_all()?.backward()?;

    let before = x.to_vec2::<f32>()?;
    let norm = HeadNorm { weight: &w, eps: 1e-6 };
    let Rotated { y, scale } = head_norm::forward(&x, Some(norm), &cos_sin)?;
    close(&y, &expected, 1e-5);
    assert_eq!(x.to_vec2::<f32>()?, before, "the backward takes it");
    let (scale, dw) = (scale.ok_or("scale")?, zeros_like(&w));
    let run = |d_weight| {
        let inputs = HeadNormInputs { x: &x, weight: &w, scale: &scale, d_weight };
        head_norm::backward(Some(inputs), dy.copy().expect("copy"), &cos_sin)
    };
    let dx = run(Some(&dw))?;
    close(&dx, grads.get(&x).ok_or("dx")?, 2e-5);
    close(&dw, grads.get(&w).ok_or("dw")?, 1e-3);
    close(&run(None)?, &dx, 1e-9);

    let (plain, rotated) = (x.copy()?, x.copy()?);
    rope::rotate(&rotated, &cos_sin, Rotation::Forward)?;
    let Rotated { y, scale } = head_norm::forward(&plain, None, &cos_sin)?;
    close(&y, &rotated, 1e-9);
    assert!(scale.is_none(), "without a norm");
    let back = head_norm::backward(None, y, &cos_sin)?;
    close(&back, &(x.as_tensor() * (1.3f64 * 1.3))?, 1e-4);
    Ok(())
}

#[test]
fn swiglu_and_its_gradients() -> Result {
    let (g, u, dy) = (
        Var::from_tensor(&noise(&[ROWS, 37]))?,
        Var::from_tensor(&noise(&[ROWS, 37]))?,
        noise(&[ROWS, 37]),
    );
    let expected = (g.silu()? * u.as_tensor())?;
    let grads = (&expected * &dy)?.sum_all()?.backward()?;
    close(&swiglu::forward(&g, &u)?, &expected, 1e-5);
    let (dg, du) = swiglu::backward(g.copy()?, u.copy()?, &dy)?;
    close(&dg, grads.get(&g).ok_or("dg")?, 1e-5);
    close(&du, grads.get(&u).ok_or("du")?, 1e-5);
    Ok(())
}

#[test]
fn linear_layers_and_their_gradients() -> Result {
    let (x, w, b) = (
        Var::from_tensor(&noise(&[ROWS, 24]))?,
        Var::from_tensor(&noise(&[40, 24]))?,
        Var::from_tensor(&noise(&[40]))?,
    );
    let dy = noise(&[ROWS, 40]);
    let expected = x.matmul(&w.t()?)?.broadcast_add(&b)?;
    let grads = (&expected * &dy)?.sum_all()?.backward()?;
    close(&linear::forward(&x, &w, Some(&b), Precision::F32)?, &expected, 1e-4);
    let unbiased = linear::forward(&x, &w, None, Precision::F32)?;
    close(&unbiased, &x.matmul(&w.t()?)?, 1e-4);
    let dx = linear::backward_input(&dy, &w, None, Precision::F32)?;
    close(&dx, grads.get(&x).ok_or("dx")?, 1e-4);
    let twice = linear::backward_input(&dy, &w, Some(dx), Precision::F32)?;
    close(&twice, &(grads.get(&x).ok_or("dx")? * 2.0)?, 1e-4);
    let (dw, db) = (zeros_like(&w), zeros_like(&b));
    linear::backward_weight(&x, &dy, &dw, Some(&db), Precision::F32)?;
    close(&dw, grads.get(&w).ok_or("dw")?, 1e-3);
    close(&db, grads.get(&b).ok_or("db")?, 1e-3);
    let alone = zeros_like(&b);
    linear::backward_bias(&dy, &alone)?;
    close(&alone, &db, 1e-6);
    Ok(())
}

#[test]
fn the_lm_head_and_its_gradients_equal_log_softmax() -> Result {
    let (h, w) = (Var::from_tensor(&noise(&[90, 12]))?, Var::from_tensor(&noise(&[77, 12]))?);
    let targets: Vec<u32> = (0..90).map(|i| (i * 31 % 77) as u32).collect();
    let d: Vec<f32> = (0..90).map(|i| (i % 7) as f32 - 3.0).collect();
    let temperature = 0.7;
    let logits = (h.matmul(&w.t()?)? / temperature)?;
    let top = logits.max_keepdim(D::Minus1)?.detach();
    let logp = logits.broadcast_sub(&top)?;
    let logp = logp.broadcast_sub(&logp.exp()?.sum_keepdim(D::Minus1)?.log()?)?;
    let index = Tensor::from_vec(targets.clone(), (90, 1), &Device::Cpu)?;
    let picked = logp.gather(&index, 1)?.squeeze(1)?;
    let entropy = (logp.exp()? * &logp)?.sum(D::Minus1)?.neg()?;
    let weight = memory::tensor(d.clone(), 90)?;
    let grads = (&picked * &weight)?.sum_all()?.backward()?;
    let head = LmHead { weight: &w, temperature, precision: Precision::F32 };
    let scores = lm_head::forward(&h, &head, &targets)?;
    close(&memory::tensor(scores.logps.clone(), 90)?, &picked, 1e-4);
    close(&memory::tensor(scores.entropies.clone(), 90)?, &entropy, 1e-4);
    let dw = zeros_like(&w);
    let dh = lm_head::backward(&h, &head, &targets, &scores, &d, Some(&dw))?;
    close(&dh, grads.get(&h).ok_or("dh")?, 1e-4);
    close(&dw, grads.get(&w).ok_or("dw")?, 1e-4);
    close(&lm_head::backward(&h, &head, &targets, &scores, &d, None)?, &dh, 1e-9);
    Ok(())
}

/// Rounds to bf16.
fn rounded(x: &Tensor) -> Tensor {
    let rounded = x.to_dtype(DType::BF16).and_then(|x| x.to_dtype(DType::F32));
    rounded.expect("a rounded copy")
}

#[test]
fn linear_layers_in_bf16_equal_f32_ones_with_rounded_operands() -> Result {
    let [x, w, b, dy] = [&[ROWS, 25][..], &[41, 25], &[41], &[ROWS, 41]].map(noise);
    let (near_x, near_w, near_dy) = (rounded(&x), rounded(&w), rounded(&dy));
    let layer = |x: &Tensor, w: &Tensor, dy: &Tensor, precision| -> embodied_r_kernels::Result<_> {
        let y = linear::forward(x, w, Some(&b), precision)?;
        let added = linear::forward_add(x, w, y.copy()?, precision)?;
        let dx = linear::backward_input(dy, w, None, precision)?;
        let twice = linear::backward_input(dy, w, Some(dx.copy()?), precision)?;
        let dw = zeros_like(w);
        linear::backward_weight(x, dy, &dw, None, precision)?;
        Ok([y, added, dx, twice, dw])
    };
    let actual = layer(&x, &w, &dy, Precision::Bf16)?;
    let expected = layer(&near_x, &near_w, &near_dy, Precision::F32)?;
    for (actual, expected) in actual.iter().zip(&expected) {
        close(actual, expected, 1e-3);
    }
    // What is added to is not rounded: the bias, and the previous content.
    let exact = linear::forward(&near_x, &near_w, None, Precision::Bf16)?.broadcast_add(&b)?;
    close(&actual[0], &exact, 1e-5);
    Ok(())
}

#[test]
fn the_lm_head_in_bf16_and_its_gradients_use_rounded_operands() -> Result {
    let (h, w) = (noise(&[90, 12]), noise(&[77, 12]));
    let (near_h, near_w) = (rounded(&h), rounded(&w));
    let targets: Vec<u32> = (0..90).map(|i| (i * 31 % 77) as u32).collect();
    let d: Vec<f32> = (0..90).map(|i| (i % 7) as f32 - 3.0).collect();
    let pass = |h: &Tensor, weight: &Tensor, precision| -> embodied_r_kernels::Result<_> {
        let head = LmHead { weight, temperature: 0.7, precision };
        let scores = lm_head::forward(h, &head, &targets)?;
        let dw = zeros_like(weight);
        let dh = lm_head::backward(h, &head, &targets, &scores, &d, Some(&dw))?;
        let entropies = memory::tensor(scores.entropies, 90)?;
        Ok([memory::tensor(scores.logps, 90)?, entropies, dh, dw])
    };
    let actual = pass(&h, &w, Precision::Bf16)?;
    let expected = pass(&near_h, &near_w, Precision::F32)?;
    close(&actual[0], &expected[0], 1e-4);
    close(&actual[1], &expected[1], 1e-4);
    // The gradient of the logits is rounded too, each element by at most 2⁻⁸ of itself. The absolute values of a row
    // sum to at most 2 · 3 / 0.7, and so do a column's up to the other rows' probabilities, as a token is the target
    // of at most two rows. Each is multiplied by an operand below 3.5.
    let bound = 2f32.powi(-8) * (2.0 * 3.0 / 0.7) * 3.5;
    close(&actual[2], &expected[2], bound);
    close(&actual[3], &expected[3], 2.0 * bound);
    Ok(())
}

#[test]
fn embeddings_are_rounded_to_bf16() -> Result {
    let table = noise(&[9, 5]);
    let indices = [3usize, 0, 3, 8];
    let actual = embedding::gather_cast(&table, &indices, Precision::Bf16)?;
    let expected = embedding::gather(&rounded(&table), &indices)?;
    assert_eq!(actual.to_vec2::<f32>()?, expected.to_vec2::<f32>()?);
    let exact = embedding::gather_cast(&table, &indices, Precision::F32)?;
    assert_eq!(exact.to_vec2::<f32>()?, embedding::gather(&table, &indices)?.to_vec2::<f32>()?);
    Ok(())
}

#[test]
fn gather_and_scatter_add_equal_index_select_and_its_gradient() -> Result {
    let table = Var::from_tensor(&noise(&[9, 5]))?;
    let indices = [3usize, 0, 3, 8];
    let ids = Tensor::new(&[3u32, 0, 3, 8], &Device::Cpu)?;
    let dy = noise(&[4, 5]);
    let expected = table.index_select(&ids, 0)?;
    let grads = (&expected * &dy)?.sum_all()?.backward()?;
    close(&embedding::gather(&table, &indices)?, &expected, 1e-9);
    let d = zeros_like(&table);
    embedding::scatter_add(&d, &indices, &dy)?;
    close(&d, grads.get(&table).ok_or("d")?, 1e-6);
    assert!(embedding::gather(&table, &[9]).is_err());
    Ok(())
}
