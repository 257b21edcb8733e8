//! Queries turned by multimodal positions, beside those that `transformers` turned.
//!
//! The fixture is made by `scripts/parity/make_rope_fixtures.py`, which says what it holds.
#![allow(clippy::unwrap_used)]

use candle_core::{Device, Tensor};
use embodied_r_kernels::rope::{Angles, Turn, rotate};
use embodied_r_policy::ModelConfig;
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct Turned {
    config: Value,
    positions: Vec<[usize; 3]>,
    x: Vec<Vec<f32>>,
    turned: Vec<Vec<f32>>,
}

fn fixture() -> Vec<Turned> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/rope.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// `x` as the decoder of `config` turns it at `positions`.
fn turned(x: &[Vec<f32>], config: &Value, positions: &[[usize; 3]]) -> Vec<Vec<f32>> {
    let config = ModelConfig::from_json(config).unwrap();
    let frequencies = config.rope.frequencies(config.head_dim);
    let section = config.rope.mrope_section.unwrap();
    let angles = Angles::multimodal(positions, section, &frequencies).unwrap();
    let x = Tensor::new(x.to_vec(), &Device::Cpu).unwrap();
    rotate(&x, &angles, Turn::Forward).unwrap();
    x.to_vec2().unwrap()
}

#[test]
fn multimodal_positions_turn_queries_as_in_transformers() {
    let entries = fixture();
    assert_eq!(entries.len(), 2);
    for Turned { config, positions, x, turned: want } in entries {
        let found = turned(&x, &config, &positions);
        for ((found, want), position) in found.iter().zip(&want).zip(&positions) {
            for (found, want) in found.iter().zip(want) {
                assert!((found - want).abs() < 1e-6, "{position:?}: {found}, want {want}");
            }
        }
    }
}
