//! The bandwidth of all-reduces.

use std::time::Instant;

use embodied_r_dist::ProcessGroup;
use embodied_r_kernels::memory;

use super::Options;
use super::facts::Facts;
use crate::error::Result;

/// Bytes of a message.
const SIZES: [usize; 4] = [1 << 16, 1 << 20, 1 << 24, 1 << 28];

/// Timed calls of each size, after one that is not.
const CALLS: u32 = 10;

/// See [`crate::gpu::Step::AllReduce`]. The bus bandwidth is defined as in nccl-tests: it does not depend on the number of
/// ranks if the links are the limit.
pub(super) fn run(
    options: &Options<'_>,
    process_group: &ProcessGroup,
    facts: &mut Facts<'_>,
) -> Result<()> {
    let (communicator, ranks) = (process_group.communicator(), process_group.world_size() as f64);
    facts.measured("ranks", ranks, "")?;
    let sizes = if options.is_small { &SIZES[..2] } else { &SIZES[..] };
    for &bytes in sizes {
        let tensor = memory::zeros(&[bytes / size_of::<f32>()], options.device)?;
        let reduce = || -> embodied_r_grpo::Result<()> {
            communicator.all_reduce_tensor(tensor.clone())?.wait()?;
            Ok(())
        };
        reduce()?;
        process_group.barrier()?;
        let began = Instant::now();
        (0..CALLS).try_for_each(|_| reduce())?;
        let seconds = began.elapsed().as_secs_f64() / f64::from(CALLS);
        facts.measured(format!("{bytes} bytes"), seconds * 1e6, "µs")?;
        let bus = 2.0 * (ranks - 1.0) / ranks * bytes as f64 / seconds;
        facts.measured(format!("{bytes} bytes, bus bandwidth"), bus / 1e9, "GB/s")?;
    }
    Ok(())
}
