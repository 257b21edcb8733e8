//! The argument of every command that computes with a model.

use std::fmt;

use clap::builder::{
    PossibleValue, PossibleValuesParser, TypedValueParser as _, ValueParser, ValueParserFactory,
};

use crate::device;

/// What computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum DeviceName {
    /// The processor.
    #[default]
    Cpu,
    /// One GPU a process, in a build with CUDA.
    Cuda,
}

impl DeviceName {
    /// This, or GPUs where so many of them are asked for.
    pub(crate) fn or_gpus(self, gpus: Option<usize>) -> Self {
        if gpus.is_some() { Self::Cuda } else { self }
    }

    /// Its name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
        }
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a build cannot do is refused before anything is read or fetched. (clap takes no such parser for what is a
/// `ValueEnum` too.)
impl ValueParserFactory for DeviceName {
    type Parser = ValueParser;

    fn value_parser() -> ValueParser {
        let value = |name: Self, help: &'static str| PossibleValue::new(name.name()).help(help);
        let values = PossibleValuesParser::new([
            value(Self::Cpu, "The processor"),
            value(Self::Cuda, "One GPU a process, in a build with CUDA"),
        ]);
        let named = |word: String| match word == Self::Cuda.name() {
            true => Self::Cuda,
            false => Self::Cpu,
        };
        values.map(named).try_map(device::known).into()
    }
}
