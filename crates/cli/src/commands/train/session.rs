//! Shared by the training commands: settings on resume, run locks, progress, and the outcome.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::Device;
use embodied_r_grpo::checkpoint::{
    Checkpoint, Checkpoints, DamagedCheckpoint, LatestIntact, RunLock,
};
use embodied_r_grpo::estimate::memory_plan::MemoryPlan;
use embodied_r_grpo::events::{Event, ProgressLine, Sink, describe};
use embodied_r_grpo::process_group::ProcessGroup;
use embodied_r_grpo::trainer::RunOutcome;
use embodied_r_grpo::{Error, settings::Fault};
use embodied_r_policy::{FingerprintExtent, ModelConfig, Precision, Trainable};

use super::memory::{RankDevice, Trained, memory_summary, shortage};
use crate::args::run::{JobArgs, RunArgs};
use crate::device;
use crate::exit::{self, Status, Usage};
use crate::output::outln;
use crate::progress::Bar;
use crate::settings::{self, Layers, Settings, path_text};

/// The value of `--resume` without a folder.
const AUTO: &str = "auto";

/// A run's settings, and the checkpoint that it resumes from.
pub(crate) struct Session<T> {
    pub(crate) settings: T,
    pub(crate) checkpoint: Option<Checkpoint>,
    /// Whether settings that affect the result changed since the checkpoint.
    pub(crate) changed: bool,
    /// Later checkpoints that are damaged.
    damaged: Vec<DamagedCheckpoint>,
    /// Lock of the resumed run's folder.
    lock: Option<Arc<RunLock>>,
}

impl<T> Session<T> {
    fn new(settings: T, lock: Option<RunLock>) -> Self {
        let lock = lock.map(Arc::new);
        Self { settings, checkpoint: None, changed: false, damaged: Vec::new(), lock }
    }

    /// Prepares the folder `output`: checks that it is writable, renames damaged checkpoints, and locks it for the
    /// lifetime of the session and of the returned lock.
    ///
    /// The first rank does this for all.
    pub(crate) fn prepare(
        &self,
        output: &Path,
        process_group: &ProcessGroup,
    ) -> anyhow::Result<Option<Arc<RunLock>>> {
        let lock = if process_group.is_rank_zero() { self.prepare_alone(output) } else { Ok(None) };
        process_group.barrier()?;
        lock
    }

    fn prepare_alone(&self, output: &Path) -> anyhow::Result<Option<Arc<RunLock>>> {
        let checkpoints = Checkpoints::new(output, 1);
        checkpoints.prepare().map_err(explain)?;
        let run = self.checkpoint.as_ref().map(|checkpoint| checkpoint.run().canonicalize());
        if run.transpose()? != Some(output.canonicalize()?) {
            // A run that was killed before its first checkpoint is locked already.
            if self.lock.as_ref().is_some_and(|lock| lock.is_of(output)) {
                return Ok(self.lock.clone());
            }
            // A new run, or one resumed into another folder: its damaged checkpoints can stay.
            return Ok(RunLock::take(output).map_err(explain)?.map(Arc::new));
        }
        let aside = checkpoints.set_aside(&self.damaged).map_err(explain)?;
        for (damaged, aside) in self.damaged.iter().zip(aside) {
            eprintln!("renamed a {} checkpoint to `{}`", damaged.kind(), aside.display());
        }
        Ok(self.lock.clone())
    }
}

/// Settings without a default.
const REQUIRED: [&str; 3] = ["model", "data", "output"];

/// Resolves the settings, including the training and validation data. On resume, the checkpoint's settings are the
/// lowest layer. Warns about changed settings, except those named by `free`.
pub(crate) fn open<T: Settings>(
    args: &RunArgs,
    [data, eval_data]: [Option<&Path>; 2],
    output: impl Fn(&T) -> PathBuf,
    free: &[&str],
    process_group: &ProcessGroup,
) -> anyhow::Result<Session<T>> {
    // The first rank locks the run and recovers from a kill before the others read it.
    let opened = if process_group.is_rank_zero() {
        open_alone(args, [data, eval_data], &output, free, process_group)
    } else {
        Ok(None)
    };
    process_group.barrier()?;
    let session = match opened? {
        Some(session) => session,
        None => {
            let session = open_alone(args, [data, eval_data], &output, free, process_group)?;
            session.ok_or_else(|| Usage("there are no settings".into()))?
        }
    };
    agree(&session.settings, process_group)?;
    Ok(session)
}

/// The device of a run, which is opened.
pub(crate) fn device(
    job: &JobArgs,
    precision: Precision,
    process_group: &ProcessGroup,
) -> anyhow::Result<Device> {
    if precision == Precision::F32 && process_group.is_rank_zero() {
        device::warn_of_f32(job.device());
    }
    device::open(job.device())
}

/// The output folder of a run.
pub(crate) fn folder<T: Settings>(
    args: &RunArgs,
    output: impl Fn(&T) -> PathBuf,
) -> anyhow::Result<PathBuf> {
    let layers = match &args.config {
        Some(file) => Layers::default().file(file)?,
        None => Layers::default(),
    };
    let from = args.resume.as_deref().filter(|resume| *resume != Path::new(AUTO));
    // By default, that of the resumed run.
    let from = match from {
        Some(one) if Checkpoint::is_one(one) => one.canonicalize()?.parent().map(Path::to_owned),
        from => from.map(Path::to_owned),
    };
    let given = args.output.clone().or(from);
    let layers = layers
        .reward_funcs(&args.reward_funcs)
        .pairs(&args.sets)
        .flags(&[("output", path_text("--output", given.as_deref())?)]);
    Ok(output(&layers.resolve(&["output"])?))
}

/// Fails if a rank's settings differ from the first one's.
fn agree<T: Settings>(settings: &T, process_group: &ProcessGroup) -> anyhow::Result<()> {
    let texts = process_group.all_gather(settings::text(settings)?)?;
    for (rank, text) in texts.iter().enumerate().skip(1) {
        let differs = settings::differences(&texts[0], text, &[])?;
        if !differs.is_empty() {
            let keys: Vec<String> = differs.iter().map(|key| format!("`{key}`")).collect();
            let message = format!("{} differs between rank 0 and rank {rank}", keys.join(", "));
            return Err(Usage(format!("{message}; give all ranks the same settings")).into());
        }
    }
    Ok(())
}

fn open_alone<T: Settings>(
    args: &RunArgs,
    [data, eval_data]: [Option<&Path>; 2],
    output: &impl Fn(&T) -> PathBuf,
    free: &[&str],
    process_group: &ProcessGroup,
) -> anyhow::Result<Option<Session<T>>> {
    let layers = |from: Layers| -> anyhow::Result<Layers> {
        let from = match &args.config {
            Some(file) => from.file(file)?,
            None => from,
        };
        Ok(from.reward_funcs(&args.reward_funcs).pairs(&args.sets).flags(&[
            ("model", args.model.clone()),
            ("data", path_text("--data", data)?),
            ("eval_data", path_text("--eval-data", eval_data)?),
            ("output", path_text("--output", args.output.as_deref())?),
            ("precision", args.precision.map(|precision| precision.name().to_owned())),
            ("recompute", args.recompute.map(|recompute| recompute.name().to_owned())),
        ]))
    };
    let new_run = || layers(Layers::default().defaults_on(args.job.device()));
    let Some(resume) = args.resume.as_deref() else {
        return Ok(Some(Session::new(new_run()?.resolve(&REQUIRED)?, None)));
    };
    let access = if args.dry_run || !process_group.is_rank_zero() {
        Access::ReadOnly
    } else {
        Access::Resume
    };
    let (LatestIntact { checkpoint, damaged }, lock) = if resume == Path::new(AUTO) {
        let given: T = new_run()?.resolve(&["output"])?;
        last(&output(&given), access)?
    } else {
        find(resume, access)?
    };
    let Some(checkpoint) = checkpoint else {
        if process_group.is_rank_zero() {
            eprintln!("no checkpoint to resume from yet, starting a new run");
        }
        return Ok(Some(Session::new(new_run()?.resolve(&REQUIRED)?, lock)));
    };
    for later in damaged.iter().filter(|_| process_group.is_rank_zero()) {
        eprintln!("warning: skipped a {} later checkpoint: {later}", later.kind());
    }
    let before = checkpoint.settings().map_err(explain)?;
    let run = path_text("--resume", Some(checkpoint.run()))?;
    // The run may have been moved since its settings were written.
    let own = Layers::default().text(&checkpoint.path, &before)?;
    let settings: T = layers(own.flags(&[("output", run)]))?.resolve(&REQUIRED)?;
    let before = settings::with_defaults::<T>(&before)?;
    let changed = settings::differences(&before, &settings::text(&settings)?, free)?;
    refuse_fixed(&changed, &checkpoint)?;
    if !changed.is_empty() && process_group.is_rank_zero() {
        eprintln!(
            "warning: {} changed since the checkpoint; results will differ from the original run",
            changed.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ")
        );
    }
    if process_group.is_rank_zero() {
        eprintln!("resuming from {}", checkpoint.path.display());
    }
    let changed = !changed.is_empty();
    let lock = lock.map(Arc::new);
    Ok(Some(Session { settings, checkpoint: Some(checkpoint), changed, damaged, lock }))
}

/// Settings on which the tensors of a checkpoint depend: which are trained, and the optimizer's state.
const FIXED_ON_RESUME: [&str; 5] =
    ["freeze_parameters_regex", "lora_r", "lora_target_modules", "optim", "use_peft"];

/// Fails if a setting changed that a checkpoint cannot be resumed with.
fn refuse_fixed(changed: &[String], checkpoint: &Checkpoint) -> anyhow::Result<()> {
    let fixed = changed.iter().filter(|key| FIXED_ON_RESUME.contains(&key.as_str()));
    let fixed: Vec<String> = fixed.map(|key| format!("`{key}`")).collect();
    if fixed.is_empty() {
        return Ok(());
    }
    Err(Usage(format!(
        "{} cannot change on resume, since the tensors of `{}` depend on it; remove the change, or start a new run \
         with another `--output`",
        fixed.join(", "),
        checkpoint.path.display()
    ))
    .into())
}

/// A model's folder, and its fingerprint.
pub(crate) struct Base {
    pub(crate) folder: PathBuf,
    pub(crate) fingerprint: String,
}

/// Resolves the base model. On resume, fails early if it is not the model that the run started from.
///
/// An adapter is nothing without its base model, which is therefore hashed as a whole.
pub(crate) fn base(
    model: &str,
    trainable: &Trainable,
    checkpoint: Option<&Checkpoint>,
) -> anyhow::Result<Base> {
    let folder = crate::hub::decoder(model, None)?;
    let extent = match trainable {
        Trainable::Lora(_) => FingerprintExtent::Whole,
        _ => FingerprintExtent::Sampled,
    };
    let fingerprint = embodied_r_policy::fingerprint(&folder, extent)?;
    if let Some(checkpoint) = checkpoint {
        checkpoint.refuse_other_model(model, &fingerprint).map_err(explain)?;
    }
    Ok(Base { folder, fingerprint })
}

/// Counts the trainable parameters; fails if the settings do not fit the model.
pub(crate) fn trained(base: &Base, trainable: &Trainable) -> anyhow::Result<Trained> {
    let config = ModelConfig::of_model(&base.folder)?;
    let counts = trainable.counts(&config).map_err(|error| Usage(error.to_string()))?;
    Ok(Trained { config, counts })
}

/// Logs the memory that each rank needs, and warns if a rank has less.
pub(crate) fn log_memory(
    memory: &MemoryPlan,
    rank_device: &RankDevice<'_>,
    process_group: &ProcessGroup,
) -> anyhow::Result<()> {
    let free = process_group.all_gather(rank_device.free_bytes()?)?;
    if process_group.world_size() > 1 && process_group.is_rank_zero() {
        eprintln!(
            "{} ranks, memory {}",
            process_group.world_size(),
            memory_summary(memory, process_group.world_size())
        );
    }
    if let Some(warning) = shortage(memory.total(), &free).filter(|_| process_group.is_rank_zero())
    {
        eprintln!("warning: {warning}");
    }
    Ok(())
}

/// How a run's folder is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    /// Nothing is changed.
    ReadOnly,
    /// Locks the run and recovers from a kill.
    Resume,
}

impl Access {
    fn lock(self, run: &Path) -> anyhow::Result<Option<RunLock>> {
        match self {
            Self::ReadOnly => Ok(None),
            Self::Resume => RunLock::take(run).map_err(explain),
        }
    }
}

/// The checkpoint in `folder`, or the last one of the run in it, with later damaged ones.
fn find(folder: &Path, access: Access) -> anyhow::Result<(LatestIntact, Option<RunLock>)> {
    if Checkpoint::is_one(folder) {
        // `.` has no parent to find the run by.
        let resolved = folder.file_name().is_none().then(|| folder.canonicalize());
        let folder = resolved.transpose()?.unwrap_or_else(|| folder.to_owned());
        let checkpoint = Checkpoint::open_verified(&folder).map_err(explain)?;
        let lock = access.lock(checkpoint.run())?;
        let run = Checkpoints::new(checkpoint.run(), 1);
        let damaged = run.damaged_after(&checkpoint).map_err(explain)?;
        return Ok((LatestIntact { checkpoint: Some(checkpoint), damaged }, lock));
    }
    let found = last(folder, access)?;
    if found.0.checkpoint.is_none() {
        return Err(explain(Error::NothingToResume { path: folder.to_owned() }));
    }
    Ok(found)
}

fn last(run: &Path, access: Access) -> anyhow::Result<(LatestIntact, Option<RunLock>)> {
    let lock = access.lock(run)?;
    let checkpoints = Checkpoints::new(run, 1);
    if access == Access::Resume {
        checkpoints.recover().map_err(explain)?;
    }
    Ok((checkpoints.latest_intact().map_err(explain)?, lock))
}

/// The progress sink: a bar on a terminal, log lines elsewhere.
pub(crate) fn progress<'a>(bar: &'a Bar, phase: &'static str) -> Box<dyn Sink + 'a> {
    match std::io::stderr().is_terminal() {
        true => Box::new(ProgressLine::new(bar, phase)),
        false => Box::new(Lines { steps: 0 }),
    }
}

/// Logs one line per step.
struct Lines {
    steps: u64,
}

impl Sink for Lines {
    fn event(&mut self, event: &Event) -> embodied_r_grpo::Result<()> {
        if let Event::Start { steps, .. } = event {
            self.steps = *steps;
        }
        match (describe(event), event) {
            (Some(words), Event::Step { step, .. }) => {
                eprintln!("step {step}/{}  {words}", self.steps);
            }
            (Some(words), Event::Skipped { .. } | Event::Warning { .. }) => {
                eprintln!("warning: {words}");
            }
            (Some(words), _) => eprintln!("{words}"),
            (None, _) => {}
        }
        Ok(())
    }
}

/// Prints the outcome of a run.
pub(crate) fn finish(
    outcome: &RunOutcome,
    command: &str,
    process_group: &ProcessGroup,
) -> anyhow::Result<Status> {
    match outcome {
        RunOutcome::Finished(_) if !process_group.is_rank_zero() => Ok(Status::Done),
        RunOutcome::Stopped(_) if !process_group.is_rank_zero() => Ok(Status::Partial),
        RunOutcome::Finished(folder) => {
            outln!("saved the model to {}", folder.display())?;
            Ok(Status::Done)
        }
        RunOutcome::Stopped(checkpoint) => {
            outln!(
                "stopped at {}; resume with `embodied-r {command} --resume {}`",
                checkpoint.display(),
                checkpoint.parent().unwrap_or(checkpoint).display()
            )?;
            Ok(Status::Partial)
        }
    }
}

/// Adds hints to errors that other arguments can fix.
pub(crate) fn explain(error: Error) -> anyhow::Error {
    match &error {
        Error::Settings(faults) => {
            Usage(faults.iter().map(Fault::to_string).collect::<Vec<_>>().join("\n")).into()
        }
        Error::TooLong { .. } => Usage(format!(
            "{error}; shorten it, or leave out what is too long with `truncation_strategy = \"delete\"`"
        ))
        .into(),
        Error::UnknownMetric { .. } => Usage(error.to_string()).into(),
        Error::OutputExists { .. } => exit::hint(
            error.to_string(),
            "`--resume` continues it; another `--output` starts a new run",
        ),
        Error::NothingToResume { .. } => exit::hint(
            error.to_string(),
            "give the directory of a run or one of its checkpoints, or remove `--resume`",
        ),
        Error::Checkpoint { .. } => exit::hint(
            error.to_string(),
            "`--resume` with the run's directory resumes from its last intact checkpoint",
        ),
        Error::NoIntactCheckpoint { .. } => exit::hint(
            error.to_string(),
            "move the checkpoints away to start a new run, or restore one from a backup",
        ),
        Error::NotFinite { .. } => exit::hint(
            error.to_string(),
            "lower `learning_rate` or `max_grad_norm`, or examine the batch with `embodied-r \
             inspect loss`; `--resume` continues from the last good state",
        ),
        Error::NonFinitePolicy { .. } => exit::hint(
            error.to_string(),
            "lower `learning_rate` or `max_grad_norm`; `--resume` continues from the last good state",
        ),
        Error::RewardOverflow { .. } => exit::hint(
            error.to_string(),
            "return scores of a moderate size, or null for no score; `--resume` continues from the last checkpoint",
        ),
        Error::NonFiniteCheckpoint { .. } => exit::hint(
            error.to_string(),
            "delete it; `--resume` then continues from the previous checkpoint",
        ),
        Error::NonFiniteBase { .. } => exit::hint(
            error.to_string(),
            "start from an intact model, or from an earlier checkpoint of the run that wrote it",
        ),
        Error::ModelMismatch { .. } => exit::hint(
            error.to_string(),
            "give the model that it started from, or another output directory for a new run",
        ),
        Error::TooFew { what: "questions", .. } => exit::hint(
            error.to_string(),
            "lower `generation_batch_size`, or raise `max_prompt_length` if questions were dropped",
        ),
        Error::TooFew { .. } => exit::hint(
            error.to_string(),
            "lower `train_batch_size`, or raise `max_length` if conversations were dropped",
        ),
        Error::Question { .. } => exit::hint(
            error.to_string(),
            "train on the questions that `embodied-r perceive` writes, with their answers",
        ),
        _ => error.into(),
    }
}
