//! How much memory a step takes, estimated before it is taken.

mod layout;
mod load;

use embodied_r_policy::{ModelConfig, TapeOptions};

use crate::settings::Recompute;

pub use layout::{BUCKET, Layout, SamplerWeights};
pub use load::{Load, Taping};

/// Bytes of a number.
const F32: usize = size_of::<f32>();

/// Share of the free memory that activations may take: the rest is for what no estimate sees.
const SHARE: f64 = 0.5;

/// Numbers of logits that exist at once (the LM head works through its tokens in chunks).
const LOGITS: usize = 16 << 20;

/// Tokens that the sampler computes at once.
pub(crate) const SAMPLED_TOGETHER: usize = 2048;

/// Memory by purpose, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryPlan {
    /// What is there before anything of the model is.
    pub base: usize,
    /// The policy's weights.
    pub weights: usize,
    /// The reference's weights.
    pub reference: usize,
    /// Gradients.
    pub gradients: usize,
    /// Master copies of the weights, where these are too coarse to be moved by a step.
    pub masters: usize,
    /// The optimiser's moments.
    pub moments: usize,
    /// Keys and values, and the sampler's own copy of the weights if it has one.
    pub rollout: usize,
    /// Of which for keys and values.
    pub cache: usize,
    /// That copy. Its memory is free in the update, in pieces: tensors find room there, but not the gradients, which lie
    /// in one buffer.
    pub sampler: usize,
    /// What the rollout keeps for the update.
    pub taped: usize,
    /// Of how many layers it keeps all; `None` if the update computes its own forward.
    pub tape: Option<TapeOptions>,
    /// Activations and logits of a micro-batch's backward.
    pub update: usize,
    /// Of which for layers that are not computed again, where the forward is the update's own.
    pub kept: usize,
    /// Layers that are not computed again.
    pub kept_layers: usize,
}

impl MemoryPlan {
    /// The plan for `load`, where `free` bytes are to be had in all, if that is known.
    pub fn new(
        config: &ModelConfig,
        load: &Load,
        recompute: Recompute,
        free: Option<usize>,
    ) -> Self {
        let (tokens, layout) = (load.tokens_together(), &load.layout);
        let pass = config.pass_bytes(tokens, layout.number);
        let scored = tokens.min(load.prompts * load.completions * load.completion);
        let logits = LOGITS.max(config.vocab_size).min(scored * config.vocab_size) * F32;
        let heads = 4 * scored * config.hidden_size * layout.number;
        let mut plan = Self {
            base: layout.base,
            weights: layout.weight_bytes(load.parameters),
            reference: layout.weight_bytes(load.reference),
            gradients: load.trainable * layout.gradient,
            masters: load.master_bytes(),
            moments: load.moment_bytes(),
            rollout: rollout(config, load),
            cache: cache(config, load),
            sampler: load.sampler_bytes(),
            taped: 0,
            tape: None,
            update: pass.inputs + pass.working + logits.max(heads),
            kept: 0,
            kept_layers: 0,
        };
        let layers = config.num_hidden_layers;
        let spare = free.unwrap_or(0).saturating_sub(plan.total()) as f64 * SHARE;
        let whole = layers * pass.layer;
        let room = plan.state().max(pass.inputs + whole).min(spare as usize);
        plan.tape = tape(config, load, recompute, room);
        let keep = match (plan.tape, recompute) {
            (Some(tape), _) => {
                plan.taped = config.tape_bytes(tape);
                // The layers' inputs are on the tape. Later iterations may keep what it has taken until then.
                plan.update -= pass.inputs;
                if load.iterations > 1 { plan.taped.saturating_sub(pass.inputs) } else { 0 }
            }
            (None, Recompute::All) => 0,
            (None, Recompute::None) => whole,
            (None, Recompute::Auto) => spare as usize,
        };
        plan.kept_layers = (keep / pass.layer.max(1)).min(layers);
        plan.kept = plan.kept_layers * pass.layer;
        if plan.tape.is_none() && plan.kept_layers > 0 {
            // The first layer of the backward is one of them.
            plan.update += plan.kept - pass.layer;
        }
        plan
    }

    /// The model and what is remembered beside it.
    fn state(&self) -> usize {
        self.weights + self.reference + self.masters + self.moments
    }

    /// What lives all the time.
    pub fn resident(&self) -> usize {
        self.base + self.state()
    }

    /// The most at once: rollout and update, with its gradients, take turns.
    pub fn total(&self) -> usize {
        let update = self.update.max(self.sampler) + self.gradients;
        self.resident() + self.taped + self.rollout.max(update)
    }

    /// Bytes that the backward may keep of what its forward computed.
    pub fn activation_bytes(&self) -> usize {
        self.kept
    }
}

/// What the rollout keeps of its forward, where it may take `room` bytes or the settings say that it should: all inputs,
/// keys and values, which spares the update's forward, and the whole of as many layers as there is room for, which
/// need not be computed again either.
fn tape(
    config: &ModelConfig,
    load: &Load,
    recompute: Recompute,
    room: usize,
) -> Option<TapeOptions> {
    let of = |layers: usize| TapeOptions { layers, tokens: load.tokens() };
    match (load.taping, recompute) {
        (Taping::Never, _) | (Taping::Open, Recompute::All) => None,
        (Taping::Settled(layers), _) => layers.map(of),
        (Taping::Open, Recompute::None) => Some(of(config.num_hidden_layers)),
        (Taping::Open, Recompute::Auto) => {
            let fits = |layers: &usize| config.tape_bytes(of(*layers)) <= room;
            (0..=config.num_hidden_layers).rev().find(fits).map(of)
        }
    }
}

/// Keys and values of all that a step draws, each prompt's once.
fn cache(config: &ModelConfig, load: &Load) -> usize {
    if load.rollout.is_none() {
        return 0;
    }
    let cached = load.prompts * (load.prompt + load.completions * load.completion);
    cached * config.kv_bytes_per_token(load.layout.number)
}

fn rollout(config: &ModelConfig, load: &Load) -> usize {
    if load.rollout.is_none() {
        return 0;
    }
    let sequences = load.prompts * load.completions;
    let logits = sequences * config.vocab_size * F32;
    let together = SAMPLED_TOGETHER.min(load.prompts * load.prompt);
    let pass = config.pass_bytes(together, load.layout.number);
    cache(config, load) + load.sampler_bytes() + logits + pass.working
}

#[cfg(test)]
mod tests;
