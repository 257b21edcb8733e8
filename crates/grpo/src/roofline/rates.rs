//! The shares of a device's peaks that count in an estimate.

/// How often a decoding step reads a prompt's keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PromptReads {
    /// Once for all completions of the prompt: they are in a cache when the next one looks.
    OncePerGroup,
    /// Once for each completion.
    OncePerCompletion,
}

/// Shares of a device's peaks that programs reach.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    /// Of the arithmetic, in passes over many tokens: products with weights and what goes on between them.
    pub products: f64,
    /// Tokens in a pass at which it is half of that.
    pub half_tokens: f64,
    /// Of the arithmetic, in attention of such passes.
    pub attention: f64,
    /// Of the arithmetic, in a decoding step's products, with many sequences.
    pub decoding: f64,
    /// Sequences at which it is half of that.
    pub half_sequences: f64,
    /// Of the arithmetic, in a decoding step's attention.
    pub decoding_attention: f64,
    /// Of the memory's rate, in passes over weights, keys and values.
    pub reading: f64,
    /// How often a prompt's keys and values are read.
    pub prompt_reads: PromptReads,
    /// Seconds that a layer of a decoding step takes to start its parts.
    pub layer_s: f64,
    /// Seconds that a decoding step takes beside its layers: drawing tokens, and telling the host.
    pub step_s: f64,
}

/// This program on a processor.
///
/// Fitted to `docs/benchmarks.md`: with these every figure of `bench grpo` and `bench generate` there is met within 30 %
/// (`tests/benchmarks.rs`). The same shape took between 7.5 and 13.1 s there in different hours; these meet the middle.
pub const CPU: Rates = Rates {
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

/// Ampere (A100, A800): of others' programs, to be replaced by this one's figures once there are any.
///
/// | share | source |
/// |---|---|
/// | products 0.5 | Megatron-LM, 44 to 52 % of 312 TFLOP/s over whole steps (Narayanan and others 2021, table 1) |
/// | attention 0.25 | assumed: scores in chunks through cuBLASLt write and read them; FlashAttention-2 has 0.5 to 0.7 |
/// | reading 0.7 | gpt-fast, Llama 2 7B in bf16 on an A100-80GB: 104.9 tokens/s, 0.69 of 2,039 GB/s |
/// | layer 25 µs | assumed: a dozen kernels of a replayed CUDA graph, 2 µs each |
/// | half tokens 200 | the peak over the memory's rate, 312 TFLOP/s over 1,555 GB/s: rows from which weights are not the limit |
pub const AMPERE: Rates = Rates {
    products: 0.5,
    half_tokens: 200.0,
    attention: 0.25,
    decoding: 0.5,
    half_sequences: 32.0,
    decoding_attention: 0.1,
    reading: 0.7,
    prompt_reads: PromptReads::OncePerCompletion,
    layer_s: 25e-6,
    step_s: 300e-6,
};

/// Hopper (H100, H200).
///
/// | share | source |
/// |---|---|
/// | products 0.4 | Llama 3, 38 to 43 % of 989 TFLOP/s over whole steps (Dubey and others 2024, table 4) |
/// | attention 0.15 | assumed, as [`AMPERE`]'s; FlashAttention-2 has 0.35 |
/// | the others | as [`AMPERE`]; half tokens 300: 989 TFLOP/s over 3,350 GB/s |
pub const HOPPER: Rates =
    Rates { products: 0.4, half_tokens: 300.0, attention: 0.15, layer_s: 20e-6, ..AMPERE };

/// Ada (L40S, 4090): as [`AMPERE`], where the memory's rate limits more of what goes on between products.
pub const ADA: Rates = Rates { products: 0.45, half_tokens: 300.0, ..AMPERE };

/// `most` where `much` is large, half of it at `half`.
pub(super) fn saturating(most: f64, much: f64, half: f64) -> f64 {
    most * much / (much + half)
}
