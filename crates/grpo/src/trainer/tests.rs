//! Inputs of the trainers' tests.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use candle_core::Device;

use super::RunInputs;
use crate::model::tests::toy::Words;
use crate::process_group::ProcessGroup;

/// One rank, on the CPU.
pub(crate) fn run_inputs<'a>(base: &'a Path, stop: &'a AtomicBool) -> RunInputs<'a> {
    RunInputs {
        settings_text: "",
        base,
        fingerprint: "bigram",
        tokenizer: Arc::new(Words::new()),
        activation_bytes: 0,
        device: Device::Cpu,
        stop,
        lock: None,
        process_group: ProcessGroup::default(),
    }
}
