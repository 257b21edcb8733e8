//! A training job: what follows from a run's settings before a model is loaded, each resolved once.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::Device;
use embodied_r_data::DataFiles;
use embodied_r_dist::ProcessGroup;
use embodied_r_eval::layout;
use embodied_r_files::write_json;
use embodied_r_grpo::Error;
use embodied_r_grpo::checkpoint::Checkpoint;
use embodied_r_grpo::estimate::memory_plan::{MemoryPlan, RankDevice, Workload};
use embodied_r_grpo::events::{ENVIRONMENT_FILE, Environment, Sink};
use embodied_r_grpo::images::{ReferenceTower, RunImages};
use embodied_r_grpo::settings::VisionSettings;
use embodied_r_grpo::trainer::{RunInputs, RunOutcome};
use embodied_r_media::disk_cache::DiskCache;
use embodied_r_media::table::ImageTable;
use embodied_r_policy::tokenizer::Tokenizer;
use embodied_r_policy::trainable::ParameterCounts;
use embodied_r_policy::{FingerprintExtent, ModelConfig, Precision, Trainable};

use super::explain::explain;
use super::memory::{host_bytes, memory_summary, shortage};
use super::progress::{finish, progress};
use super::session::Session;
use super::settings::TrainingSettings;
use crate::args::run::RunArgs;
use crate::commands::doctor;
use crate::device;
use crate::exit::{Status, Usage};
use crate::interrupt::on_interrupt;
use crate::media::image_cache;
use crate::output::out;
use crate::progress::Bar;
use crate::run_images::{ImageEncoding, run_images};
use crate::settings;

/// A training job.
pub(crate) struct Job<'a, T> {
    session: Session<T>,
    /// The base model's folder.
    folder: PathBuf,
    /// The base model's fingerprint.
    fingerprint: String,
    pub(crate) config: ModelConfig,
    /// The model's parameters, and the trainable ones.
    pub(crate) counts: ParameterCounts,
    pub(crate) tokenizer: Arc<Tokenizer>,
    device: Device,
    pub(crate) process_group: &'a ProcessGroup,
}

impl<'a, T: TrainingSettings> Job<'a, T> {
    /// Resolves what the settings of `session` name.
    ///
    /// # Errors
    /// The model or the device cannot be opened, or the settings do not fit the model; on resume, the model is not the
    /// one that the run started from.
    pub(crate) fn new(
        args: &RunArgs,
        session: Session<T>,
        process_group: &'a ProcessGroup,
    ) -> anyhow::Result<Self> {
        let (run, trainable) = (session.settings.run(), session.settings.trainable());
        refuse_test_sets(&run.data)?;
        let folder = crate::hub::decoder(&run.model, None)?;
        // An adapter is nothing without its base model, which is therefore hashed as a whole.
        let extent = match &trainable {
            Trainable::Lora(_) => FingerprintExtent::Whole,
            _ => FingerprintExtent::Sampled,
        };
        let fingerprint = embodied_r_policy::fingerprint(&folder, extent)?;
        if let Some(checkpoint) = &session.checkpoint {
            checkpoint.refuse_other_model(&run.model, &fingerprint).map_err(explain)?;
        }
        let kwargs = session.settings.prompt().chat_template_kwargs.clone();
        let tokenizer = Tokenizer::from_dir(&folder)?.with_chat_template_kwargs(kwargs);
        let tokenizer = Arc::new(tokenizer);
        let config = ModelConfig::of_model(&folder)?;
        let counts = trainable.counts(&config).map_err(|error| Usage(error.to_string()))?;
        if run.precision == Precision::F32 && process_group.is_rank_zero() {
            device::warn_of_f32(args.job.device());
        }
        let device = device::open(args.job.device())?;
        Ok(Self { session, folder, fingerprint, config, counts, tokenizer, device, process_group })
    }

    /// The base model's folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The images of `table`, for the models of this run; their embeddings are kept in its folder.
    ///
    /// # Errors
    /// The folder cannot be created.
    pub(crate) fn images(
        &self,
        table: ImageTable,
        vision: &VisionSettings,
        (learning_rate, reference): (f64, ReferenceTower),
        memory: &MemoryPlan,
    ) -> Result<RunImages, Error> {
        let run = self.settings().run();
        let key = format!("{} {:?} {:?}", self.fingerprint, vision.pixels(), run.precision);
        let encoding = ImageEncoding {
            precision: run.precision,
            device: self.device.clone(),
            learning_rate,
            activation_bytes: memory.tower_activations,
            disk: Some(DiskCache::open(&image_cache(&run.output), &key)?),
            reference,
        };
        Ok(run_images(&self.folder, table, vision, encoding))
    }

    /// The settings.
    pub(crate) fn settings(&self) -> &T {
        &self.session.settings
    }

    /// The checkpoint that the run resumes from.
    pub(crate) fn checkpoint(&self) -> Option<&Checkpoint> {
        self.session.checkpoint.as_ref()
    }

    /// The checkpoint of which the run is a continuation with unchanged settings.
    pub(crate) fn unchanged(&self) -> Option<&Checkpoint> {
        self.checkpoint().filter(|_| !self.session.changed)
    }

    /// The number of ranks.
    pub(crate) fn ranks(&self) -> usize {
        self.process_group.world_size()
    }

    /// Prints a warning on the first rank.
    pub(crate) fn warn(&self, text: &str) {
        if self.process_group.is_rank_zero() {
            eprintln!("warning: {text}");
        }
    }

    /// The memory plan of `load`, for the rank that needs most.
    pub(crate) fn memory(&self, load: Workload) -> anyhow::Result<MemoryPlan> {
        Ok(self.rank_device().plan(&self.config, load, self.settings().run().recompute)?)
    }

    /// Prints `plan`, the end of a dry run.
    pub(crate) fn dry_run(&self, plan: &str) -> anyhow::Result<Status> {
        if self.process_group.is_rank_zero() {
            out!("{plan}")?;
        }
        Ok(Status::Done)
    }

    /// Runs `train` within the `memory` plan, in the run's folder, which is locked meanwhile.
    pub(crate) fn run(
        &self,
        memory: &MemoryPlan,
        train: impl for<'x> FnOnce(
            &'x Self,
            RunInputs<'x>,
            Vec<Box<dyn Sink + 'x>>,
        ) -> Result<RunOutcome, Error>,
    ) -> anyhow::Result<Status> {
        self.report_memory(memory)?;
        let lock = self.session.prepare(self.process_group)?;
        if self.process_group.is_rank_zero() {
            self.write_environment()?;
        }
        let settings_text = settings::text(self.settings())?;
        let stop = on_interrupt("stopping after a checkpoint")?;
        let bar = Bar::default();
        let mut sinks: Vec<Box<dyn Sink + '_>> = Vec::new();
        if self.process_group.is_rank_zero() {
            sinks.push(progress(&bar, T::PHASE));
        }
        let inputs = RunInputs {
            settings_text: &settings_text,
            base: &self.folder,
            fingerprint: &self.fingerprint,
            tokenizer: self.tokenizer.clone(),
            activation_bytes: memory.saved_activations,
            device: self.device.clone(),
            images: None,
            stop: &stop,
            lock,
            process_group: self.process_group.clone(),
        };
        let outcome = train(self, inputs, sinks).map_err(explain)?;
        finish(&outcome, T::COMMAND, self.process_group)
    }

    /// Writes the program and the machine, if they have changed since the run's last start: a run that is killed while it
    /// writes leaves a temporary file.
    fn write_environment(&self) -> anyhow::Result<()> {
        let path = self.settings().run().output.join(ENVIRONMENT_FILE);
        let environment = self.environment();
        let written = std::fs::read(&path).ok();
        let written = written.and_then(|bytes| serde_json::from_slice::<Environment>(&bytes).ok());
        if written.as_ref() != Some(&environment) {
            write_json(&path, &environment)?;
        }
        Ok(())
    }

    /// The program and the machine.
    fn environment(&self) -> Environment {
        let gpus = match self.device.is_cpu() {
            true => String::new(),
            false => format!(", {} GPUs", self.ranks()),
        };
        Environment {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            commit: option_env!("EMBODIED_R_COMMIT").map(str::to_owned),
            machine: doctor::description() + &gpus,
        }
    }

    /// Prints the memory that each rank needs, and warns if a rank has less.
    fn report_memory(&self, memory: &MemoryPlan) -> anyhow::Result<()> {
        let free = self.process_group.all_gather(self.rank_device().free_bytes()?)?;
        let ranks = self.ranks();
        if ranks > 1 && self.process_group.is_rank_zero() {
            eprintln!("{ranks} ranks, memory {}", memory_summary(memory, ranks));
        }
        if let Some(shortage) = shortage(memory.total(), &free) {
            self.warn(&shortage);
        }
        Ok(())
    }

    fn rank_device(&self) -> RankDevice<'_> {
        let precision = self.settings().run().precision;
        RankDevice { device: &self.device, precision, ranks: self.ranks(), host_bytes }
    }
}

/// Refuses to train on the questions of a benchmark, whose scores would then say nothing.
fn refuse_test_sets(data: &DataFiles) -> Result<(), Usage> {
    let is_test_set = |path: &Path| {
        layout::published_as(&path.to_string_lossy()).or_else(|| layout::recognized(path))
    };
    for path in data.paths() {
        if let Some(benchmark) = is_test_set(path) {
            return Err(Usage(format!(
                "`{}` is the benchmark `{}`: a model that was trained on it has no score in it; train on other data, or \
                 split the questions by scene with `embodied-r preprocess`",
                path.display(),
                benchmark.name
            )));
        }
    }
    Ok(())
}
