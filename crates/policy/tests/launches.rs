//! Number of kernel and matmul launches per token on a GPU. Skipped without `EMBODIED_R_CUDA_HOST=1`.
#![cfg(feature = "cuda-host")]
#![allow(clippy::unwrap_used)]

use std::io::Write as _;
use std::sync::Arc;

use candle_core::Device;
use embodied_r_kernels::{Precision, device};
use embodied_r_policy::weights::SaveOptions;
use embodied_r_policy::{
    ActivationCache, ActivationCacheOptions, GenerationRequest, InferenceModel, LAUNCHES_PER_LAYER,
    ModelConfig, Policy, SamplingParams, WeightFormat,
};

/// Recording a layer's activations.
const PER_RECORDED_LAYER: usize = 1;

fn policy(layers: usize) -> Policy {
    let config = ModelConfig::from_json(&serde_json::json!({
        "model_type": "qwen2", "vocab_size": 61, "hidden_size": 32, "intermediate_size": 48,
        "num_hidden_layers": layers, "num_attention_heads": 4, "num_key_value_heads": 2,
        "max_position_embeddings": 100, "rms_norm_eps": 1e-6, "tie_word_embeddings": true,
    }));
    Policy::random(&config.unwrap(), 3).unwrap()
}

/// Launches per layer of a decode step; `run` samples so many tokens with a model of so many layers.
fn launches_per_layer(run: impl Fn(usize, usize)) -> usize {
    let launched = |layers, tokens| {
        let before = device::launch_count();
        run(layers, tokens);
        device::launch_count() - before
    };
    let four_steps = |layers| launched(layers, 9) - launched(layers, 5);
    let (two, four) = (four_steps(2), four_steps(4));
    assert_eq!((four - two) % 8, 0);
    (four - two) / 8
}

/// A prompt with two completions of so many tokens.
fn requests(tokens: usize) -> (Vec<GenerationRequest>, SamplingParams) {
    let sampling = SamplingParams { max_new_tokens: tokens, ..SamplingParams::default() };
    (
        vec![GenerationRequest {
            prompt: vec![5, 7, 11].into(),
            samples: 2,
            stream: 1,
            first_sample: 0,
        }],
        sampling,
    )
}

/// A single test, since launches are counted for the whole process.
#[test]
fn a_layer_of_a_token_costs_few_launches() {
    if !device::has_kernels(&Device::Cpu) {
        let test = "a_layer_of_a_token_costs_few_launches";
        // Unlike `eprintln!`, this is not captured by the test harness.
        let mut stderr = std::io::stderr();
        writeln!(stderr, "skipped: `{test}` needs EMBODIED_R_CUDA_HOST=1").unwrap();
        return;
    }
    device::with_cuda_emulation(|| {
        let dir = tempfile::tempdir().unwrap();
        let loaded = launches_per_layer(|layers, tokens| {
            policy(layers).save(dir.path(), &SaveOptions::default()).unwrap();
            let model = InferenceModel::load(dir.path(), WeightFormat::F32).unwrap();
            let (requests, sampling) = requests(tokens);
            Arc::new(model).generate(&requests, &sampling, &|_| ()).unwrap();
        });
        assert_eq!(loaded, LAUNCHES_PER_LAYER);
        let trained = launches_per_layer(|layers, tokens| {
            let policy = policy(layers).with_precision(Precision::Bf16);
            let policy = policy.to_device(&Device::Cpu).unwrap();
            let (requests, sampling) = requests(tokens);
            let options = ActivationCacheOptions { layers, tokens: 100 };
            let cache = Some(ActivationCache::new(policy.config(), options));
            let with = (policy.precision(), cache);
            policy.generate_with_activation_cache(&requests, &sampling, with, &|_| ()).unwrap();
        });
        assert_eq!(trained, LAUNCHES_PER_LAYER + PER_RECORDED_LAYER);
    });
}
