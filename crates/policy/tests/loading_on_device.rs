//! Models loaded on a GPU tensor by tensor. Skipped without `EMBODIED_R_CUDA_HOST=1`.
#![cfg(feature = "cuda-host")]
#![allow(clippy::unwrap_used)]

use std::io::Write as _;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use embodied_r_kernels::{Precision, device};
use embodied_r_policy::lora::Module;
use embodied_r_policy::weights::SaveOptions;
use embodied_r_policy::{LoraConfig, ModelConfig, Parameters, Policy, Trainable, WeightDtype};

/// A model in a folder, in `dtype`.
fn folder(dtype: WeightDtype) -> tempfile::TempDir {
    let config = ModelConfig::from_json(&serde_json::json!({
        "model_type": "qwen2", "head_dim": 8, "vocab_size": 61, "hidden_size": 32, "intermediate_size": 64,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "max_position_embeddings": 100, "rms_norm_eps": 1e-6, "tie_word_embeddings": true,
    }));
    let dir = tempfile::tempdir().unwrap();
    let options = SaveOptions { dtype, ..SaveOptions::default() };
    Policy::random(&config.unwrap(), 3).unwrap().save(dir.path(), &options).unwrap();
    dir
}

/// Each tensor's name, dtype and numbers.
fn contents(parameters: &Parameters) -> Vec<(String, DType, Vec<f32>)> {
    let of = |(name, tensor): (&str, &Tensor)| {
        let numbers = tensor.to_dtype(DType::F32).unwrap().flatten_all().unwrap();
        (name.to_owned(), tensor.dtype(), numbers.to_vec1().unwrap())
    };
    parameters.iter().map(of).collect()
}

fn on_device(test: &str, act: impl FnOnce()) {
    if device::has_kernels(&Device::Cpu) {
        return device::with_cuda_emulation(act);
    }
    // Unlike `eprintln!`, this is not captured by the test harness.
    let mut stderr = std::io::stderr();
    writeln!(stderr, "skipped: `{test}` needs EMBODIED_R_CUDA_HOST=1").unwrap();
}

#[test]
fn a_model_loaded_on_a_device_is_the_one_that_is_moved_there() {
    on_device("a_model_loaded_on_a_device_is_the_one_that_is_moved_there", || {
        for stored in [WeightDtype::F32, WeightDtype::Bf16, WeightDtype::F16] {
            for precision in [Precision::F32, Precision::Bf16] {
                let dir = folder(stored);
                let loaded = Policy::load_on(&Device::Cpu, dir.path(), precision).unwrap();
                let moved = Policy::load(dir.path()).unwrap().with_precision(precision);
                let moved = moved.to_device(&Device::Cpu).unwrap();
                assert_eq!(loaded.precision(), precision);
                assert_eq!(contents(loaded.weights()), contents(moved.weights()));
            }
        }
    });
}

#[test]
fn an_adapter_is_trained_in_the_dtype_of_the_matrices() {
    on_device("an_adapter_is_trained_in_the_dtype_of_the_matrices", || {
        let dir = folder(WeightDtype::Bf16);
        let adapter = Trainable::Lora(LoraConfig {
            r: 2,
            lora_alpha: 4,
            lora_dropout: 0.0,
            use_rslora: false,
            target_modules: Module::ALL.to_vec(),
            encoder_modules: Vec::new(),
            base_model_name_or_path: None,
            base_fingerprint: None,
        });
        let base: &Path = dir.path();
        let loaded =
            Policy::load_trainable_on(&Device::Cpu, (base, base), &adapter, 5, Precision::Bf16);
        let moved = Policy::load_trainable(base, base, &adapter, 5).unwrap();
        let moved = moved.with_precision(Precision::Bf16).to_device(&Device::Cpu).unwrap();
        let (loaded, moved) =
            (contents(loaded.unwrap().parameters()), contents(moved.parameters()));
        assert!(loaded.iter().all(|(_, dtype, _)| *dtype == DType::BF16));
        assert_eq!(loaded, moved);
    });
}
