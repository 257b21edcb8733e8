mod rope;
mod windows;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// The flat `config.json` of Qwen2.5-VL on the hub: the decoder's fields next to `vision_config`.
fn flat_vl() -> Value {
    json!({
        "architectures": ["Qwen2_5_VLForConditionalGeneration"], "model_type": "qwen2_5_vl", "hidden_act": "silu",
        "vocab_size": 151936, "hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36,
        "num_attention_heads": 16, "num_key_value_heads": 2, "rms_norm_eps": 1e-6, "rope_theta": 1000000.0,
        "tie_word_embeddings": true, "torch_dtype": "bfloat16", "max_position_embeddings": 128000,
        "bos_token_id": 151643, "eos_token_id": 151645, "sliding_window": 32768, "use_sliding_window": false,
        "max_window_layers": 70, "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
        "vision_config": {"depth": 32, "hidden_act": "silu", "hidden_size": 1280},
    })
}

/// The same as saved by `transformers` 5.
fn nested_vl() -> Value {
    json!({
        "architectures": ["Qwen2_5_VLForConditionalGeneration"], "model_type": "qwen2_5_vl", "dtype": "bfloat16",
        "tie_word_embeddings": true, "vision_config": {"hidden_size": 1280},
        "text_config": {
            "model_type": "qwen2_5_vl_text", "vocab_size": 151936, "hidden_size": 2048, "intermediate_size": 11008,
            "num_hidden_layers": 36, "num_attention_heads": 16, "num_key_value_heads": 2, "hidden_act": "silu",
            "rms_norm_eps": 1e-6, "max_position_embeddings": 128000, "bos_token_id": 151643, "eos_token_id": 151645,
            "sliding_window": null, "use_sliding_window": false, "layer_types": vec!["full_attention"; 36],
            "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0, "mrope_section": [16, 24, 24]},
        },
    })
}

fn small(model_type: ModelType) -> ModelConfig {
    ModelConfig {
        model_type,
        vocab_size: 96,
        hidden_size: 32,
        intermediate_size: 48,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 16,
        rms_norm_eps: 1e-5,
        rope: Rope::plain(5_000.5),
        sliding_window: None,
        tie_word_embeddings: false,
        max_position_embeddings: 512,
        initializer_range: 0.02,
        dtype: WeightDtype::F16,
        bos_token_id: None,
        eos_token_ids: vec![3, 5],
        placeholder_token_ids: Vec::new(),
    }
}

fn faults(value: &Value) -> String {
    crate::faults::join_faults(&ModelConfig::from_json(value).unwrap_err())
}

#[test]
fn both_formats_of_qwen2_5_vl_give_the_same_decoder() {
    let flat = ModelConfig::from_json(&flat_vl()).unwrap();
    assert_eq!(flat, ModelConfig::from_json(&nested_vl()).unwrap());
    assert_eq!(flat.model_type, ModelType::Qwen2);
    assert_eq!((flat.head_dim, flat.rope.theta, flat.tie_word_embeddings), (128, 1e6, true));
    assert_eq!(
        (flat.dtype, flat.eos_token_ids.as_slice()),
        (WeightDtype::Bf16, [151_645].as_slice())
    );
    assert_eq!(flat.placeholder_token_ids, [151_652, 151_653, 151_655, 151_656]);
}

#[test]
fn the_decoder_of_qwen2_5_vl_3b_has_its_published_size() {
    let config = ModelConfig::from_json(&flat_vl()).unwrap();
    assert_eq!(config.parameter_count(), 3_085_938_688);
}

#[test]
fn either_section_can_tie_the_embeddings() {
    let mut value = nested_vl();
    value["tie_word_embeddings"] = json!(false);
    value["text_config"]["tie_word_embeddings"] = json!(true);
    assert!(ModelConfig::from_json(&value).unwrap().tie_word_embeddings);
}

#[test]
fn an_explicit_head_dim_overrides_the_quotient() {
    let mut value = flat_vl();
    value["model_type"] = json!("qwen2");
    value["rope_scaling"] = Value::Null;
    value["head_dim"] = json!(64);
    assert_eq!(ModelConfig::from_json(&value).unwrap().head_dim, 64);
}

#[test]
fn a_qwen3_has_heads_of_128_unless_it_says_otherwise() {
    let mut value = json!({
        "model_type": "qwen3", "vocab_size": 151936, "hidden_size": 2560, "intermediate_size": 9728,
        "num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8, "tie_word_embeddings": true,
        "rope_theta": 1000000, "max_position_embeddings": 40960, "attention_bias": false,
    });
    let config = ModelConfig::from_json(&value).unwrap();
    assert_eq!((config.model_type, config.head_dim), (ModelType::Qwen3, 128));
    assert_eq!(config.parameter_count(), 4_022_468_096);
    value["head_dim"] = json!(64);
    assert_eq!(ModelConfig::from_json(&value).unwrap().head_dim, 64);
    value["attention_bias"] = json!(true);
    assert_eq!(
        faults(&value),
        "`attention_bias` = `true` is not supported: use a model without this bias"
    );
}

#[test]
fn another_family_is_refused_in_one_line_that_names_the_families() {
    for name in ["qwen3_moe", "qwen3_5", "qwen4_exp", "gemma3"] {
        let value = json!({"model_type": name, "num_experts": 128, "hidden_act": "gelu"});
        let supported = "use `qwen2`, `qwen3`, `llama`, the text decoder of `qwen2_5_vl` or the text decoder of \
            `qwen3_vl`";
        assert_eq!(
            faults(&value),
            format!("`model_type` = `{name}` is not supported: {supported}")
        );
    }
}

#[test]
fn llama_has_no_biases_and_its_own_defaults() {
    let mut value = flat_vl();
    value["model_type"] = json!("llama");
    for field in ["rope_theta", "rope_scaling", "num_key_value_heads", "max_position_embeddings"] {
        value[field] = Value::Null;
    }
    let config = ModelConfig::from_json(&value).unwrap();
    assert_eq!(config.model_type, ModelType::Llama);
    assert_eq!(
        (config.rope.theta, config.num_key_value_heads, config.max_position_embeddings),
        (10_000.0, 16, 2_048)
    );
}

#[test]
fn all_missing_and_invalid_fields_are_reported_together() {
    let mut value = flat_vl();
    value["hidden_size"] = json!(-4);
    value["rms_norm_eps"] = json!("tiny");
    value.as_object_mut().unwrap().remove("vocab_size");
    assert_eq!(
        faults(&value),
        "`hidden_size` must be a positive integer, not `-4`; `vocab_size` is missing; \
         `rms_norm_eps` must be a positive number, not `tiny`"
    );
}

#[test]
fn unsupported_features_are_rejected_by_name() {
    for (field, found, expected) in [
        ("model_type", json!("qwen2_moe"), "`model_type` = `qwen2_moe` is not supported"),
        ("hidden_act", json!("gelu"), "`hidden_act` = `gelu` is not supported"),
        ("num_experts", json!(60), "`num_experts` = `60` is not supported"),
        ("quantization_config", json!({"bits": 4}), "`quantization_config` = `…` is not supported"),
        ("torch_dtype", json!("float8_e4m3fn"), "`dtype` = `float8_e4m3fn` is not supported"),
        ("mlp_bias", json!(true), "`mlp_bias` = `true` is not supported"),
    ] {
        let mut value = flat_vl();
        value[field] = found;
        assert!(faults(&value).starts_with(expected), "{field}: {}", faults(&value));
    }
}

#[test]
fn inconsistent_head_counts_are_rejected() {
    let mut value = flat_vl();
    value["num_key_value_heads"] = json!(3);
    assert_eq!(
        faults(&value),
        "`num_key_value_heads` must be a divisor of `num_attention_heads`, not `3`"
    );
    let mut value = flat_vl();
    value["num_attention_heads"] = json!(7);
    assert!(
        faults(&value)
            .starts_with("`num_attention_heads` must be a divisor of `hidden_size` unless")
    );
}

#[test]
fn a_saved_configuration_reads_back_the_same() {
    let dir = tempfile::tempdir().unwrap();
    for model_type in [ModelType::Qwen2, ModelType::Qwen3, ModelType::Llama] {
        let config = small(model_type);
        config.save(dir.path()).unwrap();
        assert_eq!(ModelConfig::from_dir(dir.path()).unwrap(), config);
    }
}

#[test]
fn an_inconsistent_configuration_is_not_saved() {
    let dir = tempfile::tempdir().unwrap();
    let config = ModelConfig { head_dim: 15, ..small(ModelType::Llama) };
    let message = config.save(dir.path()).unwrap_err().to_string();
    assert!(message.ends_with("`head_dim` must be an even number, not `15`"), "{message}");
    assert!(!dir.path().join(CONFIG_FILE).exists());
}

#[test]
fn invalid_json_is_reported_with_file_and_line() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(CONFIG_FILE), "{\n  \"vocab_size\": oops\n}").unwrap();
    let message = ModelConfig::from_dir(dir.path()).unwrap_err().to_string();
    assert!(message.contains("config.json") && message.contains("line 2"), "{message}");
}

proptest! {
    #[test]
    fn any_value_in_any_field_is_parsed_or_rejected(
        field in prop::sample::select(vec!["hidden_size", "num_attention_heads", "num_key_value_heads", "head_dim",
            "rope_theta", "rope_scaling", "rope_parameters", "text_config", "eos_token_id", "layer_types", "dtype",
            "use_sliding_window", "sliding_window", "max_window_layers", "num_hidden_layers"]),
        value in prop_oneof![
            Just(json!(null)), Just(json!([])), Just(json!({})), Just(json!("x")), Just(json!([1, "a"])),
            any::<i64>().prop_map(|n| json!(n)), any::<f64>().prop_map(|n| json!(n)),
        ],
    ) {
        let mut config = flat_vl();
        config[field] = value;
        if let Ok(config) = ModelConfig::from_json(&config) {
            prop_assert!(config.check().is_ok());
        }
    }
}
