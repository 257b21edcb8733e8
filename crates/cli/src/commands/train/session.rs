//! What the training commands share: settings on resume, interrupts, progress, and the end.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use embodied_r_grpo::checkpoint::{Checkpoint, Checkpoints, Damaged, LastWhole, RunLock};
use embodied_r_grpo::events::{Event, ProgressLine, Sink, in_words};
use embodied_r_grpo::memory_plan::MemoryPlan;
use embodied_r_grpo::team::Team;
use embodied_r_grpo::trainer::Outcome;
use embodied_r_grpo::{Error, settings::Fault};
use embodied_r_policy::trainable::Counts;
use embodied_r_policy::{ModelConfig, Trainable};

use super::memory::{Place, shortage, words};
use crate::args::run::RunArgs;
use crate::exit::{self, Status, Usage};
use crate::output::outln;
use crate::progress::Bar;
use crate::settings::{self, Layers, Settings, path_text};

/// What `--resume` stands for without a folder.
const AUTO: &str = "auto";

/// A run's settings, and the checkpoint that it goes on from.
pub(crate) struct Session<T> {
    pub(crate) settings: T,
    pub(crate) checkpoint: Option<Checkpoint>,
    /// Whether settings changed since the checkpoint that make the run another one.
    pub(crate) changed: bool,
    /// Later checkpoints that cannot be used.
    damaged: Vec<Damaged>,
    /// Keeps others out of the folder of the run to go on with.
    lock: Option<RunLock>,
}

impl<T> Session<T> {
    fn new(settings: T, lock: Option<RunLock>) -> Self {
        Self { settings, checkpoint: None, changed: false, damaged: Vec::new(), lock }
    }

    /// Makes the folder `output` ready to be written to: tries whether it can be, sets damaged checkpoints
    /// aside, and keeps others out of it for as long as what it gives lives.
    ///
    /// Of several ranks the first does so for all.
    pub(crate) fn prepare(&self, output: &Path, team: &Team) -> anyhow::Result<Option<RunLock>> {
        let lock = if team.is_first() { self.prepare_alone(output) } else { Ok(None) };
        team.wait()?;
        lock
    }

    fn prepare_alone(&self, output: &Path) -> anyhow::Result<Option<RunLock>> {
        let checkpoints = Checkpoints::new(output, 1);
        checkpoints.prepare().map_err(explain)?;
        let run = self.checkpoint.as_ref().map(|checkpoint| checkpoint.run().canonicalize());
        if run.transpose()? != Some(output.canonicalize()?) {
            // A run that was killed before its first checkpoint is locked already.
            if self.lock.as_ref().is_some_and(|lock| lock.is_of(output)) {
                return Ok(None);
            }
            // A new run, or one that goes on in another folder, where its own are in nobody's way.
            return RunLock::take(output).map_err(explain);
        }
        for aside in checkpoints.set_aside(&self.damaged).map_err(explain)? {
            eprintln!("a damaged checkpoint is set aside as `{}`", aside.display());
        }
        Ok(None)
    }
}

/// Settings without which there is no run.
const REQUIRED: [&str; 3] = ["model", "data", "output"];

/// Resolves the settings, with `data` and the data to validate on. On resume those of the checkpoint
/// lie below all given ones, and a change that makes the run another one is told; `free` names the
/// settings that do not.
pub(crate) fn open<T: Settings>(
    args: &RunArgs,
    [data, eval_data]: [Option<&Path>; 2],
    output: impl Fn(&T) -> PathBuf,
    free: &[&str],
    team: &Team,
) -> anyhow::Result<Session<T>> {
    // The first rank locks the run and puts right what a kill left, before the others look.
    let opened = if team.is_first() {
        open_alone(args, [data, eval_data], &output, free, team)
    } else {
        Ok(None)
    };
    team.wait()?;
    let session = match opened? {
        Some(session) => session,
        None => {
            let session = open_alone(args, [data, eval_data], &output, free, team)?;
            session.ok_or_else(|| Usage("there are no settings".into()))?
        }
    };
    agree(&session.settings, team)?;
    Ok(session)
}

/// The folder that a run will be in.
pub(crate) fn folder<T: Settings>(
    args: &RunArgs,
    output: impl Fn(&T) -> PathBuf,
) -> anyhow::Result<PathBuf> {
    let layers = match &args.config {
        Some(file) => Layers::default().file(file)?,
        None => Layers::default(),
    };
    let from = args.resume.as_deref().filter(|resume| *resume != Path::new(AUTO));
    // That of the run to go on with, unless another one is given.
    let from = match from {
        Some(one) if Checkpoint::is_one(one) => one.canonicalize()?.parent().map(Path::to_owned),
        from => from.map(Path::to_owned),
    };
    let given = args.output.clone().or(from);
    let layers = layers.pairs(&args.sets).flags(&[("output", path_text(given.as_deref()))]);
    Ok(output(&layers.resolve(&["output"])?))
}

/// Refuses ranks that were told other settings than the first one.
fn agree<T: Settings>(settings: &T, team: &Team) -> anyhow::Result<()> {
    let texts = team.gather(settings::text(settings)?)?;
    for (rank, text) in texts.iter().enumerate().skip(1) {
        let differs = settings::differences(&texts[0], text, &[])?;
        if !differs.is_empty() {
            let keys: Vec<String> = differs.iter().map(|key| format!("`{key}`")).collect();
            let told = format!("rank {rank} has another {} than rank 0", keys.join(", "));
            return Err(Usage(format!("{told}; give all ranks the same settings")).into());
        }
    }
    Ok(())
}

fn open_alone<T: Settings>(
    args: &RunArgs,
    [data, eval_data]: [Option<&Path>; 2],
    output: &impl Fn(&T) -> PathBuf,
    free: &[&str],
    team: &Team,
) -> anyhow::Result<Option<Session<T>>> {
    let layers = |from: Layers| -> anyhow::Result<Layers> {
        let from = match &args.config {
            Some(file) => from.file(file)?,
            None => from,
        };
        Ok(from.pairs(&args.sets).flags(&[
            ("model", args.model.clone()),
            ("data", path_text(data)),
            ("eval_data", path_text(eval_data)),
            ("output", path_text(args.output.as_deref())),
            ("precision", args.precision.map(|precision| precision.name().to_owned())),
            ("recompute", args.recompute.map(|recompute| recompute.name().to_owned())),
        ]))
    };
    let Some(resume) = args.resume.as_deref() else {
        return Ok(Some(Session::new(layers(Layers::default())?.resolve(&REQUIRED)?, None)));
    };
    let visit = if args.dry_run || !team.is_first() { Visit::Look } else { Visit::GoOn };
    let (LastWhole { checkpoint, damaged }, lock) = if resume == Path::new(AUTO) {
        let given: T = layers(Layers::default())?.resolve(&["output"])?;
        last(&output(&given), visit)?
    } else {
        find(resume, visit)?
    };
    let Some(checkpoint) = checkpoint else {
        if team.is_first() {
            eprintln!("no checkpoint to resume from yet, a new run begins");
        }
        return Ok(Some(Session::new(layers(Layers::default())?.resolve(&REQUIRED)?, lock)));
    };
    for later in damaged.iter().filter(|_| team.is_first()) {
        eprintln!("warning: a later checkpoint is damaged, {later}");
    }
    let before = checkpoint.settings().map_err(explain)?;
    let run = checkpoint.run().display().to_string();
    // The run may have been moved since its settings were written.
    let own = Layers::default().text(&checkpoint.path, &before)?;
    let settings: T = layers(own.flags(&[("output", Some(run))]))?.resolve(&REQUIRED)?;
    let changed = settings::differences(&before, &settings::text(&settings)?, free)?;
    if !changed.is_empty() && team.is_first() {
        eprintln!(
            "warning: {} changed since the checkpoint; this is not the run that was begun",
            changed.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ")
        );
    }
    if team.is_first() {
        eprintln!("going on from {}", checkpoint.path.display());
    }
    let changed = !changed.is_empty();
    Ok(Some(Session { settings, checkpoint: Some(checkpoint), changed, damaged, lock }))
}

/// A model's folder, and its fingerprint.
pub(crate) struct Base {
    pub(crate) folder: PathBuf,
    pub(crate) fingerprint: String,
}

/// Finds the model to begin with; refuses one that is not what the run to go on with began with,
/// before anything is read or written.
pub(crate) fn base(model: &str, checkpoint: Option<&Checkpoint>) -> anyhow::Result<Base> {
    let folder = embodied_r_policy::hub::resolve(model, None)?;
    let fingerprint = embodied_r_policy::fingerprint(&folder)?;
    if let Some(checkpoint) = checkpoint {
        checkpoint.refuse_other_model(model, &fingerprint).map_err(explain)?;
    }
    Ok(Base { folder, fingerprint })
}

/// How much of the model is trained; refuses settings that cannot be met.
pub(crate) fn trained(base: &Base, trainable: &Trainable) -> anyhow::Result<Trained> {
    let config = ModelConfig::of_model(&base.folder)?;
    let counts = trainable.counts(&config).map_err(|error| Usage(error.to_string()))?;
    Ok(Trained { config, counts })
}

/// A model's shape, and how much of it is trained.
pub(crate) struct Trained {
    pub(crate) config: ModelConfig,
    pub(crate) counts: Counts,
}

/// Tells of several ranks what each will take, and warns where one has less.
pub(crate) fn tell_memory(
    memory: &MemoryPlan,
    place: &Place<'_>,
    team: &Team,
) -> anyhow::Result<()> {
    let free = team.gather(place.free_bytes()?)?;
    if team.size() > 1 && team.is_first() {
        eprintln!("{} ranks, memory {}", team.size(), words(memory, team.size()));
    }
    if let Some(told) = shortage(memory.total(), &free).filter(|_| team.is_first()) {
        eprintln!("warning: {told}");
    }
    Ok(())
}

/// What a run's folder is looked at for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Visit {
    /// To know what would be done: nothing is changed.
    Look,
    /// To go on with the run: others are kept out, and what a kill left behind is put right.
    GoOn,
}

impl Visit {
    fn lock(self, run: &Path) -> anyhow::Result<Option<RunLock>> {
        match self {
            Self::Look => Ok(None),
            Self::GoOn => RunLock::take(run).map_err(explain),
        }
    }
}

/// The checkpoint in `folder`, or the last one of the run in it, with later ones that are damaged.
fn find(folder: &Path, visit: Visit) -> anyhow::Result<(LastWhole, Option<RunLock>)> {
    if Checkpoint::is_one(folder) {
        // Of `.` nobody can tell the folder of its run.
        let resolved = folder.file_name().is_none().then(|| folder.canonicalize());
        let folder = resolved.transpose()?.unwrap_or_else(|| folder.to_owned());
        let checkpoint = Checkpoint::open_whole(&folder).map_err(explain)?;
        let lock = visit.lock(checkpoint.run())?;
        let run = Checkpoints::new(checkpoint.run(), 1);
        let damaged = run.damaged_after(&checkpoint).map_err(explain)?;
        return Ok((LastWhole { checkpoint: Some(checkpoint), damaged }, lock));
    }
    let found = last(folder, visit)?;
    if found.0.checkpoint.is_none() {
        return Err(explain(Error::NothingToResume { path: folder.to_owned() }));
    }
    Ok(found)
}

fn last(run: &Path, visit: Visit) -> anyhow::Result<(LastWhole, Option<RunLock>)> {
    let lock = visit.lock(run)?;
    let checkpoints = Checkpoints::new(run, 1);
    if visit == Visit::GoOn {
        checkpoints.recover().map_err(explain)?;
    }
    Ok((checkpoints.last_whole().map_err(explain)?, lock))
}

/// A listener that shows how the run goes: a bar on a terminal, lines elsewhere.
pub(crate) fn progress<'a>(bar: &'a Bar, phase: &'static str) -> Box<dyn Sink + 'a> {
    match std::io::stderr().is_terminal() {
        true => Box::new(ProgressLine::new(bar, phase)),
        false => Box::new(Lines { steps: 0 }),
    }
}

/// A line a step, for logs.
struct Lines {
    steps: u64,
}

impl Sink for Lines {
    fn event(&mut self, event: &Event) -> embodied_r_grpo::Result<()> {
        if let Event::Start { steps, .. } = event {
            self.steps = *steps;
        }
        match (in_words(event), event) {
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

/// Says how a run ended.
pub(crate) fn finish(outcome: &Outcome, command: &str, team: &Team) -> anyhow::Result<Status> {
    match outcome {
        Outcome::Finished(_) if !team.is_first() => Ok(Status::Done),
        Outcome::Stopped(_) if !team.is_first() => Ok(Status::Partial),
        Outcome::Finished(folder) => {
            outln!("the model is in {}", folder.display())?;
            Ok(Status::Done)
        }
        Outcome::Stopped(checkpoint) => {
            outln!(
                "stopped at {}; go on with `embodied-r {command} --resume {}`",
                checkpoint.display(),
                checkpoint.parent().unwrap_or(checkpoint).display()
            )?;
            Ok(Status::Partial)
        }
    }
}

/// Adds advice to the errors that a change of arguments mends.
pub(crate) fn explain(error: Error) -> anyhow::Error {
    match &error {
        Error::Settings(faults) => {
            Usage(faults.iter().map(Fault::to_string).collect::<Vec<_>>().join("\n")).into()
        }
        Error::OutputTaken { .. } => exit::hint(
            error.to_string(),
            "`--resume` goes on with it; another `--output` begins anew",
        ),
        Error::NothingToResume { .. } => exit::hint(
            error.to_string(),
            "give the folder of a run or one of its checkpoints, or leave `--resume` out",
        ),
        Error::Checkpoint { .. } => exit::hint(
            error.to_string(),
            "`--resume` with the folder of the run goes on from its last checkpoint that is whole",
        ),
        Error::NoneWhole { .. } => exit::hint(
            error.to_string(),
            "move the checkpoints away to begin anew, or bring one back from a backup",
        ),
        Error::NotFinite { .. } => exit::hint(
            error.to_string(),
            "lower `learning_rate` or `max_grad_norm`, or look at the batch with `embodied-r \
             inspect loss`; `--resume` goes on from the last good state",
        ),
        Error::OtherModel { .. } => exit::hint(
            error.to_string(),
            "give the model that it began with, or another output folder for a new run",
        ),
        Error::TooFew { what: "questions", .. } => exit::hint(
            error.to_string(),
            "lower `generation_batch_size`, or raise `max_prompt_length` if questions were left out",
        ),
        Error::TooFew { .. } => exit::hint(
            error.to_string(),
            "lower `train_batch_size`, or raise `max_length` if conversations were left out",
        ),
        Error::Question { .. } => exit::hint(
            error.to_string(),
            "training takes the questions that `embodied-r perceive` writes, with their answers",
        ),
        _ => error.into(),
    }
}
