//! The rewards of completions, and the judge in process.

pub mod judge;
pub(crate) mod positions;
pub mod scoring;
pub(crate) mod unscored;
