//! The tower's tensors in checkpoints.

use std::collections::{BTreeMap, HashMap};

use candle_core::{DType, Device, Tensor};
use embodied_r_policy::WeightFormat;
use embodied_r_vision::{TrainableTower, VisionEncoder, VisionProcessor};
use indexmap::IndexMap;

use super::{LAYOUTS, folder, options, tower, values};

fn stored(layout: &str) -> BTreeMap<String, Tensor> {
    let file = folder(layout).join("model.safetensors");
    let tensors = candle_core::safetensors::load(file, &Device::Cpu).unwrap();
    tensors.into_iter().filter(|(name, _)| name.contains("visual.")).collect()
}

#[test]
fn tensors_have_the_names_shapes_and_values_of_the_checkpoint() {
    for layout in LAYOUTS {
        let (tower, stored) = (tower(layout), stored(layout));
        let found: BTreeMap<&str, &Tensor> = tower.tensors().collect();
        assert!(found.keys().copied().eq(stored.keys().map(String::as_str)), "{layout}");
        for (name, expected) in &stored {
            assert_eq!(found[name.as_str()].dims(), expected.dims(), "{name}");
            let expected = expected.to_dtype(DType::F32).unwrap();
            assert_eq!(values(found[name.as_str()]), values(&expected), "{name}");
        }
        let count: usize = tower.parameters().map(|(_, tensor)| tensor.elem_count()).sum();
        assert_eq!(count, tower.config().parameter_count());
    }
}

/// A folder of the nested model's tower with these tensors.
fn folder_of(tensors: &HashMap<String, Tensor>) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for file in ["config.json", "preprocessor_config.json"] {
        std::fs::copy(folder("nested").join(file), copy.path().join(file)).unwrap();
    }
    candle_core::safetensors::save(tensors, copy.path().join("model.safetensors")).unwrap();
    copy
}

#[test]
fn tensors_that_no_tower_has_are_named_and_stored_frequencies_are_left_out() {
    let mut tensors: HashMap<String, Tensor> = stored("nested").into_iter().collect();
    let one = Tensor::zeros(1, DType::F32, &Device::Cpu).unwrap();
    tensors.insert("model.visual.rotary_pos_emb.inv_freq".to_owned(), one.clone());
    let load = |tensors: &HashMap<String, Tensor>| {
        let copy = folder_of(tensors);
        let processor = VisionProcessor::of_model(copy.path()).unwrap();
        let trainable = TrainableTower::load(copy.path(), processor, &options());
        let encoder = VisionEncoder::load(copy.path(), &WeightFormat::F32.into());
        [trainable.err().map(|it| it.to_string()), encoder.err().map(|it| it.to_string())]
    };
    assert_eq!(load(&tensors), [None, None]);
    tensors.insert("model.visual.deepstack_merger_list.0.norm.weight".to_owned(), one);
    for error in load(&tensors) {
        let error = error.unwrap();
        let expected = "`visual.deepstack_merger_list.0.norm.weight` is unexpected";
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn names_are_those_of_the_file() {
    let renamed: HashMap<String, Tensor> = stored("nested")
        .into_iter()
        .map(|(name, tensor)| (format!("model.{}", name.trim_start_matches("model.")), tensor))
        .collect();
    let copy = folder_of(&renamed);
    let processor = VisionProcessor::of_model(copy.path()).unwrap();
    let found = TrainableTower::load(copy.path(), processor, &options()).unwrap();
    let plain = tower("nested");
    assert_eq!(found.tensors().count(), renamed.len());
    for ((name, tensor), (plain_name, plain)) in found.tensors().zip(plain.tensors()) {
        assert_eq!(name, format!("model.{}", plain_name.trim_start_matches("model.")));
        assert_eq!(values(tensor), values(plain));
    }
    let (_, d) = super::pass(&found, &[&super::pixels(&found)[0]], 0);
    assert!(d.contains_key("model.visual.patch_embed.proj.weight"));
}

/// A tower of changed tensors.
fn changed(change: impl Fn(&mut IndexMap<String, Tensor>)) -> Result<TrainableTower, String> {
    let whole = tower("flat");
    let mut tensors: IndexMap<String, Tensor> =
        whole.tensors().map(|(name, tensor)| (name.to_owned(), tensor.clone())).collect();
    change(&mut tensors);
    TrainableTower::from_tensors(whole.processor().clone(), tensors, &options())
        .map_err(|error| error.to_string())
}

#[test]
fn tensors_that_do_not_match_the_configuration_are_named() {
    changed(|_| ()).unwrap();
    let error = |change: fn(&mut IndexMap<String, Tensor>)| changed(change).err().unwrap();
    let missing = error(|tensors| drop(tensors.shift_remove("visual.blocks.1.attn.qkv.bias")));
    assert!(missing.contains("`visual.blocks.1.attn.qkv.bias` is missing"), "{missing}");
    let other = error(|tensors| {
        let bias = tensors["visual.blocks.1.attn.qkv.bias"].clone();
        tensors.insert("visual.merger.mlp.0.bias".to_owned(), bias);
    });
    assert!(
        other.contains("`visual.merger.mlp.0.bias` must have the shape [128] in f32, not [96]"),
        "{other}"
    );
    let more = error(|tensors| {
        let bias = tensors["visual.blocks.1.attn.qkv.bias"].clone();
        tensors.insert("visual.blocks.3.attn.qkv.bias".to_owned(), bias);
    });
    assert!(more.contains("`visual.blocks.3.attn.qkv.bias` does not belong"), "{more}");
    let text = error(|tensors| {
        let bias = tensors["visual.blocks.1.attn.qkv.bias"].clone();
        tensors.insert("model.norm.weight".to_owned(), bias);
    });
    assert!(text.contains("`model.norm.weight` is not a tensor of a vision tower"), "{text}");
}

#[test]
fn a_gguf_tower_cannot_be_trained() {
    let processor = VisionProcessor::of_model(&folder("gguf")).unwrap();
    let error = TrainableTower::load(&folder("gguf"), processor, &options());
    let error = error.err().unwrap().to_string();
    assert!(error.contains("whose vision tower cannot be trained"), "{error}");
}
