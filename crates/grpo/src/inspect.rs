//! The loss and its gradients on given tokens, to hold beside other programs.

use indexmap::IndexMap;
use serde::Serialize;

use crate::batch_file::BatchFile;
use crate::batches::{Lengths, pack};
use crate::error::{Error, Result};
use crate::loss::LossType;
use crate::micro_batch::{self, MicroBatch, Told};
use crate::model::{Gradients, Group, Model, Training};
use crate::settings::LossSettings;
use crate::team::Team;
use crate::update::{backward, passes};

/// Tokens that go through the model together. The batch's loss does not depend on it.
const TOKENS_TOGETHER: usize = 8192;

/// A loss, what it is made of, and the norms of its gradients.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LossReport {
    /// The loss.
    pub loss: f64,
    /// The mean divergence from the reference by token, as the loss takes it; `None` without
    /// `ref_logps`.
    pub kl: Option<f64>,
    /// The mean entropy of the tokens that count, in nats.
    pub entropy: f64,
    /// Their mean log-probability.
    pub mean_logp: f64,
    /// Shares of clipped ratios.
    pub clip_ratio: ClipRatio,
    /// The gradient's norm over all tensors, not clipped.
    pub grad_norm: f64,
    /// Each tensor's, by its name in checkpoints. A head that is tied counts with the embedding.
    pub grad_norms: IndexMap<String, f64>,
}

/// Shares of clipped ratios, under TRL's names.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ClipRatio {
    /// Below, over all ratios.
    pub low_mean: f64,
    /// Below, the least of a completion.
    pub low_min: f64,
    /// Above, over all ratios.
    pub high_mean: f64,
    /// Above, the greatest of a completion.
    pub high_max: f64,
    /// On either side, over all ratios.
    pub region_mean: f64,
}

/// The loss of `batch` under `model`, as one optimiser step of one micro-batch has it.
///
/// With `mask_truncated_completions` a completion that does not end in one of `stop_ids` does not
/// count.
///
/// # Errors
/// `beta` is above 0 and the batch has no `ref_logps`, or a sequence is not one that the model takes.
pub fn loss<M: Model>(
    model: &M,
    batch: &BatchFile,
    settings: &LossSettings,
    stop_ids: &[u32],
) -> Result<LossReport> {
    let batches = micro_batches(batch, settings, stop_ids);
    if settings.beta > 0.0 && batches.iter().any(|batch| batch.reference.is_empty()) {
        return Err(Error::NoReference);
    }
    let options = settings.options();
    // However it is cut for memory's sake, the file is one micro-batch.
    let (alone, longest) = (Team::default(), settings.max_completion_length);
    let counts = micro_batch::counts(&batches, LossType::Dapo, longest, &alone)?;
    let (temperature, share) = (settings.temperature, settings.top_entropy_quantile);
    let selection = micro_batch::selection(model, &batches, temperature, share, &alone)?;
    let mut gradients = model.zero_gradients()?;
    let mut told = Told::default();
    let groups: Vec<Vec<Group>> = batches.iter().map(|batch| batch.groups.clone()).collect();
    let training = Training { temperature, noise: 0, tape: None };
    for pass in passes(&groups) {
        backward(
            model,
            &groups,
            pass,
            &training,
            &mut gradients,
            &mut |index, scores| {
                let (batch, counts) = (&batches[index], &counts[index]);
                Ok(batch.derivative(&options, counts, scores, selection, &mut told)?.dlogps)
            },
            &mut |_| (),
        )?;
    }
    let norm = |(name, _): (String, _)| -> Result<(String, f64)> {
        let missing = || Error::Model { what: format!("has no gradient for `{name}`") };
        let gradient = gradients.get(&name).ok_or_else(missing)?;
        Ok((name, embodied_r_kernels::memory::square_sum_of(gradient)?.sqrt()))
    };
    let stats = &told.stats;
    Ok(LossReport {
        loss: told.loss,
        kl: stats.kl(),
        entropy: told.entropy / told.tokens.max(1.0),
        mean_logp: told.logps / told.tokens.max(1.0),
        clip_ratio: ClipRatio {
            low_mean: stats.clip_low_mean(),
            low_min: stats.clip_low_min(),
            high_mean: stats.clip_high_mean(),
            high_max: stats.clip_high_max(),
            region_mean: stats.clip_low_mean() + stats.clip_high_mean(),
        },
        grad_norm: gradients.norm()?,
        grad_norms: model.parameters().into_iter().map(norm).collect::<Result<_>>()?,
    })
}

fn micro_batches(batch: &BatchFile, settings: &LossSettings, stop_ids: &[u32]) -> Vec<MicroBatch> {
    let lengths: Vec<Lengths> = batch
        .groups
        .iter()
        .map(|group| Lengths {
            prompt: group.prompt_ids.len(),
            completions: group.completions.iter().map(|c| c.ids.len()).collect(),
        })
        .collect();
    let ended = |ids: &Vec<u32>| ids.last().is_some_and(|id| stop_ids.contains(id));
    let cut = |pieces: &Vec<_>| {
        let mut batch = batch.micro_batch(pieces);
        if settings.mask_truncated_completions {
            let completions = batch.groups.iter().flat_map(|group| &group.completions);
            batch.kept = completions.map(ended).collect();
        }
        batch
    };
    pack(&lengths, TOKENS_TOGETHER).iter().map(cut).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch_file::{FileCompletion, FileGroup};
    use crate::model::toy::Bigram;

    fn batch() -> BatchFile {
        let completion = |ids: &[u32], advantage: f64| FileCompletion {
            ids: ids.to_vec(),
            advantage,
            ..FileCompletion::default()
        };
        let completions = vec![completion(&[2, 0], 1.0), completion(&[3, 3, 3], -1.0)];
        BatchFile { groups: vec![FileGroup { prompt_ids: vec![4], completions }], settings: None }
    }

    fn report(settings: &LossSettings) -> Result<LossReport> {
        loss(&Bigram::new(6, 1), &batch(), settings, &[0])
    }

    #[test]
    fn on_policy_the_loss_is_the_mean_advantage_and_its_gradient_is_not_zero() {
        let report = report(&LossSettings::default()).unwrap();
        assert!((report.loss - 0.2).abs() < 1e-12, "-(2 - 3) / 5: {}", report.loss);
        assert!(report.grad_norm > 0.01);
        let total: f64 = report.grad_norms.values().map(|norm| norm * norm).sum();
        assert!((total.sqrt() - report.grad_norm).abs() < 1e-9);
    }

    #[test]
    fn a_completion_without_a_stop_token_is_left_out_where_the_settings_say_so() {
        let settings = LossSettings { mask_truncated_completions: true, ..LossSettings::default() };
        assert!((report(&settings).unwrap().loss + 1.0).abs() < 1e-12);
    }

    #[test]
    fn a_divergence_without_a_reference_is_refused() {
        let settings = LossSettings { beta: 0.1, ..LossSettings::default() };
        assert!(report(&settings).unwrap_err().to_string().contains("`ref_logps`"));
    }
}
