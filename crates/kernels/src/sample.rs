//! Sampling from a row of logits.
//!
//! A row is read once. Each chunk keeps its largest logit and the sum of its weights `e^((x - largest) · scale)`: a
//! draw walks over the sums and searches one chunk, and top logits are found without searching chunks whose largest
//! is too small. Sums are f32 within a chunk and f64 over chunks, in an order that depends on the row's length alone
//! (`sums.rs`).
//! Only returned top logits are sorted.
//!
//! An entry of -∞ or NaN has no weight and is never drawn.

mod nucleus;
mod rows;
mod scan;
mod sums;
#[cfg(test)]
mod tests;
mod truncation;
mod weights;

pub use rows::{LogitChange, LogitEdits, RowSampling, SampledIndex, SamplingMode, draw};
pub use scan::{Scan, TruncatedScan};
pub use truncation::Truncation;
#[cfg(device)]
pub(crate) use weights::{CHUNK, scale_f32};
