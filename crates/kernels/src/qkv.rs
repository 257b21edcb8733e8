//! QKV projection with rotary embedding.

use candle_core::Tensor;

use crate::attention::Heads;
use crate::error::{Result, check};
use crate::rope::CosSinCache;
use crate::weight::{self, Weight};

pub mod head_norm;
pub mod rotary;

use rotary::{Qkv, Rotary};

const OP: &str = "qkv";

/// `x · Wᵀ + b` for queries, keys and values, with RoPE on queries and keys: [`forward_normed`] without norms.
///
/// # Errors
/// As [`forward_normed`].
pub fn forward(
    x: &Tensor,
    weights: [(&Weight, Option<&Tensor>); 3],
    cos_sin: &CosSinCache,
    heads: Heads,
) -> Result<[Tensor; 3]> {
    let rotary = Rotary { norms: None, cos_sin, keeps_unnormed: false };
    let Qkv { q, k, v, .. } = forward_normed(x, weights, rotary, heads)?;
    Ok([q, k, v])
}

/// `x · Wᵀ + b` for queries, keys and values, with norms over each head, if given, and RoPE on queries and keys. On a
/// device it is one GEMM and one kernel if the weights are fused ([`weight::fuse_projections`]).
///
/// # Shapes
/// `x` (rows, inputs), each bias (outputs).
///
/// # Errors
/// The heads differ from the weights', the norms' or the cos/sin cache's, the cache has another number of tokens, or as
/// [`Weight::forward`].
pub fn forward_normed(
    x: &Tensor,
    weights: [(&Weight, Option<&Tensor>); 3],
    rotary: Rotary<'_>,
    heads: Heads,
) -> Result<Qkv> {
    let Rotary { norms, cos_sin, .. } = rotary;
    let widths = [heads.q_size(), heads.kv_size(), heads.kv_size()];
    for ((weight, bias), width) in weights.iter().zip(widths) {
        let (rows, bias) = (weight.shape().0, bias.map_or(width, Tensor::elem_count));
        check(rows == width && bias == width, OP, || {
            format!("the weight has {rows} outputs, the heads need {width}")
        })?;
    }
    let (tokens, cached) = (x.dims()[0], cos_sin.tokens());
    check(tokens == cached, OP, || format!("{tokens} tokens, but cosines and sines for {cached}"))?;
    let (dim, cached) = (heads.dim, cos_sin.dim());
    check(dim == cached, OP, || {
        format!("a head size of {dim}, but cosines and sines for {cached}")
    })?;
    for norm in norms.iter().flatten() {
        let found = norm.weight.elem_count();
        check(dim == found, OP, || format!("a head size of {dim}, but a norm over {found}"))?;
    }
    #[cfg(device)]
    if crate::cuda::on(x)
        && let Some(joint) = crate::cuda::fused::qkv(x, weights, rotary, heads, OP)?
    {
        return Ok(joint);
    }
    let [q, k, v] = weight::forward_all(x, weights)?;
    let unnormed = norms.map(|_| [q.clone(), k.clone()]);
    let [q_norm, k_norm] = norms.map_or([None; 2], |norms| norms.map(Some));
    let q = head_norm::forward(&q, q_norm, cos_sin)?.y;
    let k = head_norm::forward(&k, k_norm, cos_sin)?.y;
    Ok(Qkv { q, k, v, unnormed })
}

#[cfg(test)]
mod tests {
    use super::head_norm::HeadNorm;
    use super::*;
    use crate::memory::tensor;
    use crate::rope::Frequencies;

    #[test]
    fn mismatched_shapes_are_rejected() {
        let heads = Heads { query: 2, kv: 1, dim: 4 };
        let matrix = |rows: usize| Weight::f32(&tensor(vec![0.5; 3 * rows], (rows, 3)).unwrap());
        let (q, k, v) = (matrix(8).unwrap(), matrix(4).unwrap(), matrix(4).unwrap());
        let x = tensor(vec![1.0; 6], (2, 3)).unwrap();
        let cos_sin = |tokens: usize, half: usize| {
            let positions: Vec<usize> = (0..tokens).collect();
            CosSinCache::new(
                &positions,
                &Frequencies { inv_freq: vec![1.0; half], attention_factor: 1.0 },
            )
        };
        let run = |q: &Weight, cos_sin: &CosSinCache| {
            forward(&x, [(q, None), (&k, None), (&v, None)], cos_sin, heads)
        };
        assert!(run(&q, &cos_sin(2, 2)).is_ok());
        let message = |q: &Weight, cos_sin: &CosSinCache| run(q, cos_sin).unwrap_err().to_string();
        assert!(message(&k, &cos_sin(2, 2)).contains("4 outputs, the heads need 8"));
        assert!(message(&q, &cos_sin(3, 2)).contains("2 tokens, but cosines and sines for 3"));
        assert!(
            message(&q, &cos_sin(2, 1)).contains("a head size of 4, but cosines and sines for 2")
        );
        let weight = tensor(vec![1.0; 5], 5).unwrap();
        let norm = HeadNorm { weight: &weight, eps: 1e-6 };
        let cos_sin = cos_sin(2, 2);
        let rotary = Rotary { norms: Some([norm; 2]), cos_sin: &cos_sin, keeps_unnormed: false };
        let fault = forward_normed(&x, [(&q, None), (&k, None), (&v, None)], rotary, heads);
        let message = fault.err().unwrap().to_string();
        assert!(message.contains("a head size of 4, but a norm over 5"), "{message}");
    }
}
