//! `embodied-r bench grpo`.

use std::sync::atomic::AtomicBool;
use std::time::Instant;

use embodied_r_grpo::advantages::{ScaleRewards, advantages};
use embodied_r_grpo::batches::{Lengths, pack};
use embodied_r_grpo::loss::{LossType, Options};
use embodied_r_grpo::memory_plan::{Layout, Load, Taping};
use embodied_r_grpo::micro_batch::{MicroBatch, Selection, Told, counts, wide};
use embodied_r_grpo::optimizer::{Optim, Optimizer, OptimizerSettings};
use embodied_r_grpo::random::stream;
use embodied_r_grpo::team::Team;
use embodied_r_grpo::update::{Pace, Updater, score_all, whole_groups};
use embodied_r_policy::{Group, Policy, Request, Sample, Tape};

use crate::args::bench::GrpoArgs;
use crate::commands::train::memory::{self, Place};
use crate::device::{self, peak_flops_per_s};
use crate::exit::{Status, Usage};
use crate::ranks::together;

use super::work::{folder, median, print, requests, sampling};

/// Weight of the divergence from the reference: above 0, so that the reference is run.
const BETA: f64 = 0.001;

/// Seconds of the parts of one step.
#[derive(Default)]
struct Parts {
    rollout: f64,
    reference: f64,
    update: f64,
    optimizer: f64,
    gather: f64,
    bytes_sent: f64,
}

/// Times whole steps, of all ranks together.
pub(super) fn run(args: &GrpoArgs) -> anyhow::Result<Status> {
    together(&args.ranks, args.work.device, |team| run_as(args, team))
}

fn run_as(args: &GrpoArgs, team: &Team) -> anyhow::Result<Status> {
    let work = &args.work;
    anyhow::ensure!(work.group_size >= 2, Usage("`--group-size` must be 2 or more".into()));
    anyhow::ensure!(
        args.max_tokens_per_batch > 0,
        Usage("`--max-tokens-per-batch` must be above 0".into())
    );
    let device = device::open(work.device.or_gpus(args.ranks.gpus))?;
    let policy = Policy::load(&folder(work)?)?;
    let policy = policy.with_precision(work.precision.into()).to_device(&device)?;
    let config = policy.config().clone();
    let numbers = policy.parameters().numbers();
    let load = Load {
        parameters: numbers,
        trainable: numbers,
        reference: numbers,
        optim: Optim::Adamw,
        prompts: work.groups,
        prompt: work.prompt,
        completions: work.group_size,
        completion: work.new,
        budget: args.max_tokens_per_batch,
        rollout: Some(work.precision.into()),
        taping: Taping::Open,
        iterations: 1,
        layout: Layout::CPU,
    };
    let place = Place { device: &device, precision: work.precision.into(), ranks: team.size() };
    let plan = memory::plan(&config, load, args.recompute.into(), &place)?;
    let policy = &policy.with_activation_bytes(plan.kept);
    let reference = policy.frozen_copy()?;
    let settings = OptimizerSettings {
        optim: Optim::Adamw,
        beta1: 0.9,
        beta2: 0.95,
        epsilon: 1e-8,
        weight_decay: 0.1,
        max_grad_norm: 1.0,
    };
    let mut updater = Updater::new(Optimizer::new(settings, policy, team)?);
    let peak = peak_flops_per_s(&device, policy.precision().into())?;
    let peak = team.sums(vec![peak.unwrap_or(f64::NAN)])?[0];
    let mut tape = plan.tape.map(|options| Tape::new(&config, options));
    let (mut steps, mut flops) = (Vec::new(), 0.0);
    for run in 0..=work.runs {
        let mut parts = Parts::default();
        team.wait()?;
        let (began, sent) = (Instant::now(), team.bytes_sent());
        let requests = share(requests(work, config.vocab_size, run), team);
        let (sampling, with) = (sampling(work.new), (policy.precision(), tape.take()));
        let samples;
        (samples, tape) = policy.generate_taped(&requests, &sampling, with, &|_| team.beat())?;
        parts.rollout = began.elapsed().as_secs_f64();
        let mut batches = batches(&requests, &samples, args.max_tokens_per_batch);
        let groups: Vec<Vec<Group>> = batches.iter().map(|batch| batch.groups.clone()).collect();
        let clock = Instant::now();
        for (batch, scores) in batches.iter_mut().zip(score_all(&reference, &groups, 1.0, team)?) {
            batch.reference = wide(&scores.logps);
        }
        parts.reference = clock.elapsed().as_secs_f64();
        let clock = Instant::now();
        update(policy, &mut updater, &batches, &groups, tape.as_ref())?;
        // The host is ahead of a GPU.
        device.synchronize()?;
        parts.optimizer = updater.optimizer_s();
        parts.update = clock.elapsed().as_secs_f64() - parts.optimizer;
        let clock = Instant::now();
        updater.optimizer.hand_round(policy, || ())?;
        device.synchronize()?;
        parts.gather = clock.elapsed().as_secs_f64();
        parts.bytes_sent = (team.bytes_sent() - sent) as f64;
        steps.push((began.elapsed().as_secs_f64(), parts));
        // Rollout and reference are a forward pass each; the update's own may be the rollout's.
        let all = whole_groups(&groups);
        let forwards = if plan.tape.is_some() { 1.0 } else { 2.0 };
        let own = forwards * config.forward_flops(&all) + config.training_flops(&all);
        flops = team.sums(vec![own])?[0];
    }
    let of =
        |part: fn(&(f64, Parts)) -> f64| median(&steps[1..].iter().map(part).collect::<Vec<f64>>());
    let step = of(|(step, _)| *step);
    let new = (work.groups * work.group_size * work.new) as f64;
    let tokens = new + (work.groups * work.prompt) as f64;
    let mut figures = vec![
        ("step_s", step),
        ("rollout_s", of(|(_, parts)| parts.rollout)),
        ("reference_s", of(|(_, parts)| parts.reference)),
        ("update_s", of(|(_, parts)| parts.update)),
        ("optimizer_s", of(|(_, parts)| parts.optimizer)),
        ("tokens_per_s", tokens / step),
        ("completion_tokens_per_s", new / step),
        ("estimated_memory_gb", plan.total() as f64 / 1e9),
    ];
    if peak.is_finite() {
        figures.push(("matmul_share", flops / step / peak));
    }
    if team.size() > 1 {
        figures.extend([
            ("ranks", team.size() as f64),
            ("gather_s", of(|(_, parts)| parts.gather)),
            ("bytes_sent", of(|(_, parts)| parts.bytes_sent)),
        ]);
    }
    if team.is_first() { print(work, &device, &figures) } else { Ok(Status::Done) }
}

/// This rank's part of the work.
fn share(requests: Vec<Request>, team: &Team) -> Vec<Request> {
    let own = team.share(&vec![1; requests.len()]);
    let requests = requests.into_iter().enumerate();
    requests.filter(|(index, _)| own.contains(index)).map(|(_, request)| request).collect()
}

/// The samples with random rewards, as micro-batches.
fn batches(requests: &[Request], samples: &[Vec<Sample>], budget: usize) -> Vec<MicroBatch> {
    let group_size = samples.first().map_or(0, Vec::len);
    let rewards: Vec<Option<f64>> = (0..requests.len() * group_size)
        .map(|i| Some((stream(&[i as u64]) % 1000) as f64 / 1000.0))
        .collect();
    let advantages = advantages(&rewards, group_size, ScaleRewards::Group).values;
    let lengths: Vec<Lengths> = requests
        .iter()
        .zip(samples)
        .map(|(request, samples)| Lengths {
            prompt: request.prompt.len(),
            completions: samples.iter().map(|sample| sample.ids.len()).collect(),
        })
        .collect();
    let batch = |pieces: &Vec<embodied_r_grpo::batches::Piece>| {
        let mut batch = MicroBatch::default();
        for piece in pieces {
            let samples = &samples[piece.group][piece.completions.clone()];
            let first = piece.group * group_size + piece.completions.start;
            batch.groups.push(Group {
                prompt: requests[piece.group].prompt.ids().to_vec(),
                completions: samples.iter().map(|sample| sample.ids.clone()).collect(),
            });
            batch.advantages.extend(&advantages[first..first + samples.len()]);
        }
        batch.kept = vec![true; batch.advantages.len()];
        batch
    };
    pack(&lengths, budget).iter().map(batch).collect()
}

/// One optimiser step.
fn update(
    policy: &Policy,
    updater: &mut Updater,
    batches: &[MicroBatch],
    groups: &[Vec<Group>],
    tape: Option<&Tape>,
) -> anyhow::Result<()> {
    let options = Options { beta: BETA, ..Options::default() };
    let counts = counts(batches, LossType::Grpo, 1, updater.optimizer.team())?;
    let (stop, mut told) = (AtomicBool::new(false), Told::default());
    let pace = Pace { temperature: 1.0, learning_rate: 5e-7, noise: 0 };
    updater.run(policy, groups, pace, tape, &stop, |index, scores| {
        batches[index].derivative(&options, &counts[index], scores, Selection::All, &mut told)
    })?;
    Ok(())
}
