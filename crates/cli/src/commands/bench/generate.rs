//! `embodied-r bench generate`.

use embodied_r_bench::generate;
use embodied_r_policy::WeightPlacement;

use super::report::{WorkReport, folder, print};
use crate::args::bench::WorkArgs;
use crate::device;
use crate::exit::Status;
use crate::output::outln;

/// Benchmarks sampling of completions with a fixed length.
pub(super) fn run(args: &WorkArgs) -> anyhow::Result<Status> {
    let (name, precision) = args.device_and_precision(None);
    let placement = WeightPlacement { format: precision.into(), device: device::open(name)? };
    let metrics = generate::run(&folder(args)?, &args.work(), placement)?;
    match args.json {
        true => {
            let report = WorkReport::new(args, precision, &metrics);
            outln!("{}", serde_json::to_string(&report)?)?;
        }
        false => print(args, &metrics)?,
    }
    Ok(Status::Done)
}
