//! What a request's parameters make of the logits, before temperature and truncation.

use super::{History, Sampling};

/// What becomes of the stop tokens of a completion that is shorter than `min_new_tokens`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StopTokens {
    /// They are not drawn.
    Barred,
    /// They are drawn as others.
    Free,
}

/// The logits with bars, bias and penalties; none where these leave them as they are.
pub(super) fn edited(
    logits: &[f32],
    sampling: &Sampling,
    history: History<'_>,
    stop: StopTokens,
) -> Option<Vec<f32>> {
    let too_short = history.completion.len() < sampling.min_new_tokens;
    let bar = stop == StopTokens::Barred && too_short && !sampling.stop_ids.is_empty();
    let repetition = sampling.repetition_penalty != 1.0;
    let counts = sampling.presence_penalty != 0.0 || sampling.frequency_penalty != 0.0;
    let biased = !sampling.logit_bias.is_empty();
    let allowed = sampling.allowed_token_ids.as_deref();
    if !(bar || repetition || counts || biased || allowed.is_some()) {
        return None;
    }
    let mut edited = match allowed {
        Some(ids) => only(logits, ids),
        None => logits.to_vec(),
    };
    if bar {
        for id in &sampling.stop_ids {
            change(&mut edited, *id, |_| f32::NEG_INFINITY);
        }
    }
    for (id, bias) in &sampling.logit_bias {
        change(&mut edited, *id, |x| x + bias);
    }
    if repetition {
        penalise_repetition(&mut edited, sampling.repetition_penalty as f32, history);
    }
    if counts {
        let (presence, frequency) = (sampling.presence_penalty, sampling.frequency_penalty);
        for (id, count) in counted(history.completion) {
            change(&mut edited, id, |x| x - (frequency * count + presence) as f32);
        }
    }
    Some(edited)
}

/// The logits of some tokens; those of all others are -∞.
fn only(logits: &[f32], ids: &[u32]) -> Vec<f32> {
    let mut edited = vec![f32::NEG_INFINITY; logits.len()];
    for id in ids {
        if let Some(logit) = logits.get(*id as usize) {
            change(&mut edited, *id, |_| *logit);
        }
    }
    edited
}

/// `RepetitionPenaltyLogitsProcessor` of `transformers`: once for each token that is there, however
/// often.
fn penalise_repetition(logits: &mut [f32], penalty: f32, history: History<'_>) {
    let mut seen = vec![0u64; logits.len().div_ceil(64)];
    for id in history.prompt.iter().chain(history.completion) {
        let (word, bit) = (*id as usize / 64, 1 << (id % 64));
        let Some(word) = seen.get_mut(word).filter(|word| **word & bit == 0) else { continue };
        *word |= bit;
        change(logits, *id, |x| if x > 0.0 { x / penalty } else { x * penalty });
    }
}

/// The distinct ids, and how often each is there.
fn counted(ids: &[u32]) -> Vec<(u32, f64)> {
    let mut sorted = ids.to_vec();
    sorted.sort_unstable();
    sorted.chunk_by(|a, b| a == b).map(|run| (run[0], run.len() as f64)).collect()
}

fn change(logits: &mut [f32], id: u32, to: impl FnOnce(f32) -> f32) {
    if let Some(logit) = logits.get_mut(id as usize) {
        *logit = to(*logit);
    }
}
