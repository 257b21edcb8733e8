//! `embodied-r bench generate`.

use embodied_r_bench::generate;
use embodied_r_policy::WeightPlacement;

use super::report::{folder, print};
use crate::args::bench::WorkArgs;
use crate::device;
use crate::exit::Status;

/// Benchmarks sampling of completions with a fixed length.
pub(super) fn run(args: &WorkArgs) -> anyhow::Result<Status> {
    let (name, precision) = args.device_and_precision(None);
    let placement = WeightPlacement { format: precision.into(), device: device::open(name)? };
    let metrics = generate::run(&folder(args)?, &args.work(), placement)?;
    print(args, precision, &metrics, &metrics)?;
    Ok(Status::Done)
}
