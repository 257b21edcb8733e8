//! The loss and gradients of a given batch, for comparison with other implementations.

pub mod batch_file;
pub mod batch_images;

use indexmap::IndexMap;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::inspect::batch_file::BatchFile;
use crate::loss::LossType;
use crate::model::{Model, NamedGradients, Prompt, TrainingPass};
use crate::settings::LossSettings;
use crate::update::micro_batch::{self, MicroBatch, UpdateStats};
use crate::update::packing::{GroupLengths, pack};
use crate::update::{backward, passes};
use embodied_r_dist::ProcessGroup;

/// Token budget of a micro-batch. It does not affect the loss.
const TOKENS_TOGETHER: usize = 8192;

/// A loss with its components and gradient norms.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LossReport {
    /// The loss.
    pub loss: f64,
    /// Mean per-token KL to the reference, as the loss uses it; `None` without `ref_logps`.
    pub kl: Option<f64>,
    /// Mean entropy of unmasked tokens, in nats.
    pub entropy: f64,
    /// Mean log-probability of unmasked tokens.
    pub mean_logp: f64,
    /// Fractions of clipped ratios.
    pub clip_ratio: ClipRatio,
    /// Global gradient norm before clipping.
    pub grad_norm: f64,
    /// Gradient norm per tensor, by checkpoint name. A tied LM head counts with the embedding.
    pub grad_norms: IndexMap<String, f64>,
}

/// Fractions of clipped ratios, under TRL's names.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ClipRatio {
    /// Clipped below, over all ratios.
    pub low_mean: f64,
    /// Clipped below, minimum over completions.
    pub low_min: f64,
    /// Clipped above, over all ratios.
    pub high_mean: f64,
    /// Clipped above, maximum over completions.
    pub high_max: f64,
    /// Clipped on either side, over all ratios.
    pub region_mean: f64,
}

/// The loss of `batch` under `model`, as in an optimizer step with a single micro-batch. `prompts` are those of its
/// groups ([`BatchFile::prompts`]).
///
/// With `mask_truncated_completions`, completions that do not end in one of `stop_ids` are masked.
///
/// # Errors
/// `beta` is above 0 and the batch has no `ref_logps`, or the model rejects a sequence.
pub fn loss<M: Model>(
    model: &M,
    (batch, prompts): (&BatchFile, &[Prompt]),
    settings: &LossSettings,
    stop_ids: &[u32],
) -> Result<LossReport> {
    let batches = micro_batches(batch, prompts, settings, stop_ids);
    if settings.beta > 0.0 && batches.iter().any(|batch| batch.reference.is_empty()) {
        return Err(Error::NoReference);
    }
    // However it is split to save memory, the file is one micro-batch.
    let (alone, longest) = (ProcessGroup::default(), settings.max_completion_length);
    let loss_normalizers =
        micro_batch::loss_normalizers(&batches, LossType::Dapo, longest, &alone)?;
    let (temperature, share) = (settings.temperature, settings.top_entropy_quantile);
    let selection = micro_batch::selection(model, &batches, temperature, share, &alone)?;
    let mut gradients = model.zero_gradients()?;
    let mut totals = UpdateStats::default();
    let training = TrainingPass { temperature, dropout_seed: 0, activation_cache: None };
    for pass in passes(&batches) {
        backward(
            model,
            &batches,
            pass,
            &training,
            &mut gradients,
            &mut |index, scores| {
                let (batch, normalizer) = (&batches[index], &loss_normalizers[index]);
                Ok(batch.derivative(settings, normalizer, scores, selection, &mut totals)?.dlogps)
            },
            &mut |_| (),
        )?;
    }
    model.finish_backward(&mut gradients, &mut |_| ())?;
    let norm = |(name, _): (String, _)| -> Result<(String, f64)> {
        let missing = || Error::Model { what: format!("has no gradient for `{name}`") };
        let gradient = gradients.get(&name).ok_or_else(missing)?;
        Ok((name, embodied_r_kernels::memory::squared_norm(gradient)?.sqrt()))
    };
    let stats = &totals.loss_stats;
    Ok(LossReport {
        loss: totals.loss,
        kl: stats.kl(),
        entropy: totals.entropy / totals.tokens.max(1.0),
        mean_logp: totals.logps / totals.tokens.max(1.0),
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

fn micro_batches(
    batch: &BatchFile,
    prompts: &[Prompt],
    settings: &LossSettings,
    stop_ids: &[u32],
) -> Vec<MicroBatch> {
    let lengths: Vec<GroupLengths> = batch
        .groups
        .iter()
        .map(|group| GroupLengths {
            prompt: group.prompt_ids.len(),
            completions: group.completions.iter().map(|c| c.ids.len()).collect(),
        })
        .collect();
    let ended = |ids: &Vec<u32>| ids.last().is_some_and(|id| stop_ids.contains(id));
    let cut = |slices: &Vec<_>| {
        let mut batch = batch.micro_batch(prompts, slices);
        if settings.mask_truncated_completions {
            let completions = batch.groups.iter().flat_map(|group| &group.completions);
            batch.unmasked = completions.map(ended).collect();
        }
        batch
    };
    pack(&lengths, TOKENS_TOGETHER).iter().map(cut).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::batch_file::{FileCompletion, FileGroup};
    use crate::model::tests::toy::Bigram;

    fn batch() -> BatchFile {
        let completion = |ids: &[u32], advantage: f64| FileCompletion {
            ids: ids.to_vec(),
            advantage,
            ..FileCompletion::default()
        };
        let completions = vec![completion(&[2, 0], 1.0), completion(&[3, 3, 3], -1.0)];
        let group = FileGroup { prompt_ids: vec![4], completions, ..FileGroup::default() };
        BatchFile { groups: vec![group], settings: None }
    }

    fn report(settings: &LossSettings) -> Result<LossReport> {
        loss(&Bigram::new(6, 1), (&batch(), &[vec![4].into()]), settings, &[0])
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
    fn a_truncated_completion_is_masked_with_mask_truncated_completions() {
        let settings = LossSettings { mask_truncated_completions: true, ..LossSettings::default() };
        assert!((report(&settings).unwrap().loss + 1.0).abs() < 1e-12);
    }

    #[test]
    fn kl_without_reference_log_probabilities_is_refused() {
        let settings = LossSettings { beta: 0.1, ..LossSettings::default() };
        assert!(report(&settings).unwrap_err().to_string().contains("`ref_logps`"));
    }
}
