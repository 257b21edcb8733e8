//! LoRA training: gradients and dropout of adapters, and their effect on scoring, sampling and saving.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::Tensor;
use embodied_r_policy::lora::{LoraConfig, Module};
use embodied_r_policy::weights::SaveOptions;
use embodied_r_policy::{
    Adapter, CompletionOutput, GenerateEvent, GenerationRequest, Gradients, Group, InferenceModel,
    ModelConfig, ModelType, Policy, Precision, Rope, SamplingParams, Trainable, WeightDtype,
    WeightFormat,
};

const SEED: u64 = 5;

/// With biases, and with norms over heads.
const FAMILIES: [ModelType; 2] = [ModelType::Qwen2, ModelType::Qwen3];

fn config() -> ModelConfig {
    config_of(ModelType::Qwen2)
}

fn config_of(model_type: ModelType) -> ModelConfig {
    ModelConfig {
        model_type,
        vocab_size: 40,
        hidden_size: 24,
        intermediate_size: 33,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        num_key_value_heads: 1,
        head_dim: 12,
        rms_norm_eps: 1e-6,
        rope: Rope::plain(10_000.0),
        sliding_window: None,
        tie_word_embeddings: true,
        max_position_embeddings: 64,
        initializer_range: 0.3,
        dtype: WeightDtype::F32,
        bos_token_id: None,
        eos_token_ids: vec![0],
        placeholder_token_ids: Vec::new(),
    }
}

fn lora(modules: &[Module], dropout: f64) -> LoraConfig {
    LoraConfig {
        r: 3,
        lora_alpha: 4,
        lora_dropout: dropout,
        target_modules: modules.to_vec(),
        encoder_modules: Vec::new(),
        use_rslora: false,
        base_model_name_or_path: None,
        base_fingerprint: None,
    }
}

fn base() -> Policy {
    Policy::random(&config(), 1).unwrap()
}

/// A policy whose adapter has an effect.
fn adapted(modules: &[Module], dropout: f64) -> Policy {
    adapted_of(ModelType::Qwen2, modules, dropout)
}

fn adapted_of(model_type: ModelType, modules: &[Module], dropout: f64) -> Policy {
    let policy = Policy::random(&config_of(model_type), 1).unwrap();
    let policy = policy.with_trainable(&Trainable::Lora(lora(modules, dropout)), SEED).unwrap();
    randomize_b(&policy);
    policy
}

/// Sets `B` to nonzero values.
fn randomize_b(policy: &Policy) {
    for (name, tensor) in policy.parameters().iter().filter(|(name, _)| name.contains("lora_B")) {
        let offset = name.len() as f64 + name.as_bytes()[13] as f64;
        set(tensor, |i| 0.3 * ((i as f64 + 1.0) * offset).sin());
    }
}

fn set(tensor: &Tensor, value: impl Fn(usize) -> f64) {
    let values = (0..tensor.elem_count()).map(|i| value(i) as f32).collect();
    let new = Tensor::from_vec(values, tensor.shape(), tensor.device()).unwrap();
    tensor.slice_set(&new, 0, 0).unwrap();
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

fn groups() -> Vec<Group> {
    vec![
        Group { prompt: vec![3, 7, 9].into(), completions: vec![vec![4, 4, 8, 0], vec![11, 30]] },
        Group { prompt: vec![21].into(), completions: vec![vec![5, 6, 7]] },
    ]
}

/// The loss gradient for each token.
fn d_logps() -> Vec<f32> {
    (0..9).map(|i| ((i * 5 % 7) as f32 - 3.0) / 3.0).collect()
}

const DROPOUT_SEED: u64 = 77;

fn loss(policy: &Policy) -> f64 {
    let forward = policy.training_forward(&groups(), 0.8, DROPOUT_SEED, None).unwrap();
    let terms = forward.scores().logps.iter().zip(d_logps());
    terms.map(|(logp, d)| f64::from(*logp) * f64::from(d)).sum()
}

fn gradients(policy: &Policy) -> Gradients {
    let mut gradients = policy.zero_gradients().unwrap();
    let forward = policy.training_forward(&groups(), 0.8, DROPOUT_SEED, None).unwrap();
    forward.backward(&d_logps(), &mut gradients).unwrap();
    gradients
}

#[track_caller]
fn assert_close(what: &str, found: &[f32], want: &[f32], tolerance: f32) {
    assert_eq!(found.len(), want.len(), "{what}");
    let scale = want.iter().fold(1e-3f32, |top, x| top.max(x.abs()));
    for (i, (found, want)) in found.iter().zip(want).enumerate() {
        assert!((found - want).abs() <= tolerance * scale, "{what} {i}: {found}, expected {want}");
    }
}

#[test]
fn a_new_adapter_has_no_effect_and_is_all_that_is_trained() {
    let policy = base().with_trainable(&Trainable::Lora(lora(&Module::ALL, 0.0)), SEED).unwrap();
    let scores = policy.score(&groups(), 1.0).unwrap();
    assert_eq!(scores, base().score(&groups(), 1.0).unwrap());
    assert_eq!(policy.parameters().len(), 2 * 7 * 2);
    assert!(policy.parameters().iter().all(|(name, _)| name.contains(".lora_")));
    let a = policy.parameters().get("model.layers.1.mlp.down_proj.lora_A.weight").unwrap();
    assert_eq!(a.dims(), [3, 33]);
    let (a, bound) = (values(a), 1.0 / 33f32.sqrt());
    assert!(a.iter().all(|x| x.abs() <= bound) && a.iter().any(|x| x.abs() > 0.8 * bound));
    let counts = Trainable::Lora(lora(&Module::ALL, 0.0)).counts(&config()).unwrap();
    assert_eq!(counts.trainable, policy.parameters().elem_count());
    assert_eq!(counts.total, policy.parameters().elem_count() + policy.weights().elem_count());
}

#[test]
fn gradients_of_every_modules_adapter_match_finite_differences() {
    for (family, module) in FAMILIES.into_iter().flat_map(|it| Module::ALL.map(|m| (it, m))) {
        for dropout in [0.0, 0.3] {
            let policy = adapted_of(family, &[module], dropout);
            let gradients = gradients(&policy);
            assert_eq!(gradients.iter().count(), 4);
            for (name, tensor) in policy.parameters().iter() {
                let at = values(tensor);
                let gradient = values(gradients.get(name).unwrap());
                let norm = gradient.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
                assert!(norm > 1e-3, "{name}: nothing is learned");
                // Along the gradient, and along a direction that is sensitive to order and sign.
                let along = gradient.iter().map(|x| f64::from(*x) / norm).collect::<Vec<_>>();
                let across = (0..at.len()).map(|i| ((i + 1) as f64).sin()).collect::<Vec<_>>();
                for direction in [along, across] {
                    let want: f64 =
                        gradient.iter().zip(&direction).map(|(g, d)| f64::from(*g) * d).sum();
                    let step = 5e-3;
                    let moved = |sign: f64| {
                        set(tensor, |i| f64::from(at[i]) + sign * step * direction[i]);
                        loss(&policy)
                    };
                    let found = (moved(1.0) - moved(-1.0)) / (2.0 * step);
                    set(tensor, |i| f64::from(at[i]));
                    let slack = 0.01 * want.abs() + 3e-3 * norm.max(0.3);
                    assert!((found - want).abs() < slack, "{name}: {want}, moved {found}");
                }
            }
        }
    }
}

/// The base model with the saved adapter merged.
fn merged(policy: &Policy) -> Policy {
    let dir = tempfile::tempdir().unwrap();
    policy.save(dir.path(), &SaveOptions::default()).unwrap();
    let merged = Policy::random(policy.config(), 1).unwrap();
    Adapter::open(dir.path(), merged.config()).unwrap().apply(merged.weights()).unwrap();
    merged
}

#[test]
fn an_unmerged_adapter_matches_the_merged_model_in_scores_and_gradients() {
    for family in FAMILIES {
        assert_matches_merged(&adapted_of(family, &Module::ALL, 0.0));
    }
}

fn assert_matches_merged(policy: &Policy) {
    let merged = merged(policy);
    let (found, want) =
        (policy.score(&groups(), 0.8).unwrap(), merged.score(&groups(), 0.8).unwrap());
    assert_close("logps", &found.logps, &want.logps, 1e-5);
    assert_close("entropies", &found.entropies, &want.entropies, 1e-5);
    let (found, whole) = (gradients(policy), gradients(&merged));
    let scale = 4.0 / 3.0;
    let mut seen = 0;
    for (name, d_weight) in whole.iter() {
        let Some(stem) = name.strip_suffix("_proj.weight") else { continue };
        let part = |part: &str| format!("{stem}_proj.lora_{part}.weight");
        let of = |name: &str| policy.parameters().get(name).unwrap();
        let (a, b) = (of(&part("A")), of(&part("B")));
        // W + s·B·A: dA = s·Bᵀ·dW, dB = s·dW·Aᵀ.
        let d_a = (b.t().unwrap().matmul(d_weight).unwrap() * scale).unwrap();
        let d_b = (d_weight.matmul(&a.t().unwrap()).unwrap() * scale).unwrap();
        let of = |name: &str| values(found.get(name).unwrap());
        assert_close(&part("A"), &of(&part("A")), &values(&d_a), 1e-4);
        assert_close(&part("B"), &of(&part("B")), &values(&d_b), 1e-4);
        seen += 1;
    }
    assert_eq!(seen, 14);
}

#[test]
fn recomputed_activations_have_the_same_dropout() {
    let (kept, again) = (adapted(&Module::ALL, 0.4), adapted(&Module::ALL, 0.4));
    let (kept, again) = (gradients(&kept), gradients(&again.with_activation_bytes(0)));
    for (name, gradient) in kept.iter() {
        assert_eq!(values(gradient), values(again.get(name).unwrap()), "{name}");
    }
}

#[test]
fn dropout_depends_on_the_seed_and_not_on_packing() {
    let policy = adapted(&Module::ALL, 0.4);
    let of = |groups: &[Group], seed| {
        policy.training_forward(groups, 1.0, seed, None).unwrap().scores().logps.clone()
    };
    let packed = of(&groups(), 1);
    let mut separate = Vec::new();
    for Group { prompt, completions } in groups() {
        for completion in completions {
            let group = Group { prompt: prompt.clone(), completions: vec![completion] };
            separate.extend(of(&[group], 1));
        }
    }
    assert_close("separate", &separate, &packed, 1e-5);
    assert_ne!(of(&groups(), 2), packed);
}

#[test]
fn scoring_and_evaluation_forward_have_no_dropout() {
    let (with, without) = (adapted(&Module::ALL, 0.4), adapted(&Module::ALL, 0.0));
    let want = without.score(&groups(), 1.0).unwrap();
    assert_eq!(with.score(&groups(), 1.0).unwrap(), want);
    assert_eq!(*with.forward(&groups(), 1.0).unwrap().scores(), want);
    assert_ne!(*with.training_forward(&groups(), 1.0, 1, None).unwrap().scores(), want);
    assert_eq!(*without.training_forward(&groups(), 1.0, 1, None).unwrap().scores(), want);
}

fn sample(model: &Arc<InferenceModel>, prompts: &[&[u32]]) -> Vec<Vec<CompletionOutput>> {
    let request = |prompt: &&[u32]| GenerationRequest {
        prompt: prompt.to_vec().into(),
        samples: 2,
        stream: 3,
        first_sample: 0,
    };
    let requests: Vec<GenerationRequest> = prompts.iter().map(request).collect();
    let sampling =
        SamplingParams { max_new_tokens: 12, temperature: 0.9, ..SamplingParams::default() };
    model.generate(&requests, &sampling, &|_: GenerateEvent| {}).unwrap()
}

/// Samples as groups to score, and their log-probabilities.
fn drawn(samples: &[Vec<CompletionOutput>], prompts: &[&[u32]]) -> (Vec<Group>, Vec<f32>) {
    let group = |(samples, prompt): (&Vec<CompletionOutput>, &&[u32])| Group {
        prompt: prompt.to_vec().into(),
        completions: samples.iter().map(|sample| sample.ids.clone()).collect(),
    };
    let logps = samples.iter().flatten().flat_map(|sample| sample.logps.clone()).collect();
    (samples.iter().zip(prompts).map(group).collect(), logps)
}

const PROMPTS: [&[u32]; 2] = [&[3, 7, 9], &[21]];

#[test]
fn samples_have_the_log_probabilities_of_the_adapted_model() {
    for (precision, tolerance) in [(Precision::F32, 1e-5), (Precision::Bf16, 0.02)] {
        let policy = adapted(&Module::ALL, 0.4).with_precision(precision);
        let model = Arc::new(policy.inference_model(precision).unwrap());
        let (groups, logps) = drawn(&sample(&model, &PROMPTS), &PROMPTS);
        let scored = policy.score(&groups, 0.9).unwrap().logps;
        assert_close("logps", &logps, &scored, tolerance);
        let without = base().with_precision(precision).score(&groups, 0.9).unwrap().logps;
        let difference = scored.iter().zip(without).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(difference > 0.5, "the adapter has an effect: {difference}");
    }
}

#[test]
fn a_sample_is_bit_identical_beside_others_with_shared_f32_weights() {
    let config = ModelConfig {
        hidden_size: 64,
        intermediate_size: 200,
        head_dim: 32,
        max_position_embeddings: 1024,
        ..config()
    };
    let policy = Policy::random(&config, 1).unwrap();
    let policy = policy.with_trainable(&Trainable::Lora(lora(&Module::ALL, 0.0)), SEED).unwrap();
    randomize_b(&policy);
    let model = Arc::new(policy.inference_model(Precision::F32).unwrap());
    let prompt = |seed: u32| (0..330).map(|i| (i * i + seed * 17) % 40).collect::<Vec<u32>>();
    let prompts: Vec<Vec<u32>> = (0..3).map(prompt).collect();
    let prompts: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
    // Together they are prefilled in steps of more than 512 rows.
    let together = sample(&model, &prompts);
    for (prompt, expected) in prompts.iter().zip(together) {
        assert_eq!(sample(&model, &[prompt]), [expected]);
    }
}

#[test]
fn the_next_rollout_sees_an_adapter_update_in_every_precision() {
    for precision in [Precision::F32, Precision::Bf16] {
        let policy = base()
            .with_trainable(&Trainable::Lora(lora(&Module::ALL, 0.0)), SEED)
            .unwrap()
            .with_precision(precision);
        let model = Arc::new(policy.inference_model(precision).unwrap());
        let before = sample(&model, &PROMPTS);
        randomize_b(&policy);
        let after = sample(&model, &PROMPTS);
        assert_ne!(before, after);
        let anew = Arc::new(policy.inference_model(precision).unwrap());
        assert_eq!(after, sample(&anew, &PROMPTS));
    }
}

#[test]
fn a_sample_is_bit_identical_alone_and_in_a_batch() {
    let policy = adapted(&Module::ALL, 0.0);
    let model = Arc::new(policy.inference_model(Precision::F32).unwrap());
    let together = sample(&model, &[&[5, 6], &[3, 7, 9], &[21], &[1; 20]]);
    assert_eq!(sample(&model, &[&[3, 7, 9]])[0], together[1]);
}

/// Whether two policies share a tensor.
fn same(a: &Policy, b: &Policy, name: &str) -> bool {
    a.weights().get(name).unwrap().id() == b.weights().get(name).unwrap().id()
}

#[test]
fn a_frozen_copy_shares_the_base_and_copies_the_adapter() {
    let policy = adapted(&Module::ALL, 0.3);
    let before = policy.score(&groups(), 1.0).unwrap();
    let copy = policy.frozen_copy().unwrap();
    assert!(policy.weights().iter().all(|(name, _)| same(&policy, &copy, name)));
    for (_, tensor) in policy.parameters().iter() {
        set(tensor, |_| 0.1);
    }
    assert_eq!(copy.score(&groups(), 1.0).unwrap(), before);
    assert_ne!(policy.score(&groups(), 1.0).unwrap(), before);
    // Before the first step, the reference is the base model without an adapter.
    let fresh = base().with_trainable(&Trainable::Lora(lora(&Module::ALL, 0.3)), SEED).unwrap();
    assert!(
        fresh.frozen_copy().unwrap().parameters().iter().all(|(name, _)| !name.contains("lora"))
    );
}

/// A folder with the base model, and one for an adapter of it.
fn folders() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let (model, adapter) = (dir.path().join("model"), dir.path().join("adapter"));
    std::fs::create_dir(&model).unwrap();
    std::fs::create_dir(&adapter).unwrap();
    base().save(&model, &SaveOptions::default()).unwrap();
    (dir, model, adapter)
}

fn lora_on(base: &Path) -> Trainable {
    let base = base.to_str().unwrap().to_owned();
    let modules = [Module::Q, Module::Down];
    Trainable::Lora(LoraConfig { base_model_name_or_path: Some(base), ..lora(&modules, 0.2) })
}

#[test]
fn a_saved_adapter_resumes_unchanged() {
    let (_dir, model, adapter) = folders();
    let trainable = lora_on(&model);
    let policy = Policy::load_trainable(&model, &model, &trainable, SEED).unwrap();
    randomize_b(&policy);
    policy.save(&adapter, &SaveOptions::default()).unwrap();
    let loaded = Policy::load_trainable(&adapter, &model, &trainable, 99).unwrap();
    for (name, tensor) in policy.parameters().iter() {
        assert_eq!(values(tensor), values(loaded.parameters().get(name).unwrap()), "{name}");
    }
    assert_eq!(loss(&policy), loss(&loaded));
    // The reference model of a resumed run.
    let (first, saved) =
        (policy.load_frozen(&model).unwrap(), policy.load_frozen(&adapter).unwrap());
    for reference in [&first, &saved] {
        assert!(policy.weights().iter().all(|(name, _)| same(&policy, reference, name)));
    }
    let scores = |policy: &Policy| policy.score(&groups(), 1.0).unwrap();
    assert_eq!(scores(&first), scores(&base()));
    assert_eq!(scores(&saved), scores(&policy));
}

#[test]
fn an_adapter_folder_loads_as_the_merged_model() {
    let (_dir, model, adapter) = folders();
    let policy = Policy::load_trainable(&model, &model, &lora_on(&model), SEED).unwrap();
    randomize_b(&policy);
    policy.save(&adapter, &SaveOptions::default()).unwrap();
    let read = Policy::load(&adapter).unwrap();
    let want = policy.score(&groups(), 1.0).unwrap().logps;
    assert_close("read", &read.score(&groups(), 1.0).unwrap().logps, &want, 1e-5);
    let sampled = Arc::new(InferenceModel::load(&adapter, WeightFormat::F32).unwrap());
    let (groups, logps) = drawn(&sample(&sampled, &PROMPTS), &PROMPTS);
    assert_close("sampled", &logps, &policy.score(&groups, 0.9).unwrap().logps, 1e-5);
    let message = Policy::load_trainable(&adapter, &adapter, &lora_on(&adapter), SEED);
    let message = message.err().unwrap().to_string();
    assert!(message.contains("is an adapter, merge it into"), "{message}");
    std::fs::remove_dir_all(&model).unwrap();
    let message = Policy::load(&adapter).err().unwrap().to_string();
    assert!(
        message.contains(model.to_str().unwrap()) && message.contains("base_model_name_or_path"),
        "{message}"
    );
}

#[test]
fn a_corrupt_adapter_is_reported_and_not_reinitialized() {
    let (_dir, model, adapter) = folders();
    let trainable = lora_on(&model);
    let policy = Policy::load_trainable(&model, &model, &trainable, SEED).unwrap();
    policy.save(&adapter, &SaveOptions::default()).unwrap();
    let file = adapter.join("adapter_model.safetensors");
    let bytes = std::fs::read(&file).unwrap();
    for damaged in [Some(&bytes[..bytes.len() / 2]), None] {
        std::fs::remove_file(&file).unwrap();
        if let Some(damaged) = damaged {
            std::fs::write(&file, damaged).unwrap();
        }
        for read in [
            Policy::load_trainable(&adapter, &model, &trainable, SEED),
            policy.load_frozen(&adapter),
        ] {
            let message = read.err().unwrap().to_string();
            assert!(message.contains("adapter_model.safetensors"), "{message}");
        }
    }
}

#[test]
fn an_adapter_of_another_rank_or_other_modules_is_rejected() {
    let (_dir, model, adapter) = folders();
    let trainable = lora_on(&model);
    let policy = Policy::load_trainable(&model, &model, &trainable, SEED).unwrap();
    policy.save(&adapter, &SaveOptions::default()).unwrap();
    let rejected = |change: &dyn Fn(&mut LoraConfig)| {
        let mut config = lora(&[Module::Q, Module::Down], 0.2);
        change(&mut config);
        let read = Policy::load_trainable(&adapter, &model, &Trainable::Lora(config), SEED);
        read.err().unwrap().to_string()
    };
    let message = rejected(&|config| config.r = 2);
    assert!(
        message.contains("q_proj.lora_A.weight` must have the shape [2, 24], not [3, 24]"),
        "{message}"
    );
    let message = rejected(&|config| config.target_modules = vec![Module::Q]);
    assert!(message.contains("mlp.down_proj.weight` is unexpected"), "{message}");
    let message = rejected(&|config| config.target_modules.push(Module::Up));
    assert!(message.contains("mlp.up_proj.lora_A.weight` is missing"), "{message}");
}

#[test]
fn an_adapter_of_a_vision_language_model_does_not_target_its_vision_tower() {
    for layout in ["qwen2_5_vl-flat", "qwen2_5_vl-nested", "qwen3_vl-nested"] {
        let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models").join(layout);
        let adapter = tempfile::tempdir().unwrap();
        let policy = Policy::load_trainable(&base, &base, &lora_on(&base), SEED).unwrap();
        randomize_b(&policy);
        policy.save(adapter.path(), &SaveOptions::default()).unwrap();
        let config = std::fs::read_to_string(adapter.path().join("adapter_config.json")).unwrap();
        assert!(
            config.contains(r"^model\\.language_model(?=\\.).*\\.(q_proj|down_proj)$"),
            "{config}"
        );
        let weights = std::fs::read(adapter.path().join("adapter_model.safetensors")).unwrap();
        let header = String::from_utf8_lossy(&weights[..400]);
        let name = "base_model.model.model.language_model.layers.0.self_attn.q_proj.lora_A.weight";
        assert!(header.contains(name), "{header}");
        let merged = Policy::load(adapter.path()).unwrap();
        let found = merged.score(&groups(), 1.0).unwrap().logps;
        assert_close(layout, &found, &policy.score(&groups(), 1.0).unwrap().logps, 1e-5);
    }
}

#[test]
fn an_adapter_of_a_quantized_model_stays_unmerged() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/gguf/qwen2.gguf");
    let adapter = tempfile::tempdir().unwrap();
    let policy = Policy::load_trainable(&file, &file, &lora_on(&file), SEED).unwrap();
    randomize_b(&policy);
    policy.save(adapter.path(), &SaveOptions::default()).unwrap();
    let model = Arc::new(InferenceModel::load(adapter.path(), WeightFormat::F32).unwrap());
    let (groups, logps) = drawn(&sample(&model, &PROMPTS), &PROMPTS);
    assert_close("logps", &logps, &policy.score(&groups, 0.9).unwrap().logps, 1e-4);
    let without = Policy::load(&file).unwrap().score(&groups, 0.9).unwrap().logps;
    let difference = logps.iter().zip(without).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(difference > 0.1, "the adapter has an effect: {difference}");
}
