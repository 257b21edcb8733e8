//! The rewards of completions, and the judge in process.

pub mod judge;
pub mod scoring;
