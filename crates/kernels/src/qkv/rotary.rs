//! What follows the projections of queries and keys, and its results.

use candle_core::Tensor;

use super::head_norm::HeadNorm;
use crate::rope::CosSinCache;

/// What follows the projections of queries and keys.
#[derive(Clone, Copy)]
pub struct Rotary<'a> {
    /// Norms over each head of queries and of keys, in the families that have them.
    pub norms: Option<[HeadNorm<'a>; 2]>,
    /// Cosines and sines of the rows.
    pub cos_sin: &'a CosSinCache,
    /// Whether [`Qkv::unnormed`] is needed.
    pub keeps_unnormed: bool,
}

/// Queries and keys as attention takes them, and values.
#[derive(Debug)]
pub struct Qkv {
    /// (rows, query heads · dim).
    pub q: Tensor,
    /// (rows, kv heads · dim).
    pub k: Tensor,
    /// (rows, kv heads · dim).
    pub v: Tensor,
    /// Queries and keys before their norms, which the backward takes.
    pub unnormed: Option<[Tensor; 2]>,
}
