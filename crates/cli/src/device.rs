//! Where a command computes.

use candle_core::Device;
use embodied_r_grpo::roofline::Card;
use embodied_r_kernels::{device, peak};
use embodied_r_policy::WeightFormat;

use crate::args::device::DeviceName;
use crate::exit::Usage;

/// Told of a build without CUDA.
const NONE: &str = "this build has no GPU operations: build one with `--features cuda`";

/// `name`, if this build computes there.
pub(crate) fn known(name: DeviceName) -> Result<DeviceName, &'static str> {
    let has_gpus = cfg!(any(feature = "cuda", feature = "cuda-host"));
    if has_gpus || name == DeviceName::Cpu { Ok(name) } else { Err(NONE) }
}

/// Opens what `name` means: the processor, or this process's GPU.
///
/// # Errors
/// There is no such GPU, or this build has none.
pub(crate) fn open(name: DeviceName) -> anyhow::Result<Device> {
    match known(name).map_err(|told| Usage(told.into()))? {
        DeviceName::Cpu => Ok(Device::Cpu),
        DeviceName::Cuda => gpu(),
    }
}

/// This process's GPU.
#[cfg(feature = "cuda")]
fn gpu() -> anyhow::Result<Device> {
    Ok(device::cuda(crate::ranks::ordinal()?)?)
}

/// The processor, on which a build for tests runs the GPU's kernels.
#[cfg(not(feature = "cuda"))]
fn gpu() -> anyhow::Result<Device> {
    Ok(Device::Cpu)
}

/// Multiplications and additions a second that products with weights in `format` reach at best; none of a GPU for which
/// none is known. The processor is measured for a tenth of a second.
///
/// # Errors
/// The GPU does not tell what it is.
pub(crate) fn peak_flops_per_s(
    device: &Device,
    format: WeightFormat,
) -> anyhow::Result<Option<f64>> {
    let Some(memory) = device::memory(device)? else { return Ok(Some(peak::flops_per_s())) };
    let card = Card::of_gpu(&memory.name, memory.total_bytes);
    Ok(card.filter(|_| format != WeightFormat::F32).map(|card| card.flops_per_s))
}

#[cfg(all(test, not(any(feature = "cuda", feature = "cuda-host"))))]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::inspect::SequencesArgs;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: SequencesArgs,
    }

    #[test]
    fn a_build_without_cuda_says_how_to_get_one_before_anything_is_read() {
        let line = |device| {
            Line::try_parse_from(["", "--model", "none", "--input", "none", "--device", device])
        };
        let told = line("cuda").unwrap_err().to_string();
        assert!(told.contains("--features cuda"), "{told}");
        assert_eq!(line("cpu").unwrap().args.device, DeviceName::Cpu);
        let told = line("tpu").unwrap_err().to_string();
        assert!(told.contains("cpu") && told.contains("cuda"), "{told}");
        let refused = open(DeviceName::Cuda).unwrap_err();
        assert!(refused.is::<Usage>(), "{refused}");
    }
}
