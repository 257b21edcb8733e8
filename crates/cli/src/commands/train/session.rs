//! A run's settings, its checkpoint on resume, and the lock of its folder.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use embodied_r_dist::ProcessGroup;
use embodied_r_grpo::Error;
use embodied_r_grpo::checkpoint::{
    Checkpoint, Checkpoints, DamagedCheckpoint, LatestIntact, RunLock,
};

use super::explain::explain;
use super::settings::{TrainingSettings, mutable_on_resume};
use crate::args::run::RunArgs;
use crate::exit::Usage;
use crate::settings::{self, Layers, path_text};

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

/// `--data` and `--eval-data`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DataArgs<'a> {
    pub(crate) data: &'a [PathBuf],
    pub(crate) eval_data: &'a [PathBuf],
}

impl<T: TrainingSettings> Session<T> {
    /// Resolves the settings. On resume, the checkpoint's settings are the lowest layer; warns about those that changed
    /// since and affect the result.
    pub(crate) fn open(
        args: &RunArgs,
        data: DataArgs<'_>,
        process_group: &ProcessGroup,
    ) -> anyhow::Result<Self> {
        // The first rank locks the run and recovers from a kill before the others read it.
        let first = match process_group.is_rank_zero() {
            true => Some(open_alone(args, data, process_group)),
            false => None,
        };
        process_group.barrier()?;
        let session = match first {
            Some(opened) => opened?,
            None => open_alone(args, data, process_group)?,
        };
        agree(&session.settings, process_group)?;
        Ok(session)
    }

    fn new(settings: T, lock: Option<RunLock>) -> Self {
        let lock = lock.map(Arc::new);
        Self { settings, checkpoint: None, changed: false, damaged: Vec::new(), lock }
    }

    /// Prepares the run's folder: checks that it is writable, renames damaged checkpoints, and locks it for the
    /// lifetime of the session and of the returned lock.
    ///
    /// The first rank does this for all.
    pub(crate) fn prepare(
        &self,
        process_group: &ProcessGroup,
    ) -> anyhow::Result<Option<Arc<RunLock>>> {
        let lock = if process_group.is_rank_zero() { self.prepare_alone() } else { Ok(None) };
        process_group.barrier()?;
        lock
    }

    fn prepare_alone(&self) -> anyhow::Result<Option<Arc<RunLock>>> {
        let output = &self.settings.run().output;
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

/// The output folder of a run.
pub(crate) fn folder<T: TrainingSettings>(args: &RunArgs) -> anyhow::Result<PathBuf> {
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
        .setting_flags(&args.setting_flags)
        .flags(&[("output", path_text("--output", given.as_deref())?)]);
    let settings: T = layers.resolve(&["output"])?;
    Ok(settings.run().output.clone())
}

/// Fails if a rank's settings differ from the first one's.
fn agree<T: TrainingSettings>(settings: &T, process_group: &ProcessGroup) -> anyhow::Result<()> {
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

fn open_alone<T: TrainingSettings>(
    args: &RunArgs,
    data: DataArgs<'_>,
    process_group: &ProcessGroup,
) -> anyhow::Result<Session<T>> {
    let layers = |from: Layers| -> anyhow::Result<Layers> {
        let from = match &args.config {
            Some(file) => from.file(file)?,
            None => from,
        };
        let media = &args.media;
        let skip = media.skip_bad_records.then(|| "skip_bad_records=true".to_owned());
        let skip: Vec<String> = skip.into_iter().collect();
        from.reward_funcs(&args.reward_funcs)
            .pairs(&args.sets)
            .setting_flags(&args.setting_flags)
            .pairs(&skip)
            .flags(&[
                ("columns", media.columns.clone()),
                ("image_dir", path_text("--image-dir", media.image_dir.as_deref())?),
                ("video_dir", path_text("--video-dir", args.video_dir.as_deref())?),
                ("frames", media.frames()?),
                ("model", args.model.clone()),
                ("output", path_text("--output", args.output.as_deref())?),
                ("precision", args.precision.map(|precision| precision.name().to_owned())),
                ("recompute", args.recompute.map(|recompute| recompute.name().to_owned())),
            ])
            .paths("data", data.data)?
            .paths("eval_data", data.eval_data)
    };
    let new_run = || layers(Layers::default().defaults_on(args.job.device()));
    let Some(resume) = args.resume.as_deref() else {
        return Ok(Session::new(new_run()?.resolve(&REQUIRED)?, None));
    };
    let access = if args.dry_run || !process_group.is_rank_zero() {
        Access::ReadOnly
    } else {
        Access::Resume
    };
    let (LatestIntact { checkpoint, damaged }, lock) = if resume == Path::new(AUTO) {
        let given: T = new_run()?.resolve(&["output"])?;
        last(&given.run().output, access)?
    } else {
        find(resume, access)?
    };
    let Some(checkpoint) = checkpoint else {
        if process_group.is_rank_zero() {
            eprintln!("no checkpoint to resume from yet, starting a new run");
        }
        return Ok(Session::new(new_run()?.resolve(&REQUIRED)?, lock));
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
    let changed =
        settings::differences(&before, &settings::text(&settings)?, &mutable_on_resume::<T>())?;
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
    Ok(Session { settings, checkpoint: Some(checkpoint), changed, damaged, lock })
}

/// Settings on which the tensors of a checkpoint depend: which are trained, and the optimizer's state.
pub(super) const FIXED_ON_RESUME: [&str; 7] = [
    "freeze_aligner",
    "freeze_parameters_regex",
    "freeze_vision_tower",
    "lora_r",
    "lora_target_modules",
    "optim",
    "use_peft",
];

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
