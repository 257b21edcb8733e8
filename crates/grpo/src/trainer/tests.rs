//! Inputs and sinks of the trainers' tests.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::Device;

use super::RunInputs;
use crate::error::Result;
use crate::events::{Event, Sink};
use crate::model::tests::toy::Words;
use embodied_r_dist::ProcessGroup;

/// One rank, on the CPU.
pub(crate) fn run_inputs<'a>(base: &'a Path, stop: &'a AtomicBool) -> RunInputs<'a> {
    RunInputs {
        settings_text: "",
        base,
        fingerprint: "bigram",
        tokenizer: Arc::new(Words::new()),
        activation_bytes: 0,
        images: None,
        device: Device::Cpu,
        stop,
        lock: None,
        process_group: ProcessGroup::default(),
    }
}

/// Requests a stop after a step.
pub(crate) struct StopAfter<'a>(pub(crate) u64, pub(crate) &'a AtomicBool);

impl Sink for StopAfter<'_> {
    fn event(&mut self, event: &Event) -> Result<()> {
        if matches!(event, Event::Step { step, .. } if *step == self.0) {
            self.1.store(true, Ordering::Relaxed);
        }
        Ok(())
    }
}
