//! Parity of GGUF files with `transformers` and the Python package `gguf`.
//!
//! The fixtures are generated and described by `scripts/parity/make_gguf_fixtures.py`.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use embodied_r_policy::tokenizer::{ChatMessage, GenerationPrompt, SpecialTokens, Tokenizer};
use embodied_r_policy::weights::SaveOptions;
use embodied_r_policy::{
    FingerprintExtent, GenerationRequest, GgufModel, Group, InferenceModel, ModelConfig, Policy,
    SamplingParams, WeightFormat, fingerprint, hub, tokenizer,
};
use serde::Deserialize;
use serde_json::Value;

const TOLERANCE: f32 = 1e-4;

#[derive(Deserialize)]
struct Expected {
    config: Value,
    sequences: Vec<Vec<u32>>,
    logps: Vec<Vec<f32>>,
}

const MODELS: [&str; 4] = ["qwen2", "qwen2vl", "qwen3", "llama"];

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn file(name: &str) -> PathBuf {
    fixtures().join("gguf").join(format!("{name}.gguf"))
}

fn json<T: serde::de::DeserializeOwned>(path: &Path) -> T {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn expected(name: &str) -> Expected {
    json(&file(name).with_extension("json"))
}

fn logps(policy: &Policy, sequences: &[Vec<u32>]) -> Vec<f32> {
    let group = |ids: &Vec<u32>| Group {
        prompt: ids[..1].to_vec().into(),
        completions: vec![ids[1..].to_vec()],
    };
    let groups: Vec<Group> = sequences.iter().map(group).collect();
    policy.score(&groups, 1.0).unwrap().logps
}

#[test]
fn log_probabilities_match_transformers_on_the_dequantized_weights() {
    for name in MODELS {
        let expected = expected(name);
        let found = logps(&Policy::load(&file(name)).unwrap(), &expected.sequences);
        let want: Vec<f32> = expected.logps.concat();
        assert_eq!(found.len(), want.len());
        for (i, (found, want)) in found.iter().zip(&want).enumerate() {
            assert!((found - want).abs() < TOLERANCE, "{name} {i}: {found}, expected {want}");
        }
    }
}

#[test]
fn the_configuration_matches_the_original_model() {
    for name in MODELS {
        let found = GgufModel::open(&file(name)).unwrap().config().to_json();
        for (field, want) in expected(name).config.as_object().unwrap() {
            assert_eq!(found[field].as_f64(), want.as_f64(), "{name}: {field}");
            assert_eq!(found[field].as_bool(), want.as_bool(), "{name}: {field}");
        }
    }
}

#[test]
fn the_tokenizer_matches_the_original_one() {
    let found = Tokenizer::from_dir(&file("qwen2")).unwrap();
    let own = Tokenizer::from_dir(&fixtures().join("tokenizer")).unwrap();
    let expected: Value = json(&fixtures().join("tokenizer/expected.json"));
    for text in expected["texts"].as_array().unwrap() {
        let ids = own.encode(text["text"].as_str().unwrap()).unwrap();
        assert_eq!(found.encode(text["text"].as_str().unwrap()).unwrap(), ids, "{text}");
        for special in [SpecialTokens::Keep, SpecialTokens::Skip] {
            assert_eq!(found.decode(&ids, special).unwrap(), own.decode(&ids, special).unwrap());
        }
    }
    let chat = [ChatMessage::system("Be brief."), ChatMessage::user("Where is the lamp?")];
    let rendered = |tokenizer: &Tokenizer| {
        tokenizer.apply_chat_template(&chat, GenerationPrompt::Append).unwrap()
    };
    assert_eq!(rendered(&found), rendered(&own));
    assert_eq!(found.stop_ids().iter().max(), own.stop_ids().iter().max());
    assert_eq!(found.stop_ids().len(), own.stop_ids().len());
}

#[test]
fn llama_3_pre_tokenization_groups_up_to_three_digits_and_prefers_whole_tokens() {
    #[derive(Deserialize)]
    struct Text {
        text: String,
        ids: Vec<u32>,
    }
    let tokenizer = Tokenizer::from_dir(&file("llama")).unwrap();
    for Text { text, ids } in json::<Vec<Text>>(&fixtures().join("gguf/llama-bpe.json")) {
        assert_eq!(tokenizer.encode(&text).unwrap(), ids, "{text:?}");
    }
}

#[test]
fn a_tokenizer_beside_the_file_takes_precedence() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("model.gguf");
    std::fs::copy(file("qwen2vl"), &model).unwrap();
    let message = Tokenizer::from_dir(&model).unwrap_err().to_string();
    assert!(message.contains("model.gguf`: it has no tokenizer"), "{message}");
    std::fs::copy(fixtures().join("tokenizer/tokenizer.json"), dir.path().join("tokenizer.json"))
        .unwrap();
    assert!(Tokenizer::from_dir(&model).unwrap().len() > 400);
}

#[test]
fn a_gguf_model_saved_as_a_folder_gives_the_same_scores() {
    let dir = tempfile::tempdir().unwrap();
    let policy = Policy::load(&file("qwen2")).unwrap();
    let tokenizer = Tokenizer::from_dir(&file("qwen2")).unwrap();
    policy.save(dir.path(), &SaveOptions::default()).unwrap();
    tokenizer.save(dir.path()).unwrap();
    let sequences = expected("qwen2").sequences;
    let again = Policy::load(dir.path()).unwrap();
    assert_eq!(logps(&again, &sequences), logps(&policy, &sequences));
    let again = Tokenizer::from_dir(dir.path()).unwrap();
    let text = "<|im_start|>user\nnaïve café 123<|im_end|>";
    assert_eq!(again.encode(text).unwrap(), tokenizer.encode(text).unwrap());
    assert_eq!(again.stop_ids(), tokenizer.stop_ids());
    assert_eq!(ModelConfig::from_dir(dir.path()).unwrap(), *policy.config());
}

#[test]
fn sampling_from_quantized_blocks_has_the_scores_of_the_dequantized_weights() {
    for name in MODELS {
        let model = Arc::new(InferenceModel::load(&file(name), WeightFormat::F32).unwrap());
        let prompt = expected(name).sequences[0].clone();
        let request = GenerationRequest {
            prompt: prompt.clone().into(),
            samples: 3,
            stream: 2,
            first_sample: 0,
        };
        let sampling = SamplingParams { max_new_tokens: 12, ..SamplingParams::default() };
        let samples = model.generate(&[request], &sampling, &|_| {}).unwrap().remove(0);
        let drawn: Vec<f32> = samples.iter().flat_map(|sample| sample.logps.clone()).collect();
        let completions = samples.into_iter().map(|sample| sample.ids).collect();
        let groups = [Group { prompt: prompt.into(), completions }];
        let whole = Policy::load(&file(name)).unwrap().score(&groups, 1.0).unwrap().logps;
        assert_eq!(drawn.len(), 36);
        for (drawn, whole) in drawn.iter().zip(&whole) {
            assert!((drawn - whole).abs() < TOLERANCE, "{name}: {drawn}, whole {whole}");
        }
    }
}

#[test]
fn a_gguf_file_and_its_folder_resolve_as_models() {
    let path = file("llama");
    assert_eq!(hub::resolve(path.to_str().unwrap(), None).unwrap(), path);
    assert_eq!(tokenizer::stop_ids(&path).unwrap().len(), 2);
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("m.gguf");
    std::fs::copy(&path, &copy).unwrap();
    let found = fingerprint(dir.path(), FingerprintExtent::Sampled).unwrap();
    assert_eq!(found, fingerprint(&copy, FingerprintExtent::Sampled).unwrap());
    std::fs::copy(file("qwen2"), &copy).unwrap();
    assert_ne!(found, fingerprint(dir.path(), FingerprintExtent::Sampled).unwrap());
    assert_eq!(Policy::load(dir.path()).unwrap().config().num_hidden_layers, 1);
}
