//! What attention asks of its input: queries, keys and values.

use candle_core::Tensor;

use crate::attention::Heads;
use crate::error::{Result, check};
use crate::rope::{self, Angles, Turn};
use crate::weight::{self, Weight};

const OP: &str = "qkv";

/// `x · Wᵀ + b` for the weights of queries, keys and values, the former two turned by their positions. On a device it is
/// one product where [`weight::side_by_side`] has put the weights.
///
/// # Shapes
/// `x` (rows, inputs), each bias (outputs); gives (rows, query heads · dim) and twice (rows, kv heads · dim).
///
/// # Errors
/// The heads are not those of the weights, there are not as many angles as rows, or as [`Weight::forward`].
pub fn forward(
    x: &Tensor,
    weights: [(&Weight, Option<&Tensor>); 3],
    angles: &Angles,
    heads: Heads,
) -> Result<[Tensor; 3]> {
    let widths = [heads.query_width(), heads.kv_width(), heads.kv_width()];
    for ((weight, bias), width) in weights.iter().zip(widths) {
        let (rows, bias) = (weight.shape().0, bias.map_or(width, Tensor::elem_count));
        check(rows == width && bias == width, OP, || format!("{rows} outputs are not {width}"))?;
    }
    let (tokens, turned) = (x.dims()[0], angles.tokens());
    check(tokens == turned, OP, || format!("{tokens} tokens, but angles for {turned}"))?;
    #[cfg(device)]
    if crate::cuda::on(x) {
        let turns = angles.on(x.device())?;
        if let Some(joint) = crate::cuda::together::qkv(x, weights, turns, heads, OP)? {
            return Ok(joint);
        }
    }
    let [q, k, v] = weight::forward_all(x, weights)?;
    rope::rotate(&q, angles, Turn::Forward)?;
    rope::rotate(&k, angles, Turn::Forward)?;
    Ok([q, k, v])
}
