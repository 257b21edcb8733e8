//! AdamW (Loshchilov and Hutter, 2019), in place.

use candle_core::Tensor;
use multiversion::multiversion;
use rayon::prelude::*;

use crate::device::on_device;
use crate::error::{Result, check};
use crate::memory::{floats, update};

const OP: &str = "adamw";

/// Elements per task.
const CHUNK: usize = 1 << 16;

/// Hyper-parameters of one step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamwStep {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Step number, from 1, for the bias correction.
    pub step: u64,
    /// Gradient scale, for clipping.
    pub grad_scale: f64,
}

/// One step of `torch.optim.AdamW`: updates `param` and both moments in place.
///
/// # Shapes
/// All of the same number of elements.
///
/// # Errors
/// The shapes differ, or a tensor is not contiguous `f32` on the CPU.
pub fn adamw(
    param: &Tensor,
    grad: &Tensor,
    m: &Tensor,
    v: &Tensor,
    step: &AdamwStep,
) -> Result<()> {
    let same = [grad, m, v].iter().all(|t| t.elem_count() == param.elem_count());
    check(same, OP, || "parameter, gradient and moments differ in size".into())?;
    let power = |beta: f64| 1.0 - beta.powi(i32::try_from(step.step).unwrap_or(i32::MAX));
    let factors = Factors {
        rate: (step.lr / power(step.beta1)) as f32,
        root: (1.0 / power(step.beta2).sqrt()) as f32,
        keep: (1.0 - step.lr * step.weight_decay) as f32,
        beta1: step.beta1 as f32,
        beta2: step.beta2 as f32,
        eps: step.eps as f32,
        scale: step.grad_scale as f32,
    };
    on_device!(param, optimizer::adamw(param, grad, m, v, factors.in_order(), OP));
    let grad = floats(grad, OP)?;
    let apply = |param: &mut [f32], m: &mut [f32], v: &mut [f32]| {
        let params = param.par_chunks_mut(CHUNK).zip(grad.par_chunks(CHUNK));
        let moments = m.par_chunks_mut(CHUNK).zip(v.par_chunks_mut(CHUNK));
        params.zip(moments).for_each(|((p, g), (m, v))| descend(factors, p, g, m, v));
    };
    let (mut of_m, mut of_v) = (Ok(()), Ok(()));
    update(param, OP, |param| {
        of_m = update(m, OP, |m| of_v = update(v, OP, |v| apply(param, m, v)));
    })?;
    of_m.and(of_v)
}

/// The step's coefficients in f32.
#[derive(Clone, Copy)]
struct Factors {
    rate: f32,
    root: f32,
    keep: f32,
    beta1: f32,
    beta2: f32,
    eps: f32,
    scale: f32,
}

#[cfg(device)]
impl Factors {
    /// In the order of the CUDA launcher's arguments.
    fn in_order(self) -> [f32; 7] {
        let Self { rate, root, keep, beta1, beta2, eps, scale } = self;
        [rate, root, keep, beta1, beta2, eps, scale]
    }
}

#[multiversion(targets = "simd")]
fn descend(factors: Factors, p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32]) {
    let Factors { rate, root, keep, beta1, beta2, eps, scale } = factors;
    for ((p, g), (m, v)) in p.iter_mut().zip(g).zip(m.iter_mut().zip(v)) {
        let g = g * scale;
        *m = beta1.mul_add(*m, (1.0 - beta1) * g);
        *v = beta2.mul_add(*v, (1.0 - beta2) * g * g);
        *p = keep * *p - rate * *m / v.sqrt().mul_add(root, eps);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::tensor;

    #[test]
    fn two_steps_equal_those_of_torch() {
        // torch.optim.AdamW([0.5, -1.5], lr=0.1, betas=(0.9, 0.95), weight_decay=0.1),
        // gradients [0.2, -0.4] and then [-0.1, 0.3]; reference in f64.
        let (mut p, mut m, mut v) = ([0.5f64, -1.5], [0f64; 2], [0f64; 2]);
        let zeros = || tensor(vec![0.0; 2], 2).unwrap();
        let (tp, tm, tv) = (tensor(vec![0.5, -1.5], 2).unwrap(), zeros(), zeros());
        for (t, g) in [[0.2f64, -0.4], [-0.1, 0.3]].iter().enumerate() {
            let t = t as i32 + 1;
            for i in 0..2 {
                m[i] = 0.9 * m[i] + 0.1 * g[i];
                v[i] = 0.95 * v[i] + 0.05 * g[i] * g[i];
                let (mh, vh) = (m[i] / (1.0 - 0.9f64.powi(t)), v[i] / (1.0 - 0.95f64.powi(t)));
                p[i] -= 0.1 * 0.1 * p[i];
                p[i] -= 0.1 * mh / (vh.sqrt() + 1e-8);
            }
            let step = AdamwStep {
                lr: 0.1,
                beta1: 0.9,
                beta2: 0.95,
                eps: 1e-8,
                weight_decay: 0.1,
                step: t as u64,
                grad_scale: 0.5,
            };
            let twice = g.iter().map(|g| 2.0 * *g as f32).collect();
            adamw(&tp, &tensor(twice, 2).unwrap(), &tm, &tv, &step).unwrap();
        }
        for (actual, expected) in tp.to_vec1::<f32>().unwrap().iter().zip(p) {
            assert!((f64::from(*actual) - expected).abs() < 1e-6, "{actual} is not {expected}");
        }
    }
}
