//! How many kernels and products a token costs where they are launched one by one.
#![cfg(feature = "cuda-host")]
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use candle_core::Device;
use embodied_r_kernels::{Precision, device};
use embodied_r_policy::weights::SaveOptions;
use embodied_r_policy::{
    InferenceModel, ModelConfig, Policy, Request, Sampling, Tape, TapeOptions, WeightFormat,
};

/// A norm; queries, keys and values in a product, and apart; their pages; attention in pieces, and merged; its output;
/// a norm; gate and up in a product, and multiplied; the feed-forward's output.
const OF_A_LAYER: usize = 11;

/// What a tape takes of a layer.
const OF_A_TAPE: usize = 1;

fn policy(layers: usize) -> Policy {
    let config = ModelConfig::from_json(&serde_json::json!({
        "model_type": "qwen2", "vocab_size": 61, "hidden_size": 32, "intermediate_size": 48,
        "num_hidden_layers": layers, "num_attention_heads": 4, "num_key_value_heads": 2,
        "max_position_embeddings": 100, "rms_norm_eps": 1e-6, "tie_word_embeddings": true,
    }));
    Policy::random(&config.unwrap(), 3).unwrap()
}

/// Launches of a step that decodes, for each layer: `run` draws so many tokens with a model of so many layers.
fn of_a_layer(run: impl Fn(usize, usize)) -> usize {
    let launched = |layers, tokens| {
        let before = device::launches();
        run(layers, tokens);
        device::launches() - before
    };
    let of_steps = |layers| launched(layers, 9) - launched(layers, 5);
    let (two, four) = (of_steps(2), of_steps(4));
    assert_eq!((four - two) % 8, 0);
    (four - two) / 8
}

/// A prompt, two completions of which have so many tokens.
fn requests(tokens: usize) -> (Vec<Request>, Sampling) {
    let sampling = Sampling { max_new_tokens: tokens, ..Sampling::default() };
    (vec![Request { prompt: vec![5, 7, 11].into(), samples: 2, stream: 1 }], sampling)
}

/// One test, as launches are the whole process'.
#[test]
fn a_layer_of_a_token_costs_few_launches() {
    device::through_kernels(|| {
        let dir = tempfile::tempdir().unwrap();
        let loaded = of_a_layer(|layers, tokens| {
            policy(layers).save(dir.path(), &SaveOptions::default()).unwrap();
            let model = InferenceModel::load(dir.path(), WeightFormat::F32).unwrap();
            let (requests, sampling) = requests(tokens);
            Arc::new(model).generate(&requests, &sampling, &|_| ()).unwrap();
        });
        assert_eq!(loaded, OF_A_LAYER);
        let trained = of_a_layer(|layers, tokens| {
            let policy = policy(layers).with_precision(Precision::Bf16);
            let policy = policy.to_device(&Device::Cpu).unwrap();
            let (requests, sampling) = requests(tokens);
            let options = TapeOptions { layers, tokens: 100 };
            let tape = Some(Tape::new(policy.config(), options));
            let taped = (policy.precision(), tape);
            policy.generate_taped(&requests, &sampling, taped, &|_| ()).unwrap();
        });
        assert_eq!(trained, OF_A_LAYER + OF_A_TAPE);
    });
}
