//! Benchmarks: generation, captioning, whole GRPO steps and single kernels, and models with random weights to run
//! them on.
//!
//! [`generate::run`], [`grpo::run`] and [`caption::run`] return the medians of several runs as [`Metrics`], after one
//! warmup run. [`ops::Suite`] times each kernel beside the peak rates of the machine, and [`ops::Checks`] compare
//! its results with a reference. [`RandomModel`] writes a model of a published or a small shape.
//!
//! ```
//! use embodied_r_bench::{Preset, RandomModel};
//! use embodied_r_data::progress::Silent;
//!
//! # let folder = tempfile::tempdir()?;
//! let model = RandomModel::new(Preset::TinyLlama, None).ok_or("no such shape")?;
//! model.write(folder.path(), 0, &Silent)?;
//! assert!(folder.path().join("model.safetensors").exists());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod caption;
mod error;
pub mod generate;
pub mod gpu;
pub mod grpo;
mod metrics;
pub mod ops;
mod presets;
mod random_model;
mod work;

pub use error::{Error, Result};
pub use metrics::Metrics;
pub use presets::Preset;
pub use random_model::RandomModel;
pub use work::Work;
