//! Efficiencies: the fractions of a device's peaks assumed in an estimate.

use embodied_r_policy::LAUNCHES_PER_LAYER;

/// How often a decoding step reads a prompt's KV cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PromptReads {
    /// Once for all completions of a prompt: a CPU cache holds it for the next one.
    OncePerGroup,
    /// Once per completion.
    OncePerCompletion,
}

/// Fractions of a device's peaks that programs reach.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Efficiencies {
    /// Of the FLOP/s, in passes over many tokens: matmuls and the work between them.
    pub products: f64,
    /// Tokens per pass at which half of that is reached.
    pub half_tokens: f64,
    /// Of the FLOP/s, in attention of such passes.
    pub attention: f64,
    /// Of the FLOP/s, in a decoding step's matmuls, with many sequences.
    pub decoding: f64,
    /// Sequences at which half of that is reached.
    pub half_sequences: f64,
    /// Of the FLOP/s, in a decoding step's attention.
    pub decoding_attention: f64,
    /// Of the memory bandwidth, in passes over weights and KV cache.
    pub reading: f64,
    /// How often a prompt's KV cache is read.
    pub prompt_reads: PromptReads,
    /// Launch overhead per layer of a decoding step, in seconds.
    pub layer_s: f64,
    /// Overhead of a decoding step besides its layers, in seconds: sampling and host synchronization.
    pub step_s: f64,
}

/// This program on a CPU.
///
/// Fitted to `docs/benchmarks.md`: every `bench grpo` and `bench generate` measurement there is met within 30 %
/// (`tests/benchmarks.rs`). The machines were shared: the same step took from 7.3 to 11.1 s there.
pub const CPU: Efficiencies = Efficiencies {
    products: 0.56,
    half_tokens: 130.0,
    attention: 0.56,
    decoding: 0.6,
    half_sequences: 14.0,
    decoding_attention: 0.36,
    reading: 1.0,
    prompt_reads: PromptReads::OncePerGroup,
    layer_s: 1e-4,
    step_s: 0.0,
};

/// Ampere (A100, A800): from other programs, to be replaced by measurements of this one.
///
/// | share | source |
/// |---|---|
/// | products 0.5 | Megatron-LM, 44 to 52 % of 312 TFLOP/s over whole steps (Narayanan and others 2021, table 1) |
/// | attention 0.25 | assumed: scores go through memory in chunks via cuBLASLt; FlashAttention-2 reaches 0.5 to 0.7 |
/// | reading 0.7 | gpt-fast, Llama 2 7B in bf16 on an A100-80GB: 104.9 tokens/s, 0.69 of 2,039 GB/s |
/// | layer 50 µs | assumed: 4.5 µs for each of the launches per layer, which no CUDA graph replays |
/// | half tokens 200 | peak FLOP/s over bandwidth, 312 TFLOP/s over 1,555 GB/s: rows above which weights are not the bottleneck |
pub const AMPERE: Efficiencies = Efficiencies {
    products: 0.5,
    half_tokens: 200.0,
    attention: 0.25,
    decoding: 0.5,
    half_sequences: 32.0,
    decoding_attention: 0.1,
    reading: 0.7,
    prompt_reads: PromptReads::OncePerCompletion,
    layer_s: LAUNCHES_PER_LAYER as f64 * 4.5e-6,
    step_s: 300e-6,
};

/// Hopper (H100, H200).
///
/// | share | source |
/// |---|---|
/// | products 0.4 | Llama 3, 38 to 43 % of 989 TFLOP/s over whole steps (Dubey and others 2024, table 4) |
/// | attention 0.15 | assumed, as [`AMPERE`]'s; FlashAttention-2 reaches 0.35 |
/// | the others | as [`AMPERE`]; half tokens 300: 989 TFLOP/s over 3,350 GB/s |
pub const HOPPER: Efficiencies =
    Efficiencies { products: 0.4, half_tokens: 300.0, attention: 0.15, ..AMPERE };

/// Ada (L40S, 4090): as [`AMPERE`]; the lower bandwidth limits more of the work between matmuls.
pub const ADA: Efficiencies = Efficiencies { products: 0.45, half_tokens: 300.0, ..AMPERE };

/// Saturation: approaches `most` for large `much`, half of it at `half`.
pub(super) fn saturating(most: f64, much: f64, half: f64) -> f64 {
    most * much / (much + half)
}
