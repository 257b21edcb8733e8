use serde_json::{Value, json};

use super::{faults, flat_vl, small};
use crate::config::{ModelConfig, ModelType, SlidingWindow};

/// A Qwen2 of 36 layers with sliding windows from layer 34 on.
fn windowed() -> Value {
    let mut value = flat_vl();
    value["model_type"] = json!("qwen2");
    value["rope_scaling"] = Value::Null;
    value["use_sliding_window"] = json!(true);
    value["sliding_window"] = json!(100);
    value["max_window_layers"] = json!(34);
    value
}

fn kinds(sliding: usize) -> Vec<&'static str> {
    let mut kinds = vec!["full_attention"; 36];
    kinds[sliding] = "sliding_attention";
    kinds
}

#[test]
fn the_last_layers_have_windows() {
    let config = ModelConfig::from_json(&windowed()).unwrap();
    let found: Vec<_> = [0, 33, 34, 35].map(|layer| config.window(layer)).into();
    assert_eq!(found, [None, None, Some(100), Some(100)]);
}

#[test]
fn layer_types_take_precedence_over_max_window_layers() {
    let mut value = windowed();
    value["layer_types"] = json!(kinds(7));
    let config = ModelConfig::from_json(&value).unwrap();
    assert_eq!(config.sliding_window, Some(SlidingWindow { tokens: 100, layers: vec![7] }));
}

#[test]
fn every_invalid_window_field_is_reported() {
    for (field, found, expected) in [
        (
            "use_sliding_window",
            json!("yes"),
            "`use_sliding_window` must be `true` or `false`, not `yes`",
        ),
        ("sliding_window", json!(0), "`sliding_window` must be a positive integer, not `0`"),
        ("max_window_layers", json!(-1), "`max_window_layers` must be a layer index, not `-1`"),
        (
            "layer_types",
            json!("x"),
            "`layer_types` must be a list with one type per layer, not `x`",
        ),
        (
            "layer_types",
            json!(["full_attention"]),
            "`layer_types` must be a list of `num_hidden_layers` types, not `a list of 1`",
        ),
        (
            "layer_types",
            json!(vec!["linear_attention"; 36]),
            "`layer_types` = `linear_attention` is not supported: use `full_attention` or `sliding_attention`",
        ),
    ] {
        let mut value = windowed();
        value[field] = found;
        assert_eq!(faults(&value), expected);
    }
}

#[test]
fn a_sliding_layer_needs_a_window() {
    for field in ["use_sliding_window", "sliding_window"] {
        let mut value = windowed();
        value["layer_types"] = json!(kinds(7));
        value[field] = Value::Null;
        assert_eq!(
            faults(&value),
            "`layer_types` must be `full_attention` unless `use_sliding_window` and `sliding_window` \
             are set, not `sliding_attention`"
        );
    }
}

#[test]
fn llama_with_sliding_windows_is_rejected() {
    let mut value = windowed();
    value["model_type"] = json!("llama");
    let why = "is not supported: this family has full attention in every layer";
    assert_eq!(faults(&value), format!("`use_sliding_window` = `true` {why}"));
    value["layer_types"] = json!(kinds(7));
    assert_eq!(faults(&value), format!("`layer_types` = `sliding_attention` {why}"));
}

#[test]
fn windows_are_written_for_versions_with_and_without_layer_types() {
    let window = |layers| Some(SlidingWindow { tokens: 5, layers });
    let config = ModelConfig { sliding_window: window(vec![1]), ..small(ModelType::Qwen2) };
    let written = config.to_json();
    assert_eq!(written["layer_types"], json!(["full_attention", "sliding_attention"]));
    assert_eq!((&written["sliding_window"], &written["max_window_layers"]), (&json!(5), &json!(1)));
    assert_eq!(written["use_sliding_window"], json!(true));
}

#[test]
fn windows_of_nonexistent_layers_are_not_saved() {
    let dir = tempfile::tempdir().unwrap();
    for layers in [vec![2], vec![1, 0], vec![]] {
        let window = Some(SlidingWindow { tokens: 5, layers: layers.clone() });
        let config = ModelConfig { sliding_window: window, ..small(ModelType::Qwen2) };
        let message = config.save(dir.path()).unwrap_err().to_string();
        assert!(message.contains(&format!("in ascending order, not `{layers:?}`")), "{message}");
    }
}
