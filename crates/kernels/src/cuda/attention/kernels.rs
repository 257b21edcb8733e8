//! Launchers of attention's kernels.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_longlong, c_void};

use super::blocks::Block;
use super::scores::OP;
use crate::attention::Pattern;
use crate::cuda::{Dtype, Stream, launch, row_width};
use crate::error::Result;

unsafe extern "C" {
    fn er_attention_pack(
        to: *mut c_void,
        from: *const c_void,
        queries: c_int,
        q_per_kv: c_int,
        heads: c_int,
        dim: c_int,
        unpack: c_int,
        to_dtype: Dtype,
        from_dtype: Dtype,
        stream: Stream,
    ) -> c_int;
    fn er_attention_fill(to: *mut c_void, count: c_longlong, value: f32, stream: Stream) -> c_int;
    fn er_attention_softmax(
        weights: *mut c_void,
        log_sum_exp: *mut c_void,
        scores: *const c_void,
        queries: c_int,
        q_per_kv: c_int,
        heads: c_int,
        keys: c_int,
        stride: c_int,
        per_head: c_longlong,
        scale: f32,
        offset: c_int,
        causal: c_int,
        window: c_int,
        dtype: Dtype,
        stream: Stream,
    ) -> c_int;
    fn er_attention_merge(
        out: *mut c_void,
        log_sum_exp: *mut c_void,
        first: *const c_void,
        first_sums: *const c_void,
        second: *const c_void,
        second_sums: *const c_void,
        queries: c_int,
        q_per_kv: c_int,
        heads: c_int,
        dim: c_int,
        dtype: Dtype,
        stream: Stream,
    ) -> c_int;
    fn er_attention_gradient_rows(
        packed: *mut c_void,
        delta: *mut c_void,
        packed_sums: *mut c_void,
        d_out: *const c_void,
        out: *const c_void,
        log_sum_exp: *const c_void,
        queries: c_int,
        q_per_kv: c_int,
        heads: c_int,
        dim: c_int,
        dtype: Dtype,
        stream: Stream,
    ) -> c_int;
    fn er_attention_scores_gradient(
        weights: *mut c_void,
        d_scores: *mut c_void,
        scores: *const c_void,
        d_weights: *const c_void,
        log_sum_exp: *const c_void,
        delta: *const c_void,
        queries: c_int,
        q_per_kv: c_int,
        heads: c_int,
        keys: c_int,
        stride: c_int,
        per_head: c_longlong,
        scale: f32,
        offset: c_int,
        causal: c_int,
        window: c_int,
        dtype: Dtype,
        stream: Stream,
    ) -> c_int;
}

/// Launch parameters shared by a call's kernels.
#[derive(Clone, Copy)]
pub(super) struct Launcher {
    pub(super) pattern: Pattern,
    pub(super) dtype: Dtype,
    pub(super) stream: Stream,
}

impl Launcher {
    fn heads(&self) -> (c_int, c_int, c_int) {
        let heads = self.pattern.heads;
        (heads.queries_per_kv() as c_int, heads.kv as c_int, heads.dim as c_int)
    }

    /// Scale of the scores.
    fn scale(&self) -> f32 {
        1.0 / (self.pattern.heads.dim as f32).sqrt()
    }

    fn window(&self) -> c_int {
        self.pattern.window.map_or(0, |window| window.min(c_int::MAX as usize) as c_int)
    }

    /// Packs queries (tokens, heads · dim) by KV head: (kv heads, tokens · queries per KV head, dim).
    pub(super) fn pack(&self, to: *mut c_void, from: *const c_void, tokens: usize) -> Result<()> {
        row_width(self.pattern.heads.q_size(), OP)?;
        let (q_per_kv, heads, dim) = self.heads();
        let (n, dtype, stream) = (tokens as c_int, self.dtype, self.stream);
        launch!(OP, er_attention_pack(to, from, n, q_per_kv, heads, dim, 0, dtype, dtype, stream))
    }

    /// Unpacks f32.
    pub(super) fn unpack(&self, to: *mut c_void, from: *const c_void, tokens: usize) -> Result<()> {
        row_width(self.pattern.heads.q_size(), OP)?;
        let (q_per_kv, heads, dim) = self.heads();
        let (n, dtype, stream) = (tokens as c_int, self.dtype, self.stream);
        launch!(
            OP,
            er_attention_pack(to, from, n, q_per_kv, heads, dim, 1, dtype, Dtype::F32, stream)
        )
    }

    /// Converts f32 rows to the call's dtype.
    pub(super) fn narrow(
        &self,
        to: *mut c_void,
        from: *const c_void,
        (rows, width): (usize, usize),
    ) -> Result<()> {
        let (n, width) = (rows as c_int, row_width(width, OP)?);
        let (dtype, stream) = (self.dtype, self.stream);
        launch!(OP, er_attention_pack(to, from, n, 1, 1, width, 1, dtype, Dtype::F32, stream))
    }

    /// Fills `count` f32 with `value`.
    pub(super) fn fill(&self, to: *mut c_void, count: usize, value: f32) -> Result<()> {
        launch!(OP, er_attention_fill(to, count as c_longlong, value, self.stream))
    }

    /// Softmax of a block's scores, with the log-sum-exp.
    pub(super) fn softmax(
        &self,
        (weights, sums): (*mut c_void, *mut c_void),
        scores: *const c_void,
        block: &Block,
        per_head: usize,
    ) -> Result<()> {
        let (q_per_kv, heads, _) = self.heads();
        let (n, keys) = (block.queries.len() as c_int, block.keys.len());
        let (offset, causal) = (block.offset as c_int, c_int::from(block.causal));
        let (per_head, stride) = (per_head as c_longlong, super::scores::stride(keys) as c_int);
        let (scale, window) = (self.scale(), self.window());
        let (keys, dtype, stream) = (keys as c_int, self.dtype, self.stream);
        launch!(
            OP,
            er_attention_softmax(
                weights, sums, scores, n, q_per_kv, heads, keys, stride, per_head, scale, offset,
                causal, window, dtype, stream
            )
        )
    }

    /// Merges up to two partial results by their log-sum-exp; a missing part is null.
    pub(super) fn merge(
        &self,
        (out, sums): (*mut c_void, *mut c_void),
        [(first, first_sums), (second, second_sums)]: [(*const c_void, *const c_void); 2],
        tokens: usize,
    ) -> Result<()> {
        row_width(self.pattern.heads.q_size(), OP)?;
        let (q_per_kv, heads, dim) = self.heads();
        let (n, dtype, stream) = (tokens as c_int, self.dtype, self.stream);
        launch!(
            OP,
            er_attention_merge(
                out,
                sums,
                first,
                first_sums,
                second,
                second_sums,
                n,
                q_per_kv,
                heads,
                dim,
                dtype,
                stream
            )
        )
    }

    /// Packed output gradient, with `rowsum(dO ∘ O)` and the log-sum-exp of each packed row.
    pub(super) fn gradient_rows(
        &self,
        [packed, delta, packed_sums]: [*mut c_void; 3],
        [d_out, out, sums]: [*const c_void; 3],
        tokens: usize,
    ) -> Result<()> {
        row_width(self.pattern.heads.q_size(), OP)?;
        let (q_per_kv, heads, dim) = self.heads();
        let (n, dtype, stream) = (tokens as c_int, self.dtype, self.stream);
        launch!(
            OP,
            er_attention_gradient_rows(
                packed,
                delta,
                packed_sums,
                d_out,
                out,
                sums,
                n,
                q_per_kv,
                heads,
                dim,
                dtype,
                stream
            )
        )
    }

    /// Attention weights of a block, and the gradients of its scores.
    pub(super) fn scores_gradient(
        &self,
        [weights, d_scores]: [*mut c_void; 2],
        [scores, d_weights, sums, delta]: [*const c_void; 4],
        block: &Block,
        per_head: usize,
    ) -> Result<()> {
        let (q_per_kv, heads, _) = self.heads();
        let (n, keys) = (block.queries.len() as c_int, block.keys.len());
        let (offset, causal) = (block.offset as c_int, c_int::from(block.causal));
        let (per_head, stride) = (per_head as c_longlong, super::scores::stride(keys) as c_int);
        let (scale, window) = (self.scale(), self.window());
        let (keys, dtype, stream) = (keys as c_int, self.dtype, self.stream);
        launch!(
            OP,
            er_attention_scores_gradient(
                weights, d_scores, scores, d_weights, sums, delta, n, q_per_kv, heads, keys,
                stride, per_head, scale, offset, causal, window, dtype, stream
            )
        )
    }
}
