mod prompt_logprobs;
mod threads;

use embodied_r_kernels::Precision;

use super::*;
use crate::activation_cache::{ActivationCache, ActivationCacheOptions};
use crate::config::ModelConfig;
use crate::packed::Group;
use crate::policy::Policy;

fn config() -> ModelConfig {
    let json = serde_json::json!({
        "model_type": "qwen2", "vocab_size": 97, "hidden_size": 48, "intermediate_size": 80,
        "num_hidden_layers": 2, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 12,
        "max_position_embeddings": 600, "rms_norm_eps": 1e-6, "tie_word_embeddings": true,
        "initializer_range": 0.3,
    });
    ModelConfig::from_json(&json).unwrap()
}

fn model(precision: Precision) -> Arc<InferenceModel> {
    Arc::new(Policy::random(&config(), 7).unwrap().inference_model(precision).unwrap())
}

fn prompt(length: usize, seed: u32) -> Vec<u32> {
    (0..length as u32).map(|i| (i * i * 31 + seed * 17 + i) % 97).collect()
}

/// Prompts of several lengths, some with a common prefix, each with several samples.
fn requests() -> Vec<GenerationRequest> {
    let system = prompt(130, 1);
    let mut requests: Vec<GenerationRequest> = [5, 64, 65, 200]
        .into_iter()
        .map(|length| GenerationRequest {
            prompt: prompt(length, length as u32).into(),
            samples: 3,
            stream: 1,
            first_sample: 0,
        })
        .collect();
    for seed in 0..3 {
        let prompt = [system.clone(), prompt(20 + 30 * seed as usize, seed)].concat();
        requests.push(GenerationRequest {
            prompt: prompt.into(),
            samples: 2,
            stream: u64::from(seed),
            first_sample: 0,
        });
    }
    requests
}

fn sampling(max_new_tokens: usize) -> Arc<SamplingParams> {
    Arc::new(SamplingParams { max_new_tokens, stop_ids: vec![3], ..SamplingParams::default() })
}

/// Tokens and log-probabilities of each request's samples.
type Drawn = Vec<Vec<(Vec<u32>, Vec<f32>, Option<FinishReason>)>>;

fn run(
    model: &Arc<InferenceModel>,
    requests: &[GenerationRequest],
    options: EngineOptions,
) -> (Drawn, EngineStats) {
    run_with(model, requests, options, &sampling(40))
}

fn run_with(
    model: &Arc<InferenceModel>,
    requests: &[GenerationRequest],
    options: EngineOptions,
    sampling: &Arc<SamplingParams>,
) -> (Drawn, EngineStats) {
    let mut engine = Engine::new(model.clone(), options).unwrap();
    let ids: Vec<RequestId> =
        requests.iter().map(|request| engine.add(request, sampling).unwrap()).collect();
    let mut drawn: Drawn =
        requests.iter().map(|r| vec![(Vec::new(), Vec::new(), None); r.samples]).collect();
    let index_of = |id: RequestId| ids.iter().position(|other| *other == id).unwrap();
    while engine.has_work() {
        for output in engine.step().unwrap() {
            match output {
                EngineOutput::Prefilled { .. } => {}
                EngineOutput::Token { request, sample, token } => {
                    let (ids, logps, finish_reason) = &mut drawn[index_of(request)][sample];
                    assert_eq!(*finish_reason, None);
                    ids.push(token.id);
                    logps.push(token.logp);
                }
                EngineOutput::NonFinite { .. } => panic!("the logits are not finite"),
                EngineOutput::Finished { request, sample, finish_reason } => {
                    drawn[index_of(request)][sample].2 = Some(finish_reason);
                }
            }
        }
    }
    (drawn, engine.stats())
}

fn options(max_num_seqs: usize, tokens: usize, cache: Option<usize>) -> EngineOptions {
    EngineOptions { max_num_seqs, max_num_batched_tokens: tokens, kv_cache_tokens: cache }
}

#[test]
fn outputs_are_bit_identical_for_any_batch_and_any_engine_limits() {
    for precision in [Precision::F32, Precision::Bf16] {
        let (model, requests) = (model(precision), requests());
        let alone: Drawn = requests
            .iter()
            .map(|request| {
                run(&model, std::slice::from_ref(request), options(8, 2048, None)).0.remove(0)
            })
            .collect();
        assert!(alone.iter().flatten().all(|(ids, _, finish_reason)| match finish_reason {
            Some(FinishReason::Stop) => ids.last() == Some(&3),
            Some(FinishReason::Length) => ids.len() == 40,
            None => false,
        }));
        for bounds in [
            options(256, 2048, None),
            options(4, 7, None),
            options(2, 64, None),
            options(16, 100, Some(6 * PAGE_SIZE)),
            options(16, 2048, Some(9 * PAGE_SIZE)),
        ] {
            assert_eq!(run(&model, &requests, bounds.clone()).0, alone, "{bounds:?}");
        }
    }
}

#[test]
fn a_sample_is_bit_identical_in_any_part_of_its_group() {
    let (model, requests) = (model(Precision::F32), requests());
    let (whole, _) = run(&model, &requests, options(8, 2048, None));
    let part = |request: &GenerationRequest, range: std::ops::Range<usize>| GenerationRequest {
        first_sample: range.start,
        samples: range.len(),
        ..request.clone()
    };
    for (request, whole) in requests.iter().zip(whole) {
        let parts = [part(request, 0..1), part(request, 1..request.samples)];
        let (drawn, _) = run(&model, &parts, options(8, 2048, None));
        assert_eq!(drawn.concat(), whole);
    }
}

#[test]
fn sequences_are_preempted_when_the_cache_is_full_and_all_pages_are_released_in_the_end() {
    let model = model(Precision::F32);
    let (_, stats) = run(&model, &requests(), options(16, 256, Some(6 * PAGE_SIZE)));
    assert!(stats.preemptions > 0);
    assert_eq!((stats.kv_cache_tokens, stats.running, stats.waiting), (0, 0, 0));
}

#[test]
fn a_preempted_sequence_counts_its_prompt_once() {
    let (model, requests) = (model(Precision::F32), requests());
    let (_, stats) = run(&model, &requests, options(64, 256, Some(6 * PAGE_SIZE)));
    assert!(stats.preemptions > 0);
    let prompts: usize = requests.iter().map(|request| request.prompt.len()).sum();
    assert_eq!(stats.prefilled_tokens + stats.cached_tokens, prompts as u64);
}

#[test]
fn a_shared_system_prompt_is_prefilled_once() {
    let model = model(Precision::F32);
    let system = prompt(2 * PAGE_SIZE, 1);
    let requests: Vec<GenerationRequest> = (0..5)
        .map(|seed| GenerationRequest {
            prompt: [system.clone(), prompt(9, seed)].concat().into(),
            samples: 1,
            stream: 0,
            first_sample: 0,
        })
        .collect();
    // One at a time, so that the first has finished when the second starts.
    let (_, stats) = run(&model, &requests, options(1, 512, None));
    assert_eq!(stats.cached_tokens, 4 * 2 * PAGE_SIZE as u64);
    assert_eq!(stats.prefilled_tokens, (2 * PAGE_SIZE + 5 * 9) as u64);
}

/// The requests' prompts, each with one of its completions, and the recorded activations.
fn recorded(
    requests: &[GenerationRequest],
    options: EngineOptions,
) -> (Vec<Group>, ActivationCache, EngineStats) {
    let model = model(Precision::F32);
    let (drawn, _) = run(&model, requests, options.clone());
    let mut engine = Engine::new(model, options).unwrap();
    engine.record_activations(ActivationCache::new(
        &config(),
        ActivationCacheOptions { layers: 1, tokens: 100_000 },
    ));
    for request in requests {
        engine.add(request, &sampling(40)).unwrap();
    }
    while engine.has_work() {
        engine.step().unwrap();
    }
    let stats = engine.stats();
    let mut groups = Vec::new();
    for (request, samples) in requests.iter().zip(drawn) {
        let single = |ids| Group { prompt: request.prompt.clone(), completions: vec![ids] };
        groups.extend(samples.into_iter().map(|(ids, _, _)| single(ids)));
    }
    (groups, engine.into_activation_cache().unwrap(), stats)
}

fn assert_scores(groups: &[Group], activations: &ActivationCache) {
    let policy = Policy::random(&config(), 7).unwrap();
    let own = policy.score(groups, 1.0).unwrap().logps;
    let cached = policy.training_forward(groups, 1.0, 0, Some(activations)).unwrap();
    for (own, cached) in own.iter().zip(&cached.scores().logps) {
        assert!((own - cached).abs() < 5e-5 * own.abs().max(1.0), "{own} and {cached}");
    }
}

#[test]
fn activations_of_all_completions_are_recorded_under_chunked_prefill_and_queueing() {
    for bounds in [options(256, 2048, None), options(4, 7, None), options(2, 64, None)] {
        let (groups, activations, _) = recorded(&requests(), bounds.clone());
        assert!(groups.iter().all(|group| activations.contains(group)), "{bounds:?}");
        assert_scores(&groups, &activations);
    }
}

#[test]
fn activations_of_preempted_sequences_are_recorded_correctly_or_not_at_all() {
    let (groups, activations, stats) = recorded(&requests(), options(16, 100, Some(6 * PAGE_SIZE)));
    let (held, lost): (Vec<Group>, Vec<Group>) =
        groups.into_iter().partition(|group| activations.contains(group));
    assert!(stats.preemptions > 0 && !held.is_empty() && !lost.is_empty());
    assert_scores(&held, &activations);
    assert_scores(&lost, &activations);
}

#[test]
fn cancelled_samples_produce_no_output_and_do_not_affect_others() {
    let model = model(Precision::F32);
    let requests = requests();
    let (whole, _) = run(&model, &requests, options(64, 512, None));
    let mut engine = Engine::new(model, options(64, 512, None)).unwrap();
    let sampling = sampling(40);
    let ids: Vec<RequestId> =
        requests.iter().map(|request| engine.add(request, &sampling).unwrap()).collect();
    let mut drawn = vec![Vec::new(); 2];
    let mut steps = 0;
    while engine.has_work() {
        for output in engine.step().unwrap() {
            let EngineOutput::Token { request, sample, token } = output else { continue };
            assert!(steps <= 3 || request != ids[1] && (request, sample) != (ids[3], 0));
            if request == ids[3] && sample > 0 {
                drawn[sample - 1].push(token.id);
            }
        }
        if steps == 3 {
            engine.cancel(ids[1]);
            engine.cancel_sample(ids[3], 0);
        }
        steps += 1;
    }
    assert_eq!(drawn[0], whole[3][1].0);
    assert_eq!(drawn[1], whole[3][2].0);
    assert_eq!(engine.stats().kv_cache_tokens, 0);
}

#[test]
fn impossible_requests_are_rejected_when_they_are_added() {
    let model = model(Precision::F32);
    let mut engine = Engine::new(model.clone(), options(4, 64, Some(2 * PAGE_SIZE))).unwrap();
    let mut refusal = |prompt: Vec<u32>, max_new_tokens| {
        let request =
            GenerationRequest { prompt: prompt.into(), samples: 1, stream: 0, first_sample: 0 };
        engine.add(&request, &sampling(max_new_tokens)).unwrap_err().to_string()
    };
    assert!(refusal(vec![], 5).contains("the prompt is empty"));
    assert!(refusal(vec![97], 5).contains("token id 97 is outside the vocabulary of 97"));
    assert!(refusal(prompt(600, 1), 5).contains("600 prompt tokens leave no room"));
    assert!(refusal(prompt(100, 1), 30).contains("up to 129 tokens, the KV cache holds 128"));
    for (options, field) in [
        (options(0, 64, None), "max_num_seqs"),
        (options(8, 7, None), "max_num_batched_tokens"),
        (options(1, 7, Some(PAGE_SIZE - 1)), "kv_cache_tokens"),
    ] {
        let error = Engine::new(model.clone(), options).err().unwrap().to_string();
        assert!(error.starts_with(&format!("`{field}` must be ")), "{error}");
    }
}

/// A model whose embedding of token 96 is NaN: a sequence with this token has no finite logits.
fn model_with_a_nan_embedding() -> Policy {
    let policy = Policy::random(&config(), 7).unwrap();
    let embedding = policy.weights().get("model.embed_tokens.weight").unwrap();
    embodied_r_kernels::memory::update(embedding, "test", |rows| rows[96 * 48..].fill(f32::NAN))
        .unwrap();
    policy
}

#[test]
fn a_sequence_with_non_finite_logits_ends_without_a_token_and_the_others_go_on() {
    let model = Arc::new(model_with_a_nan_embedding().inference_model(Precision::F32).unwrap());
    let request = |prompt: Vec<u32>| GenerationRequest {
        prompt: prompt.into(),
        samples: 2,
        stream: 1,
        first_sample: 0,
    };
    let finite = |length: usize| -> Vec<u32> {
        prompt(length, 3).into_iter().map(|id| id.min(95)).collect()
    };
    let good = [request(finite(70)), request(finite(9))];
    let (alone, _) = run(&model, &good, EngineOptions::default());
    for greedy in [false, true] {
        let sampling = match greedy {
            true => Arc::new(SamplingParams { max_new_tokens: 40, ..SamplingParams::greedy() }),
            false => sampling(40),
        };
        let mut engine = Engine::new(model.clone(), EngineOptions::default()).unwrap();
        let bad = engine.add(&request([finite(80), vec![96, 1]].concat()), &sampling).unwrap();
        let others: Vec<RequestId> =
            good.iter().map(|one| engine.add(one, &sampling).unwrap()).collect();
        let (mut failed, mut drawn) = (Vec::new(), vec![vec![Vec::new(); 2]; 2]);
        while engine.has_work() {
            for output in engine.step().unwrap() {
                if let EngineOutput::NonFinite { request, sample } = output {
                    failed.push((request, sample));
                } else if let EngineOutput::Token { request, sample, token } = output {
                    let index = others.iter().position(|other| *other == request).unwrap();
                    assert!(token.logp.is_finite());
                    drawn[index][sample].push(token.id);
                }
            }
        }
        assert_eq!(failed, [(bad, 0), (bad, 1)]);
        assert_eq!(engine.stats().kv_cache_tokens, 0, "its pages are free");
        let ids = |of: &[(Vec<u32>, Vec<f32>, Option<FinishReason>)]| {
            of.iter().map(|(ids, ..)| ids.clone()).collect::<Vec<_>>()
        };
        if !greedy {
            assert_eq!(drawn, alone.iter().map(|of| ids(of)).collect::<Vec<_>>());
        }
    }
}

#[test]
fn placeholders_that_a_model_wants_to_say_are_never_sampled() {
    let policy = Policy::random(&config(), 7).unwrap();
    let sampled = |policy: &Policy, sampling: &SamplingParams| {
        let model = Arc::new(policy.inference_model(Precision::F32).unwrap());
        let completions = model.generate(&requests(), sampling, &|_| ()).unwrap().concat();
        completions.into_iter().flat_map(|of| of.ids.into_iter().zip(of.logps))
    };
    for temperature in [0.0, 1.0] {
        let sampling =
            SamplingParams { temperature, max_new_tokens: 12, ..SamplingParams::default() };
        let said: Vec<u32> = sampled(&policy, &sampling).map(|(id, _)| id).collect();
        let mut placeholders = said[..9].to_vec();
        placeholders.sort_unstable();
        placeholders.dedup();
        let config = ModelConfig { placeholder_token_ids: placeholders.clone(), ..config() };
        let policy = Policy::random(&config, 7).unwrap();
        let others: Vec<(u32, f32)> = sampled(&policy, &sampling).collect();
        assert_eq!(others.len(), said.len());
        assert!(others.iter().all(|(id, _)| !placeholders.contains(id)));
        // What the policy gives to a placeholder stays there: no token is as likely as the one that it wanted to say.
        if temperature == 0.0 {
            assert!(others[0].1 < 0.5f32.ln(), "{}", others[0].1);
        }
    }
}

#[test]
fn batch_generation_reports_non_finite_logits_and_the_trainers_rollout_goes_on() {
    let policy = model_with_a_nan_embedding();
    let requests =
        [GenerationRequest { prompt: vec![5, 96].into(), samples: 1, stream: 1, first_sample: 0 }];
    let sampling = SamplingParams { max_new_tokens: 3, ..SamplingParams::default() };
    let model = Arc::new(policy.inference_model(Precision::F32).unwrap());
    let error = model.generate(&requests, &sampling, &|_| ()).unwrap_err().to_string();
    assert!(error.starts_with("the model's logits are not finite"), "{error}");
    let rollout = policy.generate(&requests, &sampling, &|_| ()).unwrap();
    assert_eq!(rollout[0][0].ids.len(), 3);
    assert!(rollout[0][0].logps.iter().all(|logp| logp.is_nan()));
}
