mod tokenizer;

use embodied_r_kernels::quantized::BlockFormat;
use embodied_r_kernels::rope::MropeSections;
use proptest::prelude::*;

use std::sync::Arc;

use super::*;
use crate::config::ModelType;
use crate::weights::SINGLE_FILE;

/// Writes the bytes of a GGUF file.
#[derive(Clone, Default)]
struct Writer {
    values: Vec<(String, u32, Vec<u8>)>,
    tensors: Vec<Announced>,
    data: Vec<u8>,
}

#[derive(Clone)]
struct Announced {
    name: String,
    sizes: Vec<u64>,
    kind: u32,
    offset: u64,
}

fn text_bytes(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

impl Writer {
    fn value(mut self, key: &str, kind: u32, bytes: Vec<u8>) -> Self {
        self.values.retain(|(have, ..)| have != key);
        self.values.push((key.to_owned(), kind, bytes));
        self
    }

    fn count(self, key: &str, count: u32) -> Self {
        self.value(key, 4, count.to_le_bytes().to_vec())
    }

    fn number(self, key: &str, number: f32) -> Self {
        self.value(key, 6, number.to_le_bytes().to_vec())
    }

    fn text(self, key: &str, text: &str) -> Self {
        self.value(key, 8, text_bytes(text))
    }

    /// A tensor of f32; `shape` is in the model's order.
    fn tensor(mut self, name: &str, shape: &[usize]) -> Self {
        let count: usize = shape.iter().product();
        let numbers = (0..count).flat_map(|i| (i as f32 / 8.0).to_le_bytes());
        let sizes = shape.iter().rev().map(|size| *size as u64).collect();
        let offset = self.data.len() as u64;
        self.tensors.push(Announced { name: name.to_owned(), sizes, kind: 0, offset });
        self.data.extend(numbers);
        self.data.resize(self.data.len().next_multiple_of(32), 0);
        self
    }

    fn announced(&mut self, name: &str) -> &mut Announced {
        self.tensors.iter_mut().find(|tensor| tensor.name == name).unwrap()
    }

    fn without(mut self, name: &str) -> Self {
        self.tensors.retain(|tensor| tensor.name != name);
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(3_u32.to_le_bytes());
        bytes.extend((self.tensors.len() as u64).to_le_bytes());
        bytes.extend((self.values.len() as u64).to_le_bytes());
        for (key, kind, value) in &self.values {
            bytes.extend(text_bytes(key));
            bytes.extend(kind.to_le_bytes());
            bytes.extend(value);
        }
        for Announced { name, sizes, kind, offset } in &self.tensors {
            bytes.extend(text_bytes(name));
            bytes.extend((sizes.len() as u32).to_le_bytes());
            bytes.extend(sizes.iter().flat_map(|size| size.to_le_bytes()));
            bytes.extend(kind.to_le_bytes());
            bytes.extend(offset.to_le_bytes());
        }
        bytes.resize(bytes.len().next_multiple_of(32), 0);
        bytes.extend(&self.data);
        bytes
    }
}

const VOCAB: usize = 6;
const HIDDEN: usize = 8;
const FEED_FORWARD: usize = 12;

/// The M-RoPE sections of a model with heads of dimension 4, in 32-bit integers.
fn sections(sizes: [u32; 4]) -> Vec<u8> {
    let header = [&5_u32.to_le_bytes()[..], &4_u64.to_le_bytes()].concat();
    [header, sizes.iter().flat_map(|size| size.to_le_bytes()).collect()].concat()
}

/// A complete model of one layer with two heads of dimension 4, as the architecture has it.
fn model(architecture: &str) -> Writer {
    let key = |field: &str| format!("{architecture}.{field}");
    let mut writer = Writer::default()
        .text("general.architecture", architecture)
        .count(&key("block_count"), 1)
        .count(&key("context_length"), 64)
        .count(&key("embedding_length"), HIDDEN as u32)
        .count(&key("feed_forward_length"), FEED_FORWARD as u32)
        .count(&key("attention.head_count"), 2)
        .number(&key("attention.layer_norm_rms_epsilon"), 1e-6)
        .tensor("token_embd.weight", &[VOCAB, HIDDEN])
        .tensor("output_norm.weight", &[HIDDEN]);
    for (name, shape) in [
        ("attn_norm.weight", vec![HIDDEN]),
        ("attn_q.weight", vec![HIDDEN, HIDDEN]),
        ("attn_k.weight", vec![HIDDEN, HIDDEN]),
        ("attn_v.weight", vec![HIDDEN, HIDDEN]),
        ("attn_output.weight", vec![HIDDEN, HIDDEN]),
        ("ffn_norm.weight", vec![HIDDEN]),
        ("ffn_gate.weight", vec![FEED_FORWARD, HIDDEN]),
        ("ffn_up.weight", vec![FEED_FORWARD, HIDDEN]),
        ("ffn_down.weight", vec![HIDDEN, FEED_FORWARD]),
    ] {
        writer = writer.tensor(&format!("blk.0.{name}"), &shape);
    }
    if architecture.ends_with("vl") {
        writer = writer.value(&key("rope.dimension_sections"), 9, sections([1, 1, 0, 0]));
    }
    let (suffix, parts, size) = match architecture {
        "llama" => return writer,
        "qwen3" | "qwen3vl" => ("norm.weight", &["q_", "k_"][..], 4),
        _ => (".bias", &["q", "k", "v"][..], HIDDEN),
    };
    for part in parts {
        writer = writer.tensor(&format!("blk.0.attn_{part}{suffix}"), &[size]);
    }
    writer
}

fn open(bytes: Vec<u8>) -> Result<GgufModel> {
    GgufModel::of_file(GgufFile::new(Path::new("m.gguf"), Arc::new(bytes))?)
}

#[track_caller]
fn rejected(writer: &Writer) -> String {
    open(writer.bytes()).unwrap_err().to_string()
}

#[track_caller]
fn assert_rejected(writer: &Writer, parts: &[&str]) {
    let message = rejected(writer);
    assert!(message.contains("`m.gguf`"), "{message}");
    for part in parts {
        assert!(message.contains(part), "{message}, expected {part}");
    }
}

#[test]
fn a_model_is_read_by_canonical_names() {
    let model = open(model("qwen2").bytes()).unwrap();
    let config = model.config();
    assert!(model.names().eq(tensor_shapes(config).keys()));
    assert_eq!((config.vocab_size, config.head_dim, config.rms_norm_eps), (VOCAB, 4, 1e-6));
    assert!(config.tie_word_embeddings && config.model_type == ModelType::Qwen2);
    let GgufTensor::Matrix(down) = model.tensor("model.layers.0.mlp.down_proj.weight").unwrap()
    else {
        panic!("a linear weight is a matrix")
    };
    assert_eq!((down.format(), down.outputs(), down.inputs()), (BlockFormat::F32, 8, 12));
    let mut row = [0.0; 12];
    down.read_row(1, 0..12, &mut row).unwrap();
    assert_eq!(row[..3], [1.5, 1.625, 1.75]);
}

#[test]
fn a_separate_lm_head_is_not_tied() {
    let writer = model("qwen2").tensor("output.weight", &[VOCAB, HIDDEN]);
    let model = open(writer.bytes()).unwrap();
    assert!(!model.config().tie_word_embeddings);
    assert!(model.tensor("lm_head.weight").is_ok());
}

#[test]
fn a_qwen3_without_its_norms_names_them() {
    assert!(open(model("qwen3").bytes()).is_ok());
    let without = model("qwen3").without("blk.0.attn_k_norm.weight");
    assert_rejected(&without, &["`blk.0.attn_k_norm.weight` is missing"]);
    let narrow = without.tensor("blk.0.attn_k_norm.weight", &[2]);
    assert_rejected(&narrow, &["`blk.0.attn_k_norm.weight`", "[4]", "[2]"]);
}

#[test]
fn the_decoder_of_qwen3_vl_has_interleaved_sections() {
    let sections_of =
        |architecture| open(model(architecture).bytes()).unwrap().config().rope.mrope_section;
    assert_eq!(sections_of("qwen3vl"), Some(MropeSections::interleaved([1, 1, 0])));
    assert_eq!(sections_of("qwen2vl"), Some(MropeSections::consecutive([1, 1, 0])));
    let without = model("qwen3vl").without("blk.0.attn_q_norm.weight");
    assert_rejected(&without, &["`blk.0.attn_q_norm.weight` is missing"]);
}

#[test]
fn a_vision_language_decoder_without_sections_is_rejected() {
    for architecture in ["qwen2vl", "qwen3vl"] {
        let key = format!("{architecture}.rope.dimension_sections");
        let mut without = model(architecture);
        without.values.retain(|(have, ..)| *have != key);
        assert_rejected(&without, &[&format!("the key `{key}` is missing")]);
        let four = without.value(&key, 9, sections([1, 1, 0, 1]));
        assert_rejected(&four, &[&key, "three non-negative section sizes"]);
    }
}

#[test]
fn rows_of_a_tensor_are_read_alone_and_within_it() {
    let bytes = model("qwen2").bytes();
    let file = GgufFile::new(Path::new("m.gguf"), Arc::new(bytes)).unwrap();
    let (name, shape) = ("blk.0.ffn_up.weight", [FEED_FORWARD, HIDDEN]);
    let whole = file.tensor(name, &shape).unwrap().dequantize().unwrap();
    let rows = file.rows(name, &shape, 4..8).unwrap().dequantize().unwrap();
    let expected = whole.narrow(0, 4, 4).unwrap().to_vec2::<f32>().unwrap();
    assert_eq!(rows.to_vec2::<f32>().unwrap(), expected);
    let bias = file.rows("blk.0.attn_q.bias", &[HIDDEN], 2..4).unwrap().dequantize().unwrap();
    assert_eq!(bias.to_vec1::<f32>().unwrap(), [0.25, 0.375]);
    let message = file.rows(name, &shape, 8..13).unwrap_err().to_string();
    assert!(message.contains("`blk.0.ffn_up.weight` must have the shape [13, 8]"), "{message}");
}

#[test]
fn flags_are_read_and_other_bytes_rejected() {
    let flags = |bytes: &[u8]| {
        let header = [&7_u32.to_le_bytes()[..], &(bytes.len() as u64).to_le_bytes()].concat();
        let writer = model("qwen2").value("x.flags", 9, [&header, bytes].concat());
        GgufFile::new(Path::new("m.gguf"), Arc::new(writer.bytes())).unwrap().flags("x.flags")
    };
    assert_eq!(flags(&[1, 0, 1]).unwrap(), Some(vec![true, false, true]));
    let message = flags(&[1, 2]).unwrap_err().to_string();
    assert!(message.contains("`x.flags` must be an array of booleans"), "{message}");
}

#[test]
fn only_query_and_key_rows_of_llama_are_reordered() {
    let model = open(model("llama").bytes()).unwrap();
    let first_column = |name: &str| -> Vec<f32> {
        let name = format!("model.layers.0.self_attn.{name}.weight");
        let rows = model.tensor(&name).unwrap().dequantize().unwrap().to_vec2::<f32>().unwrap();
        rows.iter().map(|row| row[0]).collect()
    };
    let halves = [0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0];
    assert_eq!(first_column("q_proj"), halves);
    assert_eq!(first_column("k_proj"), halves);
    assert_eq!(first_column("v_proj"), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
}

#[test]
fn all_tensor_mismatches_are_reported_together() {
    let mut writer =
        model("qwen2").without("output_norm.weight").tensor("blk.1.attn_q.weight", &[8, 8]);
    writer.announced("blk.0.attn_k.bias").sizes = vec![4];
    let message = rejected(&writer);
    for part in [
        "`blk.0.attn_k.bias` must have the shape [8], not [4]",
        "`blk.1.attn_q.weight` is unexpected",
        "`output_norm.weight` is missing",
    ] {
        assert!(message.contains(part), "{message}, expected {part}");
    }
}

#[test]
fn another_file_type_or_version_is_reported() {
    let message = |bytes: &[u8]| open(bytes.to_vec()).unwrap_err().to_string();
    assert!(message(b"").contains("it must begin with `GGUF`, not ``"));
    assert!(
        message(b"PK\x03\x04 and more").contains(r"it must begin with `GGUF`, not `PK\x03\x04`")
    );
    let mut bytes = model("qwen2").bytes();
    bytes[4..8].copy_from_slice(&1_u32.to_le_bytes());
    assert!(message(&bytes).contains("its version must be 2 or 3 in little-endian, not 1"));
}

#[test]
fn counts_beyond_the_file_size_are_rejected_before_allocation() {
    let bytes = model("qwen2").bytes();
    for (at, what) in [(8, "tensors"), (16, "values")] {
        let mut bytes = bytes.clone();
        bytes[at..at + 8].copy_from_slice(&(u64::MAX / 2).to_le_bytes());
        let message = open(bytes).unwrap_err().to_string();
        assert!(
            message.contains(&format!("its header declares 9223372036854775807 {what}")),
            "{message}"
        );
    }
    let list = |kind: u32, count: u64| [&kind.to_le_bytes()[..], &count.to_le_bytes()].concat();
    for kind in [4, 8, 9] {
        let writer = model("qwen2").value("x.list", 9, list(kind, 1 << 60));
        assert_rejected(&writer, &["elements of `x.list`", "1152921504606846976"]);
    }
    let layers = model("qwen2").count("qwen2.block_count", u32::MAX);
    assert_rejected(&layers, &["`qwen2.block_count` must be at most 14", "not 4294967295"]);
}

#[test]
fn a_truncated_file_is_rejected() {
    let whole = model("llama").bytes();
    // The last tensor is followed by padding only.
    for length in 0..whole.len() - 32 {
        assert!(open(whole[..length].to_vec()).is_err(), "{length} of {}", whole.len());
    }
}

#[test]
fn invalid_tensor_infos_are_reported_by_name() {
    let with = |change: &dyn Fn(&mut Announced)| {
        let mut writer = model("qwen2");
        change(writer.announced("blk.0.ffn_up.weight"));
        writer
    };
    let name = "`blk.0.ffn_up.weight`";
    assert_rejected(&with(&|t| t.offset += 8), &[name, "multiple of 32"]);
    assert_rejected(&with(&|t| t.offset = 1 << 40), &[name, "384 bytes at offset 1099511627776"]);
    assert_rejected(&with(&|t| t.offset = u64::MAX - 31), &[name, "384 bytes at"]);
    assert_rejected(&with(&|t| t.offset -= 32), &["`blk.0.ffn_gate.weight`", name, "overlap"]);
    assert_rejected(&with(&|t| t.sizes = vec![1 << 40, 1 << 40]), &[name, "64 bits"]);
    assert_rejected(&with(&|t| t.sizes = vec![0, 12]), &[name, "positive sizes"]);
    assert_rejected(
        &with(&|t| t.sizes = vec![8; 5]),
        &["blk.0.ffn_up.weight", "must be from 1 to 4, not 5"],
    );
    assert_rejected(&with(&|t| t.kind = 8), &[name, "multiple of 32 for Q8_0"]);
    assert_rejected(&with(&|t| t.kind = 10), &["blk.0.ffn_up.weight", "Q2_K", "not supported"]);
    assert_rejected(&with(&|t| t.kind = 99), &["type 99"]);
}

#[test]
fn duplicates_are_rejected() {
    let twice = model("qwen2").tensor("output_norm.weight", &[HIDDEN]);
    assert_rejected(&twice, &["duplicate tensor `output_norm.weight`"]);
    let mut twice = model("qwen2");
    twice.values.push(twice.values[0].clone());
    assert_rejected(&twice, &["duplicate key `general.architecture`"]);
}

#[test]
fn unsupported_features_are_rejected_by_key() {
    let with = |key: &str, found: u32| model("qwen2").count(key, found);
    assert_rejected(&with("split.count", 3), &["`split.count` = `3`", "llama-gguf-split --merge"]);
    assert_rejected(&with("qwen2.expert_count", 8), &["`qwen2.expert_count` = `8`"]);
    assert_rejected(&with("qwen2.attention.sliding_window", 4096), &["sliding_window` = `4096`"]);
    assert_rejected(&with("qwen2.rope.dimension_count", 2), &["rope.dimension_count` = `2`"]);
    let yarn = model("qwen2").text("qwen2.rope.scaling.type", "yarn");
    assert_rejected(&yarn, &["`qwen2.rope.scaling.type` = `yarn`"]);
    let linear = model("qwen2").number("qwen2.rope.scaling.factor", 4.0);
    assert_rejected(&linear, &["`qwen2.rope.scaling.factor` = `4`"]);
    let divisors = model("llama").tensor("rope_freqs.weight", &[2]);
    assert_rejected(&divisors, &["`rope_freqs.weight`"]);
    let other = model("qwen2").text("general.architecture", "gemma");
    assert_rejected(&other, &["`general.architecture` = `gemma`", "`qwen2`"]);
    let experts = model("qwen3").text("general.architecture", "qwen3moe");
    assert_rejected(
        &experts,
        &["`qwen3moe`", "use `qwen2`, `qwen2vl`, `qwen3`, `qwen3vl` or `llama`"],
    );
}

#[test]
fn missing_and_invalid_values_are_reported_with_the_expected_value() {
    let mut none = model("qwen2");
    none.values.retain(|(key, ..)| key != "qwen2.context_length");
    assert_rejected(&none, &["the key `qwen2.context_length` is missing"]);
    let text = model("qwen2").text("qwen2.context_length", "long");
    assert_rejected(
        &text,
        &["`qwen2.context_length` must be a non-negative integer, not a string"],
    );
    let zero = model("qwen2").count("qwen2.attention.head_count", 0);
    assert_rejected(
        &zero,
        &["`qwen2.attention.head_count` must be a positive integer of at most 32 bits, not 0"],
    );
    let odd = model("qwen2").count("qwen2.attention.head_count", 3);
    assert_rejected(
        &odd,
        &["`qwen2.attention.head_count` must be a divisor of `embedding_length` = 8, not 3"],
    );
    let alignment = model("qwen2").count("general.alignment", 0);
    assert_rejected(
        &alignment,
        &["`general.alignment` must be a power of two of at most 2^30, not 0"],
    );
    let unknown = model("qwen2").value("x.y", 13, vec![0]);
    assert_rejected(&unknown, &["`x.y` has the unknown value type 13"]);
    let flag = model("qwen2").value("x.y", 7, vec![2]);
    assert_rejected(&flag, &["`x.y` must be 0 or 1, not 2"]);
}

#[test]
fn nested_arrays_are_skipped_up_to_a_maximum_depth() {
    let nested = |depth: usize| {
        let list = [9_u32.to_le_bytes().to_vec(), 1_u64.to_le_bytes().to_vec()].concat();
        let innermost = [4_u32.to_le_bytes().to_vec(), 0_u64.to_le_bytes().to_vec()].concat();
        model("qwen2").value("x.list", 9, [list.repeat(depth), innermost].concat())
    };
    assert!(open(nested(3).bytes()).is_ok());
    assert_rejected(&nested(4), &["`x.list` holds arrays nested more than 4 deep"]);
    assert_rejected(&nested(100_000), &["`x.list` holds arrays nested more than 4 deep"]);
}

#[test]
fn a_folder_without_safetensors_resolves_to_its_only_gguf_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.GGUF");
    assert_eq!(find(dir.path()).unwrap(), None);
    std::fs::write(&file, model("qwen2").bytes()).unwrap();
    assert_eq!(find(dir.path()).unwrap().as_deref(), Some(&*file));
    assert_eq!(find(&file).unwrap().as_deref(), Some(&*file));
    let tower = dir.path().join("b-MMPROJ-f16.gguf");
    assert_eq!(find_mmproj(dir.path()).unwrap(), None);
    std::fs::write(&tower, "").unwrap();
    assert_eq!(find(dir.path()).unwrap().as_deref(), Some(&*file));
    assert_eq!(find_mmproj(&file).unwrap().as_deref(), Some(&*tower));
    std::fs::write(dir.path().join("b.gguf"), "").unwrap();
    let message = find(dir.path()).unwrap_err().to_string();
    assert!(
        message.contains("several GGUF files (a.GGUF, b.gguf): give the path of one"),
        "{message}"
    );
    std::fs::write(dir.path().join(SINGLE_FILE), "").unwrap();
    assert_eq!(find(dir.path()).unwrap(), None);
}

proptest! {
    #[test]
    fn any_bytes_are_an_error_and_never_a_panic(tail in proptest::collection::vec(any::<u8>(), 0..400)) {
        let bytes = [&b"GGUF\x03\x00\x00\x00"[..], &tail].concat();
        prop_assert!(open(bytes).is_err());
    }

    #[test]
    fn a_corrupted_file_is_rejected_or_still_has_every_tensor(
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        whole_word in any::<bool>(),
    ) {
        let mut bytes = model("qwen2").bytes();
        let header = bytes.len() - model("qwen2").data.len();
        for (at, byte) in damage {
            let at = at.index(header);
            let length = if whole_word { 8.min(header - at) } else { 1 };
            bytes[at..at + length].fill(byte);
        }
        if let Ok(model) = open(bytes) {
            let numbers = model.dequantize().unwrap();
            for (name, shape) in tensor_shapes(model.config()) {
                prop_assert_eq!(numbers[&name].dims(), &shape);
            }
        }
    }
}
