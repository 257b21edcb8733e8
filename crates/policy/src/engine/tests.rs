use embodied_r_kernels::Precision;

use super::*;
use crate::config::ModelConfig;
use crate::packed::Group;
use crate::policy::Policy;
use crate::tape::{Tape, TapeOptions};

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

/// Prompts of several lengths, some of which begin alike, each with some samples.
fn requests() -> Vec<Request> {
    let system = prompt(130, 1);
    let mut requests: Vec<Request> = [5, 64, 65, 200]
        .into_iter()
        .map(|length| Request {
            prompt: prompt(length, length as u32).into(),
            samples: 3,
            stream: 1,
        })
        .collect();
    for seed in 0..3 {
        let prompt = [system.clone(), prompt(20 + 30 * seed as usize, seed)].concat();
        requests.push(Request { prompt: prompt.into(), samples: 2, stream: u64::from(seed) });
    }
    requests
}

fn sampling(max_new_tokens: usize) -> Arc<Sampling> {
    Arc::new(Sampling { max_new_tokens, stop_ids: vec![3], ..Sampling::default() })
}

/// Tokens and log-probabilities of each request's samples, and how the engine was doing.
type Drawn = Vec<Vec<(Vec<u32>, Vec<f32>, Option<Finish>)>>;

fn run(
    model: &Arc<InferenceModel>,
    requests: &[Request],
    options: EngineOptions,
) -> (Drawn, EngineStats) {
    let mut engine = Engine::new(model.clone(), options).unwrap();
    let sampling = sampling(40);
    let ids: Vec<RequestId> =
        requests.iter().map(|request| engine.add(request, &sampling).unwrap()).collect();
    let mut drawn: Drawn =
        requests.iter().map(|r| vec![(Vec::new(), Vec::new(), None); r.samples]).collect();
    let place = |id: RequestId| ids.iter().position(|other| *other == id).unwrap();
    while engine.has_work() {
        for output in engine.step().unwrap() {
            match output {
                Output::Token { request, sample, token } => {
                    let (ids, logps, finish) = &mut drawn[place(request)][sample];
                    assert_eq!(*finish, None);
                    ids.push(token.id);
                    logps.push(token.logp);
                }
                Output::Finished { request, sample, finish } => {
                    drawn[place(request)][sample].2 = Some(finish);
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
fn a_request_gets_the_same_bits_alone_and_among_others_however_the_engine_is_bounded() {
    for precision in [Precision::F32, Precision::Bf16] {
        let (model, requests) = (model(precision), requests());
        let alone: Drawn = requests
            .iter()
            .map(|request| {
                run(&model, std::slice::from_ref(request), options(8, 2048, None)).0.remove(0)
            })
            .collect();
        assert!(alone.iter().flatten().all(|(ids, _, finish)| match finish {
            Some(Finish::Stop) => ids.last() == Some(&3),
            Some(Finish::Length) => ids.len() == 40,
            None => false,
        }));
        for bounds in [
            options(256, 2048, None),
            options(4, 7, None),
            options(2, 64, None),
            options(16, 100, Some(6 * PAGE)),
            options(16, 2048, Some(9 * PAGE)),
        ] {
            assert_eq!(run(&model, &requests, bounds.clone()).0, alone, "{bounds:?}");
        }
    }
}

#[test]
fn sequences_are_put_back_when_memory_runs_out_and_all_is_given_back_in_the_end() {
    let model = model(Precision::F32);
    let (_, stats) = run(&model, &requests(), options(16, 256, Some(6 * PAGE)));
    assert!(stats.preemptions > 0);
    assert_eq!((stats.kv_cache_tokens, stats.running, stats.waiting), (0, 0, 0));
}

#[test]
fn a_system_prompt_is_computed_once() {
    let model = model(Precision::F32);
    let system = prompt(2 * PAGE, 1);
    let requests: Vec<Request> = (0..5)
        .map(|seed| Request {
            prompt: [system.clone(), prompt(9, seed)].concat().into(),
            samples: 1,
            stream: 0,
        })
        .collect();
    // One at a time, so that the first is done when the second begins.
    let (_, stats) = run(&model, &requests, options(1, 512, None));
    assert_eq!(stats.cached_tokens, 4 * 2 * PAGE as u64);
    assert_eq!(stats.prefilled_tokens, (2 * PAGE + 5 * 9) as u64);
}

/// The requests' prompts, each with one of its completions, and what the engine has kept of them.
fn taped(requests: &[Request], options: EngineOptions) -> (Vec<Group>, Tape, EngineStats) {
    let model = model(Precision::F32);
    let (drawn, _) = run(&model, requests, options.clone());
    let mut engine = Engine::new(model, options).unwrap();
    engine.record(Tape::new(&config(), TapeOptions { layers: 1, tokens: 100_000 }));
    for request in requests {
        engine.add(request, &sampling(40)).unwrap();
    }
    while engine.has_work() {
        engine.step().unwrap();
    }
    let stats = engine.stats();
    let mut groups = Vec::new();
    for (request, samples) in requests.iter().zip(drawn) {
        let single = |ids| Group { prompt: request.prompt.ids().to_vec(), completions: vec![ids] };
        groups.extend(samples.into_iter().map(|(ids, _, _)| single(ids)));
    }
    (groups, engine.into_tape().unwrap(), stats)
}

fn assert_scores(groups: &[Group], tape: &Tape) {
    let policy = Policy::random(&config(), 7).unwrap();
    let own = policy.score(groups, 1.0).unwrap().logps;
    let taped = policy.training_forward(groups, 1.0, 0, Some(tape)).unwrap();
    for (own, taped) in own.iter().zip(&taped.scores().logps) {
        assert!((own - taped).abs() < 5e-5 * own.abs().max(1.0), "{own} and {taped}");
    }
}

#[test]
fn a_tape_holds_all_that_was_drawn_however_prompts_are_cut_and_sequences_wait() {
    for bounds in [options(256, 2048, None), options(4, 7, None), options(2, 64, None)] {
        let (groups, tape, _) = taped(&requests(), bounds.clone());
        assert!(groups.iter().all(|group| tape.holds(group)), "{bounds:?}");
        assert_scores(&groups, &tape);
    }
}

#[test]
fn sequences_that_were_put_back_are_taped_right_or_not_at_all() {
    let (groups, tape, stats) = taped(&requests(), options(16, 100, Some(6 * PAGE)));
    let (held, lost): (Vec<Group>, Vec<Group>) =
        groups.into_iter().partition(|group| tape.holds(group));
    assert!(stats.preemptions > 0 && !held.is_empty() && !lost.is_empty());
    assert_scores(&held, &tape);
    assert_scores(&lost, &tape);
}

#[test]
fn what_is_cancelled_gives_nothing_more_and_leaves_the_others_as_they_are() {
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
            let Output::Token { request, sample, token } = output else { continue };
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
fn what_can_never_be_done_is_refused_at_once() {
    let model = model(Precision::F32);
    let mut engine = Engine::new(model.clone(), options(4, 64, Some(2 * PAGE))).unwrap();
    let mut refusal = |prompt: Vec<u32>, max_new_tokens| {
        let request = Request { prompt: prompt.into(), samples: 1, stream: 0 };
        engine.add(&request, &sampling(max_new_tokens)).unwrap_err().to_string()
    };
    assert!(refusal(vec![], 5).contains("the prompt is empty"));
    assert!(refusal(vec![97], 5).contains("id 97 is outside the vocabulary of 97"));
    assert!(refusal(prompt(600, 1), 5).contains("600 tokens leave no room"));
    assert!(refusal(prompt(100, 1), 30).contains("up to 129 tokens, the cache holds 128"));
    for (options, at_fault) in [
        (options(0, 64, None), "max_num_seqs"),
        (options(8, 7, None), "max_num_batched_tokens"),
        (options(1, 7, Some(PAGE - 1)), "kv_cache_tokens"),
    ] {
        let error = Engine::new(model.clone(), options).err().unwrap().to_string();
        assert!(error.starts_with(&format!("`{at_fault}` is ")), "{error}");
    }
}
