//! `embodied-r bench grpo`.

use std::sync::atomic::AtomicBool;
use std::time::Instant;

use embodied_r_grpo::advantages::{ScaleRewards, advantages};
use embodied_r_grpo::batches::{Lengths, pack};
use embodied_r_grpo::loss::{self, Batch, Counts, Level, LossType, Options};
use embodied_r_grpo::optimizer::{Optim, Optimizer, OptimizerSettings};
use embodied_r_grpo::random::stream;
use embodied_r_grpo::update::Updater;
use embodied_r_policy::{Group, Policy, Request, Sample};

use crate::args::bench::WorkArgs;
use crate::exit::{Status, Usage};

use super::work::{folder, median, print, requests, sampling};

/// Weight of the divergence from the reference: above 0, so that the reference is run.
const BETA: f64 = 0.001;

/// Tokens of a micro-batch, as in the trainer's defaults.
const MAX_TOKENS_PER_BATCH: usize = 16_384;

/// Times whole steps.
pub(super) fn run(work: &WorkArgs) -> anyhow::Result<Status> {
    anyhow::ensure!(work.group_size >= 2, Usage("`--group-size` must be 2 or more".into()));
    let policy = Policy::load(&folder(work)?)?.with_precision(work.precision.into());
    let policy = &policy;
    let vocabulary = policy.config().vocab_size;
    let reference = policy.frozen_copy()?;
    let settings = OptimizerSettings {
        optim: Optim::Adamw,
        beta1: 0.9,
        beta2: 0.95,
        epsilon: 1e-8,
        weight_decay: 0.1,
        max_grad_norm: 1.0,
    };
    let mut updater = Updater::new(policy, Optimizer::new(settings, policy)?)?;
    let (mut steps, mut rollouts) = (Vec::new(), Vec::new());
    for run in 0..=work.runs {
        let began = Instant::now();
        let requests = requests(work, vocabulary, run);
        let samples = policy.generate(&requests, &sampling(work.new), &|_| {})?;
        rollouts.push(began.elapsed().as_secs_f64());
        update(policy, &reference, &mut updater, &requests, &samples)?;
        steps.push(began.elapsed().as_secs_f64());
    }
    let (step, rollout) = (median(&steps[1..]), median(&rollouts[1..]));
    let tokens = (work.groups * work.group_size * work.new) as f64;
    let figures = [
        ("step_s", step),
        ("rollout_s", rollout),
        ("update_s", step - rollout),
        ("completion_tokens_per_s", tokens / step),
    ];
    print(work, &figures)
}

/// One optimiser step with random rewards.
fn update(
    policy: &Policy,
    reference: &Policy,
    updater: &mut Updater<Policy>,
    requests: &[Request],
    samples: &[Vec<Sample>],
) -> anyhow::Result<()> {
    let group_size = samples[0].len();
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
    let pieces = pack(&lengths, MAX_TOKENS_PER_BATCH);
    let batches: Vec<Vec<Group>> = pieces
        .iter()
        .map(|pieces| {
            let group = |piece: &embodied_r_grpo::batches::Piece| Group {
                prompt: requests[piece.group].prompt.clone(),
                completions: samples[piece.group][piece.completions.clone()]
                    .iter()
                    .map(|sample| sample.ids.clone())
                    .collect(),
            };
            pieces.iter().map(group).collect()
        })
        .collect();
    let references = batches
        .iter()
        .map(|groups| Ok(wide(&reference.score(groups, 1.0)?.logps)))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let options = Options {
        loss_type: LossType::Grpo,
        importance_sampling_level: Level::Token,
        epsilon: 0.2,
        epsilon_high: 0.2,
        delta: None,
        beta: BETA,
    };
    let tokens = lengths.iter().flat_map(|group| &group.completions).sum::<usize>();
    let counts = Counts {
        sequences: rewards.len() as f64,
        tokens: tokens as f64,
        max_completion_length: tokens as f64 / rewards.len() as f64,
    };
    let stop = AtomicBool::new(false);
    updater.run(policy, &batches, 1.0, 5e-7, &stop, |index, scores| {
        let logps = wide(&scores.logps);
        let lengths: Vec<usize> = batches[index]
            .iter()
            .flat_map(|group| group.completions.iter().map(Vec::len))
            .collect();
        let advantages: Vec<f64> = pieces[index]
            .iter()
            .flat_map(|piece| {
                let first = piece.group * group_size;
                &advantages[first + piece.completions.start..first + piece.completions.end]
            })
            .copied()
            .collect();
        let batch = Batch {
            logps: &logps,
            old: None,
            reference: Some(&references[index]),
            lengths: &lengths,
            kept: &vec![true; lengths.len()],
            advantages: &advantages,
        };
        Ok(loss::loss(&options, &batch, &counts).into())
    })?;
    Ok(())
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|value| f64::from(*value)).collect()
}
