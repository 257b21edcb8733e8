//! `embodied-r bench grpo`.

use std::sync::atomic::AtomicBool;
use std::time::Instant;

use embodied_r_grpo::advantages::{ScaleRewards, advantages};
use embodied_r_grpo::estimate::memory_plan::{ActivationCachePolicy, MemoryLayout, Workload};
use embodied_r_grpo::estimate::roofline::peak_flops_per_s;
use embodied_r_grpo::loss::{LossOptions, LossType};
use embodied_r_grpo::process_group::ProcessGroup;
use embodied_r_grpo::rollout::partition::{GroupPart, completions_per_rank, partition};
use embodied_r_grpo::update::micro_batch::{
    MicroBatch, TokenSelection, UpdateStats, loss_normalizers, to_f64,
};
use embodied_r_grpo::update::optimizer::{Optim, Optimizer, OptimizerSettings};
use embodied_r_grpo::update::packing::{GroupLengths, pack};
use embodied_r_grpo::update::{StepParams, Updater, merged_groups, score_all};
use embodied_r_policy::{ActivationCache, CompletionOutput, GenerationRequest, Group, Policy};
use embodied_r_random::stream;
use serde_json::Value;

use crate::args::bench::GrpoArgs;
use crate::commands::train::memory::{self, RankDevice};
use crate::device;
use crate::exit::{Status, Usage};
use crate::ranks::run_on_ranks;

use super::work::{folder, median, print, requests, rounded, sampling};

/// KL coefficient: above 0, so that the reference model is run.
const BETA: f64 = 0.001;

/// Seconds of the phases of a step.
#[derive(Default)]
struct StepTimes {
    rollout: f64,
    reference: f64,
    update: f64,
    optimizer: f64,
    gather: f64,
    bytes_sent: f64,
    busy_share: f64,
}

/// Benchmarks whole steps on all ranks.
pub(super) fn run(args: &GrpoArgs) -> anyhow::Result<Status> {
    run_on_ranks(&args.ranks, args.work.device, |process_group| run_as(args, process_group))
}

fn run_as(args: &GrpoArgs, process_group: &ProcessGroup) -> anyhow::Result<Status> {
    let work = &args.work;
    anyhow::ensure!(work.group_size >= 2, Usage("`--group-size` must be 2 or more".into()));
    anyhow::ensure!(
        args.max_tokens_per_batch > 0,
        Usage("`--max-tokens-per-batch` must be above 0".into())
    );
    let (name, precision) = work.device_and_precision(args.ranks.gpus);
    let device = device::open(name)?;
    let policy = Policy::load(&folder(work)?)?;
    let policy = policy.with_precision(precision).to_device(&device)?;
    let config = policy.config().clone();
    let parameters = policy.parameters().elem_count();
    let load = Workload {
        parameters,
        trainable: parameters,
        reference: parameters,
        optim: Optim::Adamw,
        prompts: work.groups,
        prompt: work.prompt,
        completions: work.group_size,
        completion: work.new,
        budget: args.max_tokens_per_batch,
        rollout: Some(precision),
        activation_cache: ActivationCachePolicy::Auto,
        iterations: 1,
        split_groups: true,
        layout: MemoryLayout::CPU,
    };
    let rank_device = RankDevice { device: &device, precision, ranks: process_group.world_size() };
    let plan = memory::plan(&config, load, args.recompute.into(), &rank_device)?;
    let policy = &policy.with_activation_bytes(plan.saved_activations);
    let reference = policy.frozen_copy()?;
    let settings = OptimizerSettings {
        optim: Optim::Adamw,
        beta1: 0.9,
        beta2: 0.95,
        epsilon: 1e-8,
        weight_decay: 0.1,
        max_grad_norm: 1.0,
    };
    let mut updater = Updater::new(Optimizer::new(settings, policy, process_group)?);
    let peak = peak_flops_per_s(&device, policy.precision().into())?;
    let peak = process_group.all_reduce_sum(vec![peak.unwrap_or(f64::NAN)])?[0];
    let mut cache = plan.activation_cache.map(|options| ActivationCache::new(&config, options));
    let world_size = process_group.world_size();
    let lengths =
        GroupLengths { prompt: work.prompt, completions: vec![work.new; work.group_size] };
    let parts = partition(&vec![lengths; work.groups], world_size);
    let is_own = |part: &&GroupPart| part.rank == process_group.rank();
    let own: Vec<GroupPart> = parts.iter().filter(is_own).cloned().collect();
    let (mut steps, mut flops) = (Vec::new(), Vec::new());
    for run in 0..=work.runs {
        let mut times = StepTimes::default();
        process_group.barrier()?;
        let (began, sent) = (Instant::now(), process_group.bytes_sent());
        let waited = process_group.seconds_waited();
        let requests = own_requests(&requests(work, config.vocab_size, run), &own);
        let (sampling, with) = (sampling(work.new), (policy.precision(), cache.take()));
        let samples;
        (samples, cache) =
            policy.generate_with_activation_cache(&requests, &sampling, with, &|_| {
                process_group.heartbeat()
            })?;
        times.rollout = began.elapsed().as_secs_f64();
        let mut batches = batches(&requests, &samples, &own, args);
        let clock = Instant::now();
        let scores = score_all(&reference, &batches, 1.0, process_group)?;
        for (batch, scores) in batches.iter_mut().zip(scores) {
            batch.reference = to_f64(&scores.logps);
        }
        times.reference = clock.elapsed().as_secs_f64();
        let clock = Instant::now();
        update(policy, &mut updater, &batches, cache.as_ref())?;
        // Kernels run asynchronously on a GPU.
        device.synchronize()?;
        times.optimizer = updater.optimizer_s();
        times.update = clock.elapsed().as_secs_f64() - times.optimizer;
        let clock = Instant::now();
        updater.optimizer.all_gather_weights(policy, || ())?;
        device.synchronize()?;
        times.gather = clock.elapsed().as_secs_f64();
        times.bytes_sent = (process_group.bytes_sent() - sent) as f64;
        times.busy_share =
            1.0 - (process_group.seconds_waited() - waited) / began.elapsed().as_secs_f64();
        steps.push((began.elapsed().as_secs_f64(), times));
        // A forward pass each for rollout and reference; the update may reuse the rollout's activations.
        let all = merged_groups(&batches);
        let forward = config.forward_flops(&all);
        let reused = if plan.activation_cache.is_some() { forward } else { 0.0 };
        let own_update = config.training_flops(&all) - reused;
        flops =
            process_group.all_reduce_sum(vec![2.0 * forward + own_update, own_update, reused])?;
    }
    let of = |part: fn(&(f64, StepTimes)) -> f64| {
        median(&steps[1..].iter().map(part).collect::<Vec<f64>>())
    };
    let step = of(|(step, _)| *step);
    let new = (work.groups * work.group_size * work.new) as f64;
    let tokens = new + (work.groups * work.prompt) as f64;
    let mut metrics = vec![
        ("step_s", step),
        ("rollout_s", of(|(_, times)| times.rollout)),
        ("reference_s", of(|(_, times)| times.reference)),
        ("update_s", of(|(_, times)| times.update)),
        ("optimizer_s", of(|(_, times)| times.optimizer)),
        ("tokens_per_s", tokens / step),
        ("completion_tokens_per_s", new / step),
        ("estimated_memory_gb", plan.total() as f64 / 1e9),
    ];
    if peak.is_finite() {
        let share = |flops: f64, seconds: f64| flops / seconds / peak;
        metrics.extend([
            ("matmul_share", share(flops[0], step)),
            ("mfu", share(flops[0] + flops[2], step)),
            ("update_matmul_share", share(flops[1], of(|(_, times)| times.update))),
        ]);
    }
    if world_size > 1 {
        metrics.extend([
            ("ranks", world_size as f64),
            ("gather_s", of(|(_, times)| times.gather)),
            ("bytes_sent", of(|(_, times)| times.bytes_sent)),
        ]);
    }
    let completions = completions_per_rank(&parts, world_size);
    let busy_shares = process_group.all_gather(of(|(_, times)| times.busy_share))?;
    let per_rank = [
        ("completions_per_rank", completions.into_iter().map(Value::from).collect()),
        ("busy_share_per_rank", busy_shares.into_iter().map(rounded).collect()),
    ];
    match process_group.is_rank_zero() {
        true => print(work, (&device, precision), &metrics, &per_rank),
        false => Ok(Status::Done),
    }
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
    args: &GrpoArgs,
) -> Vec<MicroBatch> {
    let group_size = args.work.group_size;
    let rewards: Vec<Option<f64>> = (0..args.work.groups * group_size)
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
    let batch = |pieces: &Vec<embodied_r_grpo::update::packing::GroupSlice>| {
        let mut batch = MicroBatch::default();
        let mut groups = Vec::new();
        for piece in pieces {
            let samples = &samples[piece.group][piece.completions.clone()];
            let part = &own[piece.group];
            let first = part.group * group_size + part.completions.start + piece.completions.start;
            groups.push(Group {
                prompt: requests[piece.group].prompt.ids().to_vec(),
                completions: samples.iter().map(|sample| sample.ids.clone()).collect(),
            });
            batch.advantages.extend(&advantages[first..first + samples.len()]);
        }
        batch.groups = groups.into();
        batch.unmasked = vec![true; batch.advantages.len()];
        batch
    };
    pack(&lengths, args.max_tokens_per_batch).iter().map(batch).collect()
}

/// One optimizer step.
fn update(
    policy: &Policy,
    updater: &mut Updater,
    batches: &[MicroBatch],
    cache: Option<&ActivationCache>,
) -> anyhow::Result<()> {
    let options = LossOptions { beta: BETA, ..LossOptions::default() };
    let counts = loss_normalizers(batches, LossType::Grpo, 1, updater.optimizer.process_group())?;
    let (stop, mut stats) = (AtomicBool::new(false), UpdateStats::default());
    let step_parameters = StepParams { temperature: 1.0, learning_rate: 5e-7, dropout_seed: 0 };
    updater.run(policy, batches, step_parameters, cache, &stop, |index, scores| {
        batches[index].derivative(&options, &counts[index], scores, TokenSelection::All, &mut stats)
    })?;
    Ok(())
}
