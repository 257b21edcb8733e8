//! The draw of one token.

use embodied_r_kernels::sample::{Scan, Truncation};

use super::logits::{StopTokens, edited};
use super::{Report, Sampling, Token};

/// What a sequence has so far, for the penalties.
#[derive(Debug, Clone, Copy)]
pub(crate) struct History<'a> {
    /// Ids of the prompt.
    pub(crate) prompt: &'a [u32],
    /// Ids of the completion.
    pub(crate) completion: &'a [u32],
}

/// Draws the token at `uniform`, a number in [0, 1), of the cumulative distribution over the ids that
/// are left, in the ids' order.
///
/// The parameters act in the order of vLLM's sampler, so that a request gives the same distribution
/// there and here: allowed ids, bars of stop tokens, bias, repetition penalty, frequency and presence
/// penalties, temperature, min-p, top-k, top-p. At temperature 0 the likeliest token after the
/// penalties is taken, the one with the lowest id among equals.
///
/// `transformers` has min-p behind top-p: where both are set, its top-p counts probability that min-p
/// then drops, and ours does not. Its top-k, as ours, keeps the tokens that are as likely as the k-th.
///
/// Where the parameters leave no token, as allowed ids that are all barred stop tokens do, the stop
/// tokens are free again; if none is left even so, the first allowed id is taken, or 0.
///
/// # Shapes
/// `logits` (vocabulary).
pub(crate) fn draw(
    logits: &[f32],
    sampling: &Sampling,
    history: History<'_>,
    uniform: f64,
) -> Token {
    let greedy = sampling.temperature == 0.0;
    let raw = Scan::new(logits, if greedy { 1.0 } else { 1.0 / sampling.temperature });
    let chosen = [StopTokens::Barred, StopTokens::Free].into_iter().find_map(|stop| {
        match edited(logits, sampling, history, stop) {
            Some(edited) => choose(&Scan::new(&edited, raw.scale()), sampling, uniform),
            None => choose(&raw, sampling, uniform),
        }
    });
    let id = chosen.unwrap_or_else(|| {
        let allowed = sampling.allowed_token_ids.as_deref();
        allowed.and_then(|ids| ids.iter().min()).map_or(0, |id| *id as usize)
    });
    Token {
        id: id as u32,
        logp: raw.log_probability(id) as f32,
        report: sampling.logprobs.map(|count| report(&raw, logits, id, count)),
    }
}

fn choose(scan: &Scan<'_>, sampling: &Sampling, uniform: f64) -> Option<usize> {
    if sampling.temperature == 0.0 {
        return scan.largest();
    }
    let Sampling { top_k, top_p, min_p, .. } = *sampling;
    let to = Truncation { top_k, top_p, min_p };
    let drawn = match to == Truncation::default() {
        true => scan.draw(uniform),
        false => scan.kept(&to).draw(uniform),
    };
    // Beside a logit of ∞ no other has weight, nor has it one itself.
    drawn.or_else(|| scan.largest())
}

fn report(raw: &Scan<'_>, logits: &[f32], id: usize, count: usize) -> Report {
    let plain;
    let plain = match raw.scale() == 1.0 {
        true => raw,
        false => {
            plain = Scan::new(logits, 1.0);
            &plain
        }
    };
    let logprob = |id: usize| plain.log_probability(id) as f32;
    let top = plain.likeliest(count).into_iter().map(|(id, _)| (id, logprob(id as usize)));
    Report { logprob: logprob(id), top: top.collect() }
}

#[cfg(test)]
mod tests;
