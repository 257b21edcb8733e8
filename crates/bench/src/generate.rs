//! Generation of completions with a fixed length.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use embodied_r_grpo::estimate::peak_memory::take_peak_bytes;
use embodied_r_policy::{InferenceModel, WeightPlacement};

use crate::error::Result;
use crate::metrics::{Metrics, median};
use crate::work::{Work, sampling};

/// Times `work` with the model in `folder`: `seconds` of a run, its tokens per second, and the rates of prefill and
/// decoding alone.
///
/// # Errors
/// The model cannot be loaded, or generation fails.
pub fn run(folder: &Path, work: &Work, placement: WeightPlacement) -> Result<Metrics> {
    let device = placement.device.clone();
    let model = InferenceModel::load(folder, placement)?;
    let (vocabulary, model) = (model.config().vocab_size, Arc::new(model));
    let (mut seconds, mut prefills) = (Vec::new(), Vec::new());
    for run in 0..=work.runs {
        for (new, times) in [(work.new, &mut seconds), (1, &mut prefills)] {
            let requests = work.requests(vocabulary, run);
            let began = Instant::now();
            model.generate(&requests, &sampling(new), &|_| {})?;
            times.push(began.elapsed().as_secs_f64());
        }
    }
    let of_measured = |times: Vec<f64>| median(times.into_iter().skip(1));
    let (seconds, prefill) = (of_measured(seconds), of_measured(prefills));
    let tokens = (work.groups * work.group_size * work.new) as f64;
    let prompts = (work.groups * work.prompt) as f64;
    // The first token of a completion comes with the prefill.
    let decoded = (work.groups * work.group_size * work.new.saturating_sub(1)) as f64;
    // A run that was held up while it prefilled must not give an infinite rate.
    let decoding = (seconds - prefill).max(1e-9);
    let mut metrics = Metrics::new([
        ("seconds", seconds),
        ("new_tokens_per_s", tokens / seconds),
        ("prefill_tokens_per_s", prompts / prefill),
        ("decode_tokens_per_s", decoded / decoding),
    ]);
    metrics.add_peak_memory(&device, take_peak_bytes(&device)?);
    Ok(metrics)
}
