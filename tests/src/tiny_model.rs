//! A random decoder of a few thousand parameters with its own tokenizer.

use std::path::Path;

use embodied_r_policy::tokenizer::{TrainOptions, train};
use embodied_r_policy::weights::SaveOptions;
use embodied_r_policy::{ModelConfig, ModelType, Policy, Rope, WeightDtype};

/// Writes the model into `dir`.
///
/// # Panics
/// The folder cannot be written.
pub fn write(dir: &Path) {
    let documents = ["a lamp is left of the chair", "Question: where is the lamp?", "think answer"];
    let options = TrainOptions { vocab_size: 300, min_frequency: 2 };
    std::fs::create_dir_all(dir).expect("a folder can be created");
    let trained = train(documents, &options, dir).expect("a tokenizer can be trained");
    let config = ModelConfig {
        model_type: ModelType::Qwen2,
        vocab_size: trained.vocab_size,
        hidden_size: 16,
        intermediate_size: 32,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        num_key_value_heads: 1,
        head_dim: 8,
        rms_norm_eps: 1e-6,
        rope: Rope::plain(10_000.0),
        sliding_window: None,
        tie_word_embeddings: true,
        attention_bias: true,
        max_position_embeddings: 8192,
        initializer_range: 0.1,
        dtype: WeightDtype::F32,
        bos_token_id: None,
        eos_token_ids: vec![2],
    };
    let policy = Policy::random(&config, 1).expect("the settings are valid");
    policy.save(dir, &SaveOptions::default()).expect("a model can be saved");
}
