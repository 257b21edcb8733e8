//! Whole GRPO steps: rollout, reference log-probabilities, backward pass, optimizer.

mod vision;

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use candle_core::Device;
use embodied_r_dist::ProcessGroup;
use embodied_r_grpo::advantages::{ScaleRewards, advantages};
use embodied_r_grpo::estimate::memory_plan::{
    ActivationCachePolicy, MemoryLayout, MemoryPlan, RankDevice, VisionLoad, Workload,
};
use embodied_r_grpo::estimate::peak_memory::take_peak_bytes;
use embodied_r_grpo::estimate::roofline::peak_flops_per_s;
use embodied_r_grpo::loss::LossType;
use embodied_r_grpo::model::{
    CompletionOutput, GenerateOptions, GenerationRequest, Group, Model, Precision, Prompt,
};
use embodied_r_grpo::rollout::partition::{GroupPart, completions_per_rank, partition};
use embodied_r_grpo::settings::{LossSettings, Optim, OptimizerSettings, Recompute};
use embodied_r_grpo::update::micro_batch::{
    MicroBatch, TokenSelection, UpdateStats, loss_normalizers, to_f64,
};
use embodied_r_grpo::update::optimizer::Optimizer;
use embodied_r_grpo::update::packing::{GroupLengths, GroupSlice, pack};
use embodied_r_grpo::update::{StepParams, Updater, merged_groups, score_all};
use embodied_r_policy::{ModelConfig, Policy};
use embodied_r_random::stream;
use serde::Serialize;

use crate::error::Result;
use crate::metrics::{Metrics, median, rounded};
use crate::work::{Work, sampling};
pub use vision::ImageOptions;
use vision::VisionWork;

/// KL coefficient: above 0, so that the reference model is run.
const BETA: f64 = 0.001;

/// Where and how the steps run.
pub struct Options {
    /// The rollout of a step; groups have two completions or more.
    pub work: Work,
    /// This rank's device.
    pub device: Device,
    /// Precision of matrix multiplications.
    pub precision: Precision,
    /// Activation recomputation.
    pub recompute: Recompute,
    /// Tokens per micro-batch, prompts included; above 0.
    pub max_tokens_per_batch: usize,
    /// Bytes of the machine's memory available to this rank, if known. It is asked once the model is loaded.
    pub host_bytes: fn() -> Option<usize>,
    /// An image in every prompt, for a vision-language model.
    pub images: Option<ImageOptions>,
}

/// The measured steps of all ranks.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Medians, of this rank.
    #[serde(flatten)]
    pub metrics: Metrics,
    /// Completions that each rank samples.
    pub completions_per_rank: Vec<usize>,
    /// The share of a step in which each rank does not wait for others, with six decimals.
    pub busy_share_per_rank: Vec<f64>,
}

/// A phase of a step, as it ends.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Phase {
    /// The step's index; 0 is the warmup.
    pub run: usize,
    /// `rollout`, `reference`, `update` with the optimizer's step, or `gather`.
    pub phase: &'static str,
    /// How long it took on this rank.
    pub seconds: f64,
    /// Peak memory during the phase, where it is known: of the process, or of its tensors on a GPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_memory_gb: Option<f64>,
    /// Whether the step's images were encoded already.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub cached: bool,
}

/// Called after each phase of each step.
pub type OnPhase<'a> = dyn FnMut(&Phase) -> Result<()> + 'a;

/// Reports the phases of a step, and keeps the highest peak of memory.
struct Phases<'a, 'b> {
    device: &'a Device,
    run: usize,
    peak_bytes: Option<u64>,
    on_phase: &'a mut OnPhase<'b>,
}

impl Phases<'_, '_> {
    /// The phase that began at `clock` has ended; returns how long it took, in seconds.
    fn ended(&mut self, phase: &'static str, clock: Instant) -> Result<f64> {
        let seconds = clock.elapsed().as_secs_f64();
        let peak = take_peak_bytes(self.device)?;
        self.peak_bytes = self.peak_bytes.max(peak);
        let peak_memory_gb = peak.map(|bytes| rounded(bytes as f64 / 1e9));
        (self.on_phase)(&Phase {
            run: self.run,
            phase,
            seconds: rounded(seconds),
            peak_memory_gb,
            cached: false,
        })?;
        Ok(seconds)
    }
}

/// Seconds of the phases of a step.
#[derive(Default)]
struct StepTimes {
    step: f64,
    rollout: f64,
    reference: f64,
    update: f64,
    optimizer: f64,
    gather: f64,
    bytes_sent: f64,
    busy_share: f64,
}

/// Times steps with the model in `folder` on every rank of `process_group`; all return the same but for the times.
/// `on_phase` is called after each phase of each step, on every rank.
///
/// With images, those of every step are new. If the vision encoder is frozen, steps whose images are encoded already are
/// timed besides.
///
/// # Errors
/// The model cannot be loaded, a step fails, a rank fails, or `on_phase`.
pub fn run(
    folder: &Path,
    options: &Options,
    process_group: &ProcessGroup,
    on_phase: &mut OnPhase<'_>,
) -> Result<Report> {
    let Options { work, device, precision, images, .. } = options;
    let Some(images) = images else {
        let policy = Policy::load_on(device, folder, *precision)?;
        return Ok(run_policy(policy, options, process_group, on_phase)?.1);
    };
    let config = ModelConfig::of_model(folder)?;
    let (tokens, vision) = vision::load_of_prompts(folder, work, images)?;
    let load = workload(config.parameter_count(), (tokens, Some(vision)), options);
    let plan = memory_plan(&config, load, options, process_group)?;
    let work = VisionWork::load(folder, options, images, &plan)?;
    let policy = &work.policy;
    let bench = Bench { policy, config: &config, options, process_group, plan };
    let steps = bench.steps(&|run| work.requests(&options.work, run), on_phase)?;
    let cached = match images.vision.frozen_parts() {
        None => {
            let on_phase = &mut |phase: &Phase| on_phase(&Phase { cached: true, ..*phase });
            Some(bench.steps(&|run| work.repeated(&options.work, run), on_phase)?)
        }
        Some(_) => None,
    };
    bench.report(steps, cached)
}

/// [`run`] with a policy on its device, in the precision of the options, and without images. Returns the trained policy,
/// too.
///
/// # Errors
/// As [`run`].
pub(crate) fn run_policy(
    policy: Policy,
    options: &Options,
    process_group: &ProcessGroup,
    on_phase: &mut OnPhase<'_>,
) -> Result<(Policy, Report)> {
    let work = &options.work;
    let config = policy.config().clone();
    let load = workload(policy.parameters().elem_count(), (work.prompt, None), options);
    let plan = memory_plan(&config, load, options, process_group)?;
    let policy = policy.with_activation_bytes(plan.saved_activations);
    let bench = Bench { policy: &policy, config: &config, options, process_group, plan };
    let requests = |run| Ok(work.requests(config.vocab_size, run));
    let report = bench.report(bench.steps(&requests, on_phase)?, None)?;
    Ok((policy, report))
}

/// A model whose steps are timed on a rank.
struct Bench<'a, M> {
    policy: &'a M,
    config: &'a ModelConfig,
    options: &'a Options,
    process_group: &'a ProcessGroup,
    plan: MemoryPlan,
}

/// The measured steps, and the matmul FLOPs of each: of all its passes, of the update, and what this reuses.
struct Steps {
    times: Vec<StepTimes>,
    flops: Vec<f64>,
    /// Tokens of a prompt.
    prompt: usize,
    parts: Vec<GroupPart>,
    /// The peak memory until now.
    memory: Metrics,
}

impl<M: Model> Bench<'_, M> {
    /// Times steps on the requests of each run, after a warmup.
    fn steps(
        &self,
        requests: &dyn Fn(usize) -> Result<Vec<GenerationRequest>>,
        on_phase: &mut OnPhase<'_>,
    ) -> Result<Steps> {
        let Self { policy, config, options, process_group, plan } = self;
        let Options { work, device, max_tokens_per_batch, .. } = options;
        let reference = policy.frozen_copy()?;
        let mut updater =
            Updater::new(Optimizer::new(OptimizerSettings::default(), *policy, process_group)?);
        let mut cache = plan.activation_cache.map(|options| policy.activation_cache(options));
        let mut next = requests(0)?;
        let prompt = next.iter().map(|request| request.prompt.len()).max().unwrap_or_default();
        let lengths = GroupLengths { prompt, completions: vec![work.new; work.group_size] };
        let parts = partition(&vec![lengths; work.groups], process_group.world_size());
        let is_own = |part: &&GroupPart| part.rank == process_group.rank();
        let own: Vec<GroupPart> = parts.iter().filter(is_own).cloned().collect();
        let (mut steps, mut flops) = (Vec::new(), Vec::new());
        // What loading took counts as well.
        let peak_bytes = take_peak_bytes(device)?;
        let mut phases = Phases { device, run: 0, peak_bytes, on_phase };
        for run in 0..=work.runs {
            phases.run = run;
            let mut times = StepTimes::default();
            process_group.barrier()?;
            let (began, sent) = (Instant::now(), process_group.bytes_sent());
            let waited = process_group.seconds_waited();
            let requests_of_run = own_requests(&next, &own);
            let (sampling, with) = (
                sampling(work.new),
                GenerateOptions { precision: None, activation_cache: cache.take() },
            );
            let samples;
            (samples, cache) = policy
                .generate(&requests_of_run, &sampling, with, &|| process_group.heartbeat())?;
            times.rollout = phases.ended("rollout", began)?;
            next = match run < work.runs {
                true => requests(run + 1)?,
                false => Vec::new(),
            };
            let coming: Vec<&Prompt> = next.iter().map(|request| &request.prompt).collect();
            policy.prefetch(&coming);
            let mut batches =
                batches(&requests_of_run, &samples, &own, (work, *max_tokens_per_batch));
            let clock = Instant::now();
            let scores = score_all(&reference, &batches, 1.0, process_group)?;
            for (batch, scores) in batches.iter_mut().zip(scores) {
                batch.reference = to_f64(&scores.logps);
            }
            times.reference = phases.ended("reference", clock)?;
            let clock = Instant::now();
            update(*policy, &mut updater, &batches, cache.as_ref())?;
            synchronize(device)?;
            times.optimizer = updater.optimizer_s();
            times.update = phases.ended("update", clock)? - times.optimizer;
            let clock = Instant::now();
            updater.optimizer.all_gather_weights(*policy, || ())?;
            synchronize(device)?;
            times.gather = phases.ended("gather", clock)?;
            times.bytes_sent = (process_group.bytes_sent() - sent) as f64;
            times.busy_share =
                1.0 - (process_group.seconds_waited() - waited) / began.elapsed().as_secs_f64();
            times.step = began.elapsed().as_secs_f64();
            steps.push(times);
            // A forward pass each for rollout and reference; the update may reuse the rollout's activations.
            let all = merged_groups(&batches);
            let forward = config.forward_flops(&all);
            let reused = if plan.activation_cache.is_some() { forward } else { 0.0 };
            let own_update = config.training_flops(&all) - reused;
            flops = process_group.all_reduce_sum(vec![
                2.0 * forward + own_update,
                own_update,
                reused,
            ])?;
        }
        let mut memory = Metrics::new([]);
        memory.add_peak_memory(device, phases.peak_bytes);
        Ok(Steps { times: steps, flops, prompt, parts, memory })
    }

    /// The report of `steps`; `cached` are those whose images were encoded already.
    fn report(&self, steps: Steps, cached: Option<Steps>) -> Result<Report> {
        let Options { work, device, precision, .. } = self.options;
        let (process_group, world_size) = (self.process_group, self.process_group.world_size());
        let peak = peak_flops_per_s(device, (*precision).into())?;
        let peak = process_group.all_reduce_sum(vec![peak.unwrap_or(f64::NAN)])?[0];
        let Steps { times, flops, prompt, parts, memory } = steps;
        let of = |part: fn(&StepTimes) -> f64| median(times[1..].iter().map(part));
        let step = of(|times| times.step);
        let new = (work.groups * work.group_size * work.new) as f64;
        let tokens = new + (work.groups * prompt) as f64;
        let mut metrics = Metrics::new([
            ("step_s", step),
            ("rollout_s", of(|times| times.rollout)),
            ("reference_s", of(|times| times.reference)),
            ("update_s", of(|times| times.update)),
            ("optimizer_s", of(|times| times.optimizer)),
            ("tokens_per_s", tokens / step),
            ("completion_tokens_per_s", new / step),
            ("estimated_memory_gb", self.plan.total() as f64 / 1e9),
        ]);
        if let Some(Steps { times, .. }) = cached {
            metrics.add([("cached_step_s", median(times[1..].iter().map(|times| times.step)))]);
        }
        if self.options.images.is_some() {
            metrics.add([("prompt_tokens", prompt as f64)]);
        }
        if peak.is_finite() {
            let share = |flops: f64, seconds: f64| flops / seconds / peak;
            metrics.add([
                ("matmul_share", share(flops[0], step)),
                ("mfu", share(flops[0] + flops[2], step)),
                ("update_matmul_share", share(flops[1], of(|times| times.update))),
            ]);
        }
        if world_size > 1 {
            metrics.add([
                ("ranks", world_size as f64),
                ("gather_s", of(|times| times.gather)),
                ("bytes_sent", of(|times| times.bytes_sent)),
            ]);
        }
        metrics.add(memory.iter());
        let busy_shares = process_group.all_gather(of(|times| times.busy_share))?;
        Ok(Report {
            metrics,
            completions_per_rank: completions_per_rank(&parts, world_size),
            busy_share_per_rank: busy_shares.into_iter().map(rounded).collect(),
        })
    }
}

/// The steps of all ranks, with prompts of `prompt` tokens.
fn workload(
    parameters: usize,
    (prompt, vision): (usize, Option<VisionLoad>),
    options: &Options,
) -> Workload {
    let Options { work, precision, .. } = options;
    Workload {
        parameters,
        trainable: parameters,
        reference: parameters,
        optim: Optim::Adamw,
        prompts: work.groups,
        prompt,
        completions: work.group_size,
        completion: work.new,
        budget: options.max_tokens_per_batch,
        rollout: Some(*precision),
        activation_cache: ActivationCachePolicy::Auto,
        iterations: 1,
        mini_batches: 1,
        split_groups: true,
        vision,
        layout: MemoryLayout::CPU,
    }
}

/// The memory plan of this rank's part of `load`.
fn memory_plan(
    config: &ModelConfig,
    load: Workload,
    options: &Options,
    process_group: &ProcessGroup,
) -> Result<MemoryPlan> {
    let Options { device, precision, .. } = options;
    let ranks = process_group.world_size();
    let (precision, host_bytes) = (*precision, options.host_bytes);
    let rank_device = RankDevice { device, precision, ranks, host_bytes };
    Ok(rank_device.plan(config, load, options.recompute)?)
}

/// Waits for the device: kernels run asynchronously on a GPU.
fn synchronize(device: &Device) -> Result<()> {
    Ok(device.synchronize().map_err(embodied_r_kernels::Error::from)?)
}

/// This rank's parts of the requests.
fn own_requests(requests: &[GenerationRequest], own: &[GroupPart]) -> Vec<GenerationRequest> {
    let part = |part: &GroupPart| GenerationRequest {
        samples: part.completions.len(),
        first_sample: part.completions.start,
        ..requests[part.group].clone()
    };
    own.iter().map(part).collect()
}

/// Micro-batches of the samples of this rank's parts, with random rewards.
fn batches(
    requests: &[GenerationRequest],
    samples: &[Vec<CompletionOutput>],
    own: &[GroupPart],
    (work, max_tokens_per_batch): (&Work, usize),
) -> Vec<MicroBatch> {
    let group_size = work.group_size;
    let rewards: Vec<Option<f64>> = (0..work.groups * group_size)
        .map(|i| Some((stream(&[i as u64]) % 1000) as f64 / 1000.0))
        .collect();
    let advantages = advantages(&rewards, group_size, ScaleRewards::Group).values;
    let lengths: Vec<GroupLengths> = requests
        .iter()
        .zip(samples)
        .map(|(request, samples)| GroupLengths {
            prompt: request.prompt.len(),
            completions: samples.iter().map(|sample| sample.ids.len()).collect(),
        })
        .collect();
    let batch = |pieces: &Vec<GroupSlice>| {
        let mut batch = MicroBatch::default();
        let mut groups = Vec::new();
        for piece in pieces {
            let samples = &samples[piece.group][piece.completions.clone()];
            let part = &own[piece.group];
            let first = part.group * group_size + part.completions.start + piece.completions.start;
            groups.push(Group {
                prompt: requests[piece.group].prompt.clone(),
                completions: samples.iter().map(|sample| sample.ids.clone()).collect(),
            });
            batch.advantages.extend(&advantages[first..first + samples.len()]);
        }
        batch.groups = groups.into();
        batch.unmasked = vec![true; batch.advantages.len()];
        batch
    };
    pack(&lengths, max_tokens_per_batch).iter().map(batch).collect()
}

/// One optimizer step.
fn update<M: Model>(
    policy: &M,
    updater: &mut Updater,
    batches: &[MicroBatch],
    cache: Option<&M::ActivationCache>,
) -> Result<()> {
    let settings = LossSettings {
        loss_type: LossType::Grpo,
        beta: BETA,
        importance_sampling_correction: false,
        ..LossSettings::default()
    };
    let counts = loss_normalizers(batches, LossType::Grpo, 1, updater.optimizer.process_group())?;
    let (stop, mut stats) = (AtomicBool::new(false), UpdateStats::default());
    let step_parameters = StepParams { temperature: 1.0, learning_rate: 5e-7, dropout_seed: 0 };
    updater.run(policy, batches, step_parameters, cache, &stop, |index, scores| {
        batches[index].derivative(
            &settings,
            &counts[index],
            scores,
            TokenSelection::All,
            &mut stats,
        )
    })?;
    Ok(())
}
