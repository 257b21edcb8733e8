//! Differences between packed and per-completion gradients.

/// Differences between packed and per-completion gradients.
#[derive(Debug, Clone, PartialEq)]
pub struct PackingCheck {
    /// Largest difference of a tensor's gradient, relative to that tensor's gradient norm.
    pub gradient: f64,
    /// The tensor with that difference.
    pub tensor: String,
    /// Largest difference of a log-probability.
    pub logp: f64,
}
