//! Training data: questions as prompts, conversations as examples, and their order.

mod assistant_turn;
pub mod conversations;
pub(crate) mod fingerprint;
pub mod length_limit;
pub mod questions;
pub mod sampler;
pub mod samples;
pub(crate) mod too_long;
