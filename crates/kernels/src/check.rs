//! Compares the CUDA kernels with the CPU operations.
//!
//! A [`Case`] is an operation at a shape: it creates its inputs, runs forward and backward, and returns the outputs.
//! It runs on the CPU and on the device with the same inputs, and the outputs are compared.

mod attention;
mod case;
mod gemms;
mod lm_head;
mod memory;
mod optimizers;
mod paged_attention;
mod rows;

pub use case::{ActivationDtype, Case, Comparison};

/// Every operation, at common and odd shapes.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    rows::add(&mut cases);
    gemms::add(&mut cases);
    memory::add(&mut cases);
    optimizers::add(&mut cases);
    attention::add(&mut cases);
    paged_attention::add(&mut cases);
    lm_head::add(&mut cases);
    cases
}

/// [`cases`], and products at the sizes of a 3B model, where a GPU's library chooses other algorithms.
pub fn cases_and_model_sizes() -> Vec<Case> {
    let mut cases = cases();
    gemms::add_model_sizes(&mut cases);
    cases
}

#[cfg(feature = "cuda-host")]
#[cfg(test)]
mod tests;
