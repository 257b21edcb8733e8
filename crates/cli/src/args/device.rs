//! The `--device` option of every command that runs a model.

use std::fmt;

use clap::builder::{
    PossibleValue, PossibleValuesParser, TypedValueParser, ValueParser, ValueParserFactory,
};

use super::precision::PrecisionName;

/// The error of a build without CUDA.
const NO_CUDA: &str = "this build does not support GPUs: build one with `--features cuda`";

/// A device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum DeviceName {
    /// The CPU.
    #[default]
    Cpu,
    /// NVIDIA GPUs, one per process.
    Cuda,
}

impl DeviceName {
    /// This device, or CUDA if `--gpus` is given.
    pub(crate) fn or_gpus(self, gpus: Option<usize>) -> Self {
        if gpus.is_some() { Self::Cuda } else { self }
    }

    /// The precision of matrix multiplications that a command has on this device unless another is given.
    pub(crate) fn default_precision(self) -> PrecisionName {
        match self {
            Self::Cpu => PrecisionName::F32,
            Self::Cuda => PrecisionName::Bf16,
        }
    }

    /// Its name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
        }
    }

    /// Parses a device for a command that computes nothing on it, so that any build accepts all names. `gpu` is an
    /// old spelling of `cuda`.
    pub(super) fn modeled() -> impl TypedValueParser<Value = Self> {
        let values = PossibleValuesParser::new([
            PossibleValue::new("cuda").alias("gpu").help("GPUs, one rank each"),
            PossibleValue::new("cpu").help("This machine's CPU, measured for two seconds"),
        ]);
        values.map(Self::from_name)
    }

    fn from_name(name: String) -> Self {
        if name == Self::Cpu.name() { Self::Cpu } else { Self::Cuda }
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Refuses a device that this build does not support before anything is read or downloaded. (clap accepts no such
/// parser for a type that is a `ValueEnum` too.)
impl ValueParserFactory for DeviceName {
    type Parser = ValueParser;

    fn value_parser() -> ValueParser {
        let value = |name: Self, help: &'static str| PossibleValue::new(name.name()).help(help);
        let values = PossibleValuesParser::new([
            value(Self::Cpu, "The CPU"),
            value(Self::Cuda, "One NVIDIA GPU per process; needs a build with CUDA")
                .aliases(["gpu", "cuda:0"]),
        ]);
        values.map(Self::from_name).try_map(available).into()
    }
}

/// `name`, if this build supports the device.
pub(crate) fn available(name: DeviceName) -> Result<DeviceName, &'static str> {
    available_in_build(name, cfg!(feature = "cuda") || emulates_cuda())
}

/// Whether this is a test build that emulates the CUDA kernels, and the emulation is on.
#[cfg(feature = "cuda-host")]
fn emulates_cuda() -> bool {
    embodied_r_kernels::device::emulates_cuda()
}

#[cfg(not(feature = "cuda-host"))]
const fn emulates_cuda() -> bool {
    false
}

fn available_in_build(name: DeviceName, has_gpus: bool) -> Result<DeviceName, &'static str> {
    if has_gpus || name == DeviceName::Cpu { Ok(name) } else { Err(NO_CUDA) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_without_cuda_refuses_a_gpu() {
        let error = available_in_build(DeviceName::Cuda, false).unwrap_err();
        assert!(error.contains("--features cuda"), "{error}");
        assert_eq!(available_in_build(DeviceName::Cpu, false), Ok(DeviceName::Cpu));
        assert_eq!(available_in_build(DeviceName::Cuda, true), Ok(DeviceName::Cuda));
    }
}
