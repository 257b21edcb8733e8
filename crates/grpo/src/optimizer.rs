//! AdamW or Muon over a model's parameters, with their moments.
//!
//! Of several ranks each has a part of AdamW's moments and moves that part of the weights (ZeRO-1). Muon needs matrices as
//! a whole: its moments are on every rank, and all of them move all weights.

mod sharded;
mod shards;
mod stored;
mod whole;

use std::path::{Path, PathBuf};

use candle_core::Tensor;
use embodied_r_kernels::AdamwStep;
use embodied_r_policy::WeightDtype;
use embodied_r_policy::weights;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::model::Model;
use crate::settings::Faults;
use crate::team::Team;
use sharded::{Reduced, Sharded};
use stored::Stored;
pub(crate) use stored::file_name;
use whole::Whole;

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
    team: Team,
    moments: Moments,
    steps: u64,
}

/// Where the moments are.
#[derive(Debug)]
enum Moments {
    /// All of them, on every rank.
    Whole(Whole),
    /// A part on each.
    Sharded(Sharded),
}

/// The gradients of all ranks together, from which a step is made.
pub struct Summed<'a, G> {
    norm: f64,
    of: Sum<'a, G>,
}

enum Sum<'a, G> {
    /// As they are.
    Whole(&'a G),
    /// This rank's part.
    Part(Reduced),
}

impl<G> Summed<'_, G> {
    /// The Euclidean norm over all parameters; not finite if any number is not.
    #[must_use]
    pub fn norm(&self) -> f64 {
        self.norm
    }
}

impl Moments {
    fn new<M: Model>(
        settings: OptimizerSettings,
        model: &M,
        team: &Team,
        stored: Option<&Stored>,
    ) -> Result<Self> {
        let parts = team.size() > 1 && settings.optim == Optim::Adamw;
        Ok(match parts {
            true => Self::Sharded(Sharded::new(team.communicator().clone(), model, stored)?),
            false => Self::Whole(Whole::new(settings.optim, model, stored)?),
        })
    }
}

impl Optimizer {
    /// An optimiser for `model` with moments of 0, of which this rank of `team` has its part.
    ///
    /// # Errors
    /// A moment cannot be allocated.
    pub fn new<M: Model>(settings: OptimizerSettings, model: &M, team: &Team) -> Result<Self> {
        let moments = Moments::new(settings, model, team, None)?;
        Ok(Self { settings, team: team.clone(), moments, steps: 0 })
    }

    /// Sums the gradients of all ranks.
    ///
    /// # Errors
    /// A rank is lost, or a parameter has no gradient.
    pub fn sum<'a, M: Model>(
        &self,
        model: &M,
        gradients: &'a M::Gradients,
    ) -> Result<Summed<'a, M::Gradients>> {
        match &self.moments {
            Moments::Sharded(sharded) => {
                let reduced = sharded.reduce(model, gradients)?;
                Ok(Summed { norm: reduced.norm, of: Sum::Part(reduced) })
            }
            Moments::Whole(_) => {
                whole::sum(&self.team, model, gradients)?;
                let norm = crate::model::Gradients::norm(gradients)?;
                Ok(Summed { norm, of: Sum::Whole(gradients) })
            }
        }
    }

    /// Clips the gradients to the largest norm allowed and takes a step with learning rate `lr`, unless a gradient is not
    /// finite.
    ///
    /// Matrices decay; vectors, which are norms and biases, do not.
    ///
    /// # Errors
    /// A parameter has no gradient or moment, or a tensor is not what the kernel works on; a rank is lost.
    pub fn step<M: Model>(
        &mut self,
        model: &M,
        gradients: &Summed<'_, M::Gradients>,
        lr: f64,
    ) -> Result<Applied> {
        let grad_norm = gradients.norm;
        if !grad_norm.is_finite() {
            return Ok(Applied { grad_norm, taken: false });
        }
        let bound = self.settings.max_grad_norm;
        let grad_scale = if grad_norm > bound { bound / (grad_norm + 1e-6) } else { 1.0 };
        self.steps += 1;
        let OptimizerSettings { beta1, beta2, epsilon: eps, weight_decay, .. } = self.settings;
        let step = self.steps;
        let of = |is_matrix: bool| {
            let weight_decay = if is_matrix { weight_decay } else { 0.0 };
            AdamwStep { lr, beta1, beta2, eps, weight_decay, step, grad_scale }
        };
        match (&self.moments, &gradients.of) {
            (Moments::Whole(whole), Sum::Whole(gradients)) => whole.step(model, *gradients, of)?,
            (Moments::Sharded(sharded), Sum::Part(reduced)) => sharded.step(model, reduced, of)?,
            _ => {
                return Err(crate::Error::Model { what: "was summed by another optimiser".into() });
            }
        }
        Ok(Applied { grad_norm, taken: true })
    }

    /// The ranks that take its steps together.
    #[must_use]
    pub fn team(&self) -> &Team {
        &self.team
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
        *self = Self::new(self.settings, model, &self.team)?;
        Ok(())
    }

    /// How many files the moments go to, one of each rank that has a part of them.
    #[must_use]
    pub fn files(&self) -> usize {
        match &self.moments {
            Moments::Whole(_) => 1,
            Moments::Sharded(_) => self.team.size(),
        }
    }

    /// Writes this rank's moments into `folder`, a tensor at a time and without a copy of any; gives the file, if this
    /// rank has one to write.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save<M: Model>(&self, model: &M, folder: &Path) -> Result<Option<PathBuf>> {
        let pieces = match &self.moments {
            Moments::Whole(_) if !self.team.is_first() => return Ok(None),
            Moments::Whole(whole) => whole.pieces(),
            Moments::Sharded(sharded) => sharded.pieces(model)?,
        };
        let tensors =
            pieces.iter().map(|(name, tensor): &(String, Tensor)| (name.as_str(), tensor));
        let path = folder.join(file_name(self.team.rank(), self.files()));
        weights::save_file(&path, tensors, WeightDtype::F32)?;
        Ok(Some(path))
    }

    /// Reads this rank's part of the moments in `folder`, which [`Optimizer::save`] wrote into `files` files, of an
    /// optimiser that had taken `steps` steps. The ranks need not be as many as then.
    ///
    /// # Errors
    /// A file cannot be read, or its moments are not those of `model`.
    pub fn load<M: Model>(
        settings: OptimizerSettings,
        model: &M,
        team: &Team,
        folder: &Path,
        (files, steps): (usize, u64),
    ) -> Result<Self> {
        let stored = Stored::open(folder, files)?;
        let moments = Moments::new(settings, model, team, Some(&stored))?;
        Ok(Self { settings, team: team.clone(), moments, steps })
    }
}

#[cfg(test)]
mod tests {
    use embodied_r_policy::weights::TensorFile;

    use super::*;
    use crate::model::toy::Bigram;
    use crate::model::{Gradients, Group, TokenScores};

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

    fn optimizer(settings: OptimizerSettings, model: &Bigram) -> Optimizer {
        Optimizer::new(settings, model, &Team::default()).unwrap()
    }

    fn step(
        optimizer: &mut Optimizer,
        model: &Bigram,
        gradients: &<Bigram as Model>::Gradients,
    ) -> Applied {
        let summed = optimizer.sum(model, gradients).unwrap();
        optimizer.step(model, &summed, 0.1).unwrap()
    }

    #[test]
    fn matrices_decay_and_vectors_do_not() {
        let model = Bigram::new(3, 1);
        let before = model.numbers();
        let zero = model.zero_gradients().unwrap();
        step(&mut optimizer(settings(), &model), &model, &zero);
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
            let mut optimizer = optimizer(settings(), &model);
            let applied = step(&mut optimizer, &model, &gradients(&model, scale));
            let Moments::Whole(whole) = &optimizer.moments else { panic!("of one rank") };
            let pieces = whole.pieces();
            let firsts = pieces.iter().filter(|(name, _)| name.starts_with("exp_avg."));
            let squares: f32 = firsts
                .map(|(_, first)| {
                    first.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap()
                })
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
        let mut optimizer = optimizer(settings(), &model);
        let infinite = gradients(&model, f32::INFINITY);
        assert!(!infinite.norm().unwrap().is_finite());
        let applied = step(&mut optimizer, &model, &infinite);
        assert!(!applied.taken);
        assert_eq!((model.numbers(), optimizer.steps()), (before, 0));
    }

    #[test]
    fn an_optimizer_that_was_saved_goes_on_as_before() {
        for optim in [Optim::Adamw, Optim::Muon] {
            let settings = OptimizerSettings { optim, ..settings() };
            let dir = tempfile::tempdir().unwrap();
            let move_on = |optimizer: &mut Optimizer, model: &Bigram| {
                step(optimizer, model, &gradients(model, 0.3));
            };
            let model = Bigram::new(3, 1);
            let mut first = optimizer(settings, &model);
            move_on(&mut first, &model);
            first.save(&model, dir.path()).unwrap();
            let copy = model.frozen_copy().unwrap();
            let written = (first.files(), first.steps());
            let alone = Team::default();
            let loaded = Optimizer::load(settings, &copy, &alone, dir.path(), written);
            move_on(&mut first, &model);
            move_on(&mut loaded.unwrap(), &copy);
            assert_eq!(model.numbers(), copy.numbers(), "{optim:?}");
        }
    }

    #[test]
    fn muon_is_for_matrices_between_embedding_and_head() {
        let dir = tempfile::tempdir().unwrap();
        let settings = OptimizerSettings { optim: Optim::Muon, ..settings() };
        let model = Bigram::new(3, 1);
        optimizer(settings, &model).save(&model, dir.path()).unwrap();
        let found = TensorFile::open(&dir.path().join(file_name(0, 1))).unwrap();
        for (name, tensor) in model.parameters() {
            let kind = if tensor.rank() == 2 { "momentum_buffer" } else { "exp_avg" };
            assert!(found.shape(&format!("{kind}.{name}")).is_some(), "{name}");
        }
    }

    #[test]
    fn moments_of_another_model_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let model = Bigram::new(3, 1);
        optimizer(settings(), &model).save(&model, dir.path()).unwrap();
        let (other, alone) = (Bigram::new(4, 1), Team::default());
        let error = Optimizer::load(settings(), &other, &alone, dir.path(), (1, 1));
        let error = error.unwrap_err().to_string();
        assert!(error.contains("exp_avg.bigram."), "{error}");
    }
}
