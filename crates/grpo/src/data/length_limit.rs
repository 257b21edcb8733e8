//! The longest prompt or example that is trained on.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What to do with prompts or examples over the length limit (ms-swift's `truncation_strategy`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TruncationStrategy {
    /// They are left out and counted.
    #[default]
    Delete,
    /// The run does not start.
    Raise,
}

/// A limit in tokens: a setting, or what the model's context leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LengthLimit {
    tokens: usize,
    cause: Cause,
    pub(crate) strategy: TruncationStrategy,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    Setting(&'static str),
    Context { length: usize, completion: bool },
}

impl LengthLimit {
    /// The limit of prompts: `max_prompt_length`, and one token less than the context, for a completion.
    pub fn of_prompts(
        max_prompt_length: usize,
        context_length: usize,
        strategy: TruncationStrategy,
    ) -> Self {
        let context = Cause::Context { length: context_length, completion: true };
        let of_context =
            Self { tokens: context_length.saturating_sub(1), cause: context, strategy };
        Self::set("max_prompt_length", max_prompt_length, strategy).or_less(of_context)
    }

    /// The limit of whole examples: `max_length`, and the context.
    pub fn of_examples(
        max_length: usize,
        context_length: usize,
        strategy: TruncationStrategy,
    ) -> Self {
        let context = Cause::Context { length: context_length, completion: false };
        let of_context = Self { tokens: context_length, cause: context, strategy };
        Self::set("max_length", max_length, strategy).or_less(of_context)
    }

    fn set(name: &'static str, tokens: usize, strategy: TruncationStrategy) -> Self {
        Self { tokens, cause: Cause::Setting(name), strategy }
    }

    fn or_less(self, other: Self) -> Self {
        if other.tokens < self.tokens { other } else { self }
    }

    /// Whether `tokens` tokens fit.
    pub fn allows(&self, tokens: usize) -> bool {
        tokens <= self.tokens
    }
}

impl fmt::Display for LengthLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} tokens ", self.tokens)?;
        match self.cause {
            Cause::Setting(key) => write!(f, "(`{key}`)"),
            Cause::Context { length, completion: false } => {
                write!(f, "(the model's context length, {length})")
            }
            Cause::Context { length, completion: true } => {
                write!(f, "(the model's context length, {length}, less a token to generate)")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smaller_of_setting_and_context_is_the_limit() {
        let prompts =
            |length| LengthLimit::of_prompts(6144, length, TruncationStrategy::Delete).to_string();
        assert_eq!(prompts(32_768), "6144 tokens (`max_prompt_length`)");
        assert_eq!(
            prompts(2048),
            "2047 tokens (the model's context length, 2048, less a token to generate)"
        );
        let examples =
            |length| LengthLimit::of_examples(8192, length, TruncationStrategy::Delete).to_string();
        assert_eq!(examples(8192), "8192 tokens (`max_length`)");
        assert_eq!(examples(2048), "2048 tokens (the model's context length, 2048)");
    }
}
