//! LoRA adapters of the tower's linear layers.

use candle_core::{DType, Device, Tensor};
use embodied_r_kernels::memory;
use embodied_r_vision::{Pixels, TrainableTower};
use indexmap::IndexMap;

use super::{finite_differences, pass, pixels, relative_error, tower, values};

const SCALE: f64 = 0.7;

type Adapters = IndexMap<String, [Tensor; 2]>;

/// Pseudo-random values of this shape, below `size`.
fn noise(shape: (usize, usize), size: f32, state: &mut u64) -> Tensor {
    let next = || {
        *state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((*state >> 40) as f32 / (1u64 << 23) as f32 - 1.0) * size
    };
    let values = std::iter::repeat_with(next).take(shape.0 * shape.1).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

/// Adapters of rank 3 for the linear layers whose names contain `part`.
fn adapters(tower: &TrainableTower, part: &str) -> Adapters {
    let mut state = 5;
    let layers = tower.tensors().filter(|(_, tensor)| tensor.rank() == 2);
    let layers = layers.filter_map(|(name, tensor)| {
        let layer = name.strip_suffix(".weight").unwrap();
        let (outputs, inputs) = tensor.dims2().unwrap();
        let new = || {
            let a = noise((3, inputs), (inputs as f32).sqrt().recip(), &mut state);
            [a, noise((outputs, 3), 0.5, &mut state)]
        };
        layer.contains(part).then(new).map(|adapter| (layer.to_owned(), adapter))
    });
    layers.collect()
}

/// A tower with them.
pub(super) fn adapted(part: &str) -> TrainableTower {
    let tower = tower("nested");
    let adapters = adapters(&tower, part);
    tower.with_adapters(adapters, SCALE).unwrap()
}

#[test]
fn adapters_have_the_output_of_merged_weights() {
    let plain = tower("nested");
    let adapters = adapters(&plain, "");
    assert_eq!(adapters.len(), 3 * 5 + 2);
    for (name, tensor) in plain.tensors() {
        let Some([a, b]) = name.strip_suffix(".weight").and_then(|name| adapters.get(name)) else {
            continue;
        };
        let update = (b.matmul(a).unwrap() * SCALE).unwrap();
        memory::add(tensor, &update).unwrap();
    }
    let images = pixels(&plain);
    let images: Vec<&Pixels> = images.iter().collect();
    let merged = plain.forward(&images, 0).unwrap().0;
    let tower = adapted("");
    let found = tower.forward(&images, usize::MAX).unwrap().0;
    for (found, merged) in found.iter().zip(&merged) {
        let error = relative_error(&values(found), &values(merged));
        assert!(error > 0.0 && error < 1e-5, "{error:e}");
    }
    let alone = tower.forward(&images[1..2], 0).unwrap().0;
    assert!(values(&alone[0]) == values(&found[1]));
}

#[test]
fn the_gradient_of_every_adapter_equals_finite_differences() {
    assert_eq!(finite_differences::compare(&adapted("")), 2 * (3 * 5 + 2));
}

#[test]
fn adapters_are_trained_in_place_of_the_tower() {
    let tower = adapted("blocks.1.");
    let names: Vec<&str> = tower.parameters().map(|(name, _)| name).collect();
    assert_eq!(names.len(), 2 * 5);
    assert_eq!(names[0], "visual.blocks.1.attn.qkv.lora_A.weight");
    assert_eq!(names[9], "visual.blocks.1.mlp.down_proj.lora_B.weight");
    let whole: Vec<&str> = tower.tensors().map(|(name, _)| name).collect();
    let plain = super::tower("nested");
    assert_eq!(whole, plain.tensors().map(|(name, _)| name).collect::<Vec<_>>());
    let images = pixels(&tower);
    let images: Vec<&Pixels> = images.iter().collect();
    let saved = pass(&tower, &images, usize::MAX);
    assert!(saved == pass(&tower, &images, 0));
    assert!(saved.1.keys().map(String::as_str).eq({
        let mut names = names.clone();
        names.sort_unstable();
        names
    }));
    assert!(saved.1.values().all(|d| d.iter().any(|d| *d != 0.0)));
    // The blocks below have no gradient to pass.
    let mut reported = 0;
    let (embeddings, saved) = tower.forward(&images, 0).unwrap();
    let mut grads = tower.zero_gradients().unwrap();
    tower.backward(saved, &super::d_loss(&embeddings), &mut grads, &mut |_| reported += 1).unwrap();
    assert_eq!(reported, 2 + 2);
}

#[test]
fn an_encoder_has_the_adapters_and_sees_writes_to_them() {
    let tower = adapted("attn.");
    let encoder = tower.encoder().unwrap();
    let image = super::test_image((100, 180), 3);
    let encoded = || values(encoder.encode_image(&image).unwrap().embeddings());
    let pixels = tower.processor().processor().image(&image).unwrap();
    let passed = || values(&tower.forward(&[&pixels], 0).unwrap().0[0]);
    for (name, tensor) in tower.parameters() {
        let before = encoded();
        assert!(before == passed(), "{name}");
        memory::scale(tensor, 1.5).unwrap();
        assert!(before != encoded(), "{name}");
    }
    assert!(encoded() == passed());
}

#[test]
fn adapters_that_do_not_match_are_named() {
    let error = |name: &str, a: (usize, usize), b: (usize, usize)| {
        let zeros = |shape| Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
        let adapters = [(name.to_owned(), [zeros(a), zeros(b)])].into_iter().collect();
        let tower = tower("flat");
        tower.with_adapters(adapters, 1.0).err().map(|error| error.to_string())
    };
    assert_eq!(error("visual.merger.mlp.2", (4, 128), (32, 4)), None);
    let shape = error("visual.merger.mlp.2", (4, 128), (32, 3)).unwrap();
    assert!(shape.contains("[rank, 128] and [32, rank], not [4, 128] and [32, 3]"), "{shape}");
    let name = error("visual.patch_embed.proj", (4, 128), (32, 4)).unwrap();
    assert!(name.contains("`visual.patch_embed.proj` is not a linear layer"), "{name}");
}

/// The seeds of the three images.
const SEEDS: [u64; 3] = [3, 4, 5];

fn dropped(tower: &TrainableTower, images: &[&Pixels], seeds: &[u64]) -> Vec<Vec<f32>> {
    let (embeddings, _) = tower.forward_with_dropout(images, seeds, 0).unwrap();
    embeddings.iter().map(values).collect()
}

#[test]
fn dropout_depends_on_the_seed_of_an_image_alone() {
    let tower = adapted("").with_lora_dropout(0.3);
    assert!(tower.has_dropout() && !adapted("").has_dropout());
    let images = pixels(&tower);
    let images: Vec<&Pixels> = images.iter().collect();
    let together = dropped(&tower, &images, &SEEDS);
    assert_eq!(dropped(&tower, &images[1..2], &SEEDS[1..2]), together[1..2]);
    assert_ne!(dropped(&tower, &images[1..2], &[9]), together[1..2]);
    assert!(tower.forward_with_dropout(&images, &SEEDS[1..], 0).is_err());
    // An encoder, and a pass without seeds, drop nothing.
    let plain: Vec<Vec<f32>> =
        adapted("").forward(&images, 0).unwrap().0.iter().map(values).collect();
    let found: Vec<Vec<f32>> = tower.forward(&images, 0).unwrap().0.iter().map(values).collect();
    assert_eq!(found, plain);
    assert_ne!(together, plain);
    let encoder = tower.encoder().unwrap();
    let encoded: Vec<Vec<f32>> =
        encoder.encode_pixels(&images).unwrap().iter().map(values).collect();
    assert_eq!(encoded, plain);
}

#[test]
fn dropout_keeps_the_mean_of_an_adapters_output() {
    // Only the last layer has an adapter, so that its output is linear in what is dropped.
    let tower = adapted("merger.mlp.2");
    let images = pixels(&tower);
    let images = [&images[1]];
    let without = values(&tower.forward(&images, 0).unwrap().0[0]);
    let tower = tower.with_lora_dropout(0.5);
    let count = 400;
    let mut mean = vec![0.0f64; without.len()];
    for seed in 0..count {
        for (mean, value) in mean.iter_mut().zip(&dropped(&tower, &images, &[seed])[0]) {
            *mean += f64::from(*value) / count as f64;
        }
    }
    let mean: Vec<f32> = mean.into_iter().map(|mean| mean as f32).collect();
    let once = relative_error(&dropped(&tower, &images, &[0])[0], &without);
    let error = relative_error(&mean, &without);
    assert!(once > 0.02 && error < 0.15 * once, "{error} and {once}");
}

#[test]
fn gradients_with_dropout_equal_finite_differences() {
    let tower = adapted("").with_lora_dropout(0.3);
    let compared = finite_differences::compare_passes(&tower, &|tower, images, bytes| {
        tower.forward_with_dropout(images, &SEEDS, bytes).unwrap()
    });
    assert_eq!(compared, 2 * (3 * 5 + 2));
}
