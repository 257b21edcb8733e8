//! Number of kernel and matmul launches on a GPU. Skipped without `EMBODIED_R_CUDA_HOST=1`.
#![cfg(feature = "cuda-host")]
#![allow(clippy::unwrap_used)]

use std::io::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::Device;
use embodied_r_kernels::{Precision, device};
use embodied_r_policy::lora::Module;
use embodied_r_policy::weights::SaveOptions;
use embodied_r_policy::{
    ActivationCache, ActivationCacheOptions, GenerateOptions, GenerationRequest, Group,
    InferenceModel, LAUNCHES_PER_LAYER, LoraConfig, ModelConfig, Policy, SamplingParams, Trainable,
    WeightFormat,
};

/// Recording a layer's activations.
const PER_RECORDED_LAYER: usize = 1;

fn policy(layers: usize) -> Policy {
    policy_of("qwen2", layers)
}

fn policy_of(family: &str, layers: usize) -> Policy {
    let config = ModelConfig::from_json(&serde_json::json!({
        "model_type": family, "head_dim": 8, "vocab_size": 61, "hidden_size": 32, "intermediate_size": 64,
        "num_hidden_layers": layers, "num_attention_heads": 4, "num_key_value_heads": 2,
        "max_position_embeddings": 100, "rms_norm_eps": 1e-6, "tie_word_embeddings": true,
    }));
    Policy::random(&config.unwrap(), 3).unwrap()
}

/// Launches per layer of a decode step; `run` samples so many tokens with a model of so many layers.
fn launches_per_layer(run: impl Fn(usize, usize)) -> usize {
    let count = || device::launches().values().sum::<usize>();
    let launched = |layers, tokens| {
        let before = count();
        run(layers, tokens);
        count() - before
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

/// Runs `act` with the emulated kernels, one test at a time: launches are counted for the whole process. Skips the test
/// without `EMBODIED_R_CUDA_HOST=1`.
fn with_counted_launches(test: &str, act: impl FnOnce()) {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    if !device::has_kernels(&Device::Cpu) {
        // Unlike `eprintln!`, this is not captured by the test harness.
        let mut stderr = std::io::stderr();
        writeln!(stderr, "skipped: `{test}` needs EMBODIED_R_CUDA_HOST=1").unwrap();
        return;
    }
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    device::with_cuda_emulation(act);
}

/// Launches of `launcher` by `act`.
fn launches_of(launcher: &str, act: impl FnOnce()) -> usize {
    let count = || device::launches().get(launcher).copied().unwrap_or(0);
    let before = count();
    act();
    count() - before
}

#[test]
fn a_layer_of_a_token_costs_few_launches() {
    with_counted_launches("a_layer_of_a_token_costs_few_launches", || {
        for family in ["qwen2", "qwen3"] {
            assert_few_launches(family);
        }
    });
}

fn assert_few_launches(family: &str) {
    let dir = tempfile::tempdir().unwrap();
    let loaded = launches_per_layer(|layers, tokens| {
        policy_of(family, layers).save(dir.path(), &SaveOptions::default()).unwrap();
        let model = InferenceModel::load(dir.path(), WeightFormat::F32).unwrap();
        let (requests, sampling) = requests(tokens);
        Arc::new(model).generate(&requests, &sampling, &|_| ()).unwrap();
    });
    assert_eq!(loaded, LAUNCHES_PER_LAYER, "{family}");
    let trained = launches_per_layer(|layers, tokens| {
        let policy = policy_of(family, layers).with_precision(Precision::Bf16);
        let policy = policy.to_device(&Device::Cpu).unwrap();
        let (requests, sampling) = requests(tokens);
        let options = ActivationCacheOptions { layers, tokens: 100 };
        let cache = Some(ActivationCache::new(policy.config(), options));
        let options = GenerateOptions { precision: None, activation_cache: cache };
        policy.generate_with_activation_cache(&requests, &sampling, options, &|_| ()).unwrap();
    });
    assert_eq!(trained, LAUNCHES_PER_LAYER + PER_RECORDED_LAYER, "{family}");
}

/// A policy with an adapter on all modules.
fn adapted(layers: usize, precision: Precision) -> Policy {
    let lora = LoraConfig {
        r: 2,
        lora_alpha: 4,
        lora_dropout: 0.0,
        use_rslora: false,
        target_modules: Module::ALL.to_vec(),
        encoder_modules: Vec::new(),
        base_model_name_or_path: None,
        base_fingerprint: None,
    };
    let policy = policy(layers).with_trainable(&Trainable::Lora(lora), 1).unwrap();
    policy.with_precision(precision).to_device(&Device::Cpu).unwrap()
}

#[test]
fn an_adapter_is_not_converted_for_every_token_or_pass() {
    with_counted_launches("an_adapter_is_not_converted_for_every_token_or_pass", || {
        let sampled = |layers: usize, tokens: usize| {
            let (requests, sampling) = requests(tokens);
            let policy = adapted(layers, Precision::Bf16);
            launches_of("er_convert", || {
                let options = GenerateOptions::default();
                policy
                    .generate_with_activation_cache(&requests, &sampling, options, &|_| ())
                    .unwrap();
            })
        };
        // What a token converts, its embedding and the input of the LM head, does not depend on the layers.
        assert_eq!(sampled(4, 9) - sampled(4, 5), sampled(2, 9) - sampled(2, 5));
        let trained = |layers: usize, precision: Precision| {
            let policy = adapted(layers, precision);
            let groups = [Group {
                prompt: vec![5, 7, 11].into(),
                completions: vec![vec![3, 4], vec![9; 3]],
            }];
            let mut gradients = policy.zero_gradients().unwrap();
            launches_of("er_convert", || {
                let forward = policy.forward(&groups, 1.0).unwrap();
                forward.backward(&[1.0; 5], &mut gradients).unwrap();
            })
        };
        // In f32 nothing is converted, but the same launcher copies.
        let of_two_layers = |precision| trained(4, precision) - trained(2, precision);
        assert_eq!(of_two_layers(Precision::Bf16), of_two_layers(Precision::F32));
    });
}

#[test]
fn a_decoding_step_of_many_sequences_multiplies_the_blocks_of_quantized_weights() {
    let test = "a_decoding_step_of_many_sequences_multiplies_the_blocks_of_quantized_weights";
    with_counted_launches(test, || {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/gguf/qwen2.gguf");
        let model = Arc::new(InferenceModel::load(&file, WeightFormat::Bf16).unwrap());
        let dequantized = |tokens: usize| {
            let (requests, sampling) = requests(tokens);
            let requests: Vec<_> = requests
                .into_iter()
                .map(|request| GenerationRequest { samples: 12, ..request })
                .collect();
            launches_of("er_block_rows", || {
                model.clone().generate(&requests, &sampling, &|_| ()).unwrap();
            })
        };
        // Of four steps, the rows of the embedding.
        assert_eq!(dequantized(9) - dequantized(5), 4);
    });
}

#[test]
fn a_batch_computes_its_cosines_and_sines_once_on_the_device() {
    with_counted_launches("a_batch_computes_its_cosines_and_sines_once_on_the_device", || {
        for layers in [2, 4] {
            // Without memory for activations, the backward recomputes every layer.
            let policy = policy(layers).with_activation_bytes(0);
            let groups = [Group {
                prompt: vec![5, 7, 11].into(),
                completions: vec![vec![3, 4], vec![9; 3]],
            }];
            let mut gradients = policy.zero_gradients().unwrap();
            let launches = launches_of("er_cos_sin", || {
                let forward = policy.forward(&groups, 1.0).unwrap();
                forward.backward(&[1.0; 5], &mut gradients).unwrap();
            });
            // Of all rows, and of those whose output is needed.
            assert_eq!(launches, 2, "{layers} layers");
        }
    });
}
