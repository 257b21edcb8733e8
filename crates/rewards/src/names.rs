//! The names of rewards.

use crate::{EmbodiedR15, WaypointDistance};

/// The rewards that need no `[[reward]]` table.
pub const BUILT_IN_REWARDS: [&str; 8] = [
    "accuracy",
    "format",
    "consistency",
    "soft_overlong",
    "repetition",
    "cosine",
    WaypointDistance::NAME,
    EmbodiedR15::NAME,
];

/// The reward names that a run's stages may weight: the built-in ones, then those of its
/// `[[reward]]` tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RewardNames(Vec<String>);

impl RewardNames {
    /// The built-in names followed by `external`.
    pub fn new(external: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let built_in = BUILT_IN_REWARDS.map(str::to_owned).into_iter();
        Self(built_in.chain(external.into_iter().map(Into::into)).collect())
    }

    /// Whether `name` is a known reward.
    pub fn contains(&self, name: &str) -> bool {
        self.0.iter().any(|known| known == name)
    }

    /// The names in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

impl Default for RewardNames {
    /// The built-in names only.
    fn default() -> Self {
        Self::new([""; 0])
    }
}
