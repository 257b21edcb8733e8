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
    tower.config().pass_bytes(&grids, size_of::<f32>(), FrozenParts::default()).block
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

/// All settings of the frozen parts with which something is trained.
const FROZEN: [FrozenParts; 3] = [
    FrozenParts { vision_tower: false, aligner: false },
    FrozenParts { vision_tower: false, aligner: true },
    FrozenParts { vision_tower: true, aligner: false },
];

#[test]
fn saved_activations_take_the_estimated_memory() {
    for layout in LAYOUTS {
        for frozen in FROZEN {
            let tower = with_frozen(layout, frozen);
            let images = pixels(&tower);
            let images: Vec<&Pixels> = images.iter().collect();
            let grids: Vec<_> = images.iter().map(|image| image.grid).collect();
            let expected = tower.config().pass_bytes(&grids, size_of::<f32>(), frozen);
            let saved = |bytes: usize| -> SavedTower { tower.forward(&images, bytes).unwrap().1 };
            let blocks = if frozen.vision_tower { 0 } else { tower.config().depth };
            for (bytes, saved_blocks) in [
                (0, 0),
                (expected.block, 1),
                (2 * expected.block - 1, 1),
                (usize::MAX, tower.config().depth),
            ] {
                let (saved, activations) =
                    (saved(bytes), saved_blocks.min(blocks) * expected.block);
                assert_eq!(saved.activation_bytes(), activations, "{layout}, {frozen:?}, {bytes}");
                let all = expected.inputs + activations;
                assert_eq!(saved.bytes(), all, "{layout}, {frozen:?}, {bytes}");
            }
            let patches = images.iter().map(|image| image.patches.elem_count() * size_of::<f32>());
            assert_eq!(expected.patches, patches.sum::<usize>());
        }
    }
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

fn with_frozen(layout: &str, frozen: FrozenParts) -> TrainableTower {
    tower_with(layout, &TowerOptions { frozen, ..options() })
}

#[test]
fn frozen_parts_have_no_gradients_and_the_others_are_unchanged() {
    for layout in LAYOUTS {
        let whole = tower(layout);
        let images = pixels(&whole);
        let images: Vec<&Pixels> = images.iter().collect();
        let (loss, all) = pass(&whole, &images, usize::MAX);
        let all_frozen = FrozenParts { vision_tower: true, aligner: true };
        for parts in FROZEN.into_iter().chain([all_frozen]) {
            let frozen = with_frozen(layout, parts);
            let (own_loss, own) = pass(&frozen, &images, usize::MAX);
            assert_eq!(own_loss, loss);
            let is_trained = |name: &str| match name.contains("merger") {
                true => !parts.aligner,
                false => !parts.vision_tower,
            };
            let expected: super::Gradients =
                all.clone().into_iter().filter(|(name, _)| is_trained(name)).collect();
            assert!(own == expected, "{layout}, {parts:?}");
            assert_eq!(frozen.parameters().count(), expected.len());
            assert_eq!(frozen.tensors().count(), all.len());
        }
    }
}

/// Rows of a merger's norm: patches, or the tokens that they are joined to.
#[derive(Debug, Clone, Copy)]
enum Rows {
    Patches,
    Tokens,
}

/// A pass that trains the tensors alone whose names contain `part`.
struct PartlyTrained {
    part: &'static str,
    /// Blocks that the gradient has to pass, and distinct inputs of these and of mergers.
    blocks: usize,
    inputs: usize,
    /// The mergers that the gradient has to pass.
    mergers: &'static [Rows],
}

/// Asserts that the gradients of each pass are those of a whole one, to the bit, and that blocks and mergers which they do not
/// pass save nothing. Norms have `statistics` per row.
fn assert_reach(layout: &str, statistics: usize, passes: &[PartlyTrained]) {
    let whole = tower(layout);
    let images = pixels(&whole);
    let images: Vec<&Pixels> = images.iter().collect();
    let patches: usize = images.iter().map(|image| image.grid.patches()).sum();
    let hidden = patches * whole.config().hidden_size * size_of::<f32>();
    let (_, all) = pass(&whole, &images, 0);
    for PartlyTrained { part, blocks, inputs, mergers } in passes {
        let tower = tower(layout).with_frozen(|name| !name.contains(part));
        let mut reported = 0;
        let (embeddings, saved) = tower.forward(&images, 0).unwrap();
        let bytes = saved.bytes();
        let mut grads = tower.zero_gradients().unwrap();
        let mut count = |_| reported += 1;
        tower.backward(saved, &d_loss(&embeddings), &mut grads, &mut count).unwrap();
        assert_eq!(reported, blocks + mergers.len() + 1, "{layout}, {part}");
        let rows = |rows: &Rows| match rows {
            Rows::Patches => patches,
            Rows::Tokens => patches / 4,
        };
        let of_norms: usize =
            mergers.iter().map(rows).sum::<usize>() * statistics * size_of::<f32>();
        assert_eq!(bytes, (inputs + mergers.len()) * hidden + of_norms, "{layout}, {part}");
        for (name, d) in grads.iter() {
            assert!(name.contains(part) && values(d) == all[name], "{layout}, {name}");
        }
        assert!(grads.iter().count() > 0);
    }
}

#[test]
fn the_backward_stops_at_the_lowest_trained_tensor() {
    let last = |part, blocks| PartlyTrained {
        part,
        blocks,
        inputs: blocks + 1,
        mergers: &[Rows::Patches],
    };
    assert_reach(
        "flat",
        1,
        &[
            last("blocks.1.mlp.up_proj.bias", 2),
            last("blocks.2.", 1),
            last("merger.ln_q", 0),
            last("attn.qkv.weight", 3),
        ],
    );
}

#[test]
fn mergers_of_deepstack_that_no_gradient_passes_save_nothing() {
    const ALL: &[Rows] = &[Rows::Tokens, Rows::Tokens, Rows::Patches];
    // DeepStack's mergers are behind the blocks 0 and 2 of 4. Each trained one is reached through no block.
    let passes = [
        PartlyTrained { part: "blocks.0.", blocks: 4, inputs: 5, mergers: ALL },
        PartlyTrained { part: "blocks.1.", blocks: 3, inputs: 4, mergers: &ALL[1..] },
        PartlyTrained { part: "blocks.3.", blocks: 1, inputs: 2, mergers: &ALL[2..] },
        PartlyTrained { part: "merger", blocks: 0, inputs: 3, mergers: ALL },
        PartlyTrained { part: "visual.merger.", blocks: 0, inputs: 1, mergers: &ALL[2..] },
        PartlyTrained { part: "merger_list.0.", blocks: 0, inputs: 1, mergers: &ALL[..1] },
        PartlyTrained { part: "merger_list.1.", blocks: 0, inputs: 1, mergers: &ALL[1..2] },
    ];
    assert_reach("qwen3_vl", 2, &passes);
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
