//! Parity of parsed configurations with `transformers`.
//!
//! The fixture is generated and described by `scripts/parity/make_config_fixtures.py`.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use embodied_r_policy::ModelConfig;
use serde::Deserialize;
use serde_json::{Map, Value};

/// Two ulps of an `f32`: `torch`'s powers are not always correctly rounded.
const TOLERANCE: f32 = 2.4e-7;

#[derive(Deserialize)]
struct Reading {
    name: String,
    config: Value,
    inverse_frequencies: Vec<f32>,
    attention_factor: f32,
    mrope_section: Option<[usize; 3]>,
    windows: Vec<Option<usize>>,
}

fn fixture(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
    std::fs::read_to_string(path).unwrap()
}

fn readings() -> Vec<(Reading, ModelConfig)> {
    let readings: Vec<Reading> = serde_json::from_str(&fixture("configs.json")).unwrap();
    assert!(readings.len() > 30);
    let read = |reading: Reading| {
        let config = ModelConfig::from_json(&reading.config).map_err(|f| (&reading.name, f));
        let config = config.unwrap();
        (reading, config)
    };
    readings.into_iter().map(read).collect()
}

#[test]
fn frequencies_match_transformers_within_two_ulps() {
    for (want, config) in readings() {
        let found = config.rope.frequencies(config.head_dim);
        assert_eq!(found.attention_factor, want.attention_factor, "{}", want.name);
        assert_eq!(found.inv_freq.len(), want.inverse_frequencies.len(), "{}", want.name);
        for (pair, (found, want_one)) in
            found.inv_freq.iter().zip(&want.inverse_frequencies).enumerate()
        {
            let error = (found / want_one - 1.0).abs();
            assert!(error <= TOLERANCE, "{}, pair {pair}: {found}, expected {want_one}", want.name);
        }
    }
}

#[test]
fn windows_of_all_layers_match_transformers() {
    for (want, config) in readings() {
        let found: Vec<_> = (0..config.num_hidden_layers).map(|i| config.window(i)).collect();
        assert_eq!(found, want.windows, "{}", want.name);
    }
}

#[test]
fn mrope_sections_match_transformers() {
    for (want, config) in readings() {
        assert_eq!(
            config.rope.mrope_section.map(|it| it.sizes),
            want.mrope_section,
            "{}",
            want.name
        );
    }
}

#[test]
fn configurations_survive_a_round_trip() {
    for (want, config) in readings() {
        // What is written is a text model.
        let text = ModelConfig { placeholder_token_ids: Vec::new(), ..config.clone() };
        assert_eq!(ModelConfig::from_json(&config.to_json()), Ok(text), "{}", want.name);
    }
}

/// `make_config_fixtures.py --same` verifies the expected texts with `transformers`.
#[test]
fn written_configurations_match_those_verified_with_transformers() {
    let written: Map<String, Value> =
        readings().into_iter().map(|(want, config)| (want.name, config.to_json())).collect();
    let written = serde_json::to_string_pretty(&written).unwrap() + "\n";
    // To update the fixture after a change, once `--same` agrees.
    let copy = Path::new(env!("CARGO_TARGET_TMPDIR")).join("configs-written.json");
    std::fs::write(&copy, &written).unwrap();
    assert!(written == fixture("configs-written.json"), "differs from `{}`", copy.display());
}
