use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use indexmap::IndexMap;
use proptest::prelude::*;

use super::*;
use crate::config::{ModelConfig, ModelType, Rope, WeightDtype};
use crate::error::Error;

type Tensors = IndexMap<String, Tensor>;

fn config(tied: bool) -> ModelConfig {
    ModelConfig {
        model_type: ModelType::Qwen2,
        vocab_size: 11,
        hidden_size: 8,
        intermediate_size: 12,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 4,
        rms_norm_eps: 1e-6,
        rope: Rope::plain(1e4),
        sliding_window: None,
        tie_word_embeddings: tied,
        max_position_embeddings: 64,
        initializer_range: 0.02,
        dtype: WeightDtype::F32,
        bos_token_id: None,
        eos_token_ids: vec![],
        placeholder_token_ids: Vec::new(),
    }
}

/// Every tensor of `config`, with values that are exact in 16 bits and differ between tensors.
fn tensors(config: &ModelConfig) -> Tensors {
    let shapes = tensor_shapes(config);
    let filled = shapes.into_iter().enumerate().map(|(i, (name, shape))| {
        let count = shape.iter().product::<usize>();
        let values: Vec<f32> = (0..count).map(|j| ((i * 7 + j) % 64) as f32 / 32.0 - 1.0).collect();
        (name, Tensor::from_vec(values, shape, &Device::Cpu).unwrap())
    });
    filled.collect()
}

fn write(dir: &Path, tensors: &Tensors, options: &SaveOptions) {
    save(dir, tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)), options).unwrap();
}

fn renamed(tensors: &Tensors, rename: impl Fn(&str) -> String) -> Tensors {
    tensors.iter().map(|(name, tensor)| (rename(name), tensor.clone())).collect()
}

#[track_caller]
fn assert_same(found: &Tensors, want: &Tensors) {
    assert!(found.keys().eq(want.keys()), "{:?}", found.keys().collect::<Vec<_>>());
    for (name, tensor) in found {
        assert_eq!(tensor.dims(), want[name].dims(), "{name}");
        let values = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(values(tensor), values(&want[name]), "{name}");
    }
}

fn files(dir: &Path) -> Vec<String> {
    let names =
        std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

#[test]
fn the_shapes_sum_to_the_parameter_count() {
    for tied in [true, false] {
        let config = config(tied);
        let total: usize =
            tensor_shapes(&config).values().map(|s| s.iter().product::<usize>()).sum();
        assert_eq!(total, config.parameter_count());
    }
}

#[test]
fn every_dtype_and_any_number_of_shards_survive_a_round_trip() {
    let config = config(false);
    let want = tensors(&config);
    for dtype in [WeightDtype::F32, WeightDtype::Bf16, WeightDtype::F16] {
        for max_shard_bytes in [1, 900, usize::MAX] {
            let dir = tempfile::tempdir().unwrap();
            write(dir.path(), &want, &SaveOptions { dtype, max_shard_bytes });
            assert_same(&load(dir.path(), &config).unwrap(), &want);
        }
    }
}

#[test]
fn a_device_gets_each_tensor_in_the_dtype_that_it_keeps() {
    let config = config(false);
    // Numbers that bf16 rounds.
    let scaled = |(name, tensor): (String, Tensor)| (name, (tensor * 0.3).unwrap());
    let stored: Tensors = tensors(&config).into_iter().map(scaled).collect();
    for dtype in [WeightDtype::F32, WeightDtype::Bf16, WeightDtype::F16] {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &stored, &SaveOptions { dtype, max_shard_bytes: 900 });
        let want = load(dir.path(), &config).unwrap();
        for matrices in [DType::F32, DType::BF16] {
            let files = open(dir.path()).unwrap();
            let found = decoder_on(&Device::Cpu, dir.path(), &files, &config, matrices).unwrap();
            let kept = |tensor: &Tensor| if tensor.rank() == 2 { matrices } else { DType::F32 };
            assert!(found.values().all(|tensor| tensor.dtype() == kept(tensor)));
            let in_f32 =
                |(name, tensor): (String, Tensor)| (name, tensor.to_dtype(DType::F32).unwrap());
            let rounded = |(name, tensor): (&String, &Tensor)| {
                let kept = tensor.to_dtype(kept(tensor)).unwrap();
                (name.clone(), kept.to_dtype(DType::F32).unwrap())
            };
            let want: Tensors = want.iter().map(rounded).collect();
            assert_same(&found.into_iter().map(in_f32).collect(), &want);
        }
    }
}

#[test]
fn shards_respect_the_size_limit_and_the_index_has_the_total() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(false);
    write(
        dir.path(),
        &tensors(&config),
        &SaveOptions { dtype: WeightDtype::F32, max_shard_bytes: 900 },
    );
    let index: serde_json::Value =
        serde_json::from_slice(&std::fs::read(dir.path().join(INDEX_FILE)).unwrap()).unwrap();
    assert_eq!(index["metadata"]["total_size"], 4 * config.parameter_count());
    for name in files(dir.path()).iter().filter(|name| name.starts_with("model-")) {
        let bytes = std::fs::read(dir.path().join(name)).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let size: usize = file.iter().map(|(_, view)| view.data().len()).sum();
        assert!(size <= 900, "{name} holds {size} bytes");
    }
}

#[test]
fn several_ranks_write_equal_parts_of_one_checkpoint() {
    let config = config(false);
    let (all, options) = (tensors(&config), SaveOptions::default());
    let largest = 4 * all.values().map(Tensor::elem_count).max().unwrap();
    for world_size in [2, 3, 4] {
        let dir = tempfile::tempdir().unwrap();
        let mut before = Vec::new();
        // Rank 0 is last: the others do not depend on its files.
        for rank in (0..world_size).rev() {
            let named = all.iter().map(|(name, tensor)| (name.as_str(), tensor));
            save_sharded(dir.path(), named, &options, WriterRank { rank, world_size }).unwrap();
            let now = files(dir.path());
            let own: Vec<_> = now.iter().filter(|name| !before.contains(*name)).collect();
            let name = format!("model-{:05}-of-{world_size:05}.safetensors", rank + 1);
            assert!(own.contains(&&name), "{own:?}");
            assert_eq!(own.len(), if rank == 0 { 2 } else { 1 }, "{own:?}");
            let bytes = std::fs::metadata(dir.path().join(name)).unwrap().len() as usize;
            let share = 4 * config.parameter_count() / world_size;
            assert!(
                bytes.abs_diff(share) < largest + 2_000,
                "{rank} of {world_size}: {bytes} bytes"
            );
            before = now;
        }
        assert_same(&load(dir.path(), &config).unwrap(), &all);
    }
}

#[test]
fn a_new_save_removes_the_weight_files_of_the_old_one() {
    let dir = tempfile::tempdir().unwrap();
    let all = tensors(&config(true));
    std::fs::write(dir.path().join("model-card.safetensors"), "the user's").unwrap();
    write(dir.path(), &all, &SaveOptions { dtype: WeightDtype::F32, max_shard_bytes: 900 });
    write(dir.path(), &all, &SaveOptions::default());
    assert_eq!(files(dir.path()), ["model-card.safetensors", SINGLE_FILE]);
    write(dir.path(), &all, &SaveOptions { dtype: WeightDtype::F32, max_shard_bytes: 4_000 });
    assert!(!files(dir.path()).contains(&SINGLE_FILE.to_owned()));
}

#[test]
fn both_layouts_of_qwen2_5_vl_load_the_decoder_without_the_vision_tower() {
    let config = config(false);
    let want = tensors(&config);
    let patch = Tensor::zeros((3, 3), DType::F32, &Device::Cpu).unwrap();
    let nested = |name: &str| match name.strip_prefix("model.") {
        Some(rest) => format!("model.language_model.{rest}"),
        None => name.to_owned(),
    };
    for (mut stored, vision) in [
        (want.clone(), "visual.patch_embed.proj.weight"),
        (renamed(&want, nested), "model.visual.patch_embed.proj.weight"),
    ] {
        stored.insert(vision.to_owned(), patch.clone());
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &stored, &SaveOptions::default());
        assert_same(&load(dir.path(), &config).unwrap(), &want);
    }
}

/// A folder with `config.json` and these tensors, each in its own dtype.
fn model(config: &ModelConfig, tensors: &Tensors) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    config.save(dir.path()).unwrap();
    let tensors: HashMap<_, _> = tensors.iter().map(|(name, it)| (name, it.clone())).collect();
    candle_core::safetensors::save(&tensors, dir.path().join(SINGLE_FILE)).unwrap();
    dir
}

/// The tensors of a tied model and this LM head.
fn with_head(head: Tensor) -> Tensors {
    let mut all = tensors(&config(true));
    all.insert("lm_head.weight".to_owned(), head);
    all
}

#[test]
fn a_stored_copy_of_a_tied_lm_head_is_skipped_in_any_dtype() {
    let embedding = tensors(&config(true))["model.embed_tokens.weight"].clone();
    for dtype in [DType::F32, DType::BF16, DType::F16] {
        let dir = model(&config(true), &with_head(embedding.to_dtype(dtype).unwrap()));
        let read = ModelConfig::from_dir(dir.path()).unwrap();
        assert!(read.tie_word_embeddings, "{dtype:?}");
        assert_same(&load(dir.path(), &read).unwrap(), &tensors(&config(true)));
    }
}

#[test]
fn a_stored_lm_head_that_differs_from_the_embedding_is_used_although_the_configuration_ties_them() {
    let embedding = tensors(&config(true))["model.embed_tokens.weight"].clone();
    // All of it, and its last element.
    let mut last = vec![0f32; 11 * 8];
    last[11 * 8 - 1] = 1.0;
    let last = Tensor::from_vec(last, (11, 8), &Device::Cpu).unwrap();
    for head in [(&embedding * -2.0).unwrap(), (&embedding + &last).unwrap()] {
        let all = with_head(head);
        let dir = model(&config(true), &all);
        let read = ModelConfig::from_dir(dir.path()).unwrap();
        assert!(!read.tie_word_embeddings);
        assert_same(&load(dir.path(), &read).unwrap(), &all);
        // Without this look at the weights, it would be dropped.
        let error = load(dir.path(), &config(true)).unwrap_err().to_string();
        assert!(error.contains("`lm_head.weight` differs from the embedding"), "{error}");
    }
}

#[test]
fn a_tied_model_with_an_lm_head_alone_uses_it_as_its_embedding() {
    let want = tensors(&config(true));
    let head = |name: &str| name.replace("model.embed_tokens.weight", "lm_head.weight");
    let dir = model(&config(true), &renamed(&want, head));
    assert_same(&load(dir.path(), &ModelConfig::from_dir(dir.path()).unwrap()).unwrap(), &want);
    let message = load(dir.path(), &config(false)).unwrap_err().to_string();
    assert!(message.ends_with(": `model.embed_tokens.weight` is missing"), "{message}");
}

#[test]
fn a_tied_lm_head_of_another_shape_or_dtype_is_reported_by_name() {
    for (head, fault) in [
        (
            Tensor::zeros((12, 8), DType::F32, &Device::Cpu),
            "the shape [11, 8] by `vocab_size` in `config.json`, not [12, 8]",
        ),
        (Tensor::zeros((11, 8), DType::U8, &Device::Cpu), "the dtype F32, BF16 or F16, not U8"),
    ] {
        let dir = model(&config(true), &with_head(head.unwrap()));
        let read = ModelConfig::from_dir(dir.path()).unwrap();
        let message = load(dir.path(), &read).unwrap_err().to_string();
        assert!(message.contains(&format!("`lm_head.weight` must have {fault}")), "{message}");
    }
}

#[test]
fn rope_frequencies_of_old_checkpoints_are_the_only_tensors_without_a_use() {
    let config = config(true);
    for (name, is_read) in [
        ("model.layers.1.self_attn.rotary_emb.inv_freq", true),
        ("model.rotary_emb.inv_freq", true),
        ("model.rotary_emb.cos_cached", false),
        ("v_head.summary.weight", false),
    ] {
        let mut all = tensors(&config);
        all.insert(name.to_owned(), Tensor::zeros(2, DType::F32, &Device::Cpu).unwrap());
        let dir = model(&config, &all);
        match load(dir.path(), &config) {
            Ok(found) => assert!(is_read && found.keys().eq(tensors(&config).keys()), "{name}"),
            Err(error) => {
                let message = error.to_string();
                assert!(!is_read, "{message}");
                assert!(message.ends_with(&format!("`{name}` is unexpected")), "{message}");
            }
        }
    }
}

#[test]
fn all_mismatches_are_reported_together() {
    let dir = tempfile::tempdir().unwrap();
    let mut stored = tensors(&config(false));
    stored.shift_remove("lm_head.weight");
    stored.insert(
        "model.layers.0.mlp.gate_proj.bias".to_owned(),
        Tensor::zeros(12, DType::F32, &Device::Cpu).unwrap(),
    );
    stored["model.norm.weight"] = Tensor::zeros(9, DType::F32, &Device::Cpu).unwrap();
    write(dir.path(), &stored, &SaveOptions::default());
    let error = load(dir.path(), &config(false)).unwrap_err();
    let Error::Weights { faults, .. } = &error else { panic!("{error}") };
    assert_eq!(
        faults,
        &[
            WeightFault::Unexpected { name: "model.layers.0.mlp.gate_proj.bias".to_owned() },
            WeightFault::ShapeMismatch {
                name: "model.norm.weight".to_owned(),
                found: vec![9],
                want: vec![8]
            },
            WeightFault::Missing { name: "lm_head.weight".to_owned() },
        ]
    );
}

#[test]
fn a_shape_mismatch_names_the_configuration_fields_that_the_tensor_contradicts() {
    let qwen3 = |head_dim| ModelConfig {
        model_type: ModelType::Qwen3,
        num_hidden_layers: 1,
        head_dim,
        ..config(true)
    };
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &tensors(&qwen3(4)), &SaveOptions::default());
    let error = load(dir.path(), &qwen3(6)).unwrap_err();
    let Error::Weights { faults, .. } = &error else { panic!("{error}") };
    let messages: Vec<String> = faults.iter().map(ToString::to_string).collect();
    let fault = |name: &str, want: &str, fields: &str, found: &str| {
        let name = format!("model.layers.0.self_attn.{name}.weight");
        format!("`{name}` must have the shape {want} by {fields} in `config.json`, not {found}")
    };
    let (queries, keys) =
        ("`num_attention_heads` and `head_dim`", "`num_key_value_heads` and `head_dim`");
    assert_eq!(
        messages,
        [
            fault("k_norm", "[6]", "`head_dim`", "[4]"),
            fault("k_proj", "[12, 8]", keys, "[8, 8]"),
            fault("o_proj", "[8, 24]", queries, "[8, 16]"),
            fault("q_norm", "[6]", "`head_dim`", "[4]"),
            fault("q_proj", "[24, 8]", queries, "[16, 8]"),
            fault("v_proj", "[12, 8]", keys, "[8, 8]"),
        ]
    );
}

#[test]
fn the_same_tensor_in_both_layouts_is_rejected() {
    let dir = tempfile::tempdir().unwrap();
    let mut stored = tensors(&config(true));
    stored
        .insert("model.language_model.norm.weight".to_owned(), stored["model.norm.weight"].clone());
    write(dir.path(), &stored, &SaveOptions::default());
    let message = load(dir.path(), &config(true)).unwrap_err().to_string();
    assert!(message.ends_with("`model.norm.weight` is duplicated"), "{message}");
}

#[test]
fn unsupported_dtypes_are_rejected_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let mut header = String::from(
        "{\"model.norm.weight\":{\"dtype\":\"I8\",\"shape\":[8],\"data_offsets\":[0,8]}}",
    );
    while header.len() % 8 != 0 {
        header.push(' ');
    }
    let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 8]].concat();
    std::fs::write(dir.path().join(SINGLE_FILE), bytes).unwrap();
    let config = ModelConfig { num_hidden_layers: 1, ..config(true) };
    let message = load(dir.path(), &config).unwrap_err().to_string();
    assert!(
        message.contains("`model.norm.weight` must have the dtype F32, BF16 or F16, not I8"),
        "{message}"
    );
    assert!(!message.contains("`model.norm.weight` is missing"), "{message}");
}

#[test]
fn a_truncated_file_is_rejected() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &tensors(&config(true)), &SaveOptions::default());
    let path = dir.path().join(SINGLE_FILE);
    let whole = std::fs::read(&path).unwrap();
    for length in [0, 5, 40, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&path, &whole[..length]).unwrap();
        let error = load(dir.path(), &config(true)).unwrap_err();
        assert!(
            matches!(&error, Error::CorruptWeights { path: named, .. } if *named == path),
            "{length}: {error}"
        );
    }
}

#[test]
fn a_git_lfs_pointer_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n";
    std::fs::write(dir.path().join(SINGLE_FILE), pointer).unwrap();
    let message = load(dir.path(), &config(true)).unwrap_err().to_string();
    assert!(message.contains("git lfs pull"), "{message}");
}

#[test]
fn missing_weights_and_missing_shards_are_reported_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let message = load(dir.path(), &config(true)).unwrap_err().to_string();
    assert!(message.starts_with("no weights in `"), "{message}");
    write(
        dir.path(),
        &tensors(&config(true)),
        &SaveOptions { dtype: WeightDtype::F32, max_shard_bytes: 900 },
    );
    let second =
        files(dir.path()).into_iter().find(|name| name.starts_with("model-00002")).unwrap();
    std::fs::remove_file(dir.path().join(&second)).unwrap();
    let message = load(dir.path(), &config(true)).unwrap_err().to_string();
    assert!(message.starts_with("cannot open `") && message.contains(&second), "{message}");
}

#[test]
fn an_index_cannot_lead_out_of_its_folder() {
    let dir = tempfile::tempdir().unwrap();
    for shard in ["../model.safetensors", "/etc/passwd", "a/b.safetensors", ""] {
        let index = serde_json::json!({ "weight_map": { "model.norm.weight": shard } });
        std::fs::write(dir.path().join(INDEX_FILE), index.to_string()).unwrap();
        assert!(matches!(load(dir.path(), &config(true)), Err(Error::ShardName { .. })), "{shard}");
    }
}

#[test]
fn a_tensor_missing_from_its_indexed_shard_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let options = SaveOptions { dtype: WeightDtype::F32, max_shard_bytes: 900 };
    write(dir.path(), &tensors(&config(true)), &options);
    let path = dir.path().join(INDEX_FILE);
    let mut index: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let last = index["weight_map"]["model.norm.weight"].clone();
    index["weight_map"]["model.embed_tokens.weight"] = last.clone();
    std::fs::write(&path, index.to_string()).unwrap();
    let error = load(dir.path(), &config(true)).unwrap_err();
    let Error::Weights { faults, .. } = &error else { panic!("{error}") };
    let name = "model.embed_tokens.weight".to_owned();
    let shard = last.as_str().unwrap().to_owned();
    assert_eq!(faults, &[WeightFault::NotInShard { name, shard }]);
}

#[test]
fn more_layers_than_tensors_are_rejected_before_allocation() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &tensors(&config(true)), &SaveOptions::default());
    let layers = u32::MAX as usize;
    let many = ModelConfig { num_hidden_layers: layers, ..config(true) };
    let error = load(dir.path(), &many).unwrap_err();
    let Error::Weights { faults, .. } = &error else { panic!("{error}") };
    let tensors = tensor_shapes(&config(true)).len();
    assert_eq!(faults, &[WeightFault::Layers { layers, tensors }]);
}

/// Writes tensors as shards, and an index that maps them to shards.
fn write_shards(dir: &Path, shards: &[(&str, Tensors)], index: &[(&str, &str)]) {
    for (shard, tensors) in shards {
        let tensors = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor));
        save_file(&dir.join(shard), tensors, WeightDtype::F32).unwrap();
    }
    let map: std::collections::BTreeMap<_, _> = index.iter().copied().collect();
    let index = serde_json::json!({ "metadata": { "total_size": 1 }, "weight_map": map });
    std::fs::write(dir.join(INDEX_FILE), index.to_string()).unwrap();
}

#[test]
fn the_index_decides_from_which_shard_a_tensor_is_read() {
    let config = config(false);
    let base = tensors(&config);
    let (norm, head) = ("model.norm.weight", "lm_head.weight");
    let doubled = |name: &str| {
        let tensor = (&base[name] * 2.0).unwrap();
        Tensors::from_iter([(name.to_owned(), tensor)])
    };
    // Names before and after the one of the base.
    for (first, second) in [("a.safetensors", "z.safetensors"), ("z.safetensors", "a.safetensors")]
    {
        let dir = tempfile::tempdir().unwrap();
        let shards = [
            ("m.safetensors", base.clone()),
            (first, doubled(norm)),
            (second, [doubled(head), doubled(norm)].into_iter().flatten().collect()),
        ];
        let mut index: Vec<_> = base.keys().map(|name| (name.as_str(), "m.safetensors")).collect();
        index.retain(|(name, _)| ![norm, head].contains(name));
        write_shards(dir.path(), &shards, &[&index[..], &[(norm, first), (head, second)]].concat());
        let mut want = base.clone();
        want.extend(doubled(norm).into_iter().chain(doubled(head)));
        assert_same(&load(dir.path(), &config).unwrap(), &want);
    }
}

#[test]
fn tensors_that_no_index_maps_are_read_unless_two_shards_have_them() {
    let config = config(true);
    let (base, norm) = (tensors(&config), "model.norm.weight");
    let mut rest = base.clone();
    let last = Tensors::from_iter([(norm.to_owned(), rest.shift_remove(norm).unwrap())]);
    let index = [("model.embed_tokens.weight", "a.safetensors"), (norm, "b.safetensors")];
    let dir = tempfile::tempdir().unwrap();
    write_shards(dir.path(), &[("a.safetensors", rest), ("b.safetensors", last)], &index);
    assert_same(&load(dir.path(), &config).unwrap(), &base);
    let dir = tempfile::tempdir().unwrap();
    let shards = [("a.safetensors", base.clone()), ("b.safetensors", base)];
    write_shards(dir.path(), &shards, &index);
    let message = load(dir.path(), &config).unwrap_err().to_string();
    assert!(message.contains("`model.layers.0.input_layernorm.weight` is duplicated"), "{message}");
    assert!(!message.contains(norm), "{message}");
}

proptest! {
    #[test]
    fn a_corrupted_header_is_an_error_or_gives_the_same_tensors(at in 0_usize..2000, byte in any::<u8>()) {
        let dir = tempfile::tempdir().unwrap();
        let config = config(true);
        write(dir.path(), &tensors(&config), &SaveOptions::default());
        let path = dir.path().join(SINGLE_FILE);
        let mut bytes = std::fs::read(&path).unwrap();
        let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        bytes[at % header] = byte;
        std::fs::write(&path, &bytes).unwrap();
        if let Ok(found) = load(dir.path(), &config) {
            prop_assert!(found.keys().eq(tensor_shapes(&config).keys()));
        }
    }
}
