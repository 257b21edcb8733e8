//! The report of `plan`, as `--json` prints it.

use embodied_r_grpo::estimate::memory_plan::{MemoryPlan, VisionMemory};
use embodied_r_grpo::estimate::roofline::fit::{Advice, MemoryReduction, PlannedRun};
use embodied_r_grpo::estimate::roofline::{Phase, PhaseKind, StepEstimate};
use embodied_r_grpo::rollout::partition::completions_per_rank;
use embodied_r_grpo::settings::{GrpoSettings, Recompute};
use serde::Serialize;

use super::hardware::Hardware;
use super::images::QuestionImages;

const SECONDS_PER_HOUR: f64 = 3600.0;

/// The estimates of a step.
pub(super) struct Estimates {
    /// As `train` shares the groups.
    pub(super) step: StepEstimate,
    /// With whole groups only.
    pub(super) whole_groups: StepEstimate,
}

/// The report.
#[derive(Serialize)]
pub(super) struct Report {
    pub(super) model: Model,
    pub(super) device: Device,
    pub(super) rank: Rank,
    pub(super) memory: Memory,
    pub(super) fits: Capacity,
    pub(super) time: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) run: Option<Run>,
    pub(super) advice: Vec<Suggestion>,
}

#[derive(Serialize)]
pub(super) struct Model {
    pub(super) name: String,
    pub(super) parameters: usize,
    pub(super) trainable: usize,
    pub(super) layers: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) vision_encoder: Option<VisionEncoder>,
}

/// The vision encoder of a model that sees.
#[derive(Serialize)]
pub(super) struct VisionEncoder {
    pub(super) parameters: usize,
    pub(super) trainable: usize,
    /// Images and videos of a question.
    pub(super) images: usize,
    /// Their tokens.
    pub(super) image_tokens: usize,
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

/// The largest share of a step that a rank gets.
#[derive(Serialize)]
pub(super) struct Rank {
    /// Ranks with work in a step.
    pub(super) busy_ranks: usize,
    /// Completions of the rank with the most.
    pub(super) completions: usize,
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
    /// With full activation recomputation.
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
    /// Host memory of a rank of GPUs: weights on their way to the device, image embeddings and patches.
    pub(super) host_gb: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) vision: Option<VisionReport>,
}

/// Memory of the vision encoder and the images.
#[derive(Serialize)]
pub(super) struct VisionReport {
    pub(super) weights_gb: f64,
    /// Gradients, master weights and moments.
    pub(super) training_gb: f64,
    pub(super) embeddings_gb: f64,
    pub(super) patches_gb: f64,
    pub(super) activations_gb: f64,
    /// Of the encoder's passes; those of a frozen one alternate with the rollout and the update.
    pub(super) workspace_gb: f64,
    /// Embeddings and patches in host memory, besides the GPU's.
    pub(super) host_gb: f64,
}

/// Steps of the run and of an epoch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Steps {
    pub(super) total: u64,
    pub(super) per_epoch: u64,
}

/// What fits into the memory.
#[derive(Serialize)]
pub(super) struct Capacity {
    pub(super) recompute: &'static str,
    pub(super) kept_layers: usize,
    pub(super) layers: usize,
    pub(super) max_tokens_per_batch: usize,
    /// The largest micro-batch with full activation recomputation.
    pub(super) largest_batch_tokens: Option<usize>,
    pub(super) kv_pages: usize,
    pub(super) kv_sequences: usize,
}

/// Typical lengths of a prompt and a completion, in tokens.
#[derive(Clone, Copy, Serialize)]
pub(super) struct Lengths {
    pub(super) prompt: usize,
    pub(super) completion: usize,
}

#[derive(Serialize)]
pub(super) struct Time {
    pub(super) step_s: f64,
    /// The same if groups were not split over ranks.
    pub(super) whole_groups_step_s: f64,
    pub(super) lengths: Lengths,
    /// Decoding throughput of all ranks.
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

/// A change with which the run fits.
#[derive(Serialize)]
pub(super) struct Suggestion {
    pub(super) what: String,
    pub(super) total_gb: f64,
}

impl Report {
    pub(super) fn new(
        settings: &GrpoSettings,
        wanted: &PlannedRun<'_>,
        hardware: &Hardware,
        lengths: Lengths,
        estimates: &Estimates,
        steps: Option<Steps>,
        images: Option<&QuestionImages>,
    ) -> Self {
        let (load, plan, room) = (wanted.workload(), wanted.memory(), wanted.headroom());
        let layers = wanted.config.num_hidden_layers;
        let ranks = hardware.network.ranks;
        let completions_per_rank = completions_per_rank(&wanted.total_workload.parts(ranks), ranks);
        let step_s = estimates.step.seconds();
        let encoding = estimates.step.seconds_of(PhaseKind::Vision);
        let hours = |Steps { total, per_epoch }: Steps| {
            // A frozen encoder encodes an image once per run.
            let is_trained = load.vision.is_some_and(|vision| vision.trainable > 0);
            let encoded = if is_trained { total } else { total.min(per_epoch) };
            (total as f64 * (step_s - encoding) + encoded as f64 * encoding) / SECONDS_PER_HOUR
        };
        Self {
            model: Model {
                name: settings.run.model.clone(),
                parameters: load.parameters,
                trainable: load.trainable,
                layers,
                vision_encoder: images.map(|images| VisionEncoder {
                    parameters: images.config.parameter_count(),
                    trainable: load.vision.map_or(0, |vision| vision.trainable),
                    images: images.count,
                    image_tokens: images.tokens,
                }),
            },
            device: Device {
                name: hardware.name.clone(),
                ranks: hardware.network.ranks,
                nodes: hardware.network.nodes,
                memory_gb: gb(hardware.memory),
                tflops_per_s: rounded(hardware.machine.matmul_flops_per_s / 1e12),
                gb_per_s: rounded(hardware.machine.bytes_per_s / 1e9),
                links: hardware.links.clone(),
            },
            rank: Rank {
                busy_ranks: completions_per_rank
                    .iter()
                    .filter(|completions| **completions > 0)
                    .count(),
                completions: completions_per_rank.iter().copied().max().unwrap_or(0),
                questions_per_step: settings.rollout.questions_per_step(),
                completions_per_step: settings.rollout.generation_batch_size,
                prompts: load.prompts,
                completions_per_prompt: load.completions,
                max_prompt_length: load.prompt,
                max_completion_length: load.completion,
            },
            memory: Memory::new(&plan, wanted.usable, room.least),
            fits: Capacity {
                recompute: recompute_name(wanted.recompute),
                kept_layers: plan.activation_cache.map_or(plan.saved_layers, |cache| cache.layers),
                layers,
                max_tokens_per_batch: load.budget,
                largest_batch_tokens: room.budget,
                kv_pages: room.kv_pages,
                kv_sequences: room.kv_sequences,
            },
            time: Time::new(estimates, settings.rollout.generation_batch_size, lengths),
            run: steps.map(|steps| Run {
                steps: steps.total,
                hours: rounded(hours(steps)),
                device_hours: rounded(hours(steps) * hardware.network.ranks as f64),
            }),
            advice: wanted.advice().iter().map(suggestion).collect(),
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
            rollout_pass_gb: gb(plan.cached_activations),
            rollout_gb: gb(plan.rollout),
            gradients_gb: gb(plan.gradients),
            update_gb: gb(plan.update.max(plan.sampler_weights)),
            host_gb: gb(plan.staging + plan.vision.host),
            vision: (plan.vision != VisionMemory::NONE).then(|| VisionReport {
                weights_gb: gb(plan.vision.weights),
                training_gb: gb(plan.vision.training),
                embeddings_gb: gb(plan.vision.embeddings),
                patches_gb: gb(plan.vision.patches),
                activations_gb: gb(plan.vision.activations),
                workspace_gb: gb(plan.vision.workspace),
                host_gb: gb(plan.vision.host),
            }),
        }
    }
}

impl Time {
    fn new(estimates: &Estimates, completions: usize, lengths: Lengths) -> Self {
        let Estimates { step: estimate, whole_groups } = estimates;
        let decoding = estimate.seconds_of(PhaseKind::Decode);
        let new = (completions * lengths.completion) as f64;
        let phase = |phase: &Phase| PhaseTime {
            name: phase.kind.name(),
            seconds: rounded(phase.seconds),
            hidden_s: rounded(phase.hidden_s),
            bound: phase.bottleneck.name(),
            tflop: rounded(phase.flops / 1e12),
            gb: rounded(phase.bytes / 1e9),
        };
        Self {
            step_s: rounded(estimate.seconds()),
            whole_groups_step_s: rounded(whole_groups.seconds()),
            lengths,
            new_tokens_per_s: if decoding > 0.0 { rounded(new / decoding) } else { 0.0 },
            phases: estimate.phases.iter().map(phase).collect(),
        }
    }
}

fn suggestion(Advice { changes, total }: &Advice) -> Suggestion {
    let what: Vec<String> = changes.iter().map(|change| describe(*change)).collect();
    Suggestion { what: what.join(" and "), total_gb: gb(*total) }
}

fn describe(change: MemoryReduction) -> String {
    match change {
        MemoryReduction::RecomputeAll => "`--set recompute=all`".into(),
        MemoryReduction::Budget(tokens) => format!("`--set max_tokens_per_batch={tokens}`"),
        MemoryReduction::NoReference => {
            "no reference model (`--set beta=0`, and no judge or one behind an API)".into()
        }
        MemoryReduction::Adapter => "a LoRA adapter (`--set use_peft=true`)".into(),
        MemoryReduction::Gpus(gpus) => format!("{gpus} GPUs in total"),
    }
}

fn gb(bytes: usize) -> f64 {
    rounded(bytes as f64 / 1e9)
}

/// Rounds to three decimals.
fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

/// The value of the setting `recompute`.
fn recompute_name(recompute: Recompute) -> &'static str {
    match recompute {
        Recompute::Auto => "auto",
        Recompute::All => "all",
        Recompute::None => "none",
    }
}
