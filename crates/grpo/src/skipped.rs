//! Steps that are left out because something in them is not finite: what is found, what is written
//! down, and what is said when there are too many.

use std::path::{Path, PathBuf};

use candle_core::Tensor;
use embodied_r_data::write::write_atomic;
use embodied_r_kernels::memory;
use serde::{Deserialize, Serialize};

use crate::batch_file::BatchFile;
use crate::error::{Error, Result};
use crate::model::{Gradients, Model, TokenScores};

/// Folder of the dumps in a run's folder.
pub const SKIPPED_FOLDER: &str = "skipped";

/// Names of tensors that a message gives before it counts the rest.
const NAMED: usize = 3;

/// What was not finite in the update of a step.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NonFinite {
    /// Log-probabilities of the policy that are not finite.
    pub logps: usize,
    /// Log-probabilities looked at.
    pub tokens: usize,
    /// The loss is not finite.
    pub loss: bool,
    /// A derivative of the loss by a log-probability is not finite.
    pub derivative: bool,
    /// Tensors whose gradients are not finite.
    pub gradients: Vec<String>,
}

impl NonFinite {
    /// Looks at the scores of a micro-batch and at what the loss made of them.
    pub(crate) fn look_at(&mut self, scores: &TokenScores, loss: f64, derivative: &[f32]) {
        self.tokens += scores.logps.len();
        self.logps += scores.logps.iter().filter(|logp| !logp.is_finite()).count();
        self.loss |= !loss.is_finite();
        self.derivative |= derivative.iter().any(|value| !value.is_finite());
    }

    /// Whether the step must not be taken, whatever its gradients are: a bound in the loss can hide a
    /// log-probability that is not a number from them.
    pub(crate) fn found(&self) -> bool {
        self.logps > 0 || self.loss || self.derivative
    }

    /// What was found on any of some ranks.
    pub(crate) fn of_all(ranks: Vec<Self>) -> Self {
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

    /// Names the tensors whose gradients are not finite.
    pub(crate) fn name_gradients<M: Model>(
        &mut self,
        model: &M,
        gradients: &M::Gradients,
    ) -> Result<()> {
        for (name, _) in model.parameters() {
            if gradients.get(&name).map(is_finite).transpose()? == Some(false) {
                self.gradients.push(name);
            }
        }
        Ok(())
    }

    /// What was found, in words: `the loss`, `the gradients of …`.
    pub fn what(&self) -> String {
        let mut parts = Vec::new();
        if self.logps > 0 {
            parts.push(format!("{} of {} log-probabilities", self.logps, self.tokens));
        }
        if self.loss {
            parts.push("the loss".to_owned());
        }
        if self.derivative && !self.loss {
            parts.push("the derivative of the loss".to_owned());
        }
        if let Some(names) = named(&self.gradients) {
            parts.push(format!("the gradients of {names}"));
        }
        match parts.is_empty() {
            true => "the norm of the gradients".to_owned(),
            false => parts.join(", "),
        }
    }
}

/// Why a run gave up, as far as it can be told.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Diagnosis {
    /// What was not finite in the last step.
    pub found: NonFinite,
    /// A reward of the last step is not finite.
    pub rewards: bool,
    /// A log-probability under the reference is not finite.
    pub reference: bool,
    /// Tensors of the model that hold numbers which are not finite.
    pub weights: Vec<String>,
    /// The learning rate of the last step.
    pub learning_rate: f64,
    /// The last norms of gradients that were finite, the newest last.
    pub grad_norms: Vec<f64>,
    /// The last step's batch, where it was written.
    pub dump: Option<PathBuf>,
    /// The checkpoint of the last good state.
    pub checkpoint: Option<PathBuf>,
}

impl std::fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "not finite: {}", self.found.what())?;
        if self.rewards {
            f.write_str(", rewards")?;
        }
        if self.reference {
            f.write_str(", log-probabilities under the reference")?;
        }
        if let Some(names) = named(&self.weights) {
            write!(f, ", the weights {names}")?;
        }
        write!(f, "; the learning rate is {:e}", self.learning_rate)?;
        if !self.grad_norms.is_empty() {
            let norms: Vec<_> = self.grad_norms.iter().map(|norm| format!("{norm:.3}")).collect();
            write!(f, "; the last gradient norms before were {}", norms.join(", "))?;
        }
        if let Some(dump) = &self.dump {
            write!(f, "; the last batch is in `{}`", dump.display())?;
        }
        match &self.checkpoint {
            Some(path) => write!(f, "; the last good state is in `{}`", path.display()),
            None => f.write_str("; there is no checkpoint of a good state"),
        }
    }
}

/// The tensors of `model` that hold numbers which are not finite.
pub(crate) fn non_finite_weights<M: Model>(model: &M) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for (name, tensor) in model.parameters() {
        if !is_finite(&tensor)? {
            names.push(name);
        }
    }
    Ok(names)
}

fn is_finite(tensor: &Tensor) -> Result<bool> {
    let tensor = memory::fetched(tensor)?;
    Ok(memory::floats(&tensor, "look for numbers that are not finite")?
        .iter()
        .all(|value| value.is_finite()))
}

/// The first names, and how many more there are.
fn named(names: &[String]) -> Option<String> {
    let shown: Vec<_> = names.iter().take(NAMED).map(|name| format!("`{name}`")).collect();
    let more = names.len() - shown.len();
    match (shown.is_empty(), more) {
        (true, _) => None,
        (false, 0) => Some(shown.join(", ")),
        (false, _) => Some(format!("{} and {more} more tensors", shown.join(", "))),
    }
}

/// Writes the batch of step `step` (from 0) into the run's folder `run`, in the form that `inspect
/// loss` reads; gives the file.
///
/// # Errors
/// The file cannot be written.
pub(crate) fn dump(run: &Path, step: u64, batch: &BatchFile) -> Result<PathBuf> {
    let path = run.join(SKIPPED_FOLDER).join(format!("step-{:06}.json", step + 1));
    let bytes = serde_json::to_vec(batch).map_err(Error::json(&path))?;
    write_atomic(&path, &bytes)?;
    Ok(path)
}

/// The step, from 1, of the dump of this name; none if it is no dump's.
pub(crate) fn step_of_dump(name: &str) -> Option<u64> {
    name.strip_prefix("step-")?.strip_suffix(".json")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diagnosis_names_what_is_known() {
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
            "not finite: 2 of 10 log-probabilities, the loss, the gradients of `a`, `b`, `c` and 2 \
             more tensors, log-probabilities under the reference; the learning rate is 5e-7; the \
             last gradient norms before were 0.500, 12.250; the last batch is in \
             `run/skipped/step-000005.json`; the last good state is in `run/checkpoint-5`"
        );
    }

    #[test]
    fn a_norm_that_overflows_is_told_as_such() {
        assert_eq!(NonFinite::default().what(), "the norm of the gradients");
    }
}
