//! How much memory a step takes, estimated before it is taken.

use embodied_r_policy::{ModelConfig, Precision, TapeOptions};

use crate::batches::room_behind;
use crate::settings::Recompute;

/// Bytes of a number.
const F32: usize = size_of::<f32>();

/// Share of the free memory that activations may take: the rest is for what no estimate sees.
const SHARE: f64 = 0.5;

/// Numbers of logits that exist at once (the LM head works through its tokens in chunks).
const LOGITS: usize = 16 << 20;

/// Tokens that the sampler computes at once.
const SAMPLED_TOGETHER: usize = 2048;

/// Program, tokenizer, questions, and what the allocator keeps.
const BASE: usize = 96 << 20;

/// What the memory of a step follows from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Load {
    /// Numbers in the model.
    pub parameters: usize,
    /// Numbers that are trained.
    pub trainable: usize,
    /// Numbers of the frozen reference that it does not share with the policy.
    pub reference: usize,
    /// Numbers that the optimiser remembers for each that is trained.
    pub moments: usize,
    /// Prompts of a step.
    pub prompts: usize,
    /// Tokens of the longest prompt.
    pub prompt: usize,
    /// Completions of each prompt.
    pub completions: usize,
    /// Tokens of the longest completion.
    pub completion: usize,
    /// Tokens of a micro-batch.
    pub budget: usize,
    /// What products with weights are made of where completions are drawn; `None` where none are.
    pub rollout: Option<Precision>,
    /// Whether the update takes over what its rollout has computed.
    pub taping: Taping,
    /// Passes of the update over what was drawn; the tape serves the first.
    pub iterations: usize,
}

/// Whether an update takes over what its rollout has computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taping {
    /// It would compute something else, or there is no rollout.
    Never,
    /// As memory allows.
    Open,
    /// As the run has begun: with so many layers, or not at all.
    Settled(Option<usize>),
}

/// Memory by purpose, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryPlan {
    /// The policy's weights.
    pub weights: usize,
    /// The reference's weights.
    pub reference: usize,
    /// Gradients.
    pub gradients: usize,
    /// The optimiser's moments.
    pub moments: usize,
    /// Keys and values, and the sampler's own copy of the weights if it has one.
    pub rollout: usize,
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
        let tokens = load.tokens_together();
        let pass = config.pass_bytes(tokens);
        let scored = tokens.min(load.prompts * load.completions * load.completion);
        let logits = LOGITS.max(config.vocab_size).min(scored * config.vocab_size) * F32;
        let heads = 4 * scored * config.hidden_size * F32;
        let mut plan = Self {
            weights: load.parameters * F32,
            reference: load.reference * F32,
            gradients: load.trainable * F32,
            moments: load.trainable * load.moments * F32,
            rollout: rollout(config, load),
            sampler: sampler(load),
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
        self.weights + self.reference + self.moments
    }

    /// What lives all the time.
    pub fn resident(&self) -> usize {
        BASE + self.state()
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

impl Load {
    /// Tokens of a prompt's completions that a step computes: all but the last of each.
    fn own(&self) -> usize {
        self.completions * self.completion.saturating_sub(1)
    }

    /// Tokens that a step computes.
    fn tokens(&self) -> usize {
        self.prompts * (self.prompt + self.own())
    }

    /// Tokens of the largest micro-batch.
    fn tokens_together(&self) -> usize {
        // A prompt that is too long for the budget is there beside what goes behind it.
        let behind = room_behind(self.prompt, self.budget).max(self.completion).min(self.own());
        let cut = self.prompt + behind;
        self.tokens().min(self.budget.max(cut))
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

fn rollout(config: &ModelConfig, load: &Load) -> usize {
    if load.rollout.is_none() {
        return 0;
    }
    let cached = load.prompts * (load.prompt + load.completions * load.completion);
    let sequences = load.prompts * load.completions;
    let logits = sequences * config.vocab_size * F32;
    let together = SAMPLED_TOGETHER.min(load.prompts * load.prompt);
    let pass = config.pass_bytes(together);
    cached * config.kv_bytes_per_token() + sampler(load) + logits + pass.working
}

/// The sampler's own copy of the weights.
fn sampler(load: &Load) -> usize {
    match load.rollout {
        Some(Precision::Bf16) => load.parameters * 2,
        Some(Precision::F32) if load.trainable == load.parameters => load.parameters * F32,
        // The weights themselves, of which but a part is trained, or no sampling at all.
        Some(Precision::F32) | None => 0,
    }
}

#[cfg(test)]
mod tests {
    use embodied_r_policy::{ModelType, Rope, WeightDtype};

    use super::*;

    /// Qwen2.5-0.5B's shape.
    fn config() -> ModelConfig {
        ModelConfig {
            model_type: ModelType::Qwen2,
            vocab_size: 151_936,
            hidden_size: 896,
            intermediate_size: 4864,
            num_hidden_layers: 24,
            num_attention_heads: 14,
            num_key_value_heads: 2,
            head_dim: 64,
            rms_norm_eps: 1e-6,
            rope: Rope::plain(1e6),
            sliding_window: None,
            tie_word_embeddings: true,
            attention_bias: true,
            max_position_embeddings: 32_768,
            initializer_range: 0.02,
            dtype: WeightDtype::Bf16,
            bos_token_id: None,
            eos_token_ids: vec![0],
        }
    }

    fn load() -> Load {
        Load {
            parameters: 494_000_000,
            trainable: 494_000_000,
            reference: 494_000_000,
            moments: 2,
            prompts: 2,
            prompt: 1000,
            completions: 4,
            completion: 100,
            budget: 16_384,
            rollout: Some(Precision::F32),
            taping: Taping::Never,
            iterations: 1,
        }
    }

    fn plan(load: &Load, recompute: Recompute, free: Option<usize>) -> MemoryPlan {
        MemoryPlan::new(&config(), load, recompute, free)
    }

    #[test]
    fn more_layers_are_kept_the_more_memory_there_is() {
        let none = plan(&load(), Recompute::All, None);
        assert_eq!((none.kept_layers, none.kept), (0, 0));
        let all = plan(&load(), Recompute::None, None);
        assert_eq!(all.kept_layers, 24);
        assert!(all.total() > none.total());
        let some = plan(&load(), Recompute::Auto, Some(none.total() + all.kept));
        assert_eq!(some.kept_layers, 12, "half of what is left");
        assert_eq!(plan(&load(), Recompute::Auto, Some(none.total() / 2)).kept_layers, 0);
        assert_eq!(plan(&load(), Recompute::Auto, None).kept_layers, 0);
    }

    #[test]
    fn a_tape_takes_as_much_as_the_state_or_a_micro_batch_if_half_of_what_is_left_allows_it() {
        let open = Load { taping: Taping::Open, ..load() };
        let layers = |load: &Load, recompute, free| {
            plan(load, recompute, free).tape.map(|tape| (tape.layers, tape.tokens))
        };
        let tokens = 2 * (1000 + 4 * 99);
        assert_eq!(layers(&open, Recompute::None, None), Some((24, tokens)));
        assert_eq!(layers(&open, Recompute::All, Some(1 << 40)), None);
        assert_eq!(layers(&load(), Recompute::None, Some(1 << 40)), None);
        assert_eq!(layers(&open, Recompute::Auto, Some(1 << 40)), Some((24, tokens)));
        let bare = plan(&load(), Recompute::All, None).total();
        let of = |layers| config().tape_bytes(TapeOptions { layers, tokens });
        assert_eq!(layers(&open, Recompute::Auto, Some(bare + 2 * of(7))), Some((7, tokens)));
        assert_eq!(layers(&open, Recompute::Auto, Some(bare + of(0))), None);
        // As many tokens as the state has room for with the inputs of all.
        let many = Load { prompts: 40, budget: 1, ..open };
        let found = plan(&many, Recompute::Auto, Some(1 << 40));
        assert!(found.tape.is_some_and(|tape| tape.layers < 24) && found.taped <= found.state());
        let settled = |taping| layers(&Load { taping, ..load() }, Recompute::Auto, None);
        assert_eq!(settled(Taping::Settled(Some(3))), Some((3, tokens)));
        assert_eq!(settled(Taping::Settled(None)), None);
    }

    #[test]
    fn a_tape_takes_the_place_of_what_a_micro_batch_keeps() {
        let own = plan(&load(), Recompute::None, None);
        let load = Load { taping: Taping::Open, ..load() };
        let taped = plan(&load, Recompute::None, None);
        assert!(taped.update < own.update && taped.total() < own.total() + own.rollout);
        assert_eq!(taped.kept, 0);
        let again = plan(&Load { iterations: 2, ..load }, Recompute::None, None);
        assert!(again.kept > 0 && again.kept <= again.taped);
        assert_eq!(again.total(), taped.total());
    }

    #[test]
    fn an_adapter_takes_neither_gradients_nor_moments_nor_a_reference_for_the_rest() {
        let lora = Load { trainable: 1_000_000, reference: 0, ..load() };
        let (full, lora) = (
            plan(&load(), Recompute::All, None).resident(),
            plan(&lora, Recompute::All, None).resident(),
        );
        assert_eq!(full - lora, (494_000_000 * 3 - 2_000_000) * 4);
    }

    #[test]
    fn a_rollout_in_f32_copies_the_weights_where_all_are_trained() {
        let whole = plan(&load(), Recompute::All, None);
        let part = plan(&Load { trainable: 1_000_000, ..load() }, Recompute::All, None);
        assert_eq!(whole.rollout - part.rollout, 494_000_000 * 4);
    }

    #[test]
    fn a_micro_batch_is_no_larger_than_its_budget_or_a_prompt_with_what_goes_behind_it() {
        assert_eq!(load().tokens_together(), 2 * (1000 + 4 * 99));
        assert_eq!(Load { budget: 2200, ..load() }.tokens_together(), 2200);
        assert_eq!(Load { budget: 1200, completions: 20, ..load() }.tokens_together(), 2000);
        let long = Load { budget: 10, ..load() };
        assert_eq!(
            long.tokens_together(),
            1000 + 4 * 99,
            "as many as the prompt has, if there are"
        );
        assert_eq!(Load { completions: 40, ..long }.tokens_together(), 2000);
    }
}
