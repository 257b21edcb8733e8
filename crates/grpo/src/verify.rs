//! Packed gradients beside those of every completion by itself.

use embodied_r_kernels::memory::{fetched, floats};

use crate::error::{Error, Result};
use crate::loss::{Counts, Options};
use crate::micro_batch::{MicroBatch, Selection, Told};
use crate::model::{Gradients, Group, Model, Precision, Training};
use crate::update::{backward, passes};

/// How far packed gradients are from those that they stand for.
#[derive(Debug, Clone, PartialEq)]
pub struct Verified {
    /// The greatest difference of a tensor's gradient, relative to that tensor's norm.
    pub gradient: f64,
    /// The tensor that it is of.
    pub tensor: String,
    /// The greatest difference of a log-probability.
    pub logp: f64,
}

/// Differences that rounding explains: sums of some thousand terms in another order.
fn tolerance(precision: Precision) -> f64 {
    match precision {
        Precision::F32 => 1e-3,
        Precision::Bf16 => 3e-2,
    }
}

impl Verified {
    /// Fails where rounding does not explain the difference.
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

/// Computes the gradients of `batches` as training does, and then of every completion alone, with a prompt
/// of its own: the same derivatives by the log-probabilities go into both. Takes memory for two more sets
/// of gradients. What is on the tape goes into the first.
///
/// # Errors
/// What the model returns.
pub fn verify<M: Model>(
    model: &M,
    batches: &[MicroBatch],
    options: &Options,
    counts: &[Counts],
    selection: Selection,
    training: &Training<'_, M::Tape>,
) -> Result<Verified> {
    let groups: Vec<Vec<Group>> = batches.iter().map(|batch| batch.groups.clone()).collect();
    let (mut packed, mut alone) = (model.zero_gradients()?, model.zero_gradients()?);
    let mut told = Told::default();
    let mut tokens: Vec<Vec<(f32, f32)>> = vec![Vec::new(); batches.len()];
    for pass in passes(&groups) {
        backward(
            model,
            &groups,
            pass,
            training,
            &mut packed,
            &mut |index, scores| {
                let (batch, counts) = (&batches[index], &counts[index]);
                let d = batch.derivative(options, counts, scores, selection, &mut told)?.dlogps;
                tokens[index] = scores.logps.iter().copied().zip(d.iter().copied()).collect();
                Ok(d)
            },
            &mut |_| (),
        )?;
    }
    let untaped = Training { tape: None, ..*training };
    let mut logp = 0f64;
    for (batch, tokens) in batches.iter().zip(&tokens) {
        let mut left = tokens.as_slice();
        for (prompt, completion) in batch.sequences() {
            let (own, rest) = left.split_at(completion.len());
            left = rest;
            let group = Group { prompt: prompt.to_vec(), completions: vec![completion.to_vec()] };
            model.backward(
                &[group],
                &untaped,
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
    let mut verified = Verified { gradient: 0.0, tensor: String::new(), logp };
    for (name, _) in model.parameters() {
        let missing = || Error::Model { what: format!("has no gradient for `{name}`") };
        let of = |gradients: &M::Gradients| gradients.get(&name).cloned().ok_or_else(missing);
        let (packed, alone) = (fetched(&of(&packed)?)?, fetched(&of(&alone)?)?);
        let apart = apart(&floats(&packed, "verify")?, &floats(&alone, "verify")?);
        if apart >= verified.gradient {
            (verified.gradient, verified.tensor) = (apart, name);
        }
    }
    Ok(verified)
}

/// The norm of the difference, relative to that of `b`; what is not finite in one alone counts as without
/// bound, and what is in neither is another's matter.
fn apart(a: &[f32], b: &[f32]) -> f64 {
    let square = |x: f64| x * x;
    let (mut difference, mut norm) = (0.0, 0.0);
    for (a, b) in a.iter().zip(b).filter(|(a, b)| a.is_finite() || b.is_finite()) {
        difference += square(f64::from(*a) - f64::from(*b));
        norm += square(f64::from(*b));
    }
    let apart = (difference / norm.max(f64::MIN_POSITIVE)).sqrt();
    if apart.is_nan() { f64::INFINITY } else { apart }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::LossType;
    use crate::micro_batch::counts;
    use crate::model::toy::Bigram;

    fn batches() -> Vec<MicroBatch> {
        let group = |prompt: u32| Group {
            prompt: vec![prompt],
            completions: vec![vec![2, 0], vec![3, 3, 1]],
        };
        let batch = |groups: Vec<Group>| MicroBatch {
            kept: vec![true; 2 * groups.len()],
            advantages: [1.0, -0.5].repeat(groups.len()),
            groups,
            ..MicroBatch::default()
        };
        vec![batch(vec![group(4), group(5)]), batch(vec![group(1)]), batch(vec![group(1)])]
    }

    #[test]
    fn packed_gradients_are_those_of_every_completion_by_itself() {
        let batches = batches();
        let options = Options { loss_type: LossType::Dapo, ..Options::default() };
        let counts = counts(&batches, options.loss_type, 8, &crate::team::Team::default()).unwrap();
        let training = Training { temperature: 0.7, noise: 1, tape: None };
        let model = Bigram::new(6, 1);
        let found = verify(&model, &batches, &options, &counts, Selection::All, &training).unwrap();
        assert!(found.gradient < 1e-6 && found.logp < 1e-6, "{found:?}");
        found.check(Precision::F32).unwrap();
    }

    #[test]
    fn a_difference_beyond_rounding_is_an_error_that_names_the_tensor() {
        let found = Verified { gradient: 0.01, tensor: "norm.weight".into(), logp: 0.0 };
        found.check(Precision::Bf16).unwrap();
        let error = found.check(Precision::F32).unwrap_err().to_string();
        assert!(error.contains("`norm.weight`"), "{error}");
        assert_eq!(apart(&[1.0, f32::NAN], &[1.0, 1.0]), f64::INFINITY);
        assert_eq!(apart(&[1.0, f32::NAN], &[1.0, f32::NAN]), 0.0);
    }
}
