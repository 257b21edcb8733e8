//! Devices: the CPU, or this process's GPU.

use candle_core::Device;

use crate::args::device::{DeviceName, available};
use crate::exit::Usage;

/// Opens the device: the CPU, or this process's GPU.
///
/// # Errors
/// The GPU does not exist, or this build does not support GPUs.
pub(crate) fn open(name: DeviceName) -> anyhow::Result<Device> {
    match available(name).map_err(|error| Usage(error.into()))? {
        DeviceName::Cpu => Ok(Device::Cpu),
        DeviceName::Cuda => gpu(),
    }
}

/// This process's GPU.
#[cfg(feature = "cuda")]
fn gpu() -> anyhow::Result<Device> {
    Ok(embodied_r_kernels::device::cuda(embodied_r_launch::ordinal()?)?)
}

/// The CPU, on which a test build emulates the CUDA kernels.
#[cfg(not(feature = "cuda"))]
fn gpu() -> anyhow::Result<Device> {
    Ok(Device::Cpu)
}

/// Warns of f32 on a GPU, which is never the default.
pub(crate) fn warn_of_f32(name: DeviceName) {
    if name == DeviceName::Cuda {
        eprintln!(
            "warning: f32 is several times slower on a GPU than bf16, its default, which uses the tensor cores"
        );
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::inspect::SequencesArgs;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: SequencesArgs,
    }

    fn line(device: &str) -> Result<Line, clap::Error> {
        Line::try_parse_from(["", "--model", "none", "--data", "none", "--device", device])
    }

    #[test]
    fn a_device_is_checked_when_its_name_is_parsed() {
        assert_eq!(line("cpu").unwrap().args.device, DeviceName::Cpu);
        let error = line("tpu").unwrap_err().to_string();
        assert!(error.contains("cpu") && error.contains("cuda"), "{error}");
        assert_eq!(line("cuda").is_ok(), available(DeviceName::Cuda).is_ok());
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn an_unsupported_device_is_wrong_usage() {
        let error = line("cuda").unwrap_err().to_string();
        assert!(error.contains("--features cuda"), "{error}");
        let error = open(DeviceName::Cuda).unwrap_err();
        assert!(error.is::<Usage>(), "{error}");
    }
}
