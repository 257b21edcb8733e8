//! `embodied-r bench generate`.

use std::sync::Arc;
use std::time::Instant;

use embodied_r_policy::{InferenceModel, WeightPlacement};

use crate::args::bench::WorkArgs;
use crate::device;
use crate::exit::Status;

use super::work::{folder, median, print, requests, sampling};

/// Benchmarks sampling of completions with a fixed length.
pub(super) fn run(work: &WorkArgs) -> anyhow::Result<Status> {
    let (name, precision) = work.device_and_precision(None);
    let device = device::open(name)?;
    let placement = WeightPlacement { format: precision.into(), device: device.clone() };
    let model = InferenceModel::load(&folder(work)?, placement)?;
    let (vocabulary, model) = (model.config().vocab_size, Arc::new(model));
    let (mut seconds, mut prefills) = (Vec::new(), Vec::new());
    for run in 0..=work.runs {
        for (new, times) in [(work.new, &mut seconds), (1, &mut prefills)] {
            let requests = requests(work, vocabulary, run);
            let began = Instant::now();
            model.generate(&requests, &sampling(new), &|_| {})?;
            times.push(began.elapsed().as_secs_f64());
        }
    }
    let (seconds, prefill) = (median(&seconds[1..]), median(&prefills[1..]));
    let tokens = (work.groups * work.group_size * work.new) as f64;
    let prompts = (work.groups * work.prompt) as f64;
    // The first token of a completion comes with the prefill.
    let decoded = (work.groups * work.group_size * (work.new - 1)) as f64;
    // A run that was held up while it prefilled must not give an infinite rate.
    let decoding = (seconds - prefill).max(1e-9);
    let metrics = [
        ("seconds", seconds),
        ("new_tokens_per_s", tokens / seconds),
        ("prefill_tokens_per_s", prompts / prefill),
        ("decode_tokens_per_s", decoded / decoding),
    ];
    print(work, (&device, precision), &metrics, &[])
}
