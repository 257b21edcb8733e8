//! Micro-batches: completions that share a forward pass, with the inputs of their loss.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::loss::{self, LossBatch, LossNormalizer, LossStats, LossType, entropy_threshold};
use crate::model::{Group, Model, Prompt, TokenScores};
use crate::settings::LossSettings;
use crate::update::{LossGradient, score_all};
use embodied_r_dist::ProcessGroup;

/// Groups, or parts of groups, with concatenated values per completion or per token.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MicroBatch {
    /// Prompts with completions.
    pub groups: Arc<[Group]>,
    /// Whether each completion contributes to the loss.
    pub unmasked: Vec<bool>,
    /// The advantage of each completion.
    pub advantages: Vec<f64>,
    /// Old log-probabilities: under the policy that sampled, in the update's precision; empty if the policy has not
    /// changed since.
    pub old: Vec<f64>,
    /// Log-probabilities under the reference model; empty without one.
    pub reference: Vec<f64>,
    /// Log-probabilities reported by the sampler; empty if it computes exactly as the update does.
    pub sampling: Vec<f64>,
}

/// Which tokens contribute to the policy loss.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum TokenSelection {
    /// All.
    All,
    /// The given fraction of the micro-batch's tokens, by highest entropy.
    Top(f64),
    /// Tokens with at least this entropy.
    AtLeast(f32),
}

/// Statistics of an update, summed over micro-batches.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct UpdateStats {
    /// The loss.
    pub loss: f64,
    /// KL and clip ratios.
    pub loss_stats: LossStats,
    /// Sum of the entropies over unmasked tokens.
    pub entropy: f64,
    /// Sum of the log-probabilities over unmasked tokens.
    pub logps: f64,
    /// Number of unmasked tokens.
    pub tokens: f64,
}

impl UpdateStats {
    /// Sums the statistics of all ranks.
    pub fn merge_ranks(ranks: Vec<Self>) -> Self {
        ranks
            .into_iter()
            .reduce(|mut all, of_one| {
                all.loss += of_one.loss;
                all.loss_stats.merge(&of_one.loss_stats);
                all.entropy += of_one.entropy;
                all.logps += of_one.logps;
                all.tokens += of_one.tokens;
                all
            })
            .unwrap_or_default()
    }
}

impl AsRef<[Group]> for MicroBatch {
    fn as_ref(&self) -> &[Group] {
        &self.groups
    }
}

impl MicroBatch {
    /// Length of each completion in tokens.
    pub fn lengths(&self) -> Vec<usize> {
        let completions = self.groups.iter().flat_map(|group| &group.completions);
        completions.map(Vec::len).collect()
    }

    /// Each completion with its prompt.
    pub fn sequences(&self) -> impl Iterator<Item = (&Prompt, &[u32])> {
        self.groups.iter().flat_map(|group| {
            let prompt = &group.prompt;
            group.completions.iter().map(move |ids| (prompt, ids.as_slice()))
        })
    }

    /// Number of tokens in unmasked completions.
    pub fn unmasked_tokens(&self) -> f64 {
        let unmasked =
            self.lengths().into_iter().zip(&self.unmasked).filter(|(_, unmasked)| **unmasked);
        unmasked.map(|(length, _)| length as f64).sum()
    }

    /// The values of unmasked tokens, given one value per token.
    pub fn unmasked_values<'a>(&'a self, values: &'a [f32]) -> impl Iterator<Item = f32> + 'a {
        let mut start = 0;
        let lengths = self.lengths().into_iter().zip(&self.unmasked);
        lengths.flat_map(move |(length, unmasked)| {
            let tokens = start..start + length;
            start += length;
            values[if *unmasked { tokens } else { 0..0 }].iter().copied()
        })
    }

    /// This micro-batch's share of the step's loss, with its derivative by each log-probability; adds its statistics to
    /// `totals`.
    ///
    /// # Errors
    /// The number of scores differs from the number of tokens.
    pub fn derivative(
        &self,
        settings: &LossSettings,
        normalizer: &LossNormalizer,
        scores: &TokenScores,
        selection: TokenSelection,
        totals: &mut UpdateStats,
    ) -> Result<LossGradient> {
        let lengths = self.lengths();
        let tokens = lengths.iter().sum::<usize>();
        if scores.logps.len() != tokens {
            let found = scores.logps.len();
            let what = format!(
                "returned log-probabilities for {found} tokens, but the batch has {tokens}"
            );
            return Err(crate::Error::Model { what });
        }
        let logps = to_f64(&scores.logps);
        let selected = self.selected(&scores.entropies, selection);
        let given = |values: &&[f64]| !values.is_empty();
        let output = loss::loss(
            settings,
            &LossBatch {
                logps: &logps,
                old: Some(self.old.as_slice()).filter(given),
                reference: Some(self.reference.as_slice()).filter(given),
                sampling: Some(self.sampling.as_slice()).filter(given),
                selected: selected.as_deref(),
                lengths: &lengths,
                unmasked: &self.unmasked,
                advantages: &self.advantages,
            },
            normalizer,
        );
        totals.loss += output.loss;
        totals.loss_stats.merge(&output.stats);
        totals.entropy += self.unmasked_values(&scores.entropies).map(f64::from).sum::<f64>();
        totals.logps += self.unmasked_values(&scores.logps).map(f64::from).sum::<f64>();
        totals.tokens += self.unmasked_tokens();
        Ok(output.into())
    }

    /// The token mask of `selection`; `None` selects all.
    fn selected(&self, entropies: &[f32], selection: TokenSelection) -> Option<Vec<bool>> {
        let threshold = match selection {
            TokenSelection::All => return None,
            TokenSelection::AtLeast(threshold) => threshold,
            TokenSelection::Top(share) => {
                entropy_threshold(self.unmasked_values(entropies).collect(), share)?
            }
        };
        Some(entropies.iter().map(|entropy| *entropy >= threshold).collect())
    }
}

/// The normalizer of each micro-batch's loss: the counts of the entire step over all ranks, except for `bnpo`, which
/// averages over micro-batches as TRL does.
///
/// # Errors
/// A rank is lost.
pub fn loss_normalizers(
    batches: &[MicroBatch],
    loss_type: LossType,
    max_completion_length: usize,
    process_group: &ProcessGroup,
) -> Result<Vec<LossNormalizer>> {
    let sequences = batches.iter().map(|batch| batch.unmasked.len()).sum::<usize>() as f64;
    let tokens: f64 = batches.iter().map(MicroBatch::unmasked_tokens).sum();
    let sums = process_group.all_reduce_sum(vec![sequences, tokens, batches.len() as f64])?;
    let (sequences, tokens, all_batches) = (sums[0], sums[1], sums[2]);
    let by_batch = loss_type == LossType::Bnpo;
    let loss_normalizers = batches
        .iter()
        .map(|batch| LossNormalizer {
            sequences,
            tokens: match by_batch {
                true => batch.unmasked_tokens().max(1.0) * all_batches,
                false => tokens,
            },
            max_completion_length: max_completion_length as f64,
        })
        .collect();
    Ok(loss_normalizers)
}

/// Selects the tokens of a step over `batches` by entropy, keeping the fraction `share`.
///
/// With several micro-batches or ranks, an extra forward pass computes all entropies first, so that the quantile is
/// that of the entire step.
///
/// # Errors
/// The model fails.
pub fn selection<M: Model>(
    model: &M,
    batches: &[MicroBatch],
    temperature: f64,
    share: f64,
    process_group: &ProcessGroup,
) -> Result<TokenSelection> {
    if share >= 1.0 {
        return Ok(TokenSelection::All);
    }
    if process_group.world_size() == 1 && batches.len() < 2 {
        return Ok(TokenSelection::Top(share));
    }
    let mut entropies = Vec::new();
    for (batch, scores) in
        batches.iter().zip(score_all(model, batches, temperature, process_group)?)
    {
        entropies.extend(batch.unmasked_values(&scores.entropies));
    }
    let entropies = process_group.all_gather(entropies)?.concat();
    Ok(entropy_threshold(entropies, share).map_or(TokenSelection::All, TokenSelection::AtLeast))
}

/// Converts to double precision.
pub fn to_f64(values: &[f32]) -> Vec<f64> {
    values.iter().copied().map(f64::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(unmasked: [bool; 2]) -> MicroBatch {
        MicroBatch {
            groups: [Group { prompt: vec![1].into(), completions: vec![vec![2, 3], vec![4]] }]
                .into(),
            unmasked: unmasked.to_vec(),
            advantages: vec![1.0, -1.0],
            ..MicroBatch::default()
        }
    }

    fn scores() -> TokenScores {
        TokenScores { logps: vec![-1.0, -2.0, -3.0], entropies: vec![0.1, 0.3, 0.2] }
    }

    fn derivative(batch: &MicroBatch, selection: TokenSelection) -> (Vec<f32>, UpdateStats) {
        let settings = LossSettings::default();
        let alone = ProcessGroup::default();
        let normalizer =
            loss_normalizers(std::slice::from_ref(batch), settings.loss_type, 8, &alone).unwrap()
                [0];
        let mut totals = UpdateStats::default();
        let found = batch.derivative(&settings, &normalizer, &scores(), selection, &mut totals);
        (found.unwrap().dlogps, totals)
    }

    #[test]
    fn masked_completions_are_excluded_from_all_sums() {
        let (d, totals) = derivative(&batch([true, false]), TokenSelection::All);
        assert_eq!(d, [-0.5, -0.5, 0.0]);
        assert_eq!((totals.tokens, totals.logps), (2.0, -3.0));
        assert!((totals.entropy - 0.4).abs() < 1e-6);
    }

    #[test]
    fn only_high_entropy_tokens_are_learned_with_a_selection() {
        let third = 1.0 / 3.0;
        let (top, _) = derivative(&batch([true, true]), TokenSelection::Top(0.5));
        assert_eq!(top, [0.0, -third, third], "the median and above");
        let (given, _) = derivative(&batch([true, true]), TokenSelection::AtLeast(0.25));
        assert_eq!(given, [0.0, -third, 0.0]);
    }

    #[test]
    fn a_masked_completion_is_excluded_from_the_quantile() {
        let (d, _) = derivative(&batch([true, false]), TokenSelection::Top(0.5));
        assert_eq!(d, [0.0, -0.5, 0.0]);
    }

    #[test]
    fn scores_of_another_batch_are_refused() {
        let batch = batch([true, true]);
        let alone = ProcessGroup::default();
        let normalizer =
            loss_normalizers(std::slice::from_ref(&batch), LossType::Dapo, 8, &alone).unwrap()[0];
        let scores = TokenScores { logps: vec![-1.0], entropies: vec![0.1] };
        let totals = &mut UpdateStats::default();
        let found = batch.derivative(
            &LossSettings { loss_type: LossType::Grpo, ..LossSettings::default() },
            &normalizer,
            &scores,
            TokenSelection::All,
            totals,
        );
        assert!(found.unwrap_err().to_string().contains("log-probabilities for 1 tokens"));
    }
}
