//! Whether GPUs of this machine can talk: an all-reduce of one rank.

use std::collections::BTreeMap;
use std::time::Duration;

use embodied_r_dist::{Communicator, Meeting, Options, Place, Reduce, Result};

use super::check::Check;

const AREA: &str = "GPU";

/// What came of it.
pub(super) fn check() -> Check {
    match all_reduce() {
        Ok(sum) if sum == [1.0, 2.0] => Check::ok(AREA, "NCCL", "an all-reduce of one rank works"),
        Ok(sum) => Check::warning(
            AREA,
            "NCCL",
            format!("an all-reduce of 1 and 2 by one rank gives {sum:?}"),
            "look at the driver's log, and try another version of NCCL",
        ),
        Err(error) => Check::warning(
            AREA,
            "NCCL",
            error.to_string(),
            "`NCCL_DEBUG=WARN` lets NCCL say more; `--gpus` needs it",
        ),
    }
}

fn all_reduce() -> Result<Vec<f32>> {
    let variables = BTreeMap::from(Meeting::variables_here()?);
    let meeting = Meeting::from_env(|name| variables.get(name).cloned())?;
    let within = Duration::from_secs(30);
    let options = Options { deadline: within, join_within: within, ..Options::default() };
    let ranks = Communicator::nccl(&Place::alone(), &meeting, 0, &options)?;
    let sum = ranks.all_reduce(vec![1.0, 2.0], Reduce::Sum)?.wait()?;
    ranks.finish()?;
    Ok(sum)
}
