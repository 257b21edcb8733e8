//! The name of this program's own prompt.

/// The prompt that asks for `<think>` and `<answer>` tags; other names are those of benchmarks' prompts.
pub const EMBODIED_R_PROMPT: &str = "embodied-r";
