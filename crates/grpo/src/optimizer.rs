//! AdamW over a model's parameters, with its moments.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use candle_core::{Device, Tensor};
use embodied_r_kernels::{AdamwStep, adamw};

use crate::error::{Error, Result};
use crate::model::{Gradients, Model};
use crate::settings::Faults;

/// The numbers of AdamW that stay the same in a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamwSettings {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Decoupled weight decay of matrices.
    pub weight_decay: f64,
    /// Norm to which gradients are clipped.
    pub max_grad_norm: f64,
}

impl AdamwSettings {
    pub(crate) fn faults(&self, faults: &mut Faults) {
        faults.share("adam_beta1", self.beta1);
        faults.share("adam_beta2", self.beta2);
        faults.positive("adam_epsilon", self.epsilon);
        faults.not_negative("weight_decay", self.weight_decay);
        faults.positive("max_grad_norm", self.max_grad_norm);
    }
}

/// How one step went.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Applied {
    /// The gradient's norm before it was clipped.
    pub grad_norm: f64,
    /// Whether the step was taken: it is not if the norm is infinite or not a number.
    pub taken: bool,
}

/// AdamW with its moments, all in `f32`.
#[derive(Debug)]
pub struct Adamw {
    settings: AdamwSettings,
    moments: BTreeMap<String, Moments>,
    steps: u64,
}

#[derive(Debug)]
struct Moments {
    first: Tensor,
    second: Tensor,
}

/// Names of the moments in files, as PyTorch's AdamW calls them.
const FIRST: &str = "exp_avg";
const SECOND: &str = "exp_avg_sq";

impl Adamw {
    /// An optimiser for `model` with moments of 0.
    ///
    /// # Errors
    /// A moment cannot be allocated.
    pub fn new<M: Model>(settings: AdamwSettings, model: &M) -> Result<Self> {
        let mut moments = BTreeMap::new();
        for (name, tensor) in model.parameters() {
            let (first, second) = (tensor.zeros_like()?, tensor.zeros_like()?);
            moments.insert(name, Moments { first, second });
        }
        Ok(Self { settings, moments, steps: 0 })
    }

    /// Clips `gradients` to the largest norm allowed and takes a step with learning rate `lr`,
    /// unless a gradient is not finite.
    ///
    /// Matrices decay; vectors, which are norms and biases, do not.
    ///
    /// # Errors
    /// A parameter has no gradient or moment, or a tensor is not what the kernel works on.
    pub fn step<M: Model>(
        &mut self,
        model: &M,
        gradients: &M::Gradients,
        lr: f64,
    ) -> Result<Applied> {
        let grad_norm = gradients.norm()?;
        if !grad_norm.is_finite() {
            return Ok(Applied { grad_norm, taken: false });
        }
        let bound = self.settings.max_grad_norm;
        let grad_scale = if grad_norm > bound { bound / (grad_norm + 1e-6) } else { 1.0 };
        self.steps += 1;
        for (name, parameter) in model.parameters() {
            let missing = |what: &str| Error::Model { what: format!("has no {what} for `{name}`") };
            let gradient = gradients.get(&name).ok_or_else(|| missing("gradient"))?;
            let moments = self.moments.get(&name).ok_or_else(|| missing("moments"))?;
            let decays = parameter.rank() > 1;
            let step = AdamwStep {
                lr,
                beta1: self.settings.beta1,
                beta2: self.settings.beta2,
                eps: self.settings.epsilon,
                weight_decay: if decays { self.settings.weight_decay } else { 0.0 },
                step: self.steps,
                grad_scale,
            };
            adamw(&parameter, gradient, &moments.first, &moments.second, &step)?;
        }
        Ok(Applied { grad_norm, taken: true })
    }

    /// Steps taken since the moments were 0.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Forgets all moments.
    ///
    /// # Errors
    /// A moment cannot be allocated.
    pub fn restart<M: Model>(&mut self, model: &M) -> Result<()> {
        *self = Self::new(self.settings, model)?;
        Ok(())
    }

    /// Writes the moments to a safetensors file.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let tensors: HashMap<String, Tensor> = self
            .moments
            .iter()
            .flat_map(|(name, moments)| {
                [
                    (format!("{FIRST}.{name}"), moments.first.clone()),
                    (format!("{SECOND}.{name}"), moments.second.clone()),
                ]
            })
            .collect();
        Ok(candle_core::safetensors::save(&tensors, path)?)
    }

    /// Reads the moments of a file that [`Adamw::save`] wrote, of an optimiser that had taken
    /// `steps` steps.
    ///
    /// # Errors
    /// The file cannot be read, or its moments are not those of `model`.
    pub fn load<M: Model>(
        settings: AdamwSettings,
        model: &M,
        path: &Path,
        steps: u64,
    ) -> Result<Self> {
        let mut tensors = candle_core::safetensors::load(path, &Device::Cpu)?;
        let mut moments = BTreeMap::new();
        for (name, parameter) in model.parameters() {
            let mut take = |kind: &str| {
                let key = format!("{kind}.{name}");
                let found = tensors.remove(&key).filter(|t| t.dims() == parameter.dims());
                found.ok_or_else(|| Error::Checkpoint {
                    path: path.into(),
                    what: format!("`{key}` is missing or has another shape"),
                })
            };
            let (first, second) = (take(FIRST)?, take(SECOND)?);
            moments.insert(name, Moments { first, second });
        }
        Ok(Self { settings, moments, steps })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::toy::Bigram;
    use crate::model::{Group, TokenScores};

    fn settings() -> AdamwSettings {
        AdamwSettings {
            beta1: 0.9,
            beta2: 0.95,
            epsilon: 1e-8,
            weight_decay: 0.5,
            max_grad_norm: 1.0,
        }
    }

    /// Gradients of `scale` times the log-probability of one token.
    fn gradients(model: &Bigram, scale: f32) -> <Bigram as Model>::Gradients {
        let mut gradients = model.zero_gradients().unwrap();
        let group = Group { prompt: vec![1], completions: vec![vec![2]] };
        let mut derivative = |_: &TokenScores| Ok(vec![scale]);
        model.backward(&[group], 1.0, &mut gradients, &mut derivative).unwrap();
        gradients
    }

    #[test]
    fn matrices_decay_and_vectors_do_not() {
        let model = Bigram::new(3, 1);
        let before = model.numbers();
        let zero = model.zero_gradients().unwrap();
        Adamw::new(settings(), &model).unwrap().step(&model, &zero, 0.1).unwrap();
        let after = model.numbers();
        for (before, after) in before[..9].iter().zip(&after[..9]) {
            assert!((after - before * (1.0 - 0.1 * 0.5)).abs() < 1e-7);
        }
        assert_eq!(before[9..], after[9..]);
    }

    #[test]
    fn a_gradient_is_clipped_to_the_largest_norm_allowed() {
        let moment = |scale: f32| {
            let model = Bigram::new(3, 1);
            let mut optimizer = Adamw::new(settings(), &model).unwrap();
            let applied = optimizer.step(&model, &gradients(&model, scale), 0.1).unwrap();
            let moments = optimizer.moments.values();
            let squares: f32 = moments
                .map(|m| m.first.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap())
                .sum();
            (applied.grad_norm, f64::from(squares.sqrt()))
        };
        let (norm, moment_of_large) = moment(100.0);
        assert!(norm > 50.0, "{norm}");
        assert!((moment_of_large - 0.1).abs() < 1e-5, "0.1 of the norm 1: {moment_of_large}");
        let (norm, moment_of_small) = moment(0.1);
        assert!((moment_of_small - 0.1 * norm).abs() < 1e-6, "not clipped: {moment_of_small}");
    }

    #[test]
    fn a_gradient_that_is_not_finite_changes_nothing() {
        let model = Bigram::new(3, 1);
        let before = model.numbers();
        let mut optimizer = Adamw::new(settings(), &model).unwrap();
        let applied = optimizer.step(&model, &gradients(&model, f32::INFINITY), 0.1).unwrap();
        assert!(!applied.taken);
        assert_eq!((model.numbers(), optimizer.steps()), (before, 0));
    }

    #[test]
    fn an_optimizer_that_was_saved_goes_on_as_before() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("optimizer.safetensors");
        let step = |optimizer: &mut Adamw, model: &Bigram| {
            optimizer.step(model, &gradients(model, 0.3), 0.1).unwrap();
        };
        let model = Bigram::new(3, 1);
        let mut optimizer = Adamw::new(settings(), &model).unwrap();
        step(&mut optimizer, &model);
        optimizer.save(&file).unwrap();
        let copy = model.frozen_copy().unwrap();
        let mut loaded = Adamw::load(settings(), &copy, &file, optimizer.steps()).unwrap();
        step(&mut optimizer, &model);
        step(&mut loaded, &copy);
        assert_eq!(model.numbers(), copy.numbers());
    }

    #[test]
    fn moments_of_another_model_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("optimizer.safetensors");
        Adamw::new(settings(), &Bigram::new(3, 1)).unwrap().save(&file).unwrap();
        let error = Adamw::load(settings(), &Bigram::new(4, 1), &file, 1).unwrap_err().to_string();
        assert!(error.contains("exp_avg.bigram."), "{error}");
    }
}
