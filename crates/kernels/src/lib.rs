//! Fused tensor operations with their backward passes.
//!
//! candle's own fused operations (`rms_norm`, `rope`, `softmax_last_dim`, `sdpa`) drop gradients, and
//! its elementwise ones run on one thread. Here each operation is one module that holds the forward
//! and the hand-written backward, takes and gives candle tensors, and never builds a graph: the
//! caller chains the gradients. On the CPU the loops use the widest SIMD that the machine has, chosen
//! at run time, and all of rayon's threads. Every reduction goes over chunks of a fixed size in a
//! fixed order, so that results do not depend on the number of threads.
//!
//! Products with weights are made of f32 or of bf16 with sums in f32, as [`Precision`] says; all else is
//! f32. Tensors must be contiguous `f32` on the CPU, or with feature `cuda` contiguous `f32` or `bf16` on a
//! GPU ([`device`]), where an operation's result is held as its first tensor is; anything else is an [`Error`].
//!
//! ```
//! use candle_core::{Device, Tensor};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let gate = Tensor::new(&[[1f32, -2.0]], &Device::Cpu)?;
//! let up = Tensor::new(&[[3f32, 4.0]], &Device::Cpu)?;
//! let y = embodied_r_kernels::swiglu::forward(&gate, &up)?;
//! assert!((y.to_vec2::<f32>()?[0][0] - 3.0 / (1.0 + (-1f32).exp())).abs() < 1e-5);
//! # Ok(())
//! # }
//! ```

pub mod adamw;
pub mod attention;
#[cfg(device)]
pub mod check;
#[cfg(device)]
mod cuda;
pub mod device;
pub mod dropout;
pub mod embedding;
mod error;
pub mod gelu;
pub mod linear;
pub mod lm_head;
mod math;
mod matmul;
pub mod memory;
pub mod muon;
pub mod paged_attention;
mod panels;
mod parallel;
pub mod peak;
mod placement;
pub mod pool;
mod precision;
pub mod qkv;
pub mod quantized;
pub mod rms_norm;
pub mod rope;
pub mod sample;
pub mod swiglu;
pub mod table;
pub mod weight;

pub use adamw::{AdamwStep, adamw};
pub use error::{Error, Result};
pub use muon::{MuonStep, muon};
pub use placement::Placement;
pub use precision::Precision;
