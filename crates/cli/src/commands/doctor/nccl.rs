//! NCCL: its version and path, and an all-reduce on one rank.

use std::collections::BTreeMap;
use std::time::Duration;

use embodied_r_dist::{
    Communicator, CommunicatorOptions, Error, NcclVersion, RankInfo, Reduce, Rendezvous, Result,
};

use super::check::Check;
use super::gpu;

const AREA: &str = "GPU";
const NAME: &str = "NCCL";

/// Loads NCCL and runs the all-reduce. A machine with one GPU needs none.
pub(super) fn check() -> Check {
    let version = match NcclVersion::installed() {
        Ok(version) => version,
        Err(error @ Error::NoNccl { .. }) => {
            let gpus = embodied_r_kernels::device::gpus().map_or(0, |found| found.gpus.len());
            return match gpus {
                ..2 => Check::note(AREA, NAME, "not found; only several GPUs need it"),
                _ => Check::warning(AREA, NAME, "not found", error.to_string()),
            };
        }
        Err(error) => {
            let advice = "`--gpus` needs NCCL; one GPU does not";
            return Check::warning(AREA, NAME, error.to_string(), advice);
        }
    };
    let maps = gpu::maps();
    let found =
        format!("{version}, {}", gpu::mapped(&maps, "libnccl.so").unwrap_or("path unknown"));
    match all_reduce() {
        Ok(sum) if sum == [1.0, 2.0] => {
            Check::ok(AREA, NAME, format!("{found}; all-reduce on one rank works"))
        }
        Ok(sum) => Check::warning(
            AREA,
            NAME,
            format!("{found}; all-reduce of [1, 2] on one rank returns {sum:?}"),
            "check the driver's log, and try another version of NCCL",
        ),
        Err(error) => Check::warning(
            AREA,
            NAME,
            format!("{found}; {error}"),
            "`--gpus` needs NCCL; `NCCL_DEBUG=WARN` shows details",
        ),
    }
}

fn all_reduce() -> Result<Vec<f32>> {
    let variables = BTreeMap::from(Rendezvous::local_variables()?);
    let rendezvous = Rendezvous::from_env(|name| variables.get(name).cloned())?;
    let timeout = Duration::from_secs(30);
    let options = CommunicatorOptions {
        deadline: timeout,
        join_timeout: timeout,
        ..CommunicatorOptions::default()
    };
    let ranks = Communicator::nccl(&RankInfo::standalone(), &rendezvous, 0, &options)?;
    let sum = ranks.all_reduce(vec![1.0, 2.0], Reduce::Sum)?.wait()?;
    ranks.finish()?;
    Ok(sum)
}
