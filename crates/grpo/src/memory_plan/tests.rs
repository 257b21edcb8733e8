use embodied_r_policy::{ModelType, Precision, Rope, WeightDtype};

use super::*;
use crate::optimizer::Optim;

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
        optim: Optim::Adamw,
        prompts: 2,
        prompt: 1000,
        completions: 4,
        completion: 100,
        budget: 16_384,
        rollout: Some(Precision::F32),
        taping: Taping::Never,
        iterations: 1,
        layout: Layout::CPU,
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
    assert_eq!(long.tokens_together(), 1000 + 4 * 99, "as many as the prompt has, if there are");
    assert_eq!(Load { completions: 40, ..long }.tokens_together(), 2000);
}
