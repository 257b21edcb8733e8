//! Each operation beside candle's slow composition of the same formula, with candle's gradients.

#![allow(clippy::expect_used)]

use candle_core::{D, Device, Tensor, Var};
use embodied_r_kernels::{embedding, linear, lm_head, memory, rms_norm, swiglu};

type Result = std::result::Result<(), Box<dyn std::error::Error>>;

fn noise(shape: &[usize]) -> Tensor {
    Tensor::randn(0f32, 1.0, shape, &Device::Cpu).expect("noise")
}

fn zeros_like(t: &Tensor) -> Tensor {
    t.zeros_like().and_then(|z| z.copy()).expect("zeros")
}

#[track_caller]
fn close(ours: &Tensor, truth: &Tensor, tolerance: f32) {
    let difference =
        (ours - truth).and_then(|d| d.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>());
    let difference = difference.expect("same shape");
    assert!(difference < tolerance, "differ by {difference}");
}

/// Rows enough that several tasks share them.
const ROWS: usize = 700;

#[test]
fn rms_norm_and_its_gradients() -> Result {
    let (x, w, dy) = (
        Var::from_tensor(&noise(&[ROWS, 48]))?,
        Var::from_tensor(&noise(&[48]))?,
        noise(&[ROWS, 48]),
    );
    let scale = (x.sqr()?.mean_keepdim(D::Minus1)? + 1e-6)?.sqrt()?.recip()?;
    let truth = x.broadcast_mul(&scale)?.broadcast_mul(&w)?;
    let grads = (&truth * &dy)?.sum_all()?.backward()?;
    let normed = rms_norm::forward(&x, &w, 1e-6)?;
    close(&normed.y, &truth, 1e-5);
    let (dx, dw) = (zeros_like(&x), zeros_like(&w));
    rms_norm::backward(&x, &w, &normed.scale, &dy, &dx, &dw)?;
    close(&dx, grads.get(&x).ok_or("dx")?, 1e-5);
    close(&dw, grads.get(&w).ok_or("dw")?, 1e-3);
    Ok(())
}

#[test]
fn swiglu_and_its_gradients() -> Result {
    let (g, u, dy) = (
        Var::from_tensor(&noise(&[ROWS, 37]))?,
        Var::from_tensor(&noise(&[ROWS, 37]))?,
        noise(&[ROWS, 37]),
    );
    let truth = (g.silu()? * u.as_tensor())?;
    let grads = (&truth * &dy)?.sum_all()?.backward()?;
    close(&swiglu::forward(&g, &u)?, &truth, 1e-5);
    let (dg, du) = swiglu::backward(&g, &u, &dy)?;
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
    let truth = x.matmul(&w.t()?)?.broadcast_add(&b)?;
    let grads = (&truth * &dy)?.sum_all()?.backward()?;
    close(&linear::forward(&x, &w, Some(&b))?, &truth, 1e-4);
    let dx = linear::backward_input(&dy, &w, None)?;
    close(&dx, grads.get(&x).ok_or("dx")?, 1e-4);
    let twice = linear::backward_input(&dy, &w, Some(dx))?;
    close(&twice, &(grads.get(&x).ok_or("dx")? * 2.0)?, 1e-4);
    let (dw, db) = (zeros_like(&w), zeros_like(&b));
    linear::backward_weight(&x, &dy, &dw, Some(&db))?;
    close(&dw, grads.get(&w).ok_or("dw")?, 1e-3);
    close(&db, grads.get(&b).ok_or("db")?, 1e-3);
    Ok(())
}

#[test]
fn the_lm_head_scores_and_differentiates_as_log_softmax_does() -> Result {
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
    let scores = lm_head::forward(&h, &w, &targets, temperature)?;
    close(&memory::tensor(scores.logps.clone(), 90)?, &picked, 1e-4);
    close(&memory::tensor(scores.entropies.clone(), 90)?, &entropy, 1e-4);
    let dw = zeros_like(&w);
    let dh = lm_head::backward(&h, &w, &targets, temperature, &scores, &d, &dw)?;
    close(&dh, grads.get(&h).ok_or("dh")?, 1e-4);
    close(&dw, grads.get(&w).ok_or("dw")?, 1e-4);
    Ok(())
}

#[test]
fn gathered_rows_give_their_gradients_back() -> Result {
    let table = Var::from_tensor(&noise(&[9, 5]))?;
    let indices = [3usize, 0, 3, 8];
    let ids = Tensor::new(&[3u32, 0, 3, 8], &Device::Cpu)?;
    let dy = noise(&[4, 5]);
    let truth = table.index_select(&ids, 0)?;
    let grads = (&truth * &dy)?.sum_all()?.backward()?;
    close(&embedding::gather(&table, &indices)?, &truth, 1e-9);
    let d = zeros_like(&table);
    embedding::scatter_add(&d, &indices, &dy)?;
    close(&d, grads.get(&table).ok_or("d")?, 1e-6);
    assert!(embedding::gather(&table, &[9]).is_err());
    Ok(())
}
