//! How long a step takes, estimated from what a device can do.
//!
//! Each part of a step takes the longest of what it computes over the device's arithmetic, what it reads over its
//! memory's rate, and what it starts one after the other: the roofline model of Williams, Waterman and Patterson (2009).
//! No program reaches a device's peaks; the shares that count are in [`rates`], each with its source. What goes between
//! ranks follows from the volumes of NCCL's rings ([`network`]).
//!
//! Not counted are checkpoints, evaluations, rewards by others, the judge's few tokens, and waiting for the rank whose
//! completions happen to be the longest.

pub mod card;
pub mod fit;
pub mod network;
mod phases;
pub mod rates;

pub use card::{CARDS, Card};
pub use network::{Fabric, Link, Network};
pub use phases::{Bound, Estimate, Phase, PhaseKind};
pub use rates::Rates;

use embodied_r_policy::Precision;

/// What a device can do, and the shares of it that count.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Machine {
    /// Multiplications and additions a second in the format that products with weights are made of.
    pub products_per_s: f64,
    /// The same in the format of attention.
    pub attention_per_s: f64,
    /// Bytes read a second.
    pub bytes_per_s: f64,
    /// The shares that programs reach.
    pub rates: Rates,
}

/// What a processor has been measured to do, with all threads.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Processor {
    /// Multiplications and additions of f32 a second, all operands in registers.
    pub f32_per_s: f64,
    /// The same of bf16 with sums in f32, or what products of it come to.
    pub bf16_per_s: f64,
    /// Bytes read a second from memory.
    pub read_bytes_per_s: f64,
}

impl Machine {
    /// A processor that makes products with weights of `precision`.
    pub fn cpu(processor: &Processor, precision: Precision) -> Self {
        Self {
            products_per_s: match precision {
                Precision::F32 => processor.f32_per_s,
                Precision::Bf16 => processor.bf16_per_s,
            },
            attention_per_s: processor.f32_per_s,
            bytes_per_s: processor.read_bytes_per_s,
            rates: rates::CPU,
        }
    }

    /// One of so many equal shares of it.
    #[must_use]
    pub fn shared_by(self, ranks: usize) -> Self {
        let share = 1.0 / ranks.max(1) as f64;
        Self {
            products_per_s: self.products_per_s * share,
            attention_per_s: self.attention_per_s * share,
            bytes_per_s: self.bytes_per_s * share,
            ..self
        }
    }

    /// A card that computes in bf16.
    pub fn gpu(card: &Card) -> Self {
        Self {
            products_per_s: card.flops_per_s,
            attention_per_s: card.flops_per_s,
            bytes_per_s: card.bytes_per_s,
            rates: card.rates,
        }
    }
}
