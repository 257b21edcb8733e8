//! What `plan` has found, as `--json` prints it.

use embodied_r_grpo::memory_plan::MemoryPlan;
use embodied_r_grpo::roofline::fit::{Advice, Change, Wanted};
use embodied_r_grpo::roofline::{Estimate, Phase, PhaseKind};
use embodied_r_grpo::settings::Train;
use serde::Serialize;

use super::place::Where;

/// Seconds of an hour.
const HOUR: f64 = 3600.0;

/// All of it.
#[derive(Serialize)]
pub(super) struct Report {
    pub(super) model: Model,
    pub(super) device: Device,
    pub(super) rank: Rank,
    pub(super) memory: Memory,
    pub(super) fits: Fits,
    pub(super) time: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) run: Option<Run>,
    pub(super) advice: Vec<Advised>,
}

#[derive(Serialize)]
pub(super) struct Model {
    pub(super) name: String,
    pub(super) parameters: usize,
    pub(super) trainable: usize,
    pub(super) layers: usize,
}

#[derive(Serialize)]
pub(super) struct Device {
    pub(super) name: String,
    pub(super) ranks: usize,
    pub(super) nodes: usize,
    pub(super) memory_gb: f64,
    pub(super) tflops_per_s: f64,
    pub(super) gb_per_s: f64,
    pub(super) links: Option<String>,
}

/// The most that a rank has of a step.
#[derive(Serialize)]
pub(super) struct Rank {
    /// Ranks that have something to do in a step.
    pub(super) busy_ranks: usize,
    pub(super) questions_per_step: usize,
    pub(super) completions_per_step: usize,
    pub(super) prompts: usize,
    pub(super) completions_per_prompt: usize,
    pub(super) max_prompt_length: usize,
    pub(super) max_completion_length: usize,
}

#[derive(Serialize)]
pub(super) struct Memory {
    pub(super) fits: bool,
    pub(super) total_gb: f64,
    pub(super) usable_gb: f64,
    /// With every layer computed again.
    pub(super) least_gb: f64,
    pub(super) base_gb: f64,
    pub(super) weights_gb: f64,
    pub(super) reference_gb: f64,
    pub(super) masters_gb: f64,
    pub(super) moments_gb: f64,
    pub(super) rollout_pass_gb: f64,
    pub(super) rollout_gb: f64,
    pub(super) gradients_gb: f64,
    pub(super) update_gb: f64,
}

#[derive(Serialize)]
pub(super) struct Fits {
    pub(super) recompute: &'static str,
    pub(super) kept_layers: usize,
    pub(super) layers: usize,
    pub(super) max_tokens_per_batch: usize,
    /// The largest micro-batch with every layer computed again.
    pub(super) largest_batch_tokens: Option<usize>,
    pub(super) kv_pages: usize,
    pub(super) kv_sequences: usize,
}

/// Tokens of a usual prompt and completion.
#[derive(Clone, Copy, Serialize)]
pub(super) struct Lengths {
    pub(super) prompt: usize,
    pub(super) completion: usize,
}

#[derive(Serialize)]
pub(super) struct Time {
    pub(super) step_s: f64,
    pub(super) lengths: Lengths,
    /// Over all ranks, while completions are drawn.
    pub(super) new_tokens_per_s: f64,
    pub(super) phases: Vec<PhaseTime>,
}

#[derive(Serialize)]
pub(super) struct PhaseTime {
    pub(super) name: &'static str,
    pub(super) seconds: f64,
    pub(super) hidden_s: f64,
    pub(super) bound: &'static str,
    pub(super) tflop: f64,
    pub(super) gb: f64,
}

#[derive(Serialize)]
pub(super) struct Run {
    pub(super) steps: u64,
    pub(super) hours: f64,
    pub(super) device_hours: f64,
}

#[derive(Serialize)]
pub(super) struct Advised {
    pub(super) what: String,
    pub(super) total_gb: f64,
}

impl Report {
    pub(super) fn new(
        settings: &Train,
        wanted: &Wanted<'_>,
        place: &Where,
        lengths: Lengths,
        estimate: &Estimate,
        steps: Option<u64>,
    ) -> Self {
        let (load, plan, room) = (wanted.load(), wanted.memory(), wanted.room());
        let layers = wanted.config.num_hidden_layers;
        let step_s = estimate.seconds();
        let hours = |steps: u64| steps as f64 * step_s / HOUR;
        Self {
            model: Model {
                name: settings.model.clone(),
                parameters: load.parameters,
                trainable: load.trainable,
                layers,
            },
            device: Device {
                name: place.name.clone(),
                ranks: place.network.ranks,
                nodes: place.network.nodes,
                memory_gb: gb(place.memory),
                tflops_per_s: rounded(place.machine.products_per_s / 1e12),
                gb_per_s: rounded(place.machine.bytes_per_s / 1e9),
                links: place.links.clone(),
            },
            rank: Rank {
                busy_ranks: settings
                    .generation_batch_size
                    .div_ceil((load.prompts * load.completions).max(1))
                    .min(place.network.ranks),
                questions_per_step: settings.questions_per_step(),
                completions_per_step: settings.generation_batch_size,
                prompts: load.prompts,
                completions_per_prompt: load.completions,
                max_prompt_length: load.prompt,
                max_completion_length: load.completion,
            },
            memory: Memory::new(&plan, wanted.usable, room.least),
            fits: Fits {
                recompute: super::name(wanted.recompute),
                kept_layers: plan.tape.map_or(plan.kept_layers, |tape| tape.layers),
                layers,
                max_tokens_per_batch: load.budget,
                largest_batch_tokens: room.budget,
                kv_pages: room.kv_pages,
                kv_sequences: room.kv_sequences,
            },
            time: Time::new(estimate, settings.generation_batch_size, lengths),
            run: steps.map(|steps| Run {
                steps,
                hours: rounded(hours(steps)),
                device_hours: rounded(hours(steps) * place.network.ranks as f64),
            }),
            advice: wanted.advice().iter().map(advised).collect(),
        }
    }
}

impl Memory {
    fn new(plan: &MemoryPlan, usable: usize, least: usize) -> Self {
        Self {
            fits: plan.total() <= usable,
            total_gb: gb(plan.total()),
            usable_gb: gb(usable),
            least_gb: gb(least),
            base_gb: gb(plan.base),
            weights_gb: gb(plan.weights),
            reference_gb: gb(plan.reference),
            masters_gb: gb(plan.masters),
            moments_gb: gb(plan.moments),
            rollout_pass_gb: gb(plan.taped),
            rollout_gb: gb(plan.rollout),
            gradients_gb: gb(plan.gradients),
            update_gb: gb(plan.update.max(plan.sampler)),
        }
    }
}

impl Time {
    fn new(estimate: &Estimate, completions: usize, lengths: Lengths) -> Self {
        let decoding = estimate.seconds_of(PhaseKind::Decode);
        let new = (completions * lengths.completion) as f64;
        let phase = |phase: &Phase| PhaseTime {
            name: phase.kind.name(),
            seconds: rounded(phase.seconds),
            hidden_s: rounded(phase.hidden_s),
            bound: phase.bound.name(),
            tflop: rounded(phase.flops / 1e12),
            gb: rounded(phase.bytes / 1e9),
        };
        Self {
            step_s: rounded(estimate.seconds()),
            lengths,
            new_tokens_per_s: if decoding > 0.0 { rounded(new / decoding) } else { 0.0 },
            phases: estimate.phases.iter().map(phase).collect(),
        }
    }
}

fn advised(Advice { changes, total }: &Advice) -> Advised {
    let what: Vec<String> = changes.iter().map(|change| words(*change)).collect();
    Advised { what: what.join(" and "), total_gb: gb(*total) }
}

fn words(change: Change) -> String {
    match change {
        Change::RecomputeAll => "`--set recompute=all`".into(),
        Change::Budget(tokens) => format!("`--set max_tokens_per_batch={tokens}`"),
        Change::Bf16Gradients => "`--gradients bf16`".into(),
        Change::NoReference => {
            "no reference (`--set beta=0`, and a judge behind an API or none)".into()
        }
        Change::Adapter => "an adapter (`--set use_peft=true`)".into(),
        Change::Quantised => "weights in 4.5 bits, q4_k (not in `train` yet)".into(),
        Change::Gpus(gpus) => format!("{gpus} GPUs in all"),
    }
}

fn gb(bytes: usize) -> f64 {
    rounded(bytes as f64 / 1e9)
}

/// To three places behind the point.
fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}
