//! The parts of a step and how long each takes.

mod kinds;

use embodied_r_policy::{Group, ModelConfig, PassFlops};

use super::rates::{PromptReads, saturating};
use super::{Machine, Network};
use crate::memory_plan::{Load, MemoryPlan, SAMPLED_TOGETHER};
pub use kinds::{Bound, PhaseKind};

/// A part of a step, on the rank that has most to do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Phase {
    /// Which part.
    pub kind: PhaseKind,
    /// Seconds that it adds to the step.
    pub seconds: f64,
    /// Seconds of it that another phase hides.
    pub hidden_s: f64,
    /// What it is bound by.
    pub bound: Bound,
    /// Multiplications and additions.
    pub flops: f64,
    /// Bytes read and written, or sent.
    pub bytes: f64,
}

/// The parts of a step in their order.
#[derive(Debug, Clone, PartialEq)]
pub struct Estimate {
    /// Those that take time.
    pub phases: Vec<Phase>,
}

impl Estimate {
    /// The estimate of a step of `load`, whose lengths are those that are to be expected, with the memory of `plan`.
    pub fn new(
        config: &ModelConfig,
        load: &Load,
        plan: &MemoryPlan,
        machine: &Machine,
        network: &Network,
    ) -> Self {
        let step = Step { config, load, plan, machine, network };
        let update = step.update();
        let mut phases = vec![step.gather()];
        if load.rollout.is_some() {
            phases.extend([step.prefill(), step.decode()]);
        }
        phases.extend([step.reference(), update, step.reduce(&update), step.optimizer()]);
        phases.retain(|phase| phase.seconds + phase.hidden_s > 0.0);
        Self { phases }
    }

    /// The rollout alone, as generation without training has it.
    pub fn of_rollout(
        config: &ModelConfig,
        load: &Load,
        plan: &MemoryPlan,
        machine: &Machine,
    ) -> Self {
        let step = Step { config, load, plan, machine, network: &Network::SINGLE };
        Self { phases: vec![step.prefill(), step.decode()] }
    }

    /// Seconds of the step.
    pub fn seconds(&self) -> f64 {
        self.phases.iter().map(|phase| phase.seconds).sum()
    }

    /// Seconds of one phase; 0 if there is none.
    pub fn seconds_of(&self, kind: PhaseKind) -> f64 {
        let of_kind = self.phases.iter().filter(|phase| phase.kind == kind);
        of_kind.map(|phase| phase.seconds).sum()
    }
}

/// What the phases follow from.
struct Step<'a> {
    config: &'a ModelConfig,
    load: &'a Load,
    plan: &'a MemoryPlan,
    machine: &'a Machine,
    network: &'a Network,
}

impl Step<'_> {
    /// Forward passes over the step's prompts with completions of so many tokens.
    fn flops(&self, completion: usize) -> PassFlops {
        let completions = vec![vec![0; completion]; self.load.completions];
        let group = Group { prompt: vec![0; self.load.prompt], completions };
        let one = self.config.pass_flops(&[group]);
        let prompts = self.load.prompts as f64;
        PassFlops { products: prompts * one.products, attention: prompts * one.attention }
    }

    /// Bytes of the weights in the format that products are made of.
    fn weight_bytes(&self) -> f64 {
        let bf16 = self.load.rollout == Some(embodied_r_policy::Precision::Bf16);
        match bf16 && self.load.layout.master == 0 {
            true => 2.0 * self.config.multiplied_numbers() as f64,
            false => self.load.layout.weight_bytes(self.config.multiplied_numbers()) as f64,
        }
    }

    /// A phase of `times` forward passes' work over so many tokens, `together` of them at once.
    fn passes(
        &self,
        kind: PhaseKind,
        times: f64,
        flops: PassFlops,
        (tokens, together): (usize, usize),
    ) -> Phase {
        let Machine { products_per_s, attention_per_s, bytes_per_s, rates } = self.machine;
        let of = |share| saturating(share, together as f64, rates.half_tokens);
        let computing = times
            * (flops.products / (products_per_s * of(rates.products))
                + flops.attention / (attention_per_s * of(rates.attention)));
        let chunks = tokens.div_ceil(together.max(1)) as f64;
        let bytes = times * chunks * self.weight_bytes();
        let reading = bytes / (bytes_per_s * rates.reading);
        let bound = if computing >= reading { Bound::Compute } else { Bound::Memory };
        let (seconds, flops) = (computing.max(reading), times * flops.total());
        Phase { kind, seconds, hidden_s: 0.0, bound, flops, bytes }
    }

    fn prefill(&self) -> Phase {
        let tokens = self.load.prompts * self.load.prompt;
        let together = SAMPLED_TOGETHER.min(tokens);
        self.passes(PhaseKind::Prefill, 1.0, self.flops(1), (tokens, together))
    }

    /// Decoding steps with the mean number of tokens before them.
    fn decode(&self) -> Phase {
        let Machine { products_per_s, attention_per_s, bytes_per_s, rates } = self.machine;
        let (config, load) = (self.config, self.load);
        let steps = load.completion.saturating_sub(1) as f64;
        let (groups, sequences) = (load.prompts as f64, (load.prompts * load.completions) as f64);
        let (prompt, own) = (load.prompt as f64, load.completion as f64 / 2.0);
        let layers = config.num_hidden_layers as f64;
        let products = 2.0 * sequences * config.multiplied_numbers() as f64;
        let attention = config.pair_flops() * layers * sequences * (prompt + own);
        let prompts_read = match rates.prompt_reads {
            PromptReads::OncePerGroup => groups,
            PromptReads::OncePerCompletion => sequences,
        };
        let cached = (prompts_read * prompt + sequences * own)
            * config.kv_bytes_per_token(load.layout.number) as f64;
        let few = saturating(rates.decoding, sequences, rates.half_sequences);
        let read_s = |bytes: f64| bytes / (bytes_per_s * rates.reading);
        let parts = [
            (products / (products_per_s * few), read_s(self.weight_bytes())),
            (attention / (attention_per_s * rates.decoding_attention), read_s(cached)),
        ];
        let starting = layers * rates.layer_s + rates.step_s;
        let step: f64 = parts.iter().map(|(computing, reading)| computing.max(*reading)).sum();
        Phase {
            kind: PhaseKind::Decode,
            seconds: steps * (step + starting),
            hidden_s: 0.0,
            bound: decoding_bound(parts, starting),
            flops: steps * (products + attention),
            bytes: steps * (self.weight_bytes() + cached),
        }
    }

    fn reference(&self) -> Phase {
        let times = if self.load.reference > 0 { 1.0 } else { 0.0 };
        let flops = self.flops(self.load.completion);
        self.passes(PhaseKind::Reference, times, flops, self.packed())
    }

    fn update(&self) -> Phase {
        let flops = self.flops(self.load.completion);
        let passes = self.forwards() + self.backwards();
        self.passes(PhaseKind::Update, passes, flops, self.packed())
    }

    /// Tokens of a step, and of a micro-batch.
    fn packed(&self) -> (usize, usize) {
        (self.load.tokens(), self.load.tokens_together())
    }

    /// Forward passes that the update makes itself.
    fn forwards(&self) -> f64 {
        self.load.iterations.saturating_sub(usize::from(self.plan.tape.is_some())) as f64
    }

    /// What its backwards are worth in forward passes: the gradients of inputs, those of the weights that are trained,
    /// and the layers that are computed again.
    fn backwards(&self) -> f64 {
        let layers = self.config.num_hidden_layers.max(1) as f64;
        let again = |kept: usize| 1.0 - kept as f64 / layers;
        let trained = self.load.trainable as f64 / self.load.parameters.max(1) as f64;
        let own = self.forwards() * again(self.plan.kept_layers);
        let taped = self.plan.tape.map_or(0.0, |tape| again(tape.layers));
        self.load.iterations as f64 * (1.0 + trained.min(1.0)) + own + taped
    }

    fn optimizer(&self) -> Phase {
        let Load { trainable, layout, .. } = self.load;
        let weight = layout.weights.bits() / 8.0;
        let remembered = (self.load.moments() * size_of::<f32>()) as f64
            + if layout.master > 0 { layout.master as f64 } else { weight };
        // All that is remembered is read and written, and so is the gradient, which is cleared.
        let copy = if layout.master > 0 { weight } else { 0.0 };
        let each = 2.0 * (remembered + layout.gradient as f64) + copy;
        let share = *trainable as f64 / layout.ranks.max(1) as f64;
        let bytes = self.load.iterations as f64 * share * each;
        let seconds = bytes / (self.machine.bytes_per_s * self.machine.rates.reading);
        let (kind, bound) = (PhaseKind::Optimizer, Bound::Memory);
        Phase { kind, seconds, hidden_s: 0.0, bound, flops: 0.0, bytes }
    }

    fn gather(&self) -> Phase {
        let bytes = self.load.layout.weight_bytes(self.load.trainable) as f64;
        self.sent(PhaseKind::Gather, bytes, 0.0)
    }

    /// Gradients are reduced in the backward of an update's last micro-batch, bucket by bucket.
    fn reduce(&self, update: &Phase) -> Phase {
        let bytes = (self.load.trainable * self.load.layout.gradient) as f64;
        let (forwards, backwards) = (self.forwards(), self.backwards());
        let backward = update.seconds * backwards / (forwards + backwards);
        let batches = self.load.tokens().div_ceil(self.load.tokens_together().max(1));
        self.sent(PhaseKind::Reduce, bytes, backward / batches.max(1) as f64)
    }

    /// A collective over `bytes` in each iteration, which `cover` seconds of other work hide.
    fn sent(&self, kind: PhaseKind, bytes: f64, cover: f64) -> Phase {
        let times = self.load.iterations as f64;
        let seconds = times * self.network.ring_s(bytes);
        let hidden_s = seconds.min(cover);
        let bytes = times * self.network.ring_bytes(bytes);
        Phase {
            kind,
            seconds: seconds - hidden_s,
            hidden_s,
            bound: Bound::Network,
            flops: 0.0,
            bytes,
        }
    }
}

/// What takes most of a decoding step, of which each part has seconds of computing and of reading.
fn decoding_bound(parts: [(f64, f64); 2], starting: f64) -> Bound {
    let of = |memory: bool| -> f64 {
        let mine = parts.iter().filter(|(computing, reading)| (reading >= computing) == memory);
        mine.map(|(computing, reading)| computing.max(*reading)).sum()
    };
    let (memory, compute) = (of(true), of(false));
    match starting > memory.max(compute) {
        true => Bound::Launches,
        false if memory >= compute => Bound::Memory,
        false => Bound::Compute,
    }
}

#[cfg(test)]
mod tests;
