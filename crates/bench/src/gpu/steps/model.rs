//! Decoding, prefill and GRPO steps of a model with random weights, created on the GPU.

use std::sync::Arc;
use std::time::Instant;

use embodied_r_dist::ProcessGroup;
use embodied_r_grpo::estimate::roofline::GpuSpec;
use embodied_r_grpo::settings::Recompute;
use embodied_r_kernels::{Precision, device};
use embodied_r_policy::{
    Engine, EngineOptions, EngineOutput, InferenceModel, ModelConfig, Policy, SamplingParams,
};

use super::Options;
use super::facts::Facts;
use crate::error::{Error, Result};
use crate::grpo;
use crate::metrics::Metrics;
use crate::work::{Work, sampling};

/// Sequences that are decoded at once.
const BATCHES: [usize; 3] = [1, 8, 64];

/// Decoding steps before those that are timed, which choose algorithms and fill the memory pool.
const WARMUP_STEPS: usize = 8;

/// Sizes of the work.
struct Sizes {
    /// Prompt tokens of the sequences that are decoded.
    context: usize,
    /// Timed decoding steps.
    steps: usize,
    /// Tokens of the prompt that is prefilled alone.
    prefill: usize,
    /// Of a GRPO step.
    step: Work,
    /// Tokens per micro-batch of a GRPO step.
    budget: usize,
}

impl Sizes {
    fn of(options: &Options<'_>) -> Self {
        match options.is_small {
            true => Self {
                context: 16,
                steps: 4,
                prefill: 96,
                step: Work { prompt: 16, new: 4, group_size: 2, groups: 2, runs: 1 },
                budget: 64,
            },
            false => Self {
                context: 1_024,
                steps: 64,
                prefill: 3_072,
                step: Work { prompt: 1_024, new: 512, group_size: 8, groups: 8, runs: 2 },
                budget: 16_384,
            },
        }
    }
}

/// The model kept from the step before, or a new one.
pub(super) fn kept_or_created(
    kept: Option<Policy>,
    options: &Options<'_>,
    facts: &mut Facts<'_>,
) -> Result<Policy> {
    if let Some(policy) = kept {
        return Ok(policy);
    }
    let began = Instant::now();
    let shape = options.preset.shape().ok_or(Error::NoShape)?;
    let policy = Policy::random_on(options.device, &shape.config, 0, Precision::Bf16)?;
    facts.text("model", options.preset.name())?;
    facts.measured("creating the model", began.elapsed().as_secs_f64(), "s")?;
    Ok(policy)
}

/// See [`crate::gpu::Step::Decode`].
pub(super) fn decode(policy: &Policy, options: &Options<'_>, facts: &mut Facts<'_>) -> Result<()> {
    let sizes = Sizes::of(options);
    let model = Arc::new(policy.rollout_model(Precision::Bf16)?);
    let memory = device::memory(options.device)?;
    let gpu = memory.and_then(|memory| GpuSpec::of_gpu(&memory.name, memory.total_bytes));
    for batch in BATCHES {
        let mut engine = decoding(&model, batch, &sizes)?;
        steps(&mut engine, WARMUP_STEPS)?;
        let began = Instant::now();
        steps(&mut engine, sizes.steps)?;
        let step = began.elapsed().as_secs_f64() / sizes.steps as f64;
        let of = |what: &str| format!("batch {batch}{what}");
        facts.measured(of(""), batch as f64 / step, "tokens/s")?;
        facts.measured(of(", step"), step * 1e3, "ms")?;
        if let Some(gpu) = &gpu {
            let bytes = step_bytes(policy.config(), batch, sizes.context);
            facts.measured(of(", share of the bandwidth"), bytes / gpu.bytes_per_s / step, "")?;
        }
        profile(&mut engine, batch, options, facts)?;
    }
    prefill(&model, &sizes, facts)
}

/// Bytes that a decoding step has to read: all weights, and the keys and values of `context` tokens per sequence.
fn step_bytes(config: &ModelConfig, batch: usize, context: usize) -> f64 {
    const BF16: usize = 2;
    let of_token = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim;
    (BF16 * (config.parameter_count() + batch * context * of_token)) as f64
}

/// An engine that decodes `batch` sequences of different prompts.
fn decoding(model: &Arc<InferenceModel>, batch: usize, sizes: &Sizes) -> Result<Engine> {
    let mut engine = Engine::new(Arc::clone(model), EngineOptions::default())?;
    let work = Work { prompt: sizes.context, new: 0, group_size: 1, groups: batch, runs: 0 };
    // Further than any step goes.
    let new = WARMUP_STEPS + 2 * sizes.steps;
    add(&mut engine, &work, new, model.config().vocab_size)?;
    while tokens(&engine.step()?) < batch {}
    Ok(engine)
}

fn add(engine: &mut Engine, work: &Work, new: usize, vocabulary: usize) -> Result<()> {
    let params: Arc<SamplingParams> = Arc::new(sampling(new));
    for request in work.requests(vocabulary, 0) {
        engine.add(&request, &params)?;
    }
    Ok(())
}

fn tokens(outputs: &[EngineOutput]) -> usize {
    outputs.iter().filter(|output| matches!(output, EngineOutput::Token { .. })).count()
}

fn steps(engine: &mut Engine, count: usize) -> Result<()> {
    for _ in 0..count {
        engine.step()?;
    }
    Ok(())
}

/// Host and device time of one decoding step, by launcher. The device is kept busy until the host has launched all of it.
fn profile(
    engine: &mut Engine,
    batch: usize,
    options: &Options<'_>,
    facts: &mut Facts<'_>,
) -> Result<()> {
    let times = device::profiled(options.device, || steps(engine, 1))?;
    let (mut host, mut on_device) = (0.0, 0.0);
    for time in &times {
        let (launcher, launches) = (time.launcher, time.launches);
        let of = |side: &str| format!("batch {batch}, {launches} × {launcher}, {side}");
        facts.measured(of("host"), time.host.as_secs_f64() * 1e6, "µs")?;
        facts.measured(of("device"), time.device.as_secs_f64() * 1e6, "µs")?;
        host += time.host.as_secs_f64();
        on_device += time.device.as_secs_f64();
    }
    facts.measured(format!("batch {batch}, launches, host"), host * 1e3, "ms")?;
    facts.measured(format!("batch {batch}, launches, device"), on_device * 1e3, "ms")
}

/// One prompt, from its request to its first token.
fn prefill(model: &Arc<InferenceModel>, sizes: &Sizes, facts: &mut Facts<'_>) -> Result<()> {
    let mut best = f64::INFINITY;
    for run in 0..3 {
        // A new engine has no prefix to share.
        let mut engine = Engine::new(Arc::clone(model), EngineOptions::default())?;
        let work = Work { prompt: sizes.prefill, new: 0, group_size: 1, groups: 1, runs: run };
        add(&mut engine, &work, 1, model.config().vocab_size)?;
        let began = Instant::now();
        while engine.has_work() {
            engine.step()?;
        }
        best = best.min(began.elapsed().as_secs_f64());
    }
    facts.measured(format!("prefill of {}", sizes.prefill), sizes.prefill as f64 / best, "tokens/s")
}

/// See [`crate::gpu::Step::Grpo`].
pub(super) fn grpo(
    policy: Policy,
    options: &Options<'_>,
    process_group: &ProcessGroup,
    facts: &mut Facts<'_>,
) -> Result<Policy> {
    let sizes = Sizes::of(options);
    let Work { prompt, new, group_size, groups, .. } = sizes.step;
    facts
        .text("work", format!("{groups} prompts of {prompt}, {group_size} × {new} tokens each"))?;
    let of_step = grpo::Options {
        work: sizes.step,
        device: options.device.clone(),
        precision: Precision::Bf16,
        recompute: Recompute::default(),
        max_tokens_per_batch: sizes.budget,
        host_bytes: options.host_bytes,
        images: None,
    };
    let (policy, report) = grpo::run_policy(policy, &of_step, process_group, &mut |phase| {
        let of = |what: &str| format!("step {}, {}{what}", phase.run, phase.phase);
        facts.measured(of(""), phase.seconds, "s")?;
        match phase.peak_memory_gb {
            Some(gb) => facts.measured(of(", peak memory"), gb, "GB"),
            None => Ok(()),
        }
    })?;
    metrics(&report.metrics, facts)?;
    Ok(policy)
}

/// Facts of metrics, whose units are in their names.
pub(super) fn metrics(metrics: &Metrics, facts: &mut Facts<'_>) -> Result<()> {
    metrics.iter().try_for_each(|(name, value)| facts.measured(name, value, ""))
}
