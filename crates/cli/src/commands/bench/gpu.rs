//! `embodied-r bench gpu`.

use crate::args::bench::GpuArgs;
use crate::args::device::DeviceName;
use crate::device;
use crate::exit::Status;
#[cfg(any(feature = "cuda", feature = "cuda-host"))]
use crate::ranks::run_on_ranks;

/// Runs the steps on all ranks.
#[cfg(any(feature = "cuda", feature = "cuda-host"))]
pub(super) fn run(args: &GpuArgs) -> anyhow::Result<Status> {
    run_on_ranks(&args.ranks, DeviceName::Cuda, |process_group| run_as(args, process_group))
}

/// This build has no GPU to check.
#[cfg(not(any(feature = "cuda", feature = "cuda-host")))]
pub(super) fn run(_: &GpuArgs) -> anyhow::Result<Status> {
    device::open(DeviceName::Cuda).map(|_| Status::Done)
}

#[cfg(any(feature = "cuda", feature = "cuda-host"))]
fn run_as(args: &GpuArgs, process_group: &embodied_r_dist::ProcessGroup) -> anyhow::Result<Status> {
    use embodied_r_bench::gpu::{self, Fact, Options};

    use crate::base_model::BaseModel;
    use crate::commands::train::memory::host_bytes;
    use crate::output::outln;

    let base = tempfile::tempdir()?;
    BaseModel::Text.unpack(base.path())?;
    let options = Options {
        device: &device::open(DeviceName::Cuda)?,
        base: base.path(),
        preset: args.preset,
        is_small: args.small,
        host_bytes,
    };
    let mut holds = true;
    gpu::run(&args.steps, &options, process_group, &mut |fact: &Fact| {
        holds &= fact.ok;
        outln!("{}", serde_json::to_string(fact)?)
    })?;
    Ok(if holds { Status::Done } else { Status::Partial })
}
