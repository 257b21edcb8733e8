//! NCCL, tested with an all-reduce on one rank.

use std::collections::BTreeMap;
use std::time::Duration;

use embodied_r_dist::{Communicator, CommunicatorOptions, RankInfo, Reduce, Rendezvous, Result};

use super::check::Check;

const AREA: &str = "GPU";

/// Runs the all-reduce.
pub(super) fn check() -> Check {
    match all_reduce() {
        Ok(sum) if sum == [1.0, 2.0] => Check::ok(AREA, "NCCL", "all-reduce on one rank works"),
        Ok(sum) => Check::warning(
            AREA,
            "NCCL",
            format!("all-reduce of [1, 2] on one rank returns {sum:?}"),
            "check the driver's log, and try another version of NCCL",
        ),
        Err(error) => Check::warning(
            AREA,
            "NCCL",
            error.to_string(),
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
