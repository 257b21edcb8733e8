//! The names of the parts of a step, and of what bounds them.

/// A part of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PhaseKind {
    /// The moved weights come from the ranks that own them.
    Gather,
    /// Prompts are computed, each once.
    Prefill,
    /// Completions are drawn, a token of each at a time.
    Decode,
    /// The frozen reference's log-probabilities.
    Reference,
    /// Forward, backward, and what is computed again.
    Update,
    /// Gradients go to the ranks that own their masters, as far as the backward does not hide it.
    Reduce,
    /// The masters are moved.
    Optimizer,
}

impl PhaseKind {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gather => "gather",
            Self::Prefill => "prefill",
            Self::Decode => "decode",
            Self::Reference => "reference",
            Self::Update => "update",
            Self::Reduce => "reduce",
            Self::Optimizer => "optimizer",
        }
    }
}

/// What a phase would be faster with more of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// Arithmetic.
    Compute,
    /// The memory's rate.
    Memory,
    /// Starting parts of work one after the other.
    Launches,
    /// The links between ranks.
    Network,
}

impl Bound {
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
