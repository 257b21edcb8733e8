//! Supervised fine-tuning on conversations, with checkpoints.

use std::time::Instant;

use embodied_r_random::stream;

use crate::checkpoint::{BestCheckpoint, BestMetric, Checkpoint};
use crate::data::fingerprint::fingerprint;
use crate::data::sampler::BatchSampler;
use crate::error::{Error, Result};
use crate::events::{Metrics, RankShares, Sink, finite};
use crate::inspect::batch_file::{BatchFile, FileCompletion, FileGroup};
use crate::model::Model;
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
    /// What follows from the settings and the examples.
    pub schedule: SftSchedule,
    /// Training examples.
    pub examples: Vec<Example>,
    /// Validation examples, evaluated before the first step and after every epoch; empty for no validation.
    pub eval: Vec<Example>,
    /// What every run has.
    pub run: RunInputs<'a>,
}

/// A supervised fine-tuning run.
pub struct SftTrainer<'a, M: Model> {
    run: Run<'a, M>,
    settings: &'a SftSettings,
    examples: Vec<Example>,
    eval: Vec<Example>,
    schedule: SftSchedule,
}

/// What follows from settings and examples before there is a model.
#[derive(Debug, Clone)]
pub struct SftSchedule {
    /// The order of the examples.
    pub sampler: BatchSampler,
    /// The learning rate of each step.
    pub lr: LrSchedule,
}

impl SftSchedule {
    /// The schedule of a run over the `left` of `given` examples that are not too long.
    ///
    /// # Errors
    /// There are too few examples, or too many steps.
    pub fn new(settings: &SftSettings, given: usize, left: usize) -> Result<Self> {
        let needed = settings.supervised.train_batch_size;
        let sampler = BatchSampler::new(left, needed, settings.run.seed);
        let sampler = sampler.ok_or(Error::TooFew { what: "examples", given, left, needed })?;
        let total_steps = settings.total_steps(sampler.steps_per_epoch());
        let total_steps = total_steps.map_err(|fault| Error::Settings(vec![fault]))?;
        Ok(Self { sampler, lr: settings.lr.schedule(total_steps) })
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
        let SftInputs { settings, schedule, examples, eval, run } = inputs;
        let run = Run::open(prepared, run, plan, sinks)?;
        Ok(Self { run, settings, examples, eval, schedule })
    }
}

/// What the run is to do.
fn run_plan<'a>(inputs: &SftInputs<'a>) -> RunPlan<'a> {
    let (settings, examples) = (inputs.settings, &inputs.examples);
    let steps_per_epoch = inputs.schedule.sampler.steps_per_epoch();
    let data = examples
        .iter()
        .map(|example| (example.prompt.as_slice(), example.completion.as_slice(), ""));
    RunPlan {
        settings: &settings.run,
        load_options: inputs.run.load_options(&settings.run, settings.trainable()),
        optimizer: settings.optimizer,
        total_steps: inputs.schedule.lr.total_steps,
        save_steps: settings.supervised.save_steps.unwrap_or(steps_per_epoch),
        milestones: settings.run.milestones(steps_per_epoch),
        best_by: BestMetric::new(BEST_METRIC, None),
        data: fingerprint(data),
        probe: examples.first().map_or_else(Vec::new, |example| example.prompt.clone()),
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
        step as f64 / self.schedule.sampler.steps_per_epoch() as f64
    }

    fn step(&mut self, step: u64) -> Result<Option<StepOutput>> {
        let run = &mut self.run;
        run.process_group.enter("update");
        let batch = self.schedule.sampler.batch(step);
        let examples: Vec<&Example> = batch.into_iter().map(|i| &self.examples[i]).collect();
        let learning_rate = self.schedule.lr.at(step);
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
        !self.eval.is_empty() && step.is_multiple_of(self.schedule.sampler.steps_per_epoch())
    }

    fn evaluate(&mut self) -> Result<Option<Metrics>> {
        let examples: Vec<&Example> = self.eval.iter().collect();
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
            prompt_ids: example.prompt.clone(),
            completions: vec![FileCompletion {
                ids: example.completion.clone(),
                advantage: 1.0,
                ..FileCompletion::default()
            }],
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
