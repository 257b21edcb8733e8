//! The steps, and what they share.

mod all_reduce;
mod bounds;
mod compare;
mod facts;
mod kernels;
mod model;
mod vision;

use std::path::Path;

use candle_core::Device;
use embodied_r_dist::ProcessGroup;
use embodied_r_policy::Policy;

use super::step::Step;
use crate::error::Result;
use crate::presets::Preset;
use facts::Facts;
pub use facts::{Fact, Value};

/// What the steps run on, and how large they are.
pub struct Options<'a> {
    /// The GPU.
    pub device: &'a Device,
    /// The model that [`Step::Compare`] runs on CPU and GPU, besides one with random weights.
    pub base: &'a Path,
    /// The shape of the model of [`Step::Decode`] and [`Step::Grpo`].
    pub preset: Preset,
    /// Short prompts and few operations, to rehearse a run.
    pub is_small: bool,
    /// Bytes of the machine's memory available to this rank, if known.
    pub host_bytes: fn() -> Option<usize>,
}

/// Runs `steps` on every rank of `process_group`. `on_fact` is called on rank 0. Steps of the same model that follow
/// each other share it.
///
/// # Errors
/// A step fails, a rank fails, or `on_fact`.
pub fn run(
    steps: &[Step],
    options: &Options<'_>,
    process_group: &ProcessGroup,
    on_fact: &mut dyn FnMut(&Fact) -> std::io::Result<()>,
) -> Result<()> {
    // Kept for the next step if that needs it, too.
    let mut policy: Option<Policy> = None;
    for step in steps {
        let mut facts = Facts::new(*step, process_group.is_rank_zero(), on_fact);
        let kept = policy.take();
        match step {
            Step::Latency => kernels::latency(options, &mut facts)?,
            Step::Check => kernels::check(options, &mut facts)?,
            Step::Compare => compare::run(options, &mut facts)?,
            Step::Decode => {
                let model = model::kept_or_created(kept, options, &mut facts)?;
                model::decode(&model, options, &mut facts)?;
                policy = Some(model);
            }
            Step::Grpo => {
                let model = model::kept_or_created(kept, options, &mut facts)?;
                policy = Some(model::grpo(model, options, process_group, &mut facts)?);
            }
            Step::Cold => kernels::cold(options, &mut facts)?,
            Step::Vision => vision::run(options, &mut facts)?,
            Step::AllReduce => all_reduce::run(options, process_group, &mut facts)?,
        }
        facts.finish()?;
    }
    Ok(())
}
