//! Parity of the decoder with candle-transformers, a second oracle, on random models of the families that both have.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;

use candle_core::{D, DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_nn::ops::log_softmax;
use candle_transformers::models::{llama, qwen2, qwen3};
use embodied_r_policy::weights::{SaveOptions, write_random};
use embodied_r_policy::{Group, ModelConfig, Policy};
use serde_json::{Value, json};

/// Rounding of f32 logits in another order of sums: the project's tolerance for log-probabilities.
const TOLERANCE: f32 = 1e-4;

/// The weight file that [`write_random`] writes.
const WEIGHTS: &str = "model.safetensors";

/// The fields of both families' `config.json`.
fn config(family: Value) -> Value {
    let mut config = json!({
        "vocab_size": 89,
        "hidden_size": 48,
        "intermediate_size": 80,
        "num_hidden_layers": 3,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "rms_norm_eps": 1e-6,
        "hidden_act": "silu",
        // Large enough for logits that differ.
        "initializer_range": 0.2,
    });
    config.as_object_mut().unwrap().extend(family.as_object().unwrap().clone());
    config
}

/// Compares each token's log-probability with that of `next`, which computes the logits after a prefix.
fn assert_parity(
    config: &Value,
    next: impl FnOnce(VarBuilder<'static>) -> Box<dyn FnMut(&Tensor) -> Tensor>,
) {
    let dir = tempfile::tempdir().unwrap();
    let ours = ModelConfig::from_json(config).unwrap();
    write_random(dir.path(), &ours, 3, &SaveOptions::default(), &|_| ()).unwrap();
    let tensors: HashMap<String, Tensor> =
        candle_core::safetensors::load(dir.path().join(WEIGHTS), &Device::Cpu).unwrap();
    let in_f32 = |(name, tensor): (String, Tensor)| (name, tensor.to_dtype(DType::F32).unwrap());
    let tensors = tensors.into_iter().map(in_f32).collect();
    let mut next = next(VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu));

    let ids: Vec<u32> = (0..40).map(|i| (i * i + 7 * i + 3) % 89).collect();
    let group = Group { prompt: ids[..1].to_vec().into(), completions: vec![ids[1..].to_vec()] };
    let found = Policy::load(dir.path()).unwrap().score(&[group], 1.0).unwrap().logps;
    assert_eq!(found.len(), ids.len() - 1);
    for (position, found) in found.into_iter().enumerate() {
        let prefix = Tensor::new(&ids[..=position], &Device::Cpu).unwrap().unsqueeze(0).unwrap();
        let logps = log_softmax(&next(&prefix).flatten_all().unwrap(), D::Minus1).unwrap();
        let expected = logps.to_vec1::<f32>().unwrap()[ids[position + 1] as usize];
        assert!((found - expected).abs() < TOLERANCE, "{position}: {found}, not {expected}");
    }
}

#[test]
fn qwen2_scores_as_in_candle_transformers() {
    for tied in [false, true] {
        let config = config(json!({
            "model_type": "qwen2",
            "architectures": ["Qwen2ForCausalLM"],
            "tie_word_embeddings": tied,
            "rope_theta": 1e6,
            "use_sliding_window": false,
            "sliding_window": 64,
            "max_window_layers": 3,
        }));
        let settings: qwen2::Config = serde_json::from_value(config.clone()).unwrap();
        assert_parity(&config, |weights| {
            let mut model = qwen2::ModelForCausalLM::new(&settings, weights).unwrap();
            Box::new(move |prefix| {
                model.clear_kv_cache();
                model.forward(prefix, 0).unwrap()
            })
        });
    }
}

#[test]
fn qwen3_scores_as_in_candle_transformers() {
    for tied in [false, true] {
        let config = config(json!({
            "model_type": "qwen3",
            "architectures": ["Qwen3ForCausalLM"],
            "tie_word_embeddings": tied,
            "rope_theta": 1e6,
            "head_dim": 24,
            "attention_bias": false,
            "use_sliding_window": false,
            "sliding_window": null,
            "max_window_layers": 3,
        }));
        let settings: qwen3::Config = serde_json::from_value(config.clone()).unwrap();
        assert_parity(&config, |weights| {
            let mut model = qwen3::ModelForCausalLM::new(&settings, weights).unwrap();
            Box::new(move |prefix| {
                model.clear_kv_cache();
                model.forward(prefix, 0).unwrap()
            })
        });
    }
}

#[test]
fn llama_scores_as_in_candle_transformers() {
    let scaling = json!({
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16,
    });
    for (tied, scaling) in [(false, Value::Null), (true, Value::Null), (false, scaling)] {
        let config = config(json!({
            "model_type": "llama",
            "architectures": ["LlamaForCausalLM"],
            "tie_word_embeddings": tied,
            "rope_theta": 10_000.0,
            "rope_scaling": scaling,
            "bos_token_id": 0,
            "eos_token_id": 1,
        }));
        let settings: llama::LlamaConfig = serde_json::from_value(config.clone()).unwrap();
        let settings = settings.into_config(false);
        assert_parity(&config, |weights| {
            let model = llama::Llama::load(weights, &settings).unwrap();
            Box::new(move |prefix| {
                let mut cache =
                    llama::Cache::new(false, DType::F32, &settings, &Device::Cpu).unwrap();
                model.forward(prefix, 0, &mut cache).unwrap()
            })
        });
    }
}
