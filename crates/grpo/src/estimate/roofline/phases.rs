//! The phases of a step and their time.

mod kinds;

use embodied_r_policy::{ForwardFlops, Group, ModelConfig, Precision};

use super::efficiency::{PromptReads, saturating};
use super::{Machine, Network};
use crate::estimate::memory_plan::{MemoryPlan, PREFILL_CHUNK_TOKENS, Workload};
pub use kinds::{Bottleneck, PhaseKind};

/// Patches of a batch of images, at least.
const BATCH_PATCHES: usize = 1024;

/// A phase of a step, on the busiest rank.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Phase {
    /// The kind of phase.
    pub kind: PhaseKind,
    /// Seconds that it adds to the step.
    pub seconds: f64,
    /// Seconds of it that overlap with another phase.
    pub hidden_s: f64,
    /// Its bottleneck.
    pub bottleneck: Bottleneck,
    /// FLOPs.
    pub flops: f64,
    /// Memory traffic, or network traffic, in bytes.
    pub bytes: f64,
}

/// The estimate of a step: its phases in order.
#[derive(Debug, Clone, PartialEq)]
pub struct StepEstimate {
    /// The phases that take time.
    pub phases: Vec<Phase>,
}

impl StepEstimate {
    /// Estimates a step of `workload`, with its expected lengths, and the memory of `plan`.
    pub fn new(
        config: &ModelConfig,
        workload: &Workload,
        plan: &MemoryPlan,
        machine: &Machine,
        network: &Network,
    ) -> Self {
        let step = Step { config, workload, plan, machine, network };
        let update = step.update();
        let mut phases = vec![step.gather(), step.vision()];
        if workload.rollout.is_some() {
            phases.extend([step.prefill(), step.decode()]);
        }
        phases.extend([step.reference(), update, step.reduce(&update), step.optimizer()]);
        phases.retain(|phase| phase.seconds + phase.hidden_s > 0.0);
        Self { phases }
    }

    /// Estimates the rollout alone, for generation without training.
    pub fn of_rollout(
        config: &ModelConfig,
        workload: &Workload,
        plan: &MemoryPlan,
        machine: &Machine,
    ) -> Self {
        let step = Step { config, workload, plan, machine, network: &Network::SINGLE };
        Self { phases: vec![step.prefill(), step.decode()] }
    }

    /// Total seconds of the step.
    pub fn seconds(&self) -> f64 {
        self.phases.iter().map(|phase| phase.seconds).sum()
    }

    /// Seconds of one kind of phase; 0 if it is absent.
    pub fn seconds_of(&self, kind: PhaseKind) -> f64 {
        let of_kind = self.phases.iter().filter(|phase| phase.kind == kind);
        of_kind.map(|phase| phase.seconds).sum()
    }
}

/// The inputs of the estimate.
struct Step<'a> {
    config: &'a ModelConfig,
    workload: &'a Workload,
    plan: &'a MemoryPlan,
    machine: &'a Machine,
    network: &'a Network,
}

impl Step<'_> {
    /// FLOPs of a forward pass over the step's prompts with completions of `completion` tokens.
    fn flops(&self, completion: usize) -> ForwardFlops {
        let completions = vec![vec![0; completion]; self.workload.completions];
        let group = Group { prompt: vec![0; self.workload.prompt].into(), completions };
        let one = self.config.pass_flops(&[group]);
        let prompts = self.workload.prompts as f64;
        ForwardFlops { linear: prompts * one.linear, attention: prompts * one.attention }
    }

    /// Bytes of the weights in the matmul format.
    fn weight_bytes(&self) -> f64 {
        let bf16 = self.workload.rollout == Some(Precision::Bf16);
        match bf16 && self.workload.layout.master == 0 {
            true => 2.0 * self.config.matmul_parameters() as f64,
            false => self.workload.layout.weight_bytes(self.config.matmul_parameters()) as f64,
        }
    }

    /// A phase of `times` forward passes over `tokens` tokens, `together` of them at once.
    fn passes(
        &self,
        kind: PhaseKind,
        times: f64,
        flops: ForwardFlops,
        (tokens, together): (usize, usize),
    ) -> Phase {
        let Machine { matmul_flops_per_s, attention_flops_per_s, efficiencies, .. } = self.machine;
        let of = |share| saturating(share, together as f64, efficiencies.half_tokens);
        let computing = times
            * (flops.linear / (matmul_flops_per_s * of(efficiencies.products))
                + flops.attention / (attention_flops_per_s * of(efficiencies.attention)));
        let chunks = tokens.div_ceil(together.max(1)) as f64;
        self.bound(kind, computing, times * flops.total(), times * chunks * self.weight_bytes())
    }

    /// A phase of `flops` FLOPs in `computing` seconds that reads `bytes`.
    fn bound(&self, kind: PhaseKind, computing: f64, flops: f64, bytes: f64) -> Phase {
        let Machine { bytes_per_s, efficiencies, .. } = self.machine;
        let reading = bytes / (bytes_per_s * efficiencies.reading);
        let bottleneck =
            if computing >= reading { Bottleneck::Compute } else { Bottleneck::Memory };
        let seconds = computing.max(reading);
        Phase { kind, seconds, hidden_s: 0.0, bottleneck, flops, bytes }
    }

    /// Forward passes of the vision encoder, for each iteration and with backward passes if it is trained, and then also
    /// one of the reference's.
    fn vision(&self) -> Phase {
        let Some(vision) = &self.workload.vision else {
            return self.bound(PhaseKind::Vision, 0.0, 0.0, 0.0);
        };
        let images = vision.images_of_step(self.workload);
        let iterations = if vision.trainable > 0 { self.workload.iterations } else { 1 } as f64;
        let references =
            if vision.trainable > 0 && self.workload.reference > 0 { 1.0 } else { 0.0 };
        // Images of mini-batches after the first are encoded again, by the weights of then.
        let again = match vision.trainable {
            0 => 0.0,
            _ => 1.0 - 1.0 / self.workload.mini_batches.max(1) as f64,
        };
        let recomputed = vision.recomputed_share(self.workload, self.plan.tower_activations);
        let flops = images as f64
            * ((iterations + again + references) * vision.forward_flops
                + iterations * (vision.backward_flops + recomputed * vision.recompute_flops));
        let patches = images * vision.patches;
        let together = patches.min(vision.patches.max(BATCH_PATCHES));
        let efficiencies = &self.machine.efficiencies;
        let share = saturating(efficiencies.products, together as f64, efficiencies.half_tokens);
        let batches = patches.div_ceil(together.max(1)) as f64;
        let passes = match vision.trainable {
            0 => 1.0,
            _ => references + again + 2.0 * iterations,
        };
        let weights = self.workload.layout.weight_bytes(vision.parameters) as f64;
        let computing = flops / (self.machine.matmul_flops_per_s * share);
        self.bound(PhaseKind::Vision, computing, flops, passes * batches * weights)
    }

    fn prefill(&self) -> Phase {
        let tokens = self.workload.prompts * self.workload.prompt;
        let together = PREFILL_CHUNK_TOKENS.min(tokens);
        self.passes(PhaseKind::Prefill, 1.0, self.flops(1), (tokens, together))
    }

    /// Decoding steps, at the mean context length.
    fn decode(&self) -> Phase {
        let Machine { matmul_flops_per_s, attention_flops_per_s, bytes_per_s, efficiencies } =
            self.machine;
        let (config, workload) = (self.config, self.workload);
        let steps = workload.completion.saturating_sub(1) as f64;
        let (groups, sequences) =
            (workload.prompts as f64, (workload.prompts * workload.completions) as f64);
        let (prompt, own) = (workload.prompt as f64, workload.completion as f64 / 2.0);
        let layers = config.num_hidden_layers as f64;
        let products = 2.0 * sequences * config.matmul_parameters() as f64;
        let attention = config.attention_flops_per_pair() * layers * sequences * (prompt + own);
        let prompts_read = match efficiencies.prompt_reads {
            PromptReads::OncePerGroup => groups,
            PromptReads::OncePerCompletion => sequences,
        };
        let cached = (prompts_read * prompt + sequences * own)
            * config.kv_bytes_per_token(workload.layout.activation) as f64;
        let few = saturating(efficiencies.decoding, sequences, efficiencies.half_sequences);
        let read_s = |bytes: f64| bytes / (bytes_per_s * efficiencies.reading);
        let parts = [
            (products / (matmul_flops_per_s * few), read_s(self.weight_bytes())),
            (attention / (attention_flops_per_s * efficiencies.decoding_attention), read_s(cached)),
        ];
        let starting = layers * efficiencies.layer_s + efficiencies.step_s;
        let step: f64 = parts.iter().map(|(computing, reading)| computing.max(*reading)).sum();
        Phase {
            kind: PhaseKind::Decode,
            seconds: steps * (step + starting),
            hidden_s: 0.0,
            bottleneck: decode_bottleneck(parts, starting),
            flops: steps * (products + attention),
            bytes: steps * (self.weight_bytes() + cached),
        }
    }

    fn reference(&self) -> Phase {
        let times = if self.workload.reference > 0 { 1.0 } else { 0.0 };
        let flops = self.flops(self.workload.completion);
        self.passes(PhaseKind::Reference, times, flops, self.packed())
    }

    fn update(&self) -> Phase {
        let flops = self.flops(self.workload.completion);
        // Mini-batches after the first need the log-probabilities of the policy that sampled.
        let scored = if self.workload.mini_batches > 1 { 1.0 } else { 0.0 };
        let passes = scored + self.forwards() + self.backwards();
        self.passes(PhaseKind::Update, passes, flops, self.packed())
    }

    /// Tokens of a step and of a micro-batch.
    fn packed(&self) -> (usize, usize) {
        (self.workload.tokens(), self.workload.micro_batch_tokens())
    }

    /// Number of the update's own forward passes.
    fn forwards(&self) -> f64 {
        self.workload.iterations.saturating_sub(usize::from(self.plan.activation_cache.is_some()))
            as f64
    }

    /// The update's backward passes in units of forward passes: gradients of inputs and of trainable weights, and
    /// activation recomputation.
    fn backwards(&self) -> f64 {
        let layers = self.config.num_hidden_layers.max(1) as f64;
        let recomputed = |saved_layers: usize| 1.0 - saved_layers as f64 / layers;
        let trained = self.workload.trainable as f64 / self.workload.parameters.max(1) as f64;
        let own = self.forwards() * recomputed(self.plan.saved_layers);
        let cached_activations = self
            .plan
            .activation_cache
            .map_or(0.0, |activation_cache| recomputed(activation_cache.layers));
        self.workload.iterations as f64 * (1.0 + trained.min(1.0)) + own + cached_activations
    }

    fn optimizer(&self) -> Phase {
        let layout = &self.workload.layout;
        let weight = layout.weights.bits() / 8.0;
        let remembered = (self.workload.moments() * size_of::<f32>()) as f64
            + if layout.master > 0 { layout.master as f64 } else { weight };
        // Optimizer state is read and written, and so is the gradient, which is cleared.
        let copy = if layout.master > 0 { weight } else { 0.0 };
        let each = 2.0 * (remembered + layout.gradient as f64) + copy;
        let share = self.workload.all_trainable() as f64 / layout.ranks.max(1) as f64;
        let bytes = self.workload.optimizer_steps() as f64 * share * each;
        let seconds = bytes / (self.machine.bytes_per_s * self.machine.efficiencies.reading);
        let (kind, bottleneck) = (PhaseKind::Optimizer, Bottleneck::Memory);
        Phase { kind, seconds, hidden_s: 0.0, bottleneck, flops: 0.0, bytes }
    }

    /// Weights are gathered in f32.
    fn gather(&self) -> Phase {
        let bytes = (self.workload.all_trainable() * size_of::<f32>()) as f64;
        self.sent(PhaseKind::Gather, bytes, 0.0)
    }

    /// Gradients are reduced bucket by bucket during the backward pass of the update's last micro-batch.
    fn reduce(&self, update: &Phase) -> Phase {
        let bytes = (self.workload.all_trainable() * self.workload.layout.gradient) as f64;
        let (forwards, backwards) = (self.forwards(), self.backwards());
        let backward = update.seconds * backwards / (forwards + backwards);
        let batches = self.workload.tokens().div_ceil(self.workload.micro_batch_tokens().max(1));
        self.sent(PhaseKind::Reduce, bytes, backward / batches.max(1) as f64)
    }

    /// A collective over `bytes` per optimizer step, of which up to `cover` seconds overlap with other work.
    fn sent(&self, kind: PhaseKind, bytes: f64, cover: f64) -> Phase {
        let times = self.workload.optimizer_steps() as f64;
        let seconds = times * self.network.ring_s(bytes);
        let hidden_s = seconds.min(cover);
        let bytes = times * self.network.ring_bytes(bytes);
        Phase {
            kind,
            seconds: seconds - hidden_s,
            hidden_s,
            bottleneck: Bottleneck::Network,
            flops: 0.0,
            bytes,
        }
    }
}

/// The bottleneck of a decoding step, whose parts have seconds of compute and of memory reads.
fn decode_bottleneck(parts: [(f64, f64); 2], starting: f64) -> Bottleneck {
    let of = |memory: bool| -> f64 {
        let selected = parts.iter().filter(|(computing, reading)| (reading >= computing) == memory);
        selected.map(|(computing, reading)| computing.max(*reading)).sum()
    };
    let (memory, compute) = (of(true), of(false));
    match starting > memory.max(compute) {
        true => Bottleneck::Launches,
        false if memory >= compute => Bottleneck::Memory,
        false => Bottleneck::Compute,
    }
}

#[cfg(test)]
mod tests;
