//! What was not finite in a step or in a model, for messages.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Number of tensor names that a message lists.
const NAMED: usize = 3;

/// What was non-finite in the update of a step.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NonFinite {
    /// Number of the policy's non-finite log-probabilities.
    pub logps: usize,
    /// Number of log-probabilities checked.
    pub tokens: usize,
    /// Whether the loss is non-finite.
    pub loss: bool,
    /// Whether a derivative of the loss by a log-probability is non-finite.
    pub derivative: bool,
    /// Tensors with non-finite gradients.
    pub gradients: Vec<String>,
}

impl NonFinite {
    /// Checks a micro-batch's log-probabilities, loss and derivative.
    pub(crate) fn record(&mut self, logps: &[f32], loss: f64, derivative: &[f32]) {
        self.tokens += logps.len();
        self.logps += logps.iter().filter(|logp| !logp.is_finite()).count();
        self.loss |= !loss.is_finite();
        self.derivative |= derivative.iter().any(|value| !value.is_finite());
    }

    /// Whether the step must be skipped even if its gradients are finite: a bound in the loss can hide a NaN
    /// log-probability from them.
    pub(crate) fn any(&self) -> bool {
        self.logps > 0 || self.loss || self.derivative
    }

    /// Merges the findings of all ranks.
    pub(crate) fn merge_ranks(ranks: Vec<Self>) -> Self {
        ranks.into_iter().fold(Self::default(), |mut all, of_one| {
            all.logps += of_one.logps;
            all.tokens += of_one.tokens;
            all.loss |= of_one.loss;
            all.derivative |= of_one.derivative;
            for name in of_one.gradients {
                if !all.gradients.contains(&name) {
                    all.gradients.push(name);
                }
            }
            all
        })
    }

    /// A description: `the loss`, `the gradients of …`.
    pub fn what(&self) -> String {
        let mut parts = Vec::new();
        if self.logps > 0 {
            parts.push(format!("{} of {} log-probabilities", self.logps, self.tokens));
        }
        if self.loss {
            parts.push("the loss".to_owned());
        }
        if self.derivative && !self.loss {
            parts.push("the loss's gradient with respect to the log-probabilities".to_owned());
        }
        if let Some(names) = first_names(&self.gradients) {
            parts.push(format!("the gradients of {names}"));
        }
        match parts.is_empty() {
            true => "the norm of the gradients".to_owned(),
            false => parts.join(", "),
        }
    }
}

/// Diagnosis of a run that aborted.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Diagnosis {
    /// What was non-finite in the last step.
    pub found: NonFinite,
    /// Whether a reward of the last step is non-finite.
    pub rewards: bool,
    /// Whether a reference log-probability is non-finite.
    pub reference: bool,
    /// What is not finite in the model after the last step, so that no further step can be taken.
    pub model: Option<NonFiniteModel>,
    /// Iterations of the last step whose updates are kept: the step was skipped in a later one.
    pub kept_iterations: usize,
    /// The learning rate of the last step.
    pub learning_rate: f64,
    /// The last finite gradient norms, newest last.
    pub grad_norms: Vec<f64>,
    /// Path of the last step's batch dump.
    pub dump: Option<PathBuf>,
    /// The last good checkpoint.
    pub checkpoint: Option<PathBuf>,
}

impl std::fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "non-finite: {}", self.found.what())?;
        if self.rewards {
            f.write_str(", rewards")?;
        }
        if self.reference {
            f.write_str(", reference log-probabilities")?;
        }
        if let Some(model) = &self.model {
            write!(f, "; {model}")?;
        }
        if let Some(kept) = kept(self.kept_iterations) {
            write!(f, "; {kept}")?;
        }
        write!(f, "; learning rate {:e}", self.learning_rate)?;
        if !self.grad_norms.is_empty() {
            let norms: Vec<_> = self.grad_norms.iter().map(|norm| format!("{norm:.3}")).collect();
            write!(f, "; last finite gradient norms {}", norms.join(", "))?;
        }
        if let Some(dump) = &self.dump {
            write!(f, "; last batch dumped to `{}`", dump.display())?;
        }
        write!(f, "; {}", last_good(self.checkpoint.as_deref()))
    }
}

/// Says that a step was skipped only from a later optimizer step on; `None` if it was skipped as a whole.
pub(crate) fn kept(iterations: usize) -> Option<String> {
    match iterations {
        0 => None,
        1 => Some("the update of its first optimizer step is kept".into()),
        n => Some(format!("the updates of its first {n} optimizer steps are kept")),
    }
}

/// What is not finite in a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NonFiniteModel {
    /// The tensors with NaN or infinite values; if there are none, the log-probabilities are not finite.
    pub weights: Vec<String>,
}

impl std::fmt::Display for NonFiniteModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match first_names(&self.weights) {
            Some(names) => write!(f, "the model's weights are not finite: {names}"),
            None => f.write_str(
                "the model's log-probabilities are not finite: its weights are too large",
            ),
        }
    }
}

/// The first of `names` and the number of the others; `None` without names.
fn first_names(names: &[String]) -> Option<String> {
    let shown: Vec<_> = names.iter().take(NAMED).map(|name| format!("`{name}`")).collect();
    let more = names.len() - shown.len();
    match (shown.is_empty(), more) {
        (true, _) => None,
        (false, 0) => Some(shown.join(", ")),
        (false, _) => Some(format!("{} and {more} more tensors", shown.join(", "))),
    }
}

/// The last good checkpoint, for messages.
pub(crate) fn last_good(checkpoint: Option<&Path>) -> String {
    match checkpoint {
        Some(path) => format!("last good checkpoint `{}`", path.display()),
        None => "no good checkpoint".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diagnosis_lists_all_findings() {
        let found = NonFinite {
            logps: 2,
            tokens: 10,
            loss: true,
            gradients: ["a", "b", "c", "d", "e"].map(String::from).to_vec(),
            ..NonFinite::default()
        };
        let diagnosis = Diagnosis {
            found,
            reference: true,
            learning_rate: 5e-7,
            grad_norms: vec![0.5, 12.25],
            dump: Some("run/skipped/step-000005.json".into()),
            checkpoint: Some("run/checkpoint-5".into()),
            ..Diagnosis::default()
        };
        assert_eq!(
            diagnosis.to_string(),
            "non-finite: 2 of 10 log-probabilities, the loss, the gradients of `a`, `b`, `c` and 2 \
             more tensors, reference log-probabilities; learning rate 5e-7; \
             last finite gradient norms 0.500, 12.250; last batch dumped to \
             `run/skipped/step-000005.json`; last good checkpoint `run/checkpoint-5`"
        );
    }

    #[test]
    fn a_model_whose_weights_are_finite_and_too_large_is_reported() {
        let model = Some(NonFiniteModel { weights: Vec::new() });
        let text = Diagnosis { model, ..Diagnosis::default() }.to_string();
        assert!(
            text.contains("; the model's log-probabilities are not finite: its weights"),
            "{text}"
        );
    }

    #[test]
    fn an_overflowing_gradient_norm_is_reported() {
        assert_eq!(NonFinite::default().what(), "the norm of the gradients");
    }
}
