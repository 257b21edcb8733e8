use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const NOTHING: History<'_> = History { prompt: &[], completion: &[], suppressed: &[] };

fn sampling(temperature: f64, top_k: usize, top_p: f64) -> SamplingParams {
    SamplingParams { temperature, top_k, top_p, ..SamplingParams::default() }
}

/// Each token's frequency over an even grid of uniforms.
fn shares(logits: &[f32], sampling: &SamplingParams, history: History<'_>) -> Vec<f64> {
    let n = 10_000;
    let mut counts = vec![0.0; logits.len()];
    for i in 0..n {
        let token = draw(logits, sampling, history, (f64::from(i) + 0.5) / f64::from(n));
        counts[token.id as usize] += 1.0 / f64::from(n);
    }
    counts
}

#[track_caller]
fn close(ours: &[f64], truth: &[f64]) {
    for (a, b) in ours.iter().zip(truth) {
        assert!((a - b).abs() < 2e-4, "{ours:?} is not {truth:?}");
    }
}

#[test]
fn tokens_are_drawn_by_their_probability() {
    let logits = [0.5f32.ln(), 0.3f32.ln(), 0.2f32.ln()];
    close(&shares(&logits, &sampling(1.0, 0, 1.0), NOTHING), &[0.5, 0.3, 0.2]);
    let squares = [0.25 / 0.38, 0.09 / 0.38, 0.04 / 0.38];
    close(&shares(&logits, &sampling(0.5, 0, 1.0), NOTHING), &squares);
}

#[test]
fn suppressed_tokens_are_never_drawn_and_keep_their_share_of_the_log_probabilities() {
    let logits = [0.5f32.ln(), 0.3f32.ln(), 0.2f32.ln()];
    let history = History { suppressed: &[0, 77], ..NOTHING };
    close(&shares(&logits, &sampling(1.0, 0, 1.0), history), &[0.0, 0.6, 0.4]);
    let all = History { suppressed: &[0, 1, 2], ..NOTHING };
    let biased = SamplingParams { logit_bias: vec![(0, 100.0)], ..SamplingParams::greedy() };
    let token = draw(&logits, &SamplingParams { logprobs: Some(1), ..biased }, history, 0.0);
    assert_eq!(token.id, 1);
    assert!((token.logp.exp() - 0.3).abs() < 1e-6, "{}", token.logp);
    assert_eq!(token.logprobs.unwrap().top_logprobs[0].0, 0);
    assert_eq!(draw(&logits, &SamplingParams::default(), all, 0.9).id, 0, "no token is left");
}

#[test]
fn top_k_top_p_and_min_p_keep_the_most_likely_tokens() {
    let logits = [0.2f32.ln(), 0.5f32.ln(), 0.3f32.ln()];
    let of = |sampling: &SamplingParams| shares(&logits, sampling, NOTHING);
    close(&of(&sampling(1.0, 2, 1.0)), &[0.0, 0.625, 0.375]);
    close(&of(&sampling(1.0, 0, 0.6)), &[0.0, 0.625, 0.375]);
    close(&of(&sampling(1.0, 0, 0.4)), &[0.0, 1.0, 0.0]);
    close(&of(&sampling(1.0, 1, 1.0)), &[0.0, 1.0, 0.0]);
    close(&of(&SamplingParams { min_p: 0.5, ..SamplingParams::default() }), &[0.0, 0.625, 0.375]);
}

#[test]
fn top_p_applies_to_the_distribution_after_min_p() {
    // The first two tokens have 0.8 of the whole, and 0.8 / 0.95 of what min-p keeps.
    let logits = [0.5f32.ln(), 0.3f32.ln(), 0.15f32.ln(), 0.05f32.ln()];
    let both = SamplingParams { min_p: 0.2, top_p: 0.82, ..SamplingParams::default() };
    close(&shares(&logits, &both, NOTHING), &[0.625, 0.375, 0.0, 0.0]);
    let top_p = SamplingParams { top_p: 0.82, ..SamplingParams::default() };
    assert!(shares(&logits, &top_p, NOTHING)[2] > 0.0);
}

#[test]
fn greedy_decoding_takes_the_first_of_tied_tokens() {
    let token = draw(&[1.0, 2.0, 2.0], &sampling(0.0, 0, 1.0), NOTHING, 0.99);
    assert_eq!(token.id, 1);
    assert!((f64::from(token.logp) - (1.0 / (2.0 + (-1.0f64).exp())).ln()).abs() < 1e-6);
}

#[test]
fn the_log_probability_is_that_of_the_full_softmax_before_penalties() {
    let logits = [0.75f32.ln(), 0.25f32.ln()];
    let adjusted = SamplingParams {
        top_k: 1,
        logit_bias: vec![(1, 50.0)],
        repetition_penalty: 1.7,
        presence_penalty: 1.0,
        ..SamplingParams::default()
    };
    let token =
        draw(&logits, &adjusted, History { prompt: &[0], completion: &[1], ..NOTHING }, 0.0);
    assert_eq!(token.id, 1);
    assert!((token.logp - 0.25f32.ln()).abs() < 1e-6);
    let half = draw(&logits, &SamplingParams { temperature: 0.5, ..adjusted }, NOTHING, 0.0);
    assert!((half.logp - 0.1f32.ln()).abs() < 1e-6, "{half:?}");
}

#[test]
fn the_repetition_penalty_applies_once_by_the_sign_of_the_logit() {
    let logits = [2.0, -1.0, 1.0, 0.5];
    let penalized = SamplingParams { repetition_penalty: 2.0, ..SamplingParams::greedy() };
    let history = History { prompt: &[0, 0, 0], completion: &[1], ..NOTHING };
    let edits = edits(logits.len(), &penalized, history, StopTokens::Barred);
    assert_eq!(edits.apply(&logits), [1.0, -2.0, 1.0, 0.5]);
}

#[test]
fn presence_and_frequency_penalties_only_count_the_completion() {
    let logits = [1.0, 1.0, 1.0];
    let penalized = SamplingParams {
        presence_penalty: 0.5,
        frequency_penalty: 0.25,
        ..SamplingParams::default()
    };
    let history = History { prompt: &[0, 0], completion: &[1, 2, 1], ..NOTHING };
    let edits = edits(logits.len(), &penalized, history, StopTokens::Barred);
    assert_eq!(edits.apply(&logits), [1.0, 0.0, 0.25]);
}

#[test]
fn no_stop_token_is_sampled_before_min_new_tokens() {
    let logits = [5.0, 4.0, 3.0];
    let longer =
        SamplingParams { min_new_tokens: 2, stop_ids: vec![0, 99], ..SamplingParams::greedy() };
    let after =
        |completion| draw(&logits, &longer, History { prompt: &[], completion, ..NOTHING }, 0.0).id;
    assert_eq!((after(&[]), after(&[1]), after(&[1, 1])), (1, 1, 0));
}

#[test]
fn only_allowed_tokens_are_sampled() {
    let logits = [5.0, 0.3f32.ln(), 9.0, 0.1f32.ln()];
    let allowed =
        SamplingParams { allowed_token_ids: Some([3, 1].into()), ..SamplingParams::default() };
    close(&shares(&logits, &allowed, NOTHING), &[0.0, 0.75, 0.0, 0.25]);
}

#[test]
fn stop_tokens_are_allowed_if_no_other_token_is() {
    let stuck = SamplingParams {
        allowed_token_ids: Some([2, 1].into()),
        stop_ids: vec![1, 2],
        min_new_tokens: 5,
        ..SamplingParams::greedy()
    };
    assert_eq!(draw(&[9.0, 1.0, 2.0], &stuck, NOTHING, 0.5).id, 2);
}

#[test]
fn without_any_probability_the_first_allowed_token_is_returned() {
    let barred = [f32::NEG_INFINITY; 4];
    let allowed =
        SamplingParams { allowed_token_ids: Some([3, 2].into()), ..SamplingParams::default() };
    assert_eq!(draw(&barred, &allowed, NOTHING, 0.5).id, 2);
    assert_eq!(draw(&[f32::NAN; 4], &SamplingParams::default(), NOTHING, 0.5).id, 0);
    assert_eq!(draw(&[0.0, f32::INFINITY], &SamplingParams::default(), NOTHING, 0.1).id, 1);
}

#[test]
fn only_non_finite_logits_have_a_log_probability_of_nan() {
    let logp = |logits: &[f32], temperature: f64| {
        let sampling = SamplingParams { temperature, ..SamplingParams::default() };
        draw(logits, &sampling, NOTHING, 0.5).logp
    };
    for temperature in [0.0, 1e-310, 1e-30, 1.0, 1e300] {
        assert!(logp(&[f32::NAN; 300], temperature).is_nan());
        assert!(logp(&[0.0, f32::INFINITY], temperature).is_nan());
        assert!(logp(&[f32::NEG_INFINITY; 4], temperature).is_nan());
        for logits in [&[3.0, 1.0][..], &[-1e30, 1e30], &[f32::NEG_INFINITY, 0.0], &[0.0; 300]] {
            assert!(!logp(logits, temperature).is_nan(), "{logits:?} at {temperature}");
        }
    }
}

#[test]
fn logprobs_are_at_temperature_1_before_penalties_with_ties_by_id() {
    let logits = [0.2f32.ln(), 0.4f32.ln(), 0.2f32.ln(), 0.2f32.ln()];
    let adjusted = SamplingParams {
        temperature: 3.0,
        logit_bias: vec![(3, 90.0)],
        logprobs: Some(3),
        ..SamplingParams::default()
    };
    let report = draw(&logits, &adjusted, NOTHING, 0.5).logprobs.unwrap();
    assert!((report.logprob - 0.2f32.ln()).abs() < 1e-6);
    assert_eq!(report.top_logprobs.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [1, 0, 2]);
    for (at, truth) in report.top_logprobs.iter().zip([0.4f32, 0.2, 0.2]) {
        assert!((at.1 - truth.ln()).abs() < 1e-6);
    }
    let alone = SamplingParams { logprobs: Some(0), ..SamplingParams::greedy() };
    assert_eq!(draw(&logits, &alone, NOTHING, 0.0).logprobs.unwrap().top_logprobs, []);
}

/// Reference implementation of the whole sampler in f64 by sorting: the probabilities, and the smallest margin of a
/// truncation.
fn plain(logits: &[f32], s: &SamplingParams, history: History<'_>) -> (Vec<f64>, f64) {
    let completed: BTreeSet<u32> = history.completion.iter().copied().collect();
    let seen: BTreeSet<u32> = history.prompt.iter().chain(history.completion).copied().collect();
    let mut x: Vec<f64> = logits.iter().copied().map(f64::from).collect();
    for (id, x) in (0u32..).zip(&mut x) {
        let short = history.completion.len() < s.min_new_tokens;
        let allowed = s.allowed_token_ids.as_ref().is_none_or(|ids| ids.contains(&id));
        if !allowed || (short && s.stop_ids.contains(&id)) {
            *x = f64::NEG_INFINITY;
        }
        for (_, bias) in s.logit_bias.iter().filter(|(biased, _)| *biased == id) {
            *x += f64::from(*bias);
        }
        if seen.contains(&id) {
            *x = if *x > 0.0 { *x / s.repetition_penalty } else { *x * s.repetition_penalty };
        }
        if completed.contains(&id) {
            let count = history.completion.iter().filter(|other| **other == id).count();
            *x -= s.presence_penalty + s.frequency_penalty * count as f64;
        }
        *x /= s.temperature;
    }
    let top = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut p: Vec<f64> = x.iter().map(|x| (x - top).exp()).collect();
    let mut margin = f64::INFINITY;
    for p in &mut p {
        margin = if s.min_p > 0.0 { margin.min((*p - s.min_p).abs()) } else { margin };
        *p = if *p >= s.min_p { *p } else { 0.0 };
    }
    let mut order: Vec<usize> = (0..p.len()).filter(|i| p[*i] > 0.0).collect();
    order.sort_by(|a, b| p[*b].total_cmp(&p[*a]));
    if s.top_k > 0 && s.top_k < order.len() {
        let (last, next) = (p[order[s.top_k - 1]], p[order[s.top_k]]);
        margin = margin.min((last / next - 1.0).abs());
        order.truncate(s.top_k);
    }
    let total: f64 = order.iter().map(|i| p[*i]).sum();
    let mut sum = 0.0;
    order.retain(|i| {
        let open = s.top_p >= 1.0 || sum < s.top_p * total;
        margin = if s.top_p < 1.0 { margin.min((sum / total - s.top_p).abs()) } else { margin };
        sum += p[*i];
        open
    });
    let total: f64 = order.iter().map(|i| p[*i]).sum();
    let kept = |i| if order.contains(&i) { p[i] / total } else { 0.0 };
    ((0..p.len()).map(kept).collect(), margin)
}

const TOKENS: u32 = 400;

fn parameters() -> impl Strategy<Value = SamplingParams> {
    let truncation = (
        prop_oneof![Just(0), 1..500usize],
        prop_oneof![Just(1.0), 0.05..1.0f64],
        prop_oneof![Just(0.0), 1e-4..0.5f64],
    );
    let penalties = (
        prop_oneof![Just(1.0), 0.5..2.0f64],
        prop_oneof![Just(0.0), -2.0..2.0f64],
        prop_oneof![Just(0.0), -2.0..2.0f64],
    );
    let bias = prop::collection::vec((0..TOKENS, -5f32..5.0), 0..4);
    let allowed = prop::option::weighted(0.3, prop::collection::vec(0..TOKENS, 1..60));
    let stop = (prop::collection::vec(0..TOKENS, 0..3), 0..12usize);
    (0.2..3.0f64, truncation, penalties, bias, allowed, stop).prop_map(
        |(temperature, (top_k, top_p, min_p), penalties, logit_bias, allowed, stop)| {
            SamplingParams {
                temperature,
                top_k,
                top_p,
                min_p,
                repetition_penalty: penalties.0,
                presence_penalty: penalties.1,
                frequency_penalty: penalties.2,
                logit_bias,
                allowed_token_ids: allowed.map(Into::into),
                stop_ids: stop.0,
                min_new_tokens: stop.1,
                ..SamplingParams::default()
            }
        },
    )
}

proptest! {
    #[test]
    fn draws_match_the_reference_implementation(
        logits in prop::collection::vec(-6f32..6.0, TOKENS as usize),
        sampling in parameters(),
        prompt in prop::collection::vec(0..TOKENS, 0..40),
        completion in prop::collection::vec(0..TOKENS / 8, 0..24),
        uniform in 0.0..1.0f64,
    ) {
        let history = History { prompt: &prompt, completion: &completion, ..NOTHING };
        let (probabilities, margin) = plain(&logits, &sampling, history);
        prop_assume!(margin > 1e-5 && probabilities.iter().all(|p| p.is_finite()));
        let id = draw(&logits, &sampling, history, uniform).id as usize;
        let before: f64 = probabilities[..id].iter().sum();
        let slack = 1e-5;
        prop_assert!(probabilities[id] > 0.0, "{id} is barred");
        prop_assert!(before - slack <= uniform && uniform <= before + probabilities[id] + slack);
    }
}
