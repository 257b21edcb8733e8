//! Rewards of the trainer: accuracy, format, logical consistency, and their staged weights.
