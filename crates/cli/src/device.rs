//! Where a command computes.

use candle_core::Device;

use crate::args::device::DeviceName;

/// Opens what `name` means: the processor, or this process's GPU.
///
/// # Errors
/// There is no such GPU, or this build has none.
pub(crate) fn open(name: DeviceName) -> anyhow::Result<Device> {
    match name {
        DeviceName::Cpu => Ok(Device::Cpu),
        DeviceName::Cuda => gpu(),
    }
}

/// This process's GPU.
#[cfg(feature = "cuda")]
fn gpu() -> anyhow::Result<Device> {
    Ok(embodied_r_kernels::device::cuda(crate::ranks::ordinal()?)?)
}

/// The processor, on which the GPU's kernels run.
#[cfg(all(feature = "cuda-host", not(feature = "cuda")))]
fn gpu() -> anyhow::Result<Device> {
    Ok(Device::Cpu)
}

#[cfg(not(any(feature = "cuda", feature = "cuda-host")))]
fn gpu() -> anyhow::Result<Device> {
    let told = "this build has no GPU operations: build one with `--features cuda`";
    Err(crate::exit::Usage(told.into()).into())
}

#[cfg(all(test, not(any(feature = "cuda", feature = "cuda-host"))))]
mod tests {
    use super::*;
    use crate::exit::Usage;

    #[test]
    fn a_build_without_cuda_says_how_to_get_one() {
        let refused = open(DeviceName::Cuda).unwrap_err();
        let Usage(told) = refused.downcast_ref().unwrap();
        assert!(told.contains("--features cuda"), "{told}");
        assert!(open(DeviceName::Cpu).unwrap().is_cpu());
    }
}
