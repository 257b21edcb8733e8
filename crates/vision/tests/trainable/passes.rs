//! Saved and recomputed activations, batches of images, frozen parts, threads.

use std::collections::BTreeMap;

use embodied_r_policy::Precision;
use embodied_r_vision::{FrozenParts, Pixels, SavedTower, TowerOptions, TrainableTower};
use serde::Deserialize;

use super::{
    LAYOUTS, d_loss, fixtures, loss, options, pass, pixels, relative_error, test_image, tower,
    tower_with, values,
};

/// Memory for the activations of one block of the images of [`pixels`].
fn block_bytes(tower: &TrainableTower, images: &[&Pixels]) -> usize {
    let grids: Vec<_> = images.iter().map(|image| image.grid).collect();
    tower.config().pass_bytes(&grids, size_of::<f32>()).block
}

#[test]
fn recomputed_activations_give_the_same_bits() {
    let tower = tower("nested");
    let images = pixels(&tower);
    let images: Vec<&Pixels> = images.iter().collect();
    let block = block_bytes(&tower, &images);
    let expected = pass(&tower, &images, usize::MAX);
    for bytes in [0, block, 2 * block, 3 * block - 1] {
        assert!(pass(&tower, &images, bytes) == expected, "{bytes} bytes");
    }
}

#[test]
fn saved_activations_take_the_estimated_memory() {
    let tower = tower("nested");
    let images = pixels(&tower);
    let images: Vec<&Pixels> = images.iter().collect();
    let grids: Vec<_> = images.iter().map(|image| image.grid).collect();
    let expected = tower.config().pass_bytes(&grids, size_of::<f32>());
    let saved = |bytes: usize| -> SavedTower { tower.forward(&images, bytes).unwrap().1 };
    assert_eq!(saved(0).bytes(), expected.inputs);
    assert_eq!(saved(expected.block).bytes(), expected.inputs + expected.block);
    assert_eq!(saved(2 * expected.block - 1).bytes(), expected.inputs + expected.block);
    assert_eq!(saved(usize::MAX).bytes(), expected.inputs + 3 * expected.block);
    assert_eq!(saved(usize::MAX).activation_bytes(), 3 * expected.block);
    assert_eq!(saved(0).activation_bytes(), 0);
    let patches = images.iter().map(|image| image.patches.elem_count() * size_of::<f32>());
    assert_eq!(expected.patches, patches.sum::<usize>());
}

#[test]
fn the_sum_of_each_images_gradients_is_that_of_the_batch() {
    let tower = tower("flat");
    let images = pixels(&tower);
    let together: Vec<&Pixels> = images.iter().collect();
    let (embeddings, saved) = tower.forward(&together, 0).unwrap();
    let d = d_loss(&embeddings);
    let mut batch = tower.zero_gradients().unwrap();
    tower.backward(saved, &d, &mut batch, &mut |_| ()).unwrap();
    let mut alone = tower.zero_gradients().unwrap();
    for ((image, embeddings), d) in images.iter().zip(&embeddings).zip(&d) {
        let (own, saved) = tower.forward(&[image], usize::MAX).unwrap();
        assert_eq!(values(&own[0]), values(embeddings));
        tower.backward(saved, std::slice::from_ref(d), &mut alone, &mut |_| ()).unwrap();
    }
    for ((name, found), (_, expected)) in alone.iter().zip(batch.iter()) {
        let error = relative_error(&values(found), &values(expected));
        assert!(error < 1e-5, "{name}: {error:e}");
    }
}

/// So many images that they are processed in several batches.
fn many(tower: &TrainableTower) -> Vec<Pixels> {
    let image = |seed| tower.processor().processor().image(&test_image((252, 140), seed)).unwrap();
    (1..16).map(image).collect()
}

#[test]
fn batches_accumulate_into_the_same_gradients() {
    let tower = tower("nested");
    let images = many(&tower);
    let together: Vec<&Pixels> = images.iter().collect();
    assert!(together.iter().map(|image| image.grid.patches()).sum::<usize>() > 2 * 1024);
    let (embeddings, saved) = tower.forward(&together, 0).unwrap();
    let d = d_loss(&embeddings);
    let mut batch = tower.zero_gradients().unwrap();
    tower.backward(saved, &d, &mut batch, &mut |_| ()).unwrap();
    let mut alone = tower.zero_gradients().unwrap();
    for (image, d) in images.iter().zip(&d) {
        let (_, saved) = tower.forward(&[image], 0).unwrap();
        tower.backward(saved, std::slice::from_ref(d), &mut alone, &mut |_| ()).unwrap();
    }
    for ((name, found), (_, expected)) in alone.iter().zip(batch.iter()) {
        let error = relative_error(&values(found), &values(expected));
        assert!(error < 1e-5, "{name}: {error:e}");
    }
}

#[test]
fn reported_gradients_are_final() {
    let tower = tower("nested");
    let images = many(&tower);
    let images: Vec<&Pixels> = images.iter().collect();
    let (embeddings, saved) = tower.forward(&images, 0).unwrap();
    let mut grads = tower.zero_gradients().unwrap();
    let buffer = grads.buffer().clone();
    let mut reported: Vec<(usize, Vec<f32>)> = Vec::new();
    let mut record = |first: usize| reported.push((first, values(&buffer)[first..].to_vec()));
    tower.backward(saved, &d_loss(&embeddings), &mut grads, &mut record).unwrap();
    let sizes: Vec<(&str, usize)> = grads.iter().map(|(name, d)| (name, d.elem_count())).collect();
    let below = |stage: &str| -> usize {
        let before = sizes.iter().take_while(|(name, _)| !name.contains(stage));
        before.map(|(_, size)| size).sum()
    };
    let stages = ["visual.merger.", "blocks.2.", "blocks.1.", "blocks.0."].map(below);
    let firsts: Vec<usize> = reported.iter().map(|(first, _)| *first).collect();
    assert_eq!(firsts, [stages.as_slice(), &[0]].concat());
    let last = values(grads.buffer());
    for (first, then) in reported {
        assert!(then == last[first..], "{first}");
    }
}

fn with_frozen(vision_tower: bool, aligner: bool) -> TrainableTower {
    let frozen = FrozenParts { vision_tower, aligner };
    tower_with("flat", &TowerOptions { frozen, ..options() })
}

#[test]
fn frozen_parts_have_no_gradients_and_the_others_are_unchanged() {
    let whole = with_frozen(false, false);
    let images = pixels(&whole);
    let images: Vec<&Pixels> = images.iter().collect();
    let (loss, all) = pass(&whole, &images, usize::MAX);
    for (vision_tower, aligner) in [(false, true), (true, false), (true, true)] {
        let frozen = with_frozen(vision_tower, aligner);
        let (own_loss, own) = pass(&frozen, &images, usize::MAX);
        assert_eq!(own_loss, loss);
        let is_trained = |name: &str| match name.contains(".merger.") {
            true => !aligner,
            false => !vision_tower,
        };
        let expected: super::Gradients =
            all.clone().into_iter().filter(|(name, _)| is_trained(name)).collect();
        assert!(own == expected, "{vision_tower} {aligner}");
        assert_eq!(frozen.parameters().count(), expected.len());
        assert_eq!(frozen.tensors().count(), all.len());
    }
}

#[test]
fn the_backward_stops_at_the_lowest_trained_tensor() {
    let whole = with_frozen(false, false);
    let images = pixels(&whole);
    let images: Vec<&Pixels> = images.iter().collect();
    let (_, all) = pass(&whole, &images, 0);
    let only = |part: &'static str| {
        with_frozen(false, false).with_frozen(move |name| !name.contains(part))
    };
    // With the number of blocks that the gradient has to pass.
    for (part, blocks) in [
        ("blocks.1.mlp.up_proj.bias", 2),
        ("blocks.2.", 1),
        ("merger.ln_q", 0),
        ("attn.qkv.weight", 3),
    ] {
        let tower = only(part);
        let mut reported = 0;
        let (embeddings, saved) = tower.forward(&images, 0).unwrap();
        let bytes = saved.bytes();
        let mut grads = tower.zero_gradients().unwrap();
        let mut count = |_| reported += 1;
        let d = d_loss(&embeddings);
        tower.backward(saved, &d, &mut grads, &mut count).unwrap();
        assert_eq!(reported, blocks + 2, "{part}");
        let block = images.iter().map(|image| image.grid.patches()).sum::<usize>() * 32 * 4;
        let merger = 2 * block + block / 32;
        assert_eq!(bytes, blocks * block + merger, "{part}");
        for (name, d) in grads.iter() {
            assert!(name.contains(part) && values(d) == all[name], "{name}");
        }
        assert!(grads.iter().count() > 0);
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let on = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let tower = tower("nested");
            let images = pixels(&tower);
            pass(&tower, &images.iter().collect::<Vec<_>>(), 0)
        })
    };
    assert!(on(1) == on(2));
}

#[test]
fn gradients_of_other_shapes_are_rejected() {
    let tower = tower("nested");
    let images = pixels(&tower);
    let images: Vec<&Pixels> = images.iter().collect();
    let run = |change: fn(&mut Vec<candle_core::Tensor>)| {
        let (embeddings, saved) = tower.forward(&images, 0).unwrap();
        let mut d = d_loss(&embeddings);
        change(&mut d);
        let mut grads = tower.zero_gradients().unwrap();
        let result = tower.backward(saved, &d, &mut grads, &mut |_| ());
        result.map_err(|error| error.to_string())
    };
    run(|_| ()).unwrap();
    let shapes: Vec<[usize; 2]> = images.iter().map(|image| [image.grid.tokens(2), 32]).collect();
    let fewer = run(|d| drop(d.pop())).unwrap_err();
    assert!(fewer.contains(&format!("must be {shapes:?}, not {:?}", &shapes[..2])), "{fewer}");
    assert!(run(|d| d.swap(0, 1)).unwrap_err().contains(&format!("not [{:?}", shapes[1])));
}

#[test]
fn no_images_give_no_embeddings_and_no_gradients() {
    for layout in LAYOUTS {
        let tower = tower(layout);
        let (total, grads) = pass(&tower, &[], 0);
        assert_eq!((total, loss(&[])), (0.0, 0.0));
        assert!(grads.values().flatten().all(|d| *d == 0.0));
    }
}

/// The relative errors in norm of torch's bf16 autocast (`tower_bf16.json`).
#[derive(Deserialize)]
struct Autocast {
    embeddings: f64,
    gradients: f64,
}

#[test]
fn bf16_is_closer_to_f32_than_autocast() {
    let text = std::fs::read(fixtures().join("tower_bf16.json")).unwrap();
    let autocast: BTreeMap<String, Autocast> = serde_json::from_slice(&text).unwrap();
    assert_eq!(autocast.len(), LAYOUTS.len());
    let of = |layout: &str, precision| {
        let tower = tower_with(layout, &TowerOptions { precision, ..options() });
        let images = pixels(&tower);
        let images: Vec<&Pixels> = images.iter().collect();
        let embeddings = tower.forward(&images, 0).unwrap().0;
        (embeddings.iter().flat_map(values).collect::<Vec<f32>>(), pass(&tower, &images, 0).1)
    };
    for (layout, Autocast { embeddings, gradients }) in &autocast {
        let (exact, exact_gradients) = of(layout, Precision::F32);
        let (rounded, rounded_gradients) = of(layout, Precision::Bf16);
        let error = relative_error(&rounded, &exact);
        assert!(error > 0.0 && error < *embeddings, "{layout}: {error:e}, not {embeddings:e}");
        let whole = |of: &super::Gradients| of.values().flatten().copied().collect::<Vec<f32>>();
        let error = relative_error(&whole(&rounded_gradients), &whole(&exact_gradients));
        assert!(error < *gradients, "{layout}: gradients: {error:e}, not {gradients:e}");
        for (name, exact) in &exact_gradients {
            let error = relative_error(&rounded_gradients[name], exact);
            // The gradient of a merger's last bias is the sum of the embeddings' alone.
            let ends = ["mlp.2.bias", "linear_fc2.bias"];
            let is_last = name.contains("merger") && ends.iter().any(|end| name.ends_with(end));
            let is_rounded = error > 1e-4 || is_last;
            assert!(is_rounded && error < 0.1, "{layout}, {name}: {error:e}");
        }
    }
}
