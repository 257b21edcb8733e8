//! Log-probabilities of prompts, and cached prompt tokens.

use super::*;
use crate::sampling::TokenLogprobs;

/// What the engine reports of a prompt.
type Prefilled = (usize, Option<Vec<TokenLogprobs>>);

fn request(prompt: &[u32], samples: usize) -> GenerationRequest {
    GenerationRequest { prompt: prompt.to_vec().into(), samples, stream: 1, first_sample: 0 }
}

/// The first report of each request, and the sampled tokens.
fn prefilled(
    engine: &mut Engine,
    requests: &[GenerationRequest],
    sampling: &Arc<SamplingParams>,
) -> (Vec<Prefilled>, Vec<Vec<u32>>) {
    let ids: Vec<RequestId> =
        requests.iter().map(|request| engine.add(request, sampling).unwrap()).collect();
    let index_of = |id: RequestId| ids.iter().position(|other| *other == id).unwrap();
    let mut reports: Vec<Option<Prefilled>> = vec![None; ids.len()];
    let mut tokens = vec![Vec::new(); ids.len()];
    while engine.has_work() {
        for output in engine.step().unwrap() {
            match output {
                EngineOutput::Prefilled { request, cached_tokens, logprobs } => {
                    reports[index_of(request)].get_or_insert((cached_tokens, logprobs));
                }
                EngineOutput::Token { request, sample, token } => {
                    assert!(reports[index_of(request)].is_some(), "a token precedes its prompt");
                    if sample == 0 {
                        tokens[index_of(request)].push(token.id);
                    }
                }
                EngineOutput::Finished { .. } => {}
                EngineOutput::NonFinite { .. } => panic!("the logits are not finite"),
            }
        }
    }
    (reports.into_iter().map(Option::unwrap).collect(), tokens)
}

fn asking(top: usize) -> Arc<SamplingParams> {
    let asked = SamplingParams { prompt_logprobs: Some(top), ..(*sampling(8)).clone() };
    Arc::new(asked)
}

/// The log-probabilities of every token after each beginning of the prompt, each from a request of its own.
fn reference(model: &Arc<InferenceModel>, prompt: &[u32]) -> Vec<Vec<(u32, f32)>> {
    let all = SamplingParams {
        logprobs: Some(97),
        max_new_tokens: 1,
        temperature: 0.0,
        ..SamplingParams::default()
    };
    let requests: Vec<_> = (1..prompt.len()).map(|end| request(&prompt[..end], 1)).collect();
    let mut engine = Engine::new(model.clone(), options(64, 2048, None)).unwrap();
    let ids: Vec<_> =
        requests.iter().map(|r| engine.add(r, &Arc::new(all.clone())).unwrap()).collect();
    let mut found = vec![Vec::new(); ids.len()];
    while engine.has_work() {
        for output in engine.step().unwrap() {
            if let EngineOutput::Token { request, token, .. } = output {
                let index = ids.iter().position(|id| *id == request).unwrap();
                found[index] = token.logprobs.unwrap().top_logprobs;
            }
        }
    }
    found
}

#[track_caller]
fn assert_matches(found: &[TokenLogprobs], reference: &[Vec<(u32, f32)>], prompt: &[u32]) {
    assert_eq!(found.len(), prompt.len() - 1);
    for ((found, reference), id) in found.iter().zip(reference).zip(&prompt[1..]) {
        let wanted = reference.iter().find(|(other, _)| other == id).unwrap().1;
        assert!((found.logprob - wanted).abs() < 1e-4, "{} not {wanted}", found.logprob);
        assert_eq!(found.top_logprobs.len(), 3);
        for ((_, found), (_, wanted)) in found.top_logprobs.iter().zip(reference) {
            assert!((found - wanted).abs() < 1e-4, "{found} not {wanted}");
        }
    }
}

#[test]
fn a_prompts_log_probabilities_are_those_of_sampling_its_tokens() {
    let model = model(Precision::F32);
    let prompts = [prompt(150, 2), prompt(71, 5), prompt(1, 9), prompt(300, 4)];
    let references: Vec<_> = prompts.iter().map(|prompt| reference(&model, prompt)).collect();
    let requests: Vec<_> = prompts.iter().map(|prompt| request(prompt, 3)).collect();
    let (_, expected) = prefilled(
        &mut Engine::new(model.clone(), options(64, 512, None)).unwrap(),
        &requests,
        &sampling(8),
    );
    // Whole, in small chunks, fewer sequences than samples, and a KV cache that preempts.
    for limits in [
        options(64, 2048, None),
        options(8, 16, None),
        options(2, 64, None),
        options(64, 64, Some(6 * PAGE_SIZE)),
    ] {
        let mut engine = Engine::new(model.clone(), limits).unwrap();
        let (reports, tokens) = prefilled(&mut engine, &requests, &asking(3));
        assert_eq!(tokens, expected);
        for (((_, logprobs), reference), prompt) in reports.iter().zip(&references).zip(&prompts) {
            assert_matches(logprobs.as_ref().unwrap(), reference, prompt);
        }
    }
}

#[test]
fn a_cached_prompt_is_computed_again_for_its_log_probabilities() {
    let model = model(Precision::F32);
    let prompt = prompt(200, 3);
    let mut engine = Engine::new(model.clone(), options(64, 2048, None)).unwrap();
    let cached = 200 / PAGE_SIZE * PAGE_SIZE;
    for (sampling, expected) in [(sampling(2), 0), (sampling(2), cached), (asking(3), 0)] {
        let (reports, _) = prefilled(&mut engine, &[request(&prompt, 1)], &sampling);
        let [(found, logprobs)] = &reports[..] else { panic!("{reports:?}") };
        assert_eq!(*found, expected);
        if let Some(logprobs) = logprobs {
            assert_matches(logprobs, &reference(&model, &prompt), &prompt);
        }
        assert_eq!(logprobs.is_some(), sampling.prompt_logprobs.is_some());
    }
    assert_eq!(engine.stats().cached_tokens, cached as u64);
}
