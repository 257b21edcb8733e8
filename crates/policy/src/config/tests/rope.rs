use proptest::prelude::*;
use serde_json::{Value, json};

use super::{faults, flat_vl};
use crate::MropeSections;
use crate::config::{ModelConfig, RopeKind};

fn with(scaling: Value) -> Value {
    let mut value = flat_vl();
    value["model_type"] = json!("qwen2");
    value["rope_scaling"] = scaling;
    value
}

/// A valid dictionary with one field changed, or removed by `null`.
fn changed(mut scaling: Value, field: &str, to: Value) -> Value {
    match to {
        Value::Null => drop(scaling.as_object_mut().unwrap().remove(field)),
        to => scaling[field] = to,
    }
    with(scaling)
}

fn llama3() -> Value {
    json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192})
}

fn yarn() -> Value {
    json!({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768})
}

#[test]
fn unsupported_rope_types_are_rejected_by_name() {
    for kind in ["dynamic", "longrope", "proportional", "axial", "su"] {
        let message = format!("`rope_scaling` = `{kind}` is not supported");
        assert!(faults(&with(json!({"rope_type": kind, "factor": 2.0}))).starts_with(&message));
    }
}

#[test]
fn partial_rotary_and_per_layer_type_embeddings_are_rejected() {
    for (scaling, message) in [
        (
            json!({"partial_rotary_factor": 0.5}),
            "`partial_rotary_factor` = `0.5` is not supported: use a factor of 1",
        ),
        (
            json!({"full_attention": {"rope_theta": 1e4}}),
            "`rope_scaling` = `full_attention` is not supported: use one rotary embedding",
        ),
    ] {
        assert!(faults(&with(scaling.clone())).starts_with(message), "{}", faults(&with(scaling)));
    }
    let mut beside = with(Value::Null);
    beside["partial_rotary_factor"] = json!(0.5);
    assert!(faults(&beside).starts_with("`partial_rotary_factor` = `0.5` is not supported"));
}

#[test]
fn every_invalid_llama3_parameter_is_reported() {
    for (field, found, expected) in [
        ("factor", Value::Null, "`rope_scaling.factor` is missing"),
        ("factor", json!(0.5), "`rope_scaling.factor` must be a number of at least 1, not `0.5`"),
        ("low_freq_factor", Value::Null, "`rope_scaling.low_freq_factor` is missing"),
        (
            "low_freq_factor",
            json!(0),
            "`rope_scaling.low_freq_factor` must be a positive number, not `0`",
        ),
        ("high_freq_factor", Value::Null, "`rope_scaling.high_freq_factor` is missing"),
        (
            "high_freq_factor",
            json!(1.0),
            "`rope_scaling.high_freq_factor` must be a number greater than `low_freq_factor`, not `1`",
        ),
        (
            "original_max_position_embeddings",
            json!(-1),
            "`rope_scaling.original_max_position_embeddings` must be a positive integer, not `-1`",
        ),
    ] {
        assert_eq!(faults(&changed(llama3(), field, found)), expected);
    }
}

#[test]
fn every_invalid_yarn_parameter_is_reported() {
    for (field, found, expected) in [
        ("factor", json!("4"), "`rope_scaling.factor` must be a number, not `4`"),
        (
            "attention_factor",
            json!(-1.0),
            "`rope_scaling.attention_factor` must be a positive number, not `-1`",
        ),
        ("beta_slow", json!(-1), "`rope_scaling.beta_slow` must be a positive number, not `-1`"),
        (
            "beta_fast",
            json!(0.5),
            "`rope_scaling.beta_fast` must be a number not less than `beta_slow`, not `0.5`",
        ),
        ("mscale", json!([]), "`rope_scaling.mscale` must be a number, not `[]`"),
        (
            "mscale_all_dim",
            json!(-0.7),
            "`rope_scaling.mscale_all_dim` must be a positive number, not `-0.7`",
        ),
        ("truncate", json!(1), "`rope_scaling.truncate` must be `true` or `false`, not `1`"),
        ("rope_theta", json!(1.0), "`rope_theta` must be a number greater than 1, not `1`"),
    ] {
        assert_eq!(faults(&changed(yarn(), field, found)), expected);
    }
}

#[test]
fn rope_faults_are_reported_together_with_the_name_of_their_object() {
    let mut value = with(Value::Null);
    value["rope_theta"] = json!("x");
    value["rope_parameters"] = json!({"rope_type": "llama3", "low_freq_factor": -1.0});
    assert_eq!(
        faults(&value),
        "`rope_theta` must be a positive number, not `x`; `rope_parameters.factor` is missing; \
         `rope_parameters.high_freq_factor` is missing; \
         `rope_parameters.low_freq_factor` must be a positive number, not `-1`"
    );
}

#[test]
fn sections_must_sum_to_half_of_head_dim() {
    for section in [json!([16, 24, 25]), json!([16, 48]), json!([16, 24, 24, 0]), json!("x")] {
        let found = section.as_str().map_or_else(|| section.to_string(), str::to_owned);
        let mut value = flat_vl();
        value["rope_scaling"]["mrope_section"] = section;
        assert_eq!(
            faults(&value),
            format!(
                "`rope_scaling.mrope_section` must be three sizes that sum to half of `head_dim`, \
                 not `{found}`"
            )
        );
    }
}

#[test]
fn text_models_have_no_sections_and_vision_language_models_the_published_ones() {
    let text = ModelConfig::from_json(&with(Value::Null)).unwrap();
    assert_eq!((text.rope.kind, text.rope.mrope_section), (RopeKind::Default, None));
    let mut vision = flat_vl();
    vision["rope_scaling"] = Value::Null;
    let vision = ModelConfig::from_json(&vision).unwrap();
    let sections = MropeSections::consecutive([16, 24, 24]);
    assert_eq!(vision.rope.mrope_section, Some(sections));
}

#[test]
fn an_invalid_rope_is_not_saved() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = ModelConfig::from_json(&with(yarn())).unwrap();
    config.rope.kind = RopeKind::Linear { factor: 0.0 };
    let message = config.save(dir.path()).unwrap_err().to_string();
    assert!(
        message.ends_with("`rope_scaling.factor` must be a number of at least 1, not `0`"),
        "{message}"
    );
}

#[test]
fn a_theta_without_a_finite_reciprocal_is_rejected() {
    let message = faults(&changed(llama3(), "rope_theta", json!(9.38e-41)));
    assert!(message.starts_with("`rope_theta` must be a positive number, not `"), "{message}");
}

proptest! {
    #[test]
    fn every_accepted_rope_has_finite_frequencies(
        scaling in prop::sample::select(vec![llama3(), yarn()]),
        field in prop::sample::select(vec!["factor", "low_freq_factor", "high_freq_factor",
            "original_max_position_embeddings", "attention_factor", "beta_fast", "beta_slow", "mscale",
            "mscale_all_dim", "rope_theta"]),
        number in any::<f64>(),
    ) {
        if let Ok(config) = ModelConfig::from_json(&changed(scaling, field, json!(number))) {
            let found = config.rope.frequencies(config.head_dim);
            prop_assert!(found.inv_freq.iter().all(|f| f.is_finite() && *f >= 0.0));
            prop_assert!(found.attention_factor.is_finite() && found.attention_factor > 0.0);
        }
    }
}
