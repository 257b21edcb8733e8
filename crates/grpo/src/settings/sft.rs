//! Settings of supervised fine-tuning.

use embodied_r_policy::Trainable;
use serde::{Deserialize, Serialize};

use super::faults::{Fault, Faults, MAX_STEPS};
use super::flat::flat;
use super::{
    LrSettings, MediaSettings, OptimizerSettings, PromptSettings, RunSettings, SupervisedSettings,
    TrainableSettings, VisionSettings,
};
use crate::data::length_limit::LengthLimit;

/// Settings of a supervised run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct SftSettings {
    /// Model, data and resources of the run, and its checkpoints.
    #[serde(flatten)]
    pub run: RunSettings,
    /// The system prompt.
    #[serde(flatten)]
    pub prompt: PromptSettings,
    /// Length and batches.
    #[serde(flatten)]
    pub supervised: SupervisedSettings,
    /// The learning rate.
    #[serde(flatten)]
    pub lr: LrSettings,
    /// The optimizer.
    #[serde(flatten)]
    pub optimizer: OptimizerSettings,
    /// The trainable parameters.
    #[serde(flatten)]
    pub trainable: TrainableSettings,
    /// The vision encoder.
    #[serde(flatten)]
    pub vision: VisionSettings,
    /// Images and videos of the data.
    #[serde(flatten)]
    pub media: MediaSettings,
}

flat!(
    SftSettings: RunSettings, PromptSettings, SupervisedSettings, LrSettings, OptimizerSettings, TrainableSettings,
    VisionSettings, MediaSettings
);

impl Default for SftSettings {
    fn default() -> Self {
        Self {
            run: RunSettings { save_total_limit: 1, ..RunSettings::default() },
            prompt: PromptSettings::default(),
            supervised: SupervisedSettings::default(),
            lr: LrSettings { learning_rate: 1e-5, ..LrSettings::default() },
            optimizer: OptimizerSettings::default(),
            trainable: TrainableSettings::default(),
            vision: VisionSettings::default(),
            media: MediaSettings::default(),
        }
    }
}

impl SftSettings {
    /// All invalid settings at once.
    pub fn faults(&self) -> Vec<Fault> {
        let mut faults = Faults::default();
        self.supervised.add_faults(&mut faults);
        self.run.add_faults(&mut faults);
        self.lr.add_faults(&mut faults);
        self.optimizer.add_faults(&mut faults);
        self.trainable.add_faults(&self.vision, &mut faults);
        self.vision.add_faults(&mut faults);
        faults.0
    }

    /// These settings with a `change`.
    #[cfg(test)]
    pub(crate) fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// The steps of a run with `steps_per_epoch` steps per epoch, at most `max_steps`.
    ///
    /// # Errors
    /// More steps than any run could take.
    pub fn total_steps(&self, steps_per_epoch: u64) -> Result<u64, Fault> {
        let SupervisedSettings { num_train_epochs, max_steps, .. } = self.supervised;
        let steps = steps_per_epoch.saturating_mul(num_train_epochs);
        let steps = steps.min(max_steps.unwrap_or(u64::MAX));
        let too_many = || {
            let what = format!("the run has more than {MAX_STEPS} steps; shorten it");
            let key = if max_steps.is_some() { "max_steps" } else { "num_train_epochs" };
            Fault::new(key, what)
        };
        (steps <= MAX_STEPS).then_some(steps).ok_or_else(too_many)
    }

    /// The longest example of a model with this context length.
    pub fn example_limit(&self, context_length: usize) -> LengthLimit {
        let limit = self.supervised.max_length;
        LengthLimit::of_examples(limit, context_length, self.run.truncation_strategy)
    }

    /// The trainable parameters.
    pub fn trainable(&self) -> Trainable {
        self.trainable.trainable(&self.run.model, &self.vision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::{LrScheduler, WarmupSteps};

    #[test]
    fn the_defaults_have_no_fault() {
        assert_eq!(SftSettings::default().faults(), []);
    }

    #[test]
    fn max_steps_end_a_run_early() {
        let steps = |max_steps| {
            let sft = SftSettings::default().with(|s| s.supervised.max_steps = max_steps);
            sft.total_steps(10).unwrap()
        };
        assert_eq!([None, Some(29), Some(31)].map(steps), [30, 29, 30]);
        let endless = SftSettings::default().with(|s| s.supervised.num_train_epochs = u64::MAX);
        assert_eq!(endless.total_steps(10).unwrap_err().key, "num_train_epochs");
        let endless = endless.with(|s| s.supervised.max_steps = Some(u64::MAX));
        assert_eq!(endless.total_steps(10).unwrap_err().key, "max_steps");
    }

    #[test]
    fn all_faults_are_reported_at_once() {
        let sft = SftSettings::default().with(|s| {
            s.supervised.num_train_epochs = 0;
            s.supervised.max_steps = Some(0);
            s.lr.learning_rate = f64::NAN;
            s.lr.lr_scheduler_type = LrScheduler::Constant;
            s.lr.warmup_steps = Some(WarmupSteps::Steps(5));
        });
        let keys: Vec<_> = sft.faults().into_iter().map(|fault| fault.key).collect();
        assert_eq!(keys, ["num_train_epochs", "max_steps", "learning_rate", "warmup_steps"]);
    }
}
