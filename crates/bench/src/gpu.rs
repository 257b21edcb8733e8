//! What a GPU gets right, and how fast it is: steps of facts, each given out as soon as it is known, so that a borrowed or
//! failing machine leaves what it has shown. `scripts/gpu_check.sh` runs them, the most valuable first.

mod step;
#[cfg(any(feature = "cuda", feature = "cuda-host"))]
mod steps;

pub use step::Step;
#[cfg(any(feature = "cuda", feature = "cuda-host"))]
pub use steps::{Fact, Options, Value, run};
