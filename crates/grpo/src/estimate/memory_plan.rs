//! Memory estimate of a training step.

mod layout;
mod rank_device;
mod vision;
mod vision_memory;
mod workload;

use embodied_r_policy::weights::tensor_shapes;
use embodied_r_policy::{ActivationCacheOptions, ModelConfig};

use crate::settings::Recompute;

pub use layout::{MemoryKind, MemoryLayout, Placement, SamplerWeights};
pub use rank_device::RankDevice;
pub use vision::{PromptImages, VisionLoad};
pub use vision_memory::VisionMemory;
pub use workload::{ActivationCachePolicy, Workload};

/// Bytes of an f32.
const F32: usize = size_of::<f32>();

/// Fraction of the free memory for activations; the rest covers what the estimate misses.
const SHARE: f64 = 0.5;

/// Logits held at once: the LM head processes tokens in chunks.
const LOGITS: usize = 16 << 20;

/// Prefill chunk size in tokens.
pub(crate) const PREFILL_CHUNK_TOKENS: usize = 2048;

/// Memory by purpose, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Baseline before the model is loaded.
    pub base: usize,
    /// The policy's weights.
    pub weights: usize,
    /// The reference's weights.
    pub reference: usize,
    /// Gradients.
    pub gradients: usize,
    /// f32 master weights, if the weights have lower precision.
    pub masters: usize,
    /// The optimizer's moments.
    pub moments: usize,
    /// KV cache, and the sampler's copy of the weights if there is one.
    pub rollout: usize,
    /// The KV cache's part of it.
    pub kv_cache: usize,
    /// The sampler's copy of the weights. Its memory is reused in the update for tensors, but not for the gradients,
    /// which need one contiguous buffer.
    pub sampler_weights: usize,
    /// Rollout activations cached for the update.
    pub cached_activations: usize,
    /// For how many layers the rollout caches all activations; `None` if the update runs its own forward pass.
    pub activation_cache: Option<ActivationCacheOptions>,
    /// Activations and logits of a micro-batch's backward.
    pub update: usize,
    /// Its part for activations of layers that are not recomputed, if the update runs its own forward pass.
    pub saved_activations: usize,
    /// Number of layers that are not recomputed.
    pub saved_layers: usize,
    /// Bytes of activations that a trained vision encoder may save for its backward pass.
    pub tower_activations: usize,
    /// The vision encoder and the images.
    pub vision: VisionMemory,
    /// In host memory, besides a device's: the weights on their way to the device.
    pub staging: usize,
}

impl MemoryPlan {
    /// The plan for `workload` with `free` bytes in total, if known.
    pub fn new(
        config: &ModelConfig,
        workload: &Workload,
        recompute: Recompute,
        free: Option<usize>,
    ) -> Self {
        let (tokens, layout) = (workload.micro_batch_tokens(), &workload.layout);
        let pass = config.pass_bytes(tokens, layout.activation);
        let scored = tokens.min(workload.prompts * workload.completions * workload.completion);
        let logits = LOGITS.max(config.vocab_size).min(scored * config.vocab_size) * F32;
        let heads = 4 * scored * config.hidden_size * layout.activation;
        let mut plan = Self {
            base: layout.base,
            weights: layout.weight_bytes(workload.parameters),
            reference: layout.weight_bytes(workload.reference),
            gradients: workload.trainable * layout.gradient,
            masters: workload.master_bytes(),
            moments: workload.moment_bytes(),
            rollout: rollout(config, workload),
            kv_cache: kv_cache(config, workload),
            sampler_weights: workload.sampler_bytes(),
            cached_activations: 0,
            activation_cache: None,
            update: pass.inputs + pass.workspace + logits.max(heads),
            saved_activations: 0,
            saved_layers: 0,
            tower_activations: 0,
            vision: vision(workload, 0),
            staging: staging(config, layout),
        };
        let layers = config.num_hidden_layers;
        let spare = free.unwrap_or(0).saturating_sub(plan.total()) as f64 * SHARE;
        let whole = layers * pass.layer;
        let room = plan.state().max(pass.inputs + whole).min(spare as usize);
        plan.activation_cache = activation_cache(config, workload, recompute, room);
        let keep = match (plan.activation_cache, recompute) {
            (Some(activation_cache), _) => {
                plan.cached_activations = config.activation_cache_bytes(activation_cache);
                // The cache holds the layers' inputs. Later iterations may reuse its memory.
                plan.update -= pass.inputs;
                if workload.iterations > 1 {
                    plan.cached_activations.saturating_sub(pass.inputs)
                } else {
                    0
                }
            }
            (None, Recompute::All) => 0,
            (None, Recompute::None) => whole,
            (None, Recompute::Auto) => spare as usize,
        };
        plan.saved_layers = (keep / pass.layer.max(1)).min(layers);
        plan.saved_activations = plan.saved_layers * pass.layer;
        if plan.activation_cache.is_none() && plan.saved_layers > 0 {
            // The first layer of the backward pass is already counted.
            plan.update += plan.saved_activations - pass.layer;
        }
        let left = free.unwrap_or(0).saturating_sub(plan.total()) as f64 * SHARE;
        let room = (plan.state() + plan.vision.state()).min(left as usize);
        plan.tower_activations = tower_activations(workload, recompute, room);
        plan.vision = vision(workload, plan.tower_activations);
        plan
    }

    /// Weights, reference and optimizer state.
    fn state(&self) -> usize {
        self.weights + self.reference + self.masters + self.moments
    }

    /// Memory resident throughout the run.
    pub fn resident(&self) -> usize {
        self.base + self.state() + self.vision.resident()
    }

    /// Peak memory: rollout and update, with its gradients, alternate.
    pub fn total(&self) -> usize {
        let update = self.vision.beside(self.update.max(self.sampler_weights)) + self.gradients;
        self.resident() + self.cached_activations + self.rollout.max(update)
    }
}

/// The largest tensor, which is in host memory in f32 and in the device's dtype while it is converted. Others are on the
/// device by then, or still in their files.
fn staging(config: &ModelConfig, layout: &MemoryLayout) -> usize {
    let elements = |shape: &Vec<usize>| shape.iter().product::<usize>();
    let largest = tensor_shapes(config).values().map(elements).max().unwrap_or_default();
    match layout.memory {
        MemoryKind::Host => 0,
        MemoryKind::Device => largest * F32 + layout.weight_bytes(largest),
    }
}

/// What the rollout caches within `room` bytes, or as the settings demand: the inputs, keys and values of all layers,
/// which saves the update's forward pass, and all activations of as many layers as fit, which saves their
/// recomputation.
fn activation_cache(
    config: &ModelConfig,
    workload: &Workload,
    recompute: Recompute,
    room: usize,
) -> Option<ActivationCacheOptions> {
    let of = |layers: usize| ActivationCacheOptions { layers, tokens: workload.tokens() };
    match (workload.activation_cache, recompute) {
        (ActivationCachePolicy::Never, _) | (ActivationCachePolicy::Auto, Recompute::All) => None,
        (ActivationCachePolicy::Fixed(layers), _) => layers.map(of),
        (ActivationCachePolicy::Auto, Recompute::None) => Some(of(config.num_hidden_layers)),
        (ActivationCachePolicy::Auto, Recompute::Auto) => {
            let fits = |layers: &usize| config.activation_cache_bytes(of(*layers)) <= room;
            (0..=config.num_hidden_layers).rev().find(fits).map(of)
        }
    }
}

/// What a trained vision encoder saves within `room` bytes, or as the settings demand: all activations of as many blocks as
/// fit, which saves their recomputation.
fn tower_activations(workload: &Workload, recompute: Recompute, room: usize) -> usize {
    let Some(vision) = &workload.vision else { return 0 };
    let (block, all) = (vision.block_bytes(workload), vision.blocks_bytes(workload));
    match recompute {
        Recompute::All => 0,
        Recompute::None => all,
        Recompute::Auto => all.min(room / block.max(1) * block),
    }
}

fn vision(workload: &Workload, activation_bytes: usize) -> VisionMemory {
    let vision = workload.vision.as_ref();
    vision.map_or(VisionMemory::NONE, |vision| vision.memory(workload, activation_bytes))
}

/// KV cache of the completions that are sampled at once; each prompt is stored once.
fn kv_cache(config: &ModelConfig, workload: &Workload) -> usize {
    if workload.rollout.is_none() {
        return 0;
    }
    let sequences = workload.concurrent_sequences();
    // A group may have begun while another one ends.
    let groups = sequences.div_ceil(workload.completions.max(1)) + 1;
    let prompts = groups.min(workload.prompts);
    let cached = prompts * workload.prompt + sequences * workload.completion;
    cached * config.kv_bytes_per_token(workload.layout.activation)
}

fn rollout(config: &ModelConfig, workload: &Workload) -> usize {
    if workload.rollout.is_none() {
        return 0;
    }
    let logits = workload.concurrent_sequences() * config.vocab_size * F32;
    let together = PREFILL_CHUNK_TOKENS.min(workload.prompts * workload.prompt);
    let pass = config.pass_bytes(together, workload.layout.activation);
    kv_cache(config, workload) + workload.sampler_bytes() + logits + pass.workspace
}

#[cfg(test)]
mod tests;
