use embodied_r_policy::{ModelType, Precision, Rope, WeightDtype};
use embodied_r_vision::{Grid, VisionConfig};

use super::*;
use crate::settings::{Optim, VisionSettings};

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
        max_position_embeddings: 32_768,
        initializer_range: 0.02,
        dtype: WeightDtype::Bf16,
        bos_token_id: None,
        eos_token_ids: vec![0],
        placeholder_token_ids: Vec::new(),
    }
}

fn workload() -> Workload {
    Workload {
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
        activation_cache: ActivationCachePolicy::Never,
        iterations: 1,
        mini_batches: 1,
        split_groups: true,
        vision: None,
        layout: MemoryLayout::CPU,
    }
}

fn plan(workload: &Workload, recompute: Recompute, free: Option<usize>) -> MemoryPlan {
    MemoryPlan::new(&config(), workload, recompute, free)
}

#[test]
fn more_memory_keeps_activations_of_more_layers() {
    let none = plan(&workload(), Recompute::All, None);
    assert_eq!((none.saved_layers, none.saved_activations), (0, 0));
    let all = plan(&workload(), Recompute::None, None);
    assert_eq!(all.saved_layers, 24);
    assert!(all.total() > none.total());
    let some = plan(&workload(), Recompute::Auto, Some(none.total() + all.saved_activations));
    assert_eq!(some.saved_layers, 12, "half of the free memory");
    assert_eq!(plan(&workload(), Recompute::Auto, Some(none.total() / 2)).saved_layers, 0);
    assert_eq!(plan(&workload(), Recompute::Auto, None).saved_layers, 0);
}

#[test]
fn the_activation_cache_is_bounded_by_the_state_or_a_micro_batch_and_half_the_free_memory() {
    let open = Workload { activation_cache: ActivationCachePolicy::Auto, ..workload() };
    let layers = |workload: &Workload, recompute, free| {
        plan(workload, recompute, free)
            .activation_cache
            .map(|activation_cache| (activation_cache.layers, activation_cache.tokens))
    };
    let tokens = 2 * (1000 + 4 * 99);
    assert_eq!(layers(&open, Recompute::None, None), Some((24, tokens)));
    assert_eq!(layers(&open, Recompute::All, Some(1 << 40)), None);
    assert_eq!(layers(&workload(), Recompute::None, Some(1 << 40)), None);
    assert_eq!(layers(&open, Recompute::Auto, Some(1 << 40)), Some((24, tokens)));
    let bare = plan(&workload(), Recompute::All, None).total();
    let of = |layers| config().activation_cache_bytes(ActivationCacheOptions { layers, tokens });
    assert_eq!(layers(&open, Recompute::Auto, Some(bare + 2 * of(7))), Some((7, tokens)));
    assert_eq!(layers(&open, Recompute::Auto, Some(bare + of(0))), None);
    // Bounded by the size of the state, with the inputs of all layers.
    let many = Workload { prompts: 40, budget: 1, ..open };
    let found = plan(&many, Recompute::Auto, Some(1 << 40));
    assert!(
        found.activation_cache.is_some_and(|activation_cache| activation_cache.layers < 24)
            && found.cached_activations <= found.state()
    );
    let settled = |activation_cache| {
        layers(&Workload { activation_cache, ..workload() }, Recompute::Auto, None)
    };
    assert_eq!(settled(ActivationCachePolicy::Fixed(Some(3))), Some((3, tokens)));
    assert_eq!(settled(ActivationCachePolicy::Fixed(None)), None);
}

#[test]
fn the_activation_cache_replaces_the_saved_activations_of_a_micro_batch() {
    let own = plan(&workload(), Recompute::None, None);
    let workload = Workload { activation_cache: ActivationCachePolicy::Auto, ..workload() };
    let cached_activations = plan(&workload, Recompute::None, None);
    assert!(
        cached_activations.update < own.update
            && cached_activations.total() < own.total() + own.rollout
    );
    assert_eq!(cached_activations.saved_activations, 0);
    let second_iteration = plan(&Workload { iterations: 2, ..workload }, Recompute::None, None);
    assert!(
        second_iteration.saved_activations > 0
            && second_iteration.saved_activations <= second_iteration.cached_activations
    );
    assert_eq!(second_iteration.total(), cached_activations.total());
}

#[test]
fn an_adapter_needs_no_gradients_moments_or_reference_for_frozen_parameters() {
    let lora = Workload { trainable: 1_000_000, reference: 0, ..workload() };
    let (full, lora) = (
        plan(&workload(), Recompute::All, None).resident(),
        plan(&lora, Recompute::All, None).resident(),
    );
    assert_eq!(full - lora, (494_000_000 * 3 - 2_000_000) * 4);
}

#[test]
fn an_f32_rollout_copies_the_weights_if_all_are_trained() {
    let whole = plan(&workload(), Recompute::All, None);
    let part = plan(&Workload { trainable: 1_000_000, ..workload() }, Recompute::All, None);
    assert_eq!(whole.rollout - part.rollout, 494_000_000 * 4);
}

#[test]
fn a_micro_batch_is_bounded_by_its_budget_or_a_prompt_with_its_completion_tokens() {
    assert_eq!(workload().micro_batch_tokens(), 2 * (1000 + 4 * 99));
    assert_eq!(Workload { budget: 2200, ..workload() }.micro_batch_tokens(), 2200);
    assert_eq!(Workload { budget: 1200, completions: 20, ..workload() }.micro_batch_tokens(), 2000);
    let long = Workload { budget: 10, ..workload() };
    assert_eq!(long.micro_batch_tokens(), 1000 + 4 * 99, "at most as many as the prompt");
    assert_eq!(Workload { completions: 40, ..long }.micro_batch_tokens(), 2000);
}

/// Two images of 36 × 36 patches per prompt.
fn vision(settings: &VisionSettings, tokens_of_data: usize) -> VisionLoad {
    let grid = Grid { time: 1, height: 36, width: 36 };
    let images = PromptImages { grid, count: 2, tokens_of_data: Some(tokens_of_data) };
    VisionLoad::new(&VisionConfig::published("Qwen2.5-VL-7B").unwrap(), images, settings)
}

fn trained() -> VisionSettings {
    let (freeze_vision_tower, freeze_aligner) = (false, false);
    VisionSettings { freeze_vision_tower, freeze_aligner, ..VisionSettings::default() }
}

/// Parameters of Qwen2.5-VL-7B's vision encoder.
const ENCODER: usize = 676_550_144;

/// Bytes of the embeddings of an image of 324 tokens, and of its patches.
const EMBEDDINGS: usize = 324 * 3584 * 4;
const PATCHES: usize = 1296 * 1176 * 4;

#[test]
fn a_frozen_encoder_keeps_the_embeddings_of_the_data_or_of_a_step() {
    let seen = |tokens_of_data| {
        let vision = Some(vision(&VisionSettings::default(), tokens_of_data));
        plan(&Workload { vision, ..workload() }, Recompute::All, None)
    };
    let of = seen(0).vision;
    assert_eq!((of.weights, of.training, of.activations), (4 * ENCODER, 0, 0));
    assert_eq!((of.embeddings, of.patches), (4 * EMBEDDINGS, 4 * PATCHES));
    assert_eq!(seen(10 * 324).vision.embeddings, 10 * EMBEDDINGS);
    assert_eq!(seen(usize::MAX >> 20).vision.embeddings, 1_000_000_000, "`image_cache_gb`");
    let text = plan(&workload(), Recompute::All, None);
    assert_eq!(text.vision, VisionMemory::NONE);
    // The encoder's passes alternate with the update.
    assert!(of.workspace < text.update);
    assert_eq!(seen(0).total(), text.total() + of.resident());
}

#[test]
fn a_trained_encoder_has_gradients_moments_and_a_frozen_copy_for_the_reference() {
    let with = |workload: Workload| {
        let vision = Some(vision(&trained(), 0));
        plan(&Workload { vision, ..workload }, Recompute::All, None).vision
    };
    let of = with(workload());
    assert_eq!((of.weights, of.training), (2 * 4 * ENCODER, 3 * 4 * ENCODER));
    // Those of the trained encoder with their gradients, and the reference's; patches of this step and of the next.
    assert_eq!((of.embeddings, of.patches), (3 * 4 * EMBEDDINGS, 2 * 4 * PATCHES));
    assert!(of.activations > 4 * 1296 * 32 * 1280 * 4, "the inputs of all blocks");
    let alone = with(Workload { reference: 0, ..workload() });
    assert_eq!((alone.weights, alone.embeddings), (4 * ENCODER, 2 * 4 * EMBEDDINGS));
    let aligner = VisionSettings { freeze_vision_tower: true, ..trained() };
    let merger = VisionConfig::published("Qwen2.5-VL-7B").unwrap().aligner_parameter_count();
    assert_eq!(vision(&aligner, 0).trainable, merger);
}

#[test]
fn ranks_have_the_images_of_their_prompts_and_gpus_keep_embeddings_on_the_host() {
    let on = |placement| {
        let load = Workload { vision: Some(vision(&trained(), 0)), ..workload() };
        plan(&load.on(placement, Precision::Bf16), Recompute::All, None).vision
    };
    let (one, two) = (on(Placement::Cpu(1)), on(Placement::Cpu(2)));
    assert_eq!((two.patches, two.activations), (one.patches / 2, one.activations / 2));
    assert_eq!(one.training - two.training, 4 * ENCODER, "half of the moments");
    let gpu = on(Placement::Gpus(1));
    assert_eq!((gpu.embeddings, gpu.patches), (0, 0));
    assert_eq!(gpu.host, one.embeddings + one.patches);
    // Weights of two bytes and activations nearly so; master weights.
    assert_eq!((gpu.weights, gpu.training), (one.weights / 2, 4 * 4 * ENCODER));
    assert!(gpu.activations < one.activations * 51 / 100);
}

#[test]
fn a_gpus_rank_stages_its_largest_tensor_in_host_memory() {
    let on = |placement, precision| {
        plan(&workload().on(placement, precision), Recompute::All, None).staging
    };
    let embedding = 151_936 * 896;
    assert_eq!(on(Placement::Cpu(2), Precision::F32), 0);
    assert_eq!(on(Placement::Gpus(8), Precision::Bf16), 6 * embedding);
    assert_eq!(on(Placement::Gpus(1), Precision::F32), 8 * embedding);
}

#[test]
fn a_trained_encoder_saves_whole_blocks_in_half_of_what_the_decoder_leaves() {
    let load = Workload { vision: Some(vision(&trained(), 0)), ..workload() };
    let with = |recompute, free| plan(&load, recompute, free);
    let none = with(Recompute::All, Some(1 << 40));
    let all = with(Recompute::None, None);
    assert_eq!(none.tower_activations, 0);
    assert_eq!(all.vision.activations - none.vision.activations, all.tower_activations);
    let block = all.tower_activations / 32;
    // 4 images of 1,296 patches: 5 × 1,280 and 2 × 3,420 elements, 16 heads and two scales.
    assert_eq!(block, 4 * 1296 * (5 * 1280 + 2 * 3420 + 18) * 4);
    assert_eq!(with(Recompute::Auto, Some(1 << 40)).tower_activations, all.tower_activations);
    assert_eq!(with(Recompute::Auto, None).tower_activations, 0);
    // At most as much as the weights and their state.
    let many = Workload { prompts: 100, budget: 1, ..load };
    let most = plan(&many, Recompute::Auto, Some(1 << 40));
    assert!(most.tower_activations <= most.state() + most.vision.state());
    assert!(most.tower_activations < plan(&many, Recompute::None, None).tower_activations);
    let free = none.total() + 2 * all.saved_activations + 10 * block;
    let some = with(Recompute::Auto, Some(free));
    let left = free - (some.total() - some.tower_activations);
    assert_eq!(some.tower_activations, left / 2 / block * block);
    assert!(some.tower_activations > 0 && some.tower_activations < all.tower_activations);
    let share =
        |plan: &MemoryPlan| vision(&trained(), 0).recomputed_share(&load, plan.tower_activations);
    assert_eq!((share(&none), share(&all)), (1.0, 0.0));
    let blocks = (some.tower_activations / block) as f64;
    assert!((share(&some) - (1.0 - blocks / 32.0)).abs() < 1e-12);
}

#[test]
fn the_kv_cache_holds_the_sequences_that_are_sampled_at_once() {
    let kv = |prompts| {
        let workload = Workload { prompts, completions: 5, ..workload() };
        plan(&workload, Recompute::All, None).kv_cache
    };
    let per_token = config().kv_bytes_per_token(workload().layout.activation);
    assert_eq!(kv(51), 51 * (1000 + 500) * per_token);
    // The engine has at most 256 sequences, of 52 groups or 53.
    assert_eq!(kv(128), (53 * 1000 + 256 * 100) * per_token);
    assert_eq!(kv(128), kv(1000));
}

#[test]
fn a_mini_batch_saves_the_encoders_activations_of_its_own_images() {
    let saved = |mini_batches| {
        let vision = Some(vision(&trained(), 0));
        let workload = Workload { prompts: 8, mini_batches, vision, ..workload() };
        plan(&workload, Recompute::All, None).vision.activations
    };
    assert!(saved(1) > 0);
    assert_eq!(saved(4), saved(1) / 4);
}
