//! Micro-batches: completions that go through the model together, and what the loss knows of them.

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::loss::{self, Batch, Counts, LossType, Options, Stats, entropy_threshold};
use crate::model::{Group, Model, TokenScores};
use crate::team::Team;
use crate::update::{Derivative, score_all};

/// Groups, or parts of them, with a value for each completion or each of their tokens, end to end.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MicroBatch {
    /// Prompts with completions.
    pub groups: Vec<Group>,
    /// Whether each completion counts.
    pub kept: Vec<bool>,
    /// The advantage of each completion.
    pub advantages: Vec<f64>,
    /// Log-probabilities of the tokens when they were sampled, as the update computes them; empty if
    /// the policy has not changed since.
    pub old: Vec<f64>,
    /// Log-probabilities under the reference; empty without one.
    pub reference: Vec<f64>,
    /// Log-probabilities that the sampler gave; empty if it computes as the update does.
    pub sampling: Vec<f64>,
}

/// Which tokens the policy's part of the loss takes in.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Selection {
    /// All.
    All,
    /// The share of the micro-batch's tokens with the highest entropy.
    Top(f64),
    /// Those with at least this entropy.
    AtLeast(f32),
}

/// What the update's forwards told, summed over micro-batches.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Told {
    /// The loss.
    pub loss: f64,
    /// Divergence and clipping.
    pub stats: Stats,
    /// The sum of the entropies of the tokens that count.
    pub entropy: f64,
    /// The sum of their log-probabilities.
    pub logps: f64,
    /// How many they are.
    pub tokens: f64,
}

impl Told {
    /// What all of some ranks were told.
    pub fn of_all(ranks: Vec<Self>) -> Self {
        ranks
            .into_iter()
            .reduce(|mut all, of_one| {
                all.loss += of_one.loss;
                all.stats.merge(&of_one.stats);
                all.entropy += of_one.entropy;
                all.logps += of_one.logps;
                all.tokens += of_one.tokens;
                all
            })
            .unwrap_or_default()
    }
}

impl MicroBatch {
    /// Tokens of each completion.
    pub fn lengths(&self) -> Vec<usize> {
        let completions = self.groups.iter().flat_map(|group| &group.completions);
        completions.map(Vec::len).collect()
    }

    /// Each completion with its prompt.
    pub fn sequences(&self) -> impl Iterator<Item = (&[u32], &[u32])> {
        self.groups.iter().flat_map(|group| {
            let prompt = group.prompt.as_slice();
            group.completions.iter().map(move |ids| (prompt, ids.as_slice()))
        })
    }

    /// Tokens of the completions that count.
    pub fn kept_tokens(&self) -> f64 {
        let kept = self.lengths().into_iter().zip(&self.kept).filter(|(_, kept)| **kept);
        kept.map(|(length, _)| length as f64).sum()
    }

    /// The values of the tokens that count, from one value a token.
    pub fn kept_values<'a>(&'a self, values: &'a [f32]) -> impl Iterator<Item = f32> + 'a {
        let mut start = 0;
        let lengths = self.lengths().into_iter().zip(&self.kept);
        lengths.flat_map(move |(length, kept)| {
            let tokens = start..start + length;
            start += length;
            values[if *kept { tokens } else { 0..0 }].iter().copied()
        })
    }

    /// The micro-batch's share of the step's loss with its derivative by each token's log-probability; adds
    /// what the scores tell to `told`.
    ///
    /// # Errors
    /// The scores are not those of this micro-batch.
    pub fn derivative(
        &self,
        options: &Options,
        counts: &Counts,
        scores: &TokenScores,
        selection: Selection,
        told: &mut Told,
    ) -> Result<Derivative> {
        let lengths = self.lengths();
        let tokens = lengths.iter().sum::<usize>();
        if scores.logps.len() != tokens {
            let found = scores.logps.len();
            let what = format!("scored {found} tokens where the batch has {tokens}");
            return Err(crate::Error::Model { what });
        }
        let logps = wide(&scores.logps);
        let selected = self.selected(&scores.entropies, selection);
        let given = |values: &&[f64]| !values.is_empty();
        let output = loss::loss(
            options,
            &Batch {
                logps: &logps,
                old: Some(self.old.as_slice()).filter(given),
                reference: Some(self.reference.as_slice()).filter(given),
                sampling: Some(self.sampling.as_slice()).filter(given),
                selected: selected.as_deref(),
                lengths: &lengths,
                kept: &self.kept,
                advantages: &self.advantages,
            },
            counts,
        );
        told.loss += output.loss;
        told.stats.merge(&output.stats);
        told.entropy += self.kept_values(&scores.entropies).map(f64::from).sum::<f64>();
        told.logps += self.kept_values(&scores.logps).map(f64::from).sum::<f64>();
        told.tokens += self.kept_tokens();
        Ok(output.into())
    }

    /// Which tokens are selected; `None` for all.
    fn selected(&self, entropies: &[f32], selection: Selection) -> Option<Vec<bool>> {
        let threshold = match selection {
            Selection::All => return None,
            Selection::AtLeast(threshold) => threshold,
            Selection::Top(share) => {
                entropy_threshold(self.kept_values(entropies).collect(), share)?
            }
        };
        Some(entropies.iter().map(|entropy| *entropy >= threshold).collect())
    }
}

/// What each micro-batch's loss is divided by: the counts of the whole step, but for `bnpo`, which
/// takes the mean over micro-batches as TRL does. The step is that of all ranks of `team`.
///
/// # Errors
/// A rank is lost.
pub fn counts(
    batches: &[MicroBatch],
    loss_type: LossType,
    max_completion_length: usize,
    team: &Team,
) -> Result<Vec<Counts>> {
    let sequences = batches.iter().map(|batch| batch.kept.len()).sum::<usize>() as f64;
    let tokens: f64 = batches.iter().map(MicroBatch::kept_tokens).sum();
    let sums = team.sums(vec![sequences, tokens, batches.len() as f64])?;
    let (sequences, tokens, all_batches) = (sums[0], sums[1], sums[2]);
    let by_batch = loss_type == LossType::Bnpo;
    let counts = batches
        .iter()
        .map(|batch| Counts {
            sequences,
            tokens: match by_batch {
                true => batch.kept_tokens().max(1.0) * all_batches,
                false => tokens,
            },
            max_completion_length: max_completion_length as f64,
        })
        .collect();
    Ok(counts)
}

/// Which tokens a step over `batches` takes in, if that is the `share` of them with the highest entropy.
///
/// With several micro-batches their scores are computed first, so that the quantile is that of the
/// whole step however it is cut.
///
/// # Errors
/// What the model returns.
pub fn selection<M: Model>(
    model: &M,
    batches: &[MicroBatch],
    temperature: f64,
    share: f64,
    team: &Team,
) -> Result<Selection> {
    if share >= 1.0 {
        return Ok(Selection::All);
    }
    if team.size() == 1 && batches.len() < 2 {
        return Ok(Selection::Top(share));
    }
    let groups: Vec<Vec<Group>> = batches.iter().map(|batch| batch.groups.clone()).collect();
    let mut entropies = Vec::new();
    for (batch, scores) in batches.iter().zip(score_all(model, &groups, temperature, team)?) {
        entropies.extend(batch.kept_values(&scores.entropies));
    }
    let entropies = team.gather(entropies)?.concat();
    Ok(entropy_threshold(entropies, share).map_or(Selection::All, Selection::AtLeast))
}

/// Numbers in double precision.
pub fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().copied().map(f64::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(kept: [bool; 2]) -> MicroBatch {
        MicroBatch {
            groups: vec![Group { prompt: vec![1], completions: vec![vec![2, 3], vec![4]] }],
            kept: kept.to_vec(),
            advantages: vec![1.0, -1.0],
            ..MicroBatch::default()
        }
    }

    fn scores() -> TokenScores {
        TokenScores { logps: vec![-1.0, -2.0, -3.0], entropies: vec![0.1, 0.3, 0.2] }
    }

    fn derivative(batch: &MicroBatch, selection: Selection) -> (Vec<f32>, Told) {
        let options = Options { loss_type: LossType::Dapo, ..Options::default() };
        let alone = Team::default();
        let counts = counts(std::slice::from_ref(batch), options.loss_type, 8, &alone).unwrap()[0];
        let mut told = Told::default();
        let found = batch.derivative(&options, &counts, &scores(), selection, &mut told);
        (found.unwrap().dlogps, told)
    }

    #[test]
    fn what_does_not_count_is_in_no_sum() {
        let (d, told) = derivative(&batch([true, false]), Selection::All);
        assert_eq!(d, [-0.5, -0.5, 0.0]);
        assert_eq!((told.tokens, told.logps), (2.0, -3.0));
        assert!((told.entropy - 0.4).abs() < 1e-6);
    }

    #[test]
    fn only_the_uncertain_tokens_are_learnt_where_the_selection_says_so() {
        let third = 1.0 / 3.0;
        let (top, _) = derivative(&batch([true, true]), Selection::Top(0.5));
        assert_eq!(top, [0.0, -third, third], "the median and what is above");
        let (given, _) = derivative(&batch([true, true]), Selection::AtLeast(0.25));
        assert_eq!(given, [0.0, -third, 0.0]);
    }

    #[test]
    fn a_completion_that_does_not_count_takes_no_part_in_the_quantile() {
        let (d, _) = derivative(&batch([true, false]), Selection::Top(0.5));
        assert_eq!(d, [0.0, -0.5, 0.0]);
    }

    #[test]
    fn scores_of_another_batch_are_refused() {
        let batch = batch([true, true]);
        let alone = Team::default();
        let counts = counts(std::slice::from_ref(&batch), LossType::Dapo, 8, &alone).unwrap()[0];
        let scores = TokenScores { logps: vec![-1.0], entropies: vec![0.1] };
        let told = &mut Told::default();
        let found = batch.derivative(&Options::default(), &counts, &scores, Selection::All, told);
        assert!(found.unwrap_err().to_string().contains("scored 1 tokens"));
    }
}
