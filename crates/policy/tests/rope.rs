//! Parity of M-RoPE with `transformers`.
//!
//! The fixture is generated and described by `scripts/parity/make_rope_fixtures.py`.
#![allow(clippy::unwrap_used)]

use candle_core::{Device, Tensor};
use embodied_r_kernels::rope::{CosSinCache, Rotation, rotate};
use embodied_r_policy::ModelConfig;
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct Rotated {
    config: Value,
    positions: Vec<[usize; 3]>,
    x: Vec<Vec<f32>>,
    #[serde(rename = "turned")]
    rotated: Vec<Vec<f32>>,
}

fn fixture() -> Vec<Rotated> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/rope.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Applies the rotary embedding of `config` to `x` at `positions`.
fn rotated(x: &[Vec<f32>], config: &Value, positions: &[[usize; 3]]) -> Vec<Vec<f32>> {
    let config = ModelConfig::from_json(config).unwrap();
    let frequencies = config.rope.frequencies(config.head_dim);
    let section = config.rope.mrope_section.unwrap();
    let angles = CosSinCache::multimodal(positions, section, &frequencies).unwrap();
    let x = Tensor::new(x.to_vec(), &Device::Cpu).unwrap();
    rotate(&x, &angles, Rotation::Forward).unwrap();
    x.to_vec2().unwrap()
}

#[test]
fn multimodal_positions_rotate_queries_as_in_transformers() {
    let entries = fixture();
    assert_eq!(entries.len(), 2);
    for Rotated { config, positions, x, rotated: want } in entries {
        let found = rotated(&x, &config, &positions);
        for ((found, want), position) in found.iter().zip(&want).zip(&positions) {
            for (found, want) in found.iter().zip(want) {
                assert!((found - want).abs() < 1e-6, "{position:?}: {found}, expected {want}");
            }
        }
    }
}
