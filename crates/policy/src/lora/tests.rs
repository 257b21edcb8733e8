use std::path::PathBuf;

use serde::Deserialize;
use serde_json::{Value, json};

use super::*;
use crate::packed::Group;
use crate::policy::Policy;
use crate::weights;

const TOLERANCE: f32 = 1e-4;

const ADAPTERS: [&str; 4] = ["list", "rslora", "vision-language", "one-layer"];

#[derive(Deserialize)]
struct Expected {
    model: String,
    sequences: Vec<Vec<u32>>,
    base: Vec<Vec<f32>>,
    merged: Vec<Vec<f32>>,
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn adapter(name: &str) -> PathBuf {
    fixtures().join("lora").join(name)
}

fn expected(name: &str) -> Expected {
    serde_json::from_slice(&std::fs::read(adapter(name).join("expected.json")).unwrap()).unwrap()
}

fn model(name: &str) -> Policy {
    Policy::load(&fixtures().join("models").join(expected(name).model)).unwrap()
}

#[track_caller]
fn assert_scores(name: &str, policy: &Policy, sequences: &[Vec<u32>], want: &[Vec<f32>]) {
    let group = |ids: &Vec<u32>| Group {
        prompt: ids[..1].to_vec().into(),
        completions: vec![ids[1..].to_vec()],
    };
    let groups: Vec<Group> = sequences.iter().map(group).collect();
    let found = policy.score(&groups, 1.0).unwrap().logps;
    for (i, (found, want)) in found.iter().zip(want.concat()).enumerate() {
        assert!((found - want).abs() < TOLERANCE, "{name} {i}: {found}, expected {want}");
    }
}

#[test]
fn merged_models_match_the_log_probabilities_of_peft() {
    for name in ADAPTERS {
        let Expected { sequences, base, merged, .. } = expected(name);
        let policy = model(name);
        assert_scores(name, &policy, &sequences, &base);
        let adapter = Adapter::open(&adapter(name), policy.config()).unwrap();
        adapter.apply(policy.weights()).unwrap();
        assert_scores(name, &policy, &sequences, &merged);
    }
}

#[test]
fn an_adapter_reports_its_number_of_weights_and_its_base_model() {
    let counted = |name: &str| {
        let adapter = Adapter::open(&adapter(name), model(name).config()).unwrap();
        (adapter.len(), adapter.base_model().unwrap().to_owned())
    };
    assert_eq!(counted("list"), (6, "qwen2-tied".to_owned()));
    assert_eq!(counted("one-layer"), (1, "qwen2-tied".to_owned()));
}

/// A copy of the adapter `list` with one setting changed.
fn with(field: &str, value: Value) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let source = adapter("list");
    std::fs::copy(source.join(WEIGHTS_FILE), dir.path().join(WEIGHTS_FILE)).unwrap();
    let mut config: Value =
        serde_json::from_slice(&std::fs::read(source.join(CONFIG_FILE)).unwrap()).unwrap();
    config[field] = value;
    std::fs::write(dir.path().join(CONFIG_FILE), config.to_string()).unwrap();
    dir
}

#[track_caller]
fn rejected(dir: &Path) -> String {
    Adapter::open(dir, model("list").config()).unwrap_err().to_string()
}

#[test]
fn unsupported_settings_are_rejected_by_name() {
    for (field, value, expected) in [
        ("peft_type", json!("LOHA"), "`peft_type` = `LOHA` is not supported"),
        ("use_dora", json!(true), "`use_dora` = `true` is not supported"),
        ("fan_in_fan_out", json!(true), "`fan_in_fan_out` = `true`"),
        ("lora_bias", json!(true), "`lora_bias` = `true`"),
        ("bias", json!("all"), "`bias` = `all`"),
        ("init_lora_weights", json!("pissa"), "`init_lora_weights` = `pissa`"),
        (
            "layer_replication",
            json!([[0, 1]]),
            "`layer_replication` = `[[0,1]]` is not a known PEFT setting",
        ),
        (
            "new_in_a_later_peft",
            json!(true),
            "`new_in_a_later_peft` = `true` is not a known PEFT setting",
        ),
        ("r", json!(0), "`r` must be a positive integer, not `0`"),
        ("r", Value::Null, "`r` is missing"),
        ("lora_alpha", json!("8"), "`lora_alpha` must be a number, not `8`"),
        ("target_modules", Value::Null, "`target_modules` is missing"),
        (
            "target_modules",
            json!("(q_proj"),
            "`target_modules` has the invalid regular expression `(q_proj`",
        ),
        ("rank_pattern", json!({ "q_proj": 1.5 }), "`rank_pattern.q_proj` must be a number"),
    ] {
        let message = rejected(with(field, value).path());
        assert!(
            message.contains(expected) && message.contains(CONFIG_FILE),
            "{message}, expected {expected}"
        );
    }
}

#[test]
fn tensors_that_do_not_match_the_settings_are_reported() {
    let tensor = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight";
    let message = rejected(with("rank_pattern", json!({})).path());
    assert!(
        message.contains(&format!("`{tensor}` must have the shape [4, 32], not [2, 32]")),
        "{message}"
    );
    let message = rejected(with("target_modules", json!(["v_proj", "down_proj"])).path());
    assert!(message.contains(&format!("`{tensor}` is unexpected: its module")), "{message}");
    let message = rejected(with("exclude_modules", json!(["q_proj"])).path());
    assert!(message.contains(&format!("`{tensor}` is unexpected")), "{message}");
    let all = json!(["q_proj", "v_proj", "down_proj", "o_proj"]);
    let message = rejected(with("target_modules", all).path());
    let missing = "`base_model.model.model.layers.1.self_attn.o_proj.lora_A.weight` is missing";
    assert!(message.contains(missing), "{message}");
}

#[test]
fn an_adapter_of_another_model_is_rejected() {
    let message =
        Adapter::open(&adapter("list"), model("rslora").config()).unwrap_err().to_string();
    assert!(
        message.contains("down_proj.lora_A.weight` must have the shape [4, 56], not [4, 48]"),
        "{message}"
    );
}

#[test]
fn updates_of_tied_embeddings_are_rejected() {
    let dir = tempfile::tempdir().unwrap();
    for file in [CONFIG_FILE, WEIGHTS_FILE] {
        std::fs::copy(adapter("rslora").join(file), dir.path().join(file)).unwrap();
    }
    let config = ModelConfig { tie_word_embeddings: true, ..model("rslora").config().clone() };
    let message = Adapter::open(dir.path(), &config).unwrap_err().to_string();
    assert!(message.contains("lora_embedding_A` is unexpected: the model ties"), "{message}");
    assert!(message.contains("`base_model.model.lm_head.weight` is unexpected"), "{message}");
}

#[test]
fn target_modules_match_by_suffix_pattern_or_layer() {
    let settings = |value: Value| {
        let dir = tempfile::tempdir().unwrap();
        let mut config = json!({ "peft_type": "LORA", "r": 1, "lora_alpha": 1 });
        config.as_object_mut().unwrap().extend(value.as_object().unwrap().clone());
        std::fs::write(dir.path().join(CONFIG_FILE), config.to_string()).unwrap();
        AdapterConfig::from_dir(dir.path()).unwrap()
    };
    let q = "model.layers.1.self_attn.q_proj";
    let by_name = settings(json!({ "target_modules": ["self_attn.q_proj", "proj"] }));
    assert!(by_name.targets(q) && !by_name.targets("model.layers.1.self_attn.k_proj"));
    let by_layer = json!({ "target_modules": ["q_proj"], "layers_to_transform": 0 });
    assert!(!settings(by_layer).targets(q));
    // As Python's `fullmatch`: the whole name has to match.
    assert!(!settings(json!({ "target_modules": "q_proj" })).targets(q));
    assert!(settings(json!({ "target_modules": r".*\.q_proj" })).targets(q));
    let all = settings(json!({ "target_modules": "all-linear" }));
    assert!(all.targets(q) && !all.targets("lm_head"));
}

#[test]
fn the_scale_uses_the_modules_rank_and_alpha() {
    let dir = tempfile::tempdir().unwrap();
    let config = json!({
        "peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"],
        "use_rslora": true, "rank_pattern": { r"1\.self_attn\.q_proj": 16 },
        "alpha_pattern": { "self_attn.q_proj": 2, "q_proj": 3 },
    });
    std::fs::write(dir.path().join(CONFIG_FILE), config.to_string()).unwrap();
    let config = AdapterConfig::from_dir(dir.path()).unwrap();
    assert_eq!(config.scale_of("model.layers.1.self_attn.q_proj"), 2.0 / 4.0);
    assert_eq!(config.scale_of("model.layers.0.self_attn.q_proj"), 2.0 / 2.0);
    assert_eq!(config.scale_of("model.layers.0.self_attn.v_proj"), 8.0 / 2.0);
}

/// A copy of the adapter of decoder and vision tower, with one setting changed.
fn of_vision(field: &str, value: Value) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../grpo/tests/fixtures/vision_lora");
    std::fs::copy(source.join(WEIGHTS_FILE), dir.path().join(WEIGHTS_FILE)).unwrap();
    let mut config: Value =
        serde_json::from_slice(&std::fs::read(source.join(CONFIG_FILE)).unwrap()).unwrap();
    config[field] = value;
    std::fs::write(dir.path().join(CONFIG_FILE), config.to_string()).unwrap();
    dir
}

/// The model of this adapter.
fn vision_model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../vision/tests/fixtures/nested")
}

#[test]
fn an_adapter_of_a_vision_tower_needs_a_vision_language_model() {
    let whole = of_vision("r", json!(3));
    let config = ModelConfig::of_model(&vision_model()).unwrap();
    let adapter = Adapter::open(whole.path(), &config).unwrap();
    assert!(adapter.adapts_encoder());
    assert_eq!(adapter.len(), 2 * 7 + 3 * 5 + 2);
    let mut text = config.clone();
    text.rope.mrope_section = None;
    let message = Adapter::open(whole.path(), &text).unwrap_err().to_string();
    let name = "base_model.model.model.visual.blocks.0.attn.proj.lora_A.weight";
    assert!(message.contains(&format!("`{name}` is unexpected: the model has no vision tower")));
}

#[test]
fn tensors_of_a_vision_tower_that_do_not_match_the_settings_are_reported() {
    let config = ModelConfig::of_model(&vision_model()).unwrap();
    let rejected = |field: &str, value: Value| {
        Adapter::open(of_vision(field, value).path(), &config).unwrap_err().to_string()
    };
    let name = "base_model.model.model.visual.blocks.1.mlp.up_proj.lora_B.weight";
    let decoder = json!(r"^model\.language_model\..*_proj$");
    let message = rejected("target_modules", decoder);
    let first = "base_model.model.model.visual.blocks.0.attn.proj.lora_A.weight";
    assert!(message.contains(&format!("`{first}` is unexpected: its module")), "{message}");
    let message = rejected("rank_pattern", json!({ "blocks.1.mlp.up_proj": 2 }));
    assert!(message.contains(&format!("`{name}` must have the shape [40, 2]")), "{message}");
}

#[test]
fn an_adapter_of_another_vision_tower_is_rejected() {
    let dir = of_vision("r", json!(3));
    let config = ModelConfig::of_model(&vision_model()).unwrap();
    let adapter = Adapter::open(dir.path(), &config).unwrap();
    let files = weights::open(&vision_model()).unwrap();
    let stored = files.iter().flat_map(weights::WeightFile::iter);
    let tower: Vec<(&str, Vec<usize>)> = stored
        .filter_map(|(name, stored)| Some((weights::of_encoder(name)?, stored.shape.clone())))
        .collect();
    /// The shapes of the tensors that replace one.
    type Change<'a> = &'a dyn Fn(&str, Vec<usize>) -> Vec<Vec<usize>>;
    let checked = |change: Change<'_>| {
        let shapes: Vec<(&str, Vec<usize>)> = tower
            .iter()
            .flat_map(|(name, shape)| change(name, shape.clone()).into_iter().map(|it| (*name, it)))
            .collect();
        let shapes = shapes.iter().map(|(name, shape)| (*name, shape.as_slice()));
        adapter.check_encoder(shapes).err().map(|error| error.to_string()).unwrap_or_default()
    };
    assert_eq!(checked(&|_, shape| vec![shape]), "");
    let name = "base_model.model.model.visual.merger.mlp.2.lora_B.weight";
    let other = checked(&|name, shape| match name {
        "visual.merger.mlp.2.weight" => vec![vec![64, shape[1]]],
        _ => vec![shape],
    });
    assert!(other.contains(&format!("`{name}` must have the shape [64, 3], not [32, 3]")));
    let fewer = checked(&|name, shape| match name.starts_with("visual.blocks.2.") {
        true => Vec::new(),
        false => vec![shape],
    });
    let unexpected = "blocks.2.attn.qkv.lora_A.weight` is unexpected: the model has no such";
    assert!(fewer.contains(unexpected), "{fewer}");
    let more = |name: &str, shape: Vec<usize>| match name.starts_with("visual.blocks.2.") {
        true => vec![shape.clone(), shape],
        false => vec![shape],
    };
    // A tensor of a targeted layer that the adapter has not: here the second of each.
    assert!(checked(&more).contains("blocks.2.attn.qkv.lora_A.weight` is missing"));
}

#[test]
fn embeddings_of_an_encoder_are_no_linear_layers() {
    let dir = of_vision("target_modules", json!("all-linear"));
    let config = ModelConfig::of_model(&vision_model()).unwrap();
    let adapter = Adapter::open(dir.path(), &config).unwrap();
    let files = weights::open(&vision_model()).unwrap();
    let stored = files.iter().flat_map(weights::WeightFile::iter);
    let tower = stored
        .filter_map(|(name, stored)| Some((weights::of_encoder(name)?, stored.shape.as_slice())));
    let tower: Vec<(&str, &[usize])> = tower.collect();
    let with = |name| {
        let more: (&str, &[usize]) = (name, &[16, 32]);
        adapter.check_encoder(tower.iter().copied().chain([more]))
    };
    with("visual.pos_embed.weight").unwrap();
    let missing = with("visual.merger.linear_fc1.weight").unwrap_err().to_string();
    assert!(missing.contains("linear_fc1.lora_A.weight` is missing"), "{missing}");
}
