//! Faults of Qwen3-VL's GGUF files, found in their headers.

use std::path::Path;

use embodied_r_policy::WeightFormat;
use embodied_r_vision::{Processor, VisionLanguageModel, check_headers};

use super::folder;

const DECODER: &str = "model.gguf";
const MMPROJ: &str = "mmproj-model.gguf";

/// A folder with the decoder of one layout and the vision tower of another.
fn pair(decoder: &str, mmproj: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (layout, file) in [(decoder, DECODER), (mmproj, MMPROJ)] {
        std::fs::copy(folder(layout).join(file), dir.path().join(file)).unwrap();
    }
    dir
}

/// Qwen3-VL with other bytes, as many, in a file's header.
fn with(file: &str, from: &[u8], to: &[u8]) -> tempfile::TempDir {
    assert_eq!(from.len(), to.len());
    let dir = pair("qwen3_vl_gguf", "qwen3_vl_gguf");
    let path = dir.path().join(file);
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(from.len()).position(|window| window == from).unwrap();
    bytes[at..at + from.len()].copy_from_slice(to);
    std::fs::write(path, bytes).unwrap();
    dir
}

/// A 32-bit count of a key in a header.
fn count(key: &str, count: u32) -> Vec<u8> {
    [key.as_bytes(), &4_u32.to_le_bytes(), &count.to_le_bytes()].concat()
}

/// Checking the headers and loading fail with the same message, which has these parts.
#[track_caller]
fn assert_rejected(dir: &tempfile::TempDir, parts: &[&str]) {
    let message = check_headers(dir.path()).unwrap_err().to_string();
    let loaded = VisionLanguageModel::load(dir.path(), &WeightFormat::F32.into());
    assert_eq!(loaded.err().unwrap().to_string(), message);
    for part in parts {
        assert!(message.contains(part), "{message}, expected {part}");
    }
}

#[test]
fn a_pair_of_qwen3_vl_passes_the_check_of_its_headers() {
    check_headers(&folder("qwen3_vl_gguf")).unwrap();
}

#[test]
fn the_tower_of_another_family_than_the_decoder_is_rejected() {
    let key = "`general.architecture` must be";
    let file = "mmproj-model.gguf` is a vision tower of";
    let qwen3 = [DECODER, key, "`qwen2vl`", file, "Qwen2.5-VL, not `qwen3vl`"];
    assert_rejected(&pair("qwen3_vl_gguf", "gguf"), &qwen3);
    let qwen2_5 = [DECODER, key, "`qwen3vl`", file, "Qwen3-VL, not `qwen2vl`"];
    assert_rejected(&pair("gguf", "qwen3_vl_gguf"), &qwen2_5);
}

#[test]
fn an_unknown_projector_is_rejected_with_the_known_ones() {
    let unknown = with(MMPROJ, b"qwen3vl_merger", b"qwen9vl_merger");
    let known = "`clip.projector_type` must be `qwen2.5vl_merger` (Qwen2.5-VL) or `qwen3vl_merger` (Qwen3-VL)";
    assert_rejected(&unknown, &[MMPROJ, known, "not `qwen9vl_merger`"]);
}

#[test]
fn a_decoder_without_its_query_norms_is_rejected() {
    let without = with(DECODER, b"blk.1.attn_q_norm", b"blk.1.attn_q_nope");
    assert_rejected(&without, &[DECODER, "`blk.1.attn_q_norm.weight` is missing"]);
}

#[test]
fn a_decoder_without_m_rope_sections_is_rejected() {
    let without = with(DECODER, b"rope.dimension_sections", b"rope.dimension_segments");
    assert_rejected(&without, &[DECODER, "the key `qwen3vl.rope.dimension_sections` is missing"]);
}

#[test]
fn a_decoder_with_another_number_of_deepstack_layers_is_rejected() {
    let key = "qwen3vl.n_deepstack_layers";
    let three = with(DECODER, &count(key, 2), &count(key, 3));
    assert_rejected(&three, &[DECODER, "`qwen3vl.n_deepstack_layers` must be 2, as in", "not 3"]);
}

#[test]
fn a_tower_without_positions_is_rejected() {
    let without = with(MMPROJ, b"v.position_embd", b"v.position_nope");
    assert_rejected(&without, &[MMPROJ, "`v.position_embd.weight` is missing"]);
}

#[test]
fn deepstack_layers_outside_of_the_tower_are_rejected() {
    let key = "clip.vision.block_count";
    let fewer = with(MMPROJ, &count(key, 4), &count(key, 2));
    let flags = "`clip.vision.is_deepstack_layers` must be an array of 2 flags";
    assert_rejected(&fewer, &[MMPROJ, flags]);
    let further = with(MMPROJ, b"v.deepstack.2.norm.weight", b"v.deepstack.9.norm.weight");
    assert_rejected(&further, &[MMPROJ, "`v.deepstack.9.norm.weight` is unexpected"]);
    let absent = with(MMPROJ, b"is_deepstack_layers", b"as_deepstack_layers");
    let key = "the key `clip.vision.is_deepstack_layers` is missing";
    assert_rejected(&absent, &[MMPROJ, key]);
}

#[test]
fn an_activation_that_is_not_gelu_is_rejected() {
    let flag = |value: u8| [&b"clip.use_gelu"[..], &7_u32.to_le_bytes(), &[value]].concat();
    let other = with(MMPROJ, &flag(1), &flag(0));
    assert_rejected(&other, &[MMPROJ, "`clip.use_gelu` must be true, not false"]);
}

#[test]
fn the_image_limits_of_a_file_without_them_are_the_published_ones() {
    let without = with(MMPROJ, b"image_max_pixels", b"image_max_nopels");
    let tokens = |model: &Path| {
        let grid = Processor::of_model(model).unwrap().image_grid((1024, 1024)).unwrap();
        grid.patches() / 4
    };
    assert_eq!(tokens(&folder("qwen3_vl_gguf")), 100);
    assert_eq!(tokens(without.path()), 1024);
}
