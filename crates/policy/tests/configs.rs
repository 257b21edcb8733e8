//! Configurations beside what `transformers` reads in them.
//!
//! The fixture is made by `scripts/parity/make_config_fixtures.py`, which says what it holds.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use embodied_r_policy::ModelConfig;
use serde::Deserialize;
use serde_json::{Map, Value};

/// Two units in the last place of an `f32`: the powers of `torch` are not always the nearest.
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
fn frequencies_are_those_of_transformers_to_the_last_bits() {
    for (want, config) in readings() {
        let found = config.rope.frequencies(config.head_dim);
        assert_eq!(found.attention_factor, want.attention_factor, "{}", want.name);
        assert_eq!(found.inverse.len(), want.inverse_frequencies.len(), "{}", want.name);
        for (pair, (found, want_one)) in
            found.inverse.iter().zip(&want.inverse_frequencies).enumerate()
        {
            let error = (found / want_one - 1.0).abs();
            assert!(error <= TOLERANCE, "{}, pair {pair}: {found}, want {want_one}", want.name);
        }
    }
}

#[test]
fn every_layer_has_the_window_that_transformers_gives_it() {
    for (want, config) in readings() {
        let found: Vec<_> = (0..config.num_hidden_layers).map(|i| config.window(i)).collect();
        assert_eq!(found, want.windows, "{}", want.name);
    }
}

#[test]
fn sections_are_those_of_transformers() {
    for (want, config) in readings() {
        assert_eq!(config.rope.mrope_section, want.mrope_section, "{}", want.name);
    }
}

#[test]
fn what_is_written_reads_back_the_same() {
    for (want, config) in readings() {
        assert_eq!(ModelConfig::from_json(&config.to_json()), Ok(config), "{}", want.name);
    }
}

/// `make_config_fixtures.py --same` holds the expected texts against `transformers`.
#[test]
fn what_is_written_is_what_transformers_was_seen_to_read() {
    let written: Map<String, Value> =
        readings().into_iter().map(|(want, config)| (want.name, config.to_json())).collect();
    let written = serde_json::to_string_pretty(&written).unwrap() + "\n";
    // To take it over after a change, once `--same` agrees.
    let copy = Path::new(env!("CARGO_TARGET_TMPDIR")).join("configs-written.json");
    std::fs::write(&copy, &written).unwrap();
    assert!(written == fixture("configs-written.json"), "differs from `{}`", copy.display());
}
