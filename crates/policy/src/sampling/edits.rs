//! Logits processors: changes of the logits before temperature and truncation.

use embodied_r_kernels::sample::{LogitChange, LogitEdits};

use super::SamplingParams;

/// A sequence's tokens so far, for the penalties, and those that it never continues with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct History<'a> {
    /// Token ids of the prompt.
    pub(crate) prompt: &'a [u32],
    /// Token ids of the completion.
    pub(crate) completion: &'a [u32],
    /// Token ids that are never sampled ([`ModelConfig::placeholder_token_ids`](crate::ModelConfig)).
    pub(crate) suppressed: &'a [u32],
}

/// Treatment of stop tokens while a completion is shorter than `min_new_tokens`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StopTokens {
    /// Masked.
    Barred,
    /// Sampled like other tokens.
    Free,
}

/// The changes of logits (vocabulary) for these parameters. Ids beyond the vocabulary are ignored.
pub(super) fn edits(
    vocabulary: usize,
    sampling: &SamplingParams,
    history: History<'_>,
    stop: StopTokens,
) -> LogitEdits {
    let is_known = |id: &u32| (*id as usize) < vocabulary;
    let ban = |id: &u32| (*id, LogitChange::Ban);
    let mut changes: Vec<_> = history.suppressed.iter().map(ban).collect();
    if stop == StopTokens::Barred && history.completion.len() < sampling.min_new_tokens {
        changes.extend(sampling.stop_ids.iter().map(ban));
    }
    changes.extend(sampling.logit_bias.iter().map(|(id, bias)| (*id, LogitChange::Bias(*bias))));
    if sampling.repetition_penalty != 1.0 {
        let by = sampling.repetition_penalty as f32;
        let distinct = distinct(vocabulary, history);
        changes.extend(distinct.into_iter().map(|id| (id, LogitChange::RepetitionPenalty(by))));
    }
    let (presence, frequency) = (sampling.presence_penalty, sampling.frequency_penalty);
    if presence != 0.0 || frequency != 0.0 {
        let penalty = |count: f64| LogitChange::Bias(-((frequency * count + presence) as f32));
        let counted = counted(history.completion).into_iter();
        changes.extend(counted.map(|(id, count)| (id, penalty(count))));
    }
    changes.retain(|(id, _)| is_known(id));
    let allowed = sampling.allowed_token_ids.as_deref();
    LogitEdits {
        allowed: allowed.map(|ids| ids.iter().copied().filter(is_known).collect()),
        changes,
    }
}

/// The distinct ids: `RepetitionPenaltyLogitsProcessor` of `transformers` does not count occurrences.
fn distinct(vocabulary: usize, history: History<'_>) -> Vec<u32> {
    let mut seen = vec![0u64; vocabulary.div_ceil(64)];
    let ids = history.prompt.iter().chain(history.completion).copied();
    let is_new = |id: &u32| {
        let (word, bit) = (*id as usize / 64, 1 << (id % 64));
        seen.get_mut(word).is_some_and(|word| {
            let is_new = *word & bit == 0;
            *word |= bit;
            is_new
        })
    };
    ids.filter(is_new).collect()
}

/// The distinct ids with their numbers of occurrences.
fn counted(ids: &[u32]) -> Vec<(u32, f64)> {
    let mut sorted = ids.to_vec();
    sorted.sort_unstable();
    sorted.chunk_by(|a, b| a == b).map(|run| (run[0], run.len() as f64)).collect()
}
