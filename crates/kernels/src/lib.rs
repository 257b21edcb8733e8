//! Fused tensor operations with hand-written backward passes.
//!
//! candle's own fused operations (`rms_norm`, `rope`, `softmax_last_dim`, `sdpa`) drop gradients, and its elementwise
//! ones are single-threaded. Here each operation is a module with a forward and a hand-written backward. It takes and
//! returns candle tensors and never builds an autograd graph: the caller chains the gradients. On the CPU the loops
//! use the widest SIMD of the machine, chosen at run time, and all of rayon's threads. Every reduction runs over
//! chunks of a fixed size in a fixed order, so that results do not depend on the number of threads. The environment
//! variable `EMBODIED_R_SIMD` (`portable`, `avx2`, `avx512`, `avx512bf16`) lowers the instruction set of GEMMs and
//! attention.
//!
//! GEMMs with weights run in f32, or in bf16 with f32 accumulation ([`Precision`]); everything else is f32. Tensors
//! must be contiguous `f32` on the CPU or, with feature `cuda`, contiguous `f32` or `bf16` on a GPU ([`device`]),
//! where an operation's result has the dtype of its first tensor. Anything else is an [`Error`].
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
pub mod layer_norm;
pub mod linear;
pub mod lm_head;
mod math;
mod matmul;
pub mod memory;
mod mrope;
pub mod muon;
pub mod paged_attention;
mod panels;
mod parallel;
pub mod peak;
mod precision;
pub mod qkv;
pub mod quantized;
pub mod rms_norm;
pub mod rope;
pub mod row_buffer;
pub mod sample;
mod simd_level;
pub mod swiglu;
pub mod thread_pool;
pub mod weight;
mod weight_placement;

pub use adamw::{AdamwStep, adamw};
pub use error::{Error, Result};
pub use muon::{MuonStep, muon};
pub use precision::Precision;
pub use weight_placement::WeightPlacement;
