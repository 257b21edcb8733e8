//! Small models on the CPU in f32, and on the GPU in f32 and in bf16.

use std::sync::atomic::AtomicBool;

use candle_core::Device;
use embodied_r_dist::ProcessGroup;
use embodied_r_grpo::inspect::batch_file::{BatchFile, FileCompletion, FileGroup};
use embodied_r_grpo::inspect::{LossReport, loss};
use embodied_r_grpo::settings::{LossSettings, OptimizerSettings};
use embodied_r_grpo::update::optimizer::Optimizer;
use embodied_r_grpo::update::{LossGradient, StepParams, Updater};
use embodied_r_kernels::Precision;
use embodied_r_kernels::device::{with_cpu_kernels, with_device_kernels};
use embodied_r_policy::{GenerationRequest, Group, Policy, Prompt, SamplingParams};
use embodied_r_random::stream;

use super::Options;
use super::bounds::Bounds;
use super::facts::Facts;
use crate::error::{Error, Result};
use crate::presets::Preset;

/// Sequences, and the tokens of each.
const SEQUENCES: usize = 4;
const LENGTH: usize = 128;

/// Tokens of a sequence that are its prompt, in the loss, the update and greedy decoding.
const PROMPT: usize = 64;

/// Tokens of greedy decoding.
const NEW: usize = 32;

/// Of the one update: several units in the last place of the weights in bf16.
const LEARNING_RATE: f64 = 1e-3;

/// See [`crate::gpu::Step::Compare`].
pub(super) fn run(options: &Options<'_>, facts: &mut Facts<'_>) -> Result<()> {
    let base = |device: &Device, precision: Precision| {
        Ok(Policy::load_on(device, options.base, precision)?)
    };
    model("base", &base, options.device, facts)?;
    for (name, preset) in
        [("36 layers", Preset::DeepQwen2), ("36 layers, Qwen3", Preset::DeepQwen3)]
    {
        let config = preset.shape().ok_or(Error::NoShape)?.config;
        let deep = |device: &Device, precision: Precision| {
            Ok(Policy::random_on(device, &config, 0, precision)?)
        };
        model(name, &deep, options.device, facts)?;
    }
    Ok(())
}

/// Creates a model on a device in a precision.
type Create<'a> = dyn Fn(&Device, Precision) -> Result<Policy> + 'a;

fn model(name: &str, create: &Create<'_>, device: &Device, facts: &mut Facts<'_>) -> Result<()> {
    let cpu = with_cpu_kernels(|| Outputs::of(create(&Device::Cpu, Precision::F32)?, None))?;
    let reference = with_cpu_kernels(|| create(&Device::Cpu, Precision::F32))?;
    for (precision, dtype) in [(Precision::F32, "float32"), (Precision::Bf16, "bfloat16")] {
        let bounds = Bounds::of(name, precision);
        let found = with_device_kernels(|| Outputs::of(create(device, precision)?, Some(&cpu)))?;
        let of = |what: &str| format!("{name}, {dtype}, {what}");
        let far = largest(cpu.logps.iter().zip(&found.logps).map(|(a, b)| f64::from(a - b)));
        facts.bounded(of("log-probabilities, largest difference"), far, bounds.logps)?;
        let greedy = with_cpu_kernels(|| Greedy::compare(&reference, &cpu.greedy, &found.greedy))?;
        facts.measured(of("greedy tokens, share that is equal"), greedy.equal, "")?;
        // Where they part, the GPU's token may be less likely by what both sides' errors explain.
        facts.bounded(of("greedy tokens, largest gap"), greedy.gap, 2.0 * bounds.logps)?;
        let far = (cpu.loss.loss - found.loss.loss).abs();
        facts.bounded(of("loss, difference"), far, bounds.loss)?;
        let norms = cpu.loss.grad_norms.iter().map(|(tensor, norm)| {
            let found = found.loss.grad_norms.get(tensor).copied().unwrap_or(f64::NAN);
            (found - norm) / norm
        });
        facts.measured(of("gradient norms, tensors"), cpu.loss.grad_norms.len() as f64, "")?;
        facts.bounded(
            of("gradient norms, largest relative difference"),
            largest(norms),
            bounds.grad_norm,
        )?;
        let far = relative(&cpu.update, &found.update);
        facts.bounded(of("update, relative difference of its effect"), far, bounds.update)?;
    }
    Ok(())
}

/// What a model computes.
struct Outputs {
    /// Of each sequence's tokens after the first.
    logps: Vec<f32>,
    /// Continuations of each sequence's prompt.
    greedy: Vec<Vec<u32>>,
    loss: LossReport,
    /// By how much one update changes `logps`.
    update: Vec<f32>,
}

impl Outputs {
    /// The loss's old log-probabilities are those of `cpu`, or the model's own.
    fn of(policy: Policy, cpu: Option<&Self>) -> Result<Self> {
        let ids = sequences(policy.config().vocab_size);
        let logps = score(&policy, &ids)?;
        let batch = batch(&ids, cpu.map_or(&logps, |cpu| &cpu.logps));
        let prompts: Vec<Prompt> = ids.iter().map(|ids| prompt(ids)).collect();
        let loss = loss(&policy, (&batch, &prompts), &LossSettings::default(), &[])?;
        let requests = prompts.into_iter().map(|prompt| GenerationRequest {
            prompt,
            samples: 1,
            stream: 0,
            first_sample: 0,
        });
        let sampling = SamplingParams { max_new_tokens: NEW, ..SamplingParams::greedy() };
        let completions = policy.generate(&requests.collect::<Vec<_>>(), &sampling, &|_| {})?;
        let greedy = completions.into_iter().flatten().map(|completion| completion.ids).collect();
        update(&policy, &ids)?;
        let after = score(&policy, &ids)?;
        let update = after.iter().zip(&logps).map(|(after, before)| after - before).collect();
        Ok(Self { logps, greedy, loss, update })
    }
}

/// Random tokens.
fn sequences(vocabulary: usize) -> Vec<Vec<u32>> {
    let token = |sequence: usize, at: usize| {
        (stream(&[sequence as u64, at as u64]) % vocabulary as u64) as u32
    };
    (0..SEQUENCES).map(|row| (0..LENGTH).map(|at| token(row, at)).collect()).collect()
}

fn prompt(ids: &[u32]) -> Prompt {
    ids[..PROMPT].to_vec().into()
}

/// Each in a pass of its own.
fn score(policy: &Policy, sequences: &[Vec<u32>]) -> Result<Vec<f32>> {
    let mut logps = Vec::new();
    for ids in sequences {
        let group =
            Group { prompt: ids[..1].to_vec().into(), completions: vec![ids[1..].to_vec()] };
        logps.extend(policy.score(&[group], 1.0)?.logps);
    }
    Ok(logps)
}

/// Advantages of both signs.
fn advantage(sequence: usize) -> f64 {
    [1.0, -0.5, 0.25, -1.0][sequence % 4]
}

/// A group per sequence, whose policy has moved since it was sampled: ratios differ from 1 by up to 5 %.
fn batch(sequences: &[Vec<u32>], logps: &[f32]) -> BatchFile {
    let group = |(row, ids): (usize, &Vec<u32>)| {
        let own = &logps[row * (LENGTH - 1)..][PROMPT - 1..LENGTH - 1];
        let moved = |(at, logp): (usize, &f32)| {
            let uniform = (stream(&[7, row as u64, at as u64]) % 1001) as f64 / 1000.0;
            f64::from(*logp) + 0.1 * (uniform - 0.5)
        };
        let completion = FileCompletion {
            ids: ids[PROMPT..].to_vec(),
            advantage: advantage(row),
            old_logps: Some(own.iter().enumerate().map(moved).collect()),
            ..FileCompletion::default()
        };
        let (prompt_ids, completions) = (ids[..PROMPT].to_vec(), vec![completion]);
        FileGroup { prompt_ids, completions, ..FileGroup::default() }
    };
    BatchFile { groups: sequences.iter().enumerate().map(group).collect(), settings: None }
}

/// One step of AdamW on the policy gradient.
fn update(policy: &Policy, sequences: &[Vec<u32>]) -> Result<()> {
    let group =
        |ids: &Vec<u32>| Group { prompt: prompt(ids), completions: vec![ids[PROMPT..].to_vec()] };
    let groups: Vec<Group> = sequences.iter().map(group).collect();
    let tokens = (SEQUENCES * (LENGTH - PROMPT)) as f64;
    let alone = ProcessGroup::default();
    let optimizer = Optimizer::new(OptimizerSettings::default(), policy, &alone)?;
    let params = StepParams { temperature: 1.0, learning_rate: LEARNING_RATE, dropout_seed: 0 };
    let mut updater = Updater::new(optimizer);
    let stop = AtomicBool::new(false);
    updater.run(policy, &[groups], params, None, &stop, |_, scores| {
        let derivative = |at: usize| (-advantage(at / (LENGTH - PROMPT)) / tokens) as f32;
        let dlogps = (0..scores.logps.len()).map(derivative).collect();
        Ok(LossGradient { loss: 0.0, dlogps })
    })?;
    updater.optimizer.all_gather_weights(policy, || ())?;
    Ok(())
}

/// How greedy continuations differ.
struct Greedy {
    /// The share of tokens before the first that differs.
    equal: f64,
    /// At the first that differs, the CPU's log-probability of its own token less that of the GPU's; 0 if all are equal.
    gap: f64,
}

impl Greedy {
    fn compare(cpu: &Policy, expected: &[Vec<u32>], found: &[Vec<u32>]) -> Result<Self> {
        let (mut equal, mut gap) = (0, 0.0_f64);
        let prompts = sequences(cpu.config().vocab_size);
        for ((expected, found), ids) in expected.iter().zip(found).zip(&prompts) {
            let shared = expected.iter().zip(found).take_while(|(a, b)| a == b).count();
            equal += shared;
            let (Some(own), Some(other)) = (expected.get(shared), found.get(shared)) else {
                continue;
            };
            let prefix = [&ids[..PROMPT], &expected[..shared]].concat();
            let completions = vec![vec![*own], vec![*other]];
            let scores = cpu.score(&[Group { prompt: prefix.into(), completions }], 1.0)?.logps;
            gap = gap.max(f64::from(scores[0] - scores[1]));
        }
        Ok(Self { equal: equal as f64 / (SEQUENCES * NEW) as f64, gap })
    }
}

/// The largest magnitude; infinite if one is NaN.
fn largest(values: impl Iterator<Item = f64>) -> f64 {
    values.fold(0.0, |most, x| if x.is_nan() { f64::INFINITY } else { most.max(x.abs()) })
}

/// The L2 norm of the difference, relative to that of `expected`.
fn relative(expected: &[f32], found: &[f32]) -> f64 {
    let squares = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>();
    let difference =
        squares(&mut expected.iter().zip(found).map(|(a, b)| f64::from(*a) - f64::from(*b)));
    let expected = squares(&mut expected.iter().map(|x| f64::from(*x)));
    // NaN if an element is.
    (difference / expected).sqrt()
}

#[cfg(test)]
mod tests {
    use super::super::facts::{Fact, Value};
    use super::*;
    use crate::gpu::Step;

    #[test]
    fn a_value_that_is_not_a_number_exceeds_any_bound() {
        assert_eq!(largest([1.0, -3.0, 2.0].into_iter()), 3.0);
        assert_eq!(largest([1.0, f64::NAN].into_iter()), f64::INFINITY);
        assert!((relative(&[3.0, 4.0], &[3.0, 4.5]) - 0.1).abs() < 1e-12);
        assert!(relative(&[1.0], &[f32::NAN]).is_nan());
    }

    #[cfg(feature = "cuda-host")]
    #[test]
    fn a_model_on_emulated_kernels_is_within_the_bounds() {
        if !embodied_r_kernels::device::emulates_cuda() {
            // The optimizer has a thread of its own.
            eprintln!(
                "skipped: the whole process must emulate the kernels, with EMBODIED_R_CUDA_HOST=1"
            );
            return;
        }
        let config = Preset::TinyQwen2.shape().unwrap().config;
        let create = |device: &Device, precision: Precision| {
            Ok(Policy::random_on(device, &config, 0, precision)?)
        };
        let mut all = Vec::new();
        let mut keep = |fact: &Fact| {
            all.push(fact.clone());
            Ok(())
        };
        let mut facts = Facts::new(Step::Compare, true, &mut keep);
        // The bounds of the deeper model.
        model("36 layers", &create, &Device::Cpu, &mut facts).unwrap();
        assert!(all.iter().all(|fact| fact.ok), "{all:#?}");
        let far = all.iter().find(|fact| fact.fact.contains("bfloat16, log-probabilities"));
        // They are not the CPU's results.
        assert_ne!(far.unwrap().value, Value::Number(0.0));
        assert_eq!(all.len(), 14);
    }

    #[test]
    fn a_wrong_gradient_or_update_exceeds_the_bounds_in_f32() {
        let config = Preset::TinyQwen2.shape().unwrap().config;
        let of = |policy: Policy| Outputs::of(policy, None).unwrap();
        let create = || Policy::random_on(&Device::Cpu, &config, 0, Precision::F32).unwrap();
        let (one, same) = (of(create()), of(create()));
        assert_eq!(one.logps, same.logps);
        assert_eq!(one.greedy, same.greedy);
        assert_eq!(relative(&one.update, &same.update), 0.0);
        assert!(one.update.iter().any(|x| x.abs() > 1e-3), "the update has no effect");
        let other = of(Policy::random_on(&Device::Cpu, &config, 1, Precision::F32).unwrap());
        let bounds = Bounds::of("base", Precision::F32);
        assert!(relative(&one.update, &other.update) > bounds.update);
        let norms = one.loss.grad_norms.iter().zip(&other.loss.grad_norms);
        assert!(largest(norms.map(|((_, a), (_, b))| (a - b) / a)) > bounds.grad_norm);
        let apart = Greedy::compare(&create(), &one.greedy, &other.greedy).unwrap();
        assert!(apart.equal < 1.0 && apart.gap > 2.0 * bounds.logps);
    }
}
