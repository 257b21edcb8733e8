//! The kinds of phases and bottlenecks.

/// A kind of phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PhaseKind {
    /// All-gather of the updated weights.
    Gather,
    /// The vision encoder's passes over the images of a step, each of which is new.
    Vision,
    /// Prefill of the prompts, each once.
    Prefill,
    /// Decoding of the completions.
    Decode,
    /// Log-probabilities of the frozen reference.
    Reference,
    /// Forward and backward passes, with activation recomputation.
    Update,
    /// Reduce-scatter of the gradients, as far as the backward pass does not hide it.
    Reduce,
    /// Optimizer step.
    Optimizer,
}

impl PhaseKind {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gather => "gather",
            Self::Vision => "vision encoder",
            Self::Prefill => "prefill",
            Self::Decode => "decode",
            Self::Reference => "reference",
            Self::Update => "update",
            Self::Reduce => "reduce",
            Self::Optimizer => "optimizer",
        }
    }
}

/// What limits a phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bottleneck {
    /// Compute.
    Compute,
    /// Memory bandwidth.
    Memory,
    /// Launch overhead.
    Launches,
    /// Network bandwidth.
    Network,
}

impl Bottleneck {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Compute => "compute",
            Self::Memory => "memory",
            Self::Launches => "launches",
            Self::Network => "network",
        }
    }
}
