//! QKV projection with rotary embedding.

use candle_core::Tensor;

use crate::attention::Heads;
use crate::error::{Result, check};
use crate::rope::{self, CosSinCache, Rotation};
use crate::weight::{self, Weight};

const OP: &str = "qkv";

/// `x · Wᵀ + b` for queries, keys and values, with RoPE on queries and keys. On a device it is one GEMM if the
/// weights are fused ([`weight::fuse_projections`]).
///
/// # Shapes
/// `x` (rows, inputs), each bias (outputs); returns q (rows, query heads · dim), k and v (rows, kv heads · dim).
///
/// # Errors
/// The heads differ from the weights' or from the cos/sin cache's, the cache has another number of tokens, or as
/// [`Weight::forward`].
pub fn forward(
    x: &Tensor,
    weights: [(&Weight, Option<&Tensor>); 3],
    cos_sin: &CosSinCache,
    heads: Heads,
) -> Result<[Tensor; 3]> {
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
    #[cfg(device)]
    if crate::cuda::on(x) {
        let cos_sin = cos_sin.on(x.device())?;
        if let Some(joint) = crate::cuda::fused::qkv(x, weights, cos_sin, heads, OP)? {
            return Ok(joint);
        }
    }
    let [q, k, v] = weight::forward_all(x, weights)?;
    rope::rotate(&q, cos_sin, Rotation::Forward)?;
    rope::rotate(&k, cos_sin, Rotation::Forward)?;
    Ok([q, k, v])
}

#[cfg(test)]
mod tests {
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
    }
}
