//! Verification of packed gradients against per-completion gradients.

use embodied_r_kernels::memory::{floats, to_host};

use crate::error::{Error, Result};
use crate::loss::LossNormalizer;
use crate::model::{Group, Model, NamedGradients, Precision, TrainingPass};
use crate::settings::LossSettings;
use crate::update::micro_batch::{MicroBatch, TokenSelection, UpdateStats};
use crate::update::packing_check::PackingCheck;
use crate::update::{backward, passes};

/// Tolerance for rounding: sums of some thousand terms in another order.
fn tolerance(precision: Precision) -> f64 {
    match precision {
        Precision::F32 => 1e-3,
        Precision::Bf16 => 3e-2,
    }
}

impl PackingCheck {
    /// Fails if a difference exceeds the tolerance of `precision`.
    ///
    /// # Errors
    /// [`Error::Packing`].
    pub fn check(&self, precision: Precision) -> Result<()> {
        let allowed = tolerance(precision);
        match self.gradient <= allowed && self.logp <= allowed {
            true => Ok(()),
            false => Err(Error::Packing { found: self.clone(), allowed }),
        }
    }
}

/// Computes the gradients of `batches` as training does, and again for every completion alone with its own prompt; both
/// use the same derivatives by the log-probabilities. Needs memory for two more sets of gradients. The first uses the
/// activation cache.
///
/// # Errors
/// The model fails.
pub fn verify_packing<M: Model>(
    model: &M,
    batches: &[MicroBatch],
    settings: &LossSettings,
    loss_normalizers: &[LossNormalizer],
    selection: TokenSelection,
    training: &TrainingPass<'_, M::ActivationCache>,
) -> Result<PackingCheck> {
    let (mut packed, mut alone) = (model.zero_gradients()?, model.zero_gradients()?);
    let mut totals = UpdateStats::default();
    let mut tokens: Vec<Vec<(f32, f32)>> = vec![Vec::new(); batches.len()];
    for pass in passes(batches) {
        backward(
            model,
            batches,
            pass,
            training,
            &mut packed,
            &mut |index, scores| {
                let (batch, normalizer) = (&batches[index], &loss_normalizers[index]);
                let d =
                    batch.derivative(settings, normalizer, scores, selection, &mut totals)?.dlogps;
                tokens[index] = scores.logps.iter().copied().zip(d.iter().copied()).collect();
                Ok(d)
            },
            &mut |_| (),
        )?;
    }
    model.finish_backward(&mut packed, &mut |_| ())?;
    let uncached = TrainingPass { activation_cache: None, ..*training };
    let mut logp = 0f64;
    for (batch, tokens) in batches.iter().zip(&tokens) {
        let mut left = tokens.as_slice();
        for (prompt, completion) in batch.sequences() {
            let (own, rest) = left.split_at(completion.len());
            left = rest;
            let group = Group { prompt: prompt.clone(), completions: vec![completion.to_vec()] };
            model.backward(
                &[group],
                &uncached,
                &mut alone,
                &mut |scores| {
                    for (found, (expected, _)) in scores.logps.iter().zip(own) {
                        logp = logp.max(f64::from((found - expected).abs()));
                    }
                    Ok(own.iter().map(|(_, d)| *d).collect())
                },
                &mut |_| (),
            )?;
        }
    }
    model.finish_backward(&mut alone, &mut |_| ())?;
    // The step repeats what it would have computed first, in the same order: it has the bits of one that is not verified.
    model.parameters_changed();
    let mut verified = PackingCheck { gradient: 0.0, tensor: String::new(), logp };
    for (name, _) in model.parameters() {
        let missing = || Error::Model { what: format!("has no gradient for `{name}`") };
        let of = |gradients: &M::Gradients| gradients.get(&name).cloned().ok_or_else(missing);
        let (packed, alone) = (to_host(&of(&packed)?)?, to_host(&of(&alone)?)?);
        let relative_difference =
            relative_difference(&floats(&packed, "verify")?, &floats(&alone, "verify")?);
        if relative_difference >= verified.gradient {
            (verified.gradient, verified.tensor) = (relative_difference, name);
        }
    }
    Ok(verified)
}

/// The norm of the difference relative to that of `b`. An element non-finite in only one counts as infinitely
/// different; elements non-finite in both are ignored.
fn relative_difference(a: &[f32], b: &[f32]) -> f64 {
    let square = |x: f64| x * x;
    let (mut difference, mut norm) = (0.0, 0.0);
    for (a, b) in a.iter().zip(b).filter(|(a, b)| a.is_finite() || b.is_finite()) {
        difference += square(f64::from(*a) - f64::from(*b));
        norm += square(f64::from(*b));
    }
    let relative_difference = (difference / norm.max(f64::MIN_POSITIVE)).sqrt();
    if relative_difference.is_nan() { f64::INFINITY } else { relative_difference }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tests::toy::Bigram;
    use crate::update::micro_batch::loss_normalizers;

    fn batches() -> Vec<MicroBatch> {
        let group = |prompt: u32| Group {
            prompt: vec![prompt].into(),
            completions: vec![vec![2, 0], vec![3, 3, 1]],
        };
        let batch = |groups: Vec<Group>| MicroBatch {
            unmasked: vec![true; 2 * groups.len()],
            advantages: [1.0, -0.5].repeat(groups.len()),
            groups: groups.into(),
            ..MicroBatch::default()
        };
        vec![batch(vec![group(4), group(5)]), batch(vec![group(1)]), batch(vec![group(1)])]
    }

    #[test]
    fn packed_gradients_equal_per_completion_gradients() {
        let batches = batches();
        let settings = LossSettings::default();
        let loss_normalizers = loss_normalizers(
            &batches,
            settings.loss_type,
            8,
            &embodied_r_dist::ProcessGroup::default(),
        )
        .unwrap();
        let training = TrainingPass { temperature: 0.7, dropout_seed: 1, activation_cache: None };
        let model = Bigram::new(6, 1);
        let found = verify_packing(
            &model,
            &batches,
            &settings,
            &loss_normalizers,
            TokenSelection::All,
            &training,
        )
        .unwrap();
        assert!(found.gradient < 1e-6 && found.logp < 1e-6, "{found:?}");
        found.check(Precision::F32).unwrap();
    }

    #[test]
    fn a_difference_beyond_tolerance_is_an_error_that_names_the_tensor() {
        let found = PackingCheck { gradient: 0.01, tensor: "norm.weight".into(), logp: 0.0 };
        found.check(Precision::Bf16).unwrap();
        let error = found.check(Precision::F32).unwrap_err().to_string();
        assert!(error.contains("`norm.weight`"), "{error}");
        assert_eq!(relative_difference(&[1.0, f32::NAN], &[1.0, 1.0]), f64::INFINITY);
        assert_eq!(relative_difference(&[1.0, f32::NAN], &[1.0, f32::NAN]), 0.0);
    }
}
