//! The steps of a check.

use serde::{Serialize, Serializer};

/// A step of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The smallest calls, copies, and one large product.
    Latency,
    /// Every operation, forward and backward, against the CPU.
    Check,
    /// Small models against the CPU: log-probabilities, greedy tokens, gradients, one update.
    Compare,
    /// Decoding and prefill of a model with random weights, with host and device time by operation.
    Decode,
    /// GRPO steps of the model, by phase, with the peak memory of each.
    Grpo,
    /// Operations with inputs rotated over more than the L2 cache.
    Cold,
    /// Frames per second of the vision encoder.
    Vision,
    /// The bandwidth of all-reduces between ranks.
    AllReduce,
}

impl Step {
    /// All steps, the most valuable first.
    pub const ALL: [Self; 8] = [
        Self::Latency,
        Self::Check,
        Self::Compare,
        Self::Decode,
        Self::Grpo,
        Self::Cold,
        Self::Vision,
        Self::AllReduce,
    ];

    /// The name on a command line and in a fact.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Latency => "latency",
            Self::Check => "check",
            Self::Compare => "compare",
            Self::Decode => "decode",
            Self::Grpo => "grpo",
            Self::Cold => "cold",
            Self::Vision => "vision",
            Self::AllReduce => "all-reduce",
        }
    }

    /// What it finds, in a phrase.
    #[must_use]
    pub const fn description(self) -> &'static str {
        match self {
            Self::Latency => "Latencies of the smallest calls, copy bandwidth, one large product",
            Self::Check => "Every operation against the CPU, as `bench ops --check`",
            Self::Compare => {
                "Small models against the CPU: log-probabilities, greedy tokens, loss, gradients, update"
            }
            Self::Decode => "Decoding and prefill, with host and device time by operation",
            Self::Grpo => "GRPO steps by phase, with the peak memory of each",
            Self::Cold => "Operations, as `bench ops --cold`",
            Self::Vision => "Frames per second of Qwen2.5-VL-3B's vision encoder",
            Self::AllReduce => "Bandwidth of all-reduces between ranks",
        }
    }
}

impl Serialize for Step {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}
