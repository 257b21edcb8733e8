//! Supervised fine-tuning on conversations, with checkpoints.

use std::time::Instant;

use embodied_r_random::stream;

use crate::checkpoint::{BestCheckpoint, BestMetric, Checkpoint};
use crate::data::conversations::SftExamples;
use crate::data::fingerprint::fingerprint;
use crate::data::sampler::BatchSampler;
use crate::error::{Error, Result};
use crate::events::{Metrics, RankShares, Sink, finite};
use crate::inspect::batch_file::{BatchFile, FileCompletion, FileGroup};
use crate::model::{Model, Prompt};
use crate::non_finite::Diagnosis;
use crate::schedule::LrSchedule;
use crate::settings::SftSettings;
use crate::trainer::{Prepared, Run, RunInputs, RunOutcome, RunPlan, StepOutput, Trainer, train};
use crate::update::StepParams;
use crate::update::supervised::{Example, mean_loss, train_step};

/// Metric of the best checkpoint; lower is better.
const BEST_METRIC: &str = "eval/loss";

/// Inputs of a run, except its model.
pub struct SftInputs<'a> {
    /// The settings, already validated.
    pub settings: &'a SftSettings,
    /// The examples, and what follows from them and the settings.
    pub data: SftData,
    /// What every run has.
    pub run: RunInputs<'a>,
}

/// A supervised fine-tuning run.
pub struct SftTrainer<'a, M: Model> {
    run: Run<'a, M>,
    settings: &'a SftSettings,
    data: SftData,
}

/// The examples of a run with their order and the learning rate of each step, which fit each other.
#[derive(Debug, Clone)]
pub struct SftData {
    examples: SftExamples,
    eval: Vec<Example>,
    sampler: BatchSampler,
    lr: LrSchedule,
}

impl SftData {
    /// The data of a run over `examples`. If there are any in `eval`, it evaluates before the first step, after every
    /// epoch and after the last step.
    ///
    /// # Errors
    /// There are too few examples, or too many steps.
    pub fn new(settings: &SftSettings, examples: SftExamples, eval: Vec<Example>) -> Result<Self> {
        let (left, needed) = (examples.examples.len(), settings.supervised.train_batch_size);
        let given = left + examples.too_long;
        let sampler = BatchSampler::new(left, needed, settings.run.seed);
        let sampler = sampler.ok_or(Error::TooFew { what: "examples", given, left, needed })?;
        let total_steps = settings.total_steps(sampler.steps_per_epoch());
        let total_steps = total_steps.map_err(|fault| Error::Settings(vec![fault]))?;
        Ok(Self { examples, eval, sampler, lr: settings.lr.schedule(total_steps) })
    }

    /// The training examples.
    pub fn examples(&self) -> &SftExamples {
        &self.examples
    }

    /// The validation examples.
    pub fn eval(&self) -> &[Example] {
        &self.eval
    }

    /// Steps per epoch.
    pub fn steps_per_epoch(&self) -> u64 {
        self.sampler.steps_per_epoch()
    }

    /// The learning rate of each step.
    pub fn lr(&self) -> &LrSchedule {
        &self.lr
    }
}

impl<'a, M: Model> SftTrainer<'a, M> {
    /// Starts a new run from `model`.
    ///
    /// # Errors
    /// The output folder already contains a run, or memory is short.
    pub fn start(model: M, inputs: SftInputs<'a>, sinks: Vec<Box<dyn Sink + 'a>>) -> Result<Self> {
        let plan = run_plan(&inputs);
        let prepared = Run::prepare_new(model, &inputs.run, &plan)?;
        Self::open(prepared, inputs, plan, sinks)
    }

    /// Starts a new run from the base model.
    ///
    /// # Errors
    /// As [`SftTrainer::start`]; the model cannot be loaded.
    pub fn from_base(inputs: SftInputs<'a>, sinks: Vec<Box<dyn Sink + 'a>>) -> Result<Self> {
        let plan = run_plan(&inputs);
        let model = inputs.run.load_base(&plan)?;
        let prepared = Run::prepare_new(model, &inputs.run, &plan)?;
        Self::open(prepared, inputs, plan, sinks)
    }

    /// Resumes a run from `checkpoint`; the result is that of an uninterrupted run.
    ///
    /// # Errors
    /// As [`SftTrainer::start`]; the checkpoint cannot be read, or there are later ones.
    pub fn resume(
        checkpoint: &Checkpoint,
        inputs: SftInputs<'a>,
        sinks: Vec<Box<dyn Sink + 'a>>,
    ) -> Result<Self> {
        let plan = run_plan(&inputs);
        let prepared = Run::prepare_resumed(checkpoint, &inputs.run, &plan)?;
        Self::open(prepared, inputs, plan, sinks)
    }

    /// Trains until all steps are done or the user requests a stop; either way a final checkpoint is written.
    ///
    /// # Errors
    /// Any part fails; the last checkpoint remains usable.
    pub fn run(self) -> Result<RunOutcome> {
        train(self)
    }

    fn open(
        prepared: Prepared<M>,
        inputs: SftInputs<'a>,
        plan: RunPlan<'a>,
        sinks: Vec<Box<dyn Sink + 'a>>,
    ) -> Result<Self> {
        let SftInputs { settings, data, run } = inputs;
        let run = Run::open(prepared, run, plan, sinks)?;
        Ok(Self { run, settings, data })
    }
}

/// What the run is to do.
fn run_plan<'a>(inputs: &SftInputs<'a>) -> RunPlan<'a> {
    let SftInputs { settings, data, .. } = inputs;
    let (examples, steps_per_epoch) = (&data.examples.examples, data.steps_per_epoch());
    let tokens =
        examples.iter().map(|example| (&example.prompt, example.completion.as_slice(), ""));
    RunPlan {
        settings: &settings.run,
        load_options: inputs.run.load_options(&settings.run, settings.trainable()),
        optimizer: settings.optimizer,
        total_steps: data.lr.total_steps,
        save_steps: settings.supervised.save_steps.unwrap_or(steps_per_epoch),
        milestones: settings.run.milestones(steps_per_epoch),
        best_by: BestMetric::new(BEST_METRIC, None),
        data: fingerprint(tokens),
        probe: examples.first().map_or_else(Vec::new, |example| example.prompt.ids().to_vec()),
    }
}

impl<'a, M: Model> Trainer<'a> for SftTrainer<'a, M> {
    type Model = M;

    fn run(&self) -> &Run<'a, M> {
        &self.run
    }

    fn run_mut(&mut self) -> &mut Run<'a, M> {
        &mut self.run
    }

    fn epoch(&self, step: u64) -> f64 {
        step as f64 / self.data.sampler.steps_per_epoch() as f64
    }

    fn step(&mut self, step: u64) -> Result<Option<StepOutput>> {
        let run = &mut self.run;
        run.process_group.enter("update");
        let batch = self.data.sampler.batch(step);
        let examples: Vec<&Example> =
            batch.into_iter().map(|i| &self.data.examples.examples[i]).collect();
        if step + 1 < self.data.lr.total_steps {
            let next = self.data.sampler.batch(step + 1).into_iter();
            let next: Vec<&Prompt> = next.map(|i| &self.data.examples.examples[i].prompt).collect();
            run.model.prefetch(&next);
        }
        let learning_rate = self.data.lr.at(step);
        let clock = Instant::now();
        let params = StepParams {
            temperature: 1.0,
            learning_rate,
            dropout_seed: stream(&[self.settings.run.seed, step]),
        };
        let budget = self.settings.run.max_tokens_per_batch;
        let stats = train_step(&run.model, &mut run.updater, &examples, budget, params, run.stop)?;
        let Some(stats) = stats else { return Ok(None) };
        let step_s = clock.elapsed().as_secs_f64();
        let skipped = match stats.taken {
            true => None,
            false => Some(Box::new(self.diagnose_skip(&examples, step, learning_rate)?)),
        };
        let metrics = finite([
            ("loss", stats.loss),
            ("entropy", stats.entropy),
            ("grad_norm", stats.grad_norm),
            ("learning_rate", learning_rate),
            ("step_time", step_s),
            ("tokens_per_second", stats.tokens as f64 / step_s.max(1e-9)),
        ]);
        let (rollouts, ranks) = (Vec::new(), RankShares::default());
        Ok(Some(StepOutput { rollouts, metrics, ranks, skipped, tokens: stats.tokens }))
    }

    fn evaluation_is_due(&self, step: u64) -> bool {
        let is_last = step == self.data.lr.total_steps;
        let ends_epoch = step.is_multiple_of(self.data.sampler.steps_per_epoch());
        !self.data.eval.is_empty() && (ends_epoch || is_last)
    }

    fn evaluate(&mut self) -> Result<Option<Metrics>> {
        let examples: Vec<&Example> = self.data.eval.iter().collect();
        let (budget, run) = (self.settings.run.max_tokens_per_batch, &self.run);
        let loss = mean_loss(&run.model, &examples, budget, &run.process_group)?;
        Ok(Some(finite([(BEST_METRIC, loss)])))
    }

    fn add_best(&self, best: &BestCheckpoint, metrics: &mut Metrics) {
        let since = self.epoch(self.run.state.step - best.step);
        metrics.extend(finite([("eval/best_loss", best.value), ("eval/epochs_since_best", since)]));
    }
}

impl<M: Model> SftTrainer<'_, M> {
    /// Dumps the batch of a skipped step and diagnoses what was non-finite.
    ///
    /// An example is a completion of advantage 1.
    fn diagnose_skip(
        &self,
        examples: &[&Example],
        step: u64,
        learning_rate: f64,
    ) -> Result<Diagnosis> {
        let group = |example: &&Example| FileGroup {
            completions: vec![FileCompletion {
                ids: example.completion.clone(),
                advantage: 1.0,
                ..FileCompletion::default()
            }],
            ..FileGroup::of_prompt(&example.prompt, self.run.images.as_deref())
        };
        let batch = BatchFile { groups: examples.iter().map(group).collect(), settings: None };
        Ok(Diagnosis {
            found: self.run.updater.non_finite().clone(),
            learning_rate,
            grad_norms: self.run.updater.grad_norms(),
            dump: self.run.dump(step, &batch)?,
            ..Diagnosis::default()
        })
    }
}

#[cfg(test)]
mod tests;
