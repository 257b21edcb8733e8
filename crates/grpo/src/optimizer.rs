//! AdamW or Muon over a model's parameters, with their moments.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::Tensor;
use embodied_r_kernels::{AdamwStep, MuonStep, adamw, muon};
use embodied_r_policy::WeightDtype;
use embodied_r_policy::weights::{self, TensorFile};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::model::{Gradients, Model};
use crate::settings::Faults;

/// Which rule moves the weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Optim {
    /// AdamW for all.
    #[default]
    Adamw,
    /// Muon for the matrices between embedding and head, AdamW for all else.
    Muon,
}

/// The optimiser's numbers that stay the same in a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OptimizerSettings {
    /// The rule.
    pub optim: Optim,
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

impl OptimizerSettings {
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

/// An optimiser with its moments, all in `f32`.
#[derive(Debug)]
pub struct Optimizer {
    settings: OptimizerSettings,
    moments: BTreeMap<String, Moments>,
    steps: u64,
}

/// What is remembered of a parameter's gradients.
#[derive(Debug)]
enum Moments {
    Adamw { first: Tensor, second: Tensor },
    Muon { momentum: Tensor },
}

/// Names of the moments in files, as PyTorch calls them.
const FIRST: &str = "exp_avg";
const SECOND: &str = "exp_avg_sq";
const MOMENTUM: &str = "momentum_buffer";

/// Decay of Muon's momentum, as in `torch.optim.Muon`.
const MUON_MOMENTUM: f64 = 0.95;

impl Moments {
    /// Moments for `parameter`, each made by `make` from its name in files.
    fn build(
        optim: Optim,
        name: &str,
        parameter: &Tensor,
        mut make: impl FnMut(&'static str) -> Result<Tensor>,
    ) -> Result<Self> {
        let within = !name.contains("embed_tokens") && !name.contains("lm_head");
        if optim == Optim::Muon && parameter.rank() == 2 && within {
            return Ok(Self::Muon { momentum: make(MOMENTUM)? });
        }
        Ok(Self::Adamw { first: make(FIRST)?, second: make(SECOND)? })
    }

    fn named(&self) -> Vec<(&'static str, &Tensor)> {
        match self {
            Self::Adamw { first, second } => vec![(FIRST, first), (SECOND, second)],
            Self::Muon { momentum } => vec![(MOMENTUM, momentum)],
        }
    }
}

impl Optimizer {
    /// An optimiser for `model` with moments of 0.
    ///
    /// # Errors
    /// A moment cannot be allocated.
    pub fn new<M: Model>(settings: OptimizerSettings, model: &M) -> Result<Self> {
        let mut moments = BTreeMap::new();
        for (name, tensor) in model.parameters() {
            let zeros = |_| Ok(tensor.zeros_like()?);
            let built = Moments::build(settings.optim, &name, &tensor, zeros)?;
            moments.insert(name, built);
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
        let OptimizerSettings { beta1, beta2, epsilon: eps, .. } = self.settings;
        let parameters = model.parameters();
        // Each matrix of Muon's is worked on by one thread, hence several of them at once.
        parameters.par_iter().with_max_len(1).try_for_each(|(name, parameter)| -> Result<()> {
            let missing = |what: &str| Error::Model { what: format!("has no {what} for `{name}`") };
            let gradient = gradients.get(name).ok_or_else(|| missing("gradient"))?;
            let moments = self.moments.get(name).ok_or_else(|| missing("moments"))?;
            let weight_decay = if parameter.rank() > 1 { self.settings.weight_decay } else { 0.0 };
            match moments {
                Moments::Adamw { first, second } => {
                    let step = self.steps;
                    let step = AdamwStep { lr, beta1, beta2, eps, weight_decay, step, grad_scale };
                    adamw(parameter, gradient, first, second, &step)?;
                }
                Moments::Muon { momentum } => {
                    let step = MuonStep { lr, momentum: MUON_MOMENTUM, weight_decay, grad_scale };
                    muon(parameter, gradient, momentum, &step)?;
                }
            }
            Ok(())
        })?;
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

    /// Writes the moments to a safetensors file, a tensor at a time and without a copy of any.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let tensors: Vec<(String, &Tensor)> = self
            .moments
            .iter()
            .flat_map(|(name, moments)| {
                let named = moments.named().into_iter();
                named.map(move |(kind, tensor)| (format!("{kind}.{name}"), tensor))
            })
            .collect();
        let tensors = tensors.iter().map(|(name, tensor)| (name.as_str(), *tensor));
        Ok(weights::save_file(path, tensors, WeightDtype::F32)?)
    }

    /// Reads the moments of a file that [`Optimizer::save`] wrote, of an optimiser that had taken
    /// `steps` steps.
    ///
    /// # Errors
    /// The file cannot be read, or its moments are not those of `model`.
    pub fn load<M: Model>(
        settings: OptimizerSettings,
        model: &M,
        path: &Path,
        steps: u64,
    ) -> Result<Self> {
        let file = TensorFile::open(path)?;
        let mut moments = BTreeMap::new();
        for (name, parameter) in model.parameters() {
            let take = |kind: &'static str| {
                let key = format!("{kind}.{name}");
                let fits = file.shape(&key) == Some(parameter.dims());
                let found = if fits { file.tensor(&key)? } else { None };
                found.ok_or_else(|| Error::Moments {
                    path: path.into(),
                    what: format!("`{key}` is missing or has another shape"),
                })
            };
            let built = Moments::build(settings.optim, &name, &parameter, take)?;
            moments.insert(name, built);
        }
        Ok(Self { settings, moments, steps })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::toy::Bigram;
    use crate::model::{Group, TokenScores};

    fn settings() -> OptimizerSettings {
        OptimizerSettings {
            optim: Optim::Adamw,
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
        let training = crate::model::Training { temperature: 1.0, noise: 0, tape: None };
        model.backward(&[group], &training, &mut gradients, &mut derivative).unwrap();
        gradients
    }

    #[test]
    fn matrices_decay_and_vectors_do_not() {
        let model = Bigram::new(3, 1);
        let before = model.numbers();
        let zero = model.zero_gradients().unwrap();
        Optimizer::new(settings(), &model).unwrap().step(&model, &zero, 0.1).unwrap();
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
            let mut optimizer = Optimizer::new(settings(), &model).unwrap();
            let applied = optimizer.step(&model, &gradients(&model, scale), 0.1).unwrap();
            let firsts = optimizer.moments.values().map(|moments| moments.named()[0].1);
            let squares: f32 = firsts
                .map(|first| first.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap())
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
        let mut optimizer = Optimizer::new(settings(), &model).unwrap();
        let applied = optimizer.step(&model, &gradients(&model, f32::INFINITY), 0.1).unwrap();
        assert!(!applied.taken);
        assert_eq!((model.numbers(), optimizer.steps()), (before, 0));
    }

    #[test]
    fn an_optimizer_that_was_saved_goes_on_as_before() {
        for optim in [Optim::Adamw, Optim::Muon] {
            let settings = OptimizerSettings { optim, ..settings() };
            let dir = tempfile::tempdir().unwrap();
            let file = dir.path().join("optimizer.safetensors");
            let step = |optimizer: &mut Optimizer, model: &Bigram| {
                optimizer.step(model, &gradients(model, 0.3), 0.1).unwrap();
            };
            let model = Bigram::new(3, 1);
            let mut optimizer = Optimizer::new(settings, &model).unwrap();
            step(&mut optimizer, &model);
            optimizer.save(&file).unwrap();
            let copy = model.frozen_copy().unwrap();
            let mut loaded = Optimizer::load(settings, &copy, &file, optimizer.steps()).unwrap();
            step(&mut optimizer, &model);
            step(&mut loaded, &copy);
            assert_eq!(model.numbers(), copy.numbers(), "{optim:?}");
        }
    }

    #[test]
    fn muon_is_for_matrices_between_embedding_and_head() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("optimizer.safetensors");
        let settings = OptimizerSettings { optim: Optim::Muon, ..settings() };
        let model = Bigram::new(3, 1);
        Optimizer::new(settings, &model).unwrap().save(&file).unwrap();
        let found = TensorFile::open(&file).unwrap();
        for (name, tensor) in model.parameters() {
            let kind = if tensor.rank() == 2 { MOMENTUM } else { FIRST };
            assert!(found.shape(&format!("{kind}.{name}")).is_some(), "{name}");
        }
    }

    #[test]
    fn moments_of_another_model_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("optimizer.safetensors");
        Optimizer::new(settings(), &Bigram::new(3, 1)).unwrap().save(&file).unwrap();
        let error =
            Optimizer::load(settings(), &Bigram::new(4, 1), &file, 1).unwrap_err().to_string();
        assert!(error.contains("exp_avg.bigram."), "{error}");
    }
}
