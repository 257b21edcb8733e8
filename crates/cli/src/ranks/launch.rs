//! Launching this program again as the ranks of a job, with restarts.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use anyhow::Context as _;
use signal_hook::consts::SIGUSR2;

use super::gpus;
use super::launcher::{LAUNCHER_ENV, MPIRUN, launcher_id};
use super::lines::Source;
use super::processes::{JobOutcome, LaunchSignals, ProcessSpec, run};
use super::restart::{self, RestartBudget, RestartDecision};
use crate::exit::{self, Status};
use crate::interrupt::on_interrupt;

/// Set once a rank has signaled that it aborted the job. One per process, even if it runs several jobs.
static FAILED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// How the ranks are launched.
pub(super) enum LaunchMethod<'a> {
    /// With `mpirun`, here or on the machines of a hostfile.
    Mpi { ranks: usize, hostfile: Option<&'a Path> },
    /// One process per GPU.
    Gpus(Vec<gpus::Gpu>),
    /// A single process, so that it can be restarted.
    Single,
}

/// Launches the ranks with this process's arguments, and relaunches them after a failure up to `most_restarts` times.
///
/// # Errors
/// They cannot be started, or the run's folder cannot be resolved.
pub(super) fn launch(
    method: &LaunchMethod<'_>,
    most_restarts: u32,
    folder: impl Fn() -> anyhow::Result<PathBuf>,
) -> anyhow::Result<Status> {
    // Reports invalid settings before anything is started.
    let folder = (most_restarts > 0).then(folder).transpose()?;
    let stop = on_interrupt("stopping all ranks after a checkpoint")?;
    let failed = Arc::clone(FAILED.get_or_init(Arc::default));
    signal_hook::flag::register(SIGUSR2, Arc::clone(&failed)).context("cannot handle signals")?;
    let signals = LaunchSignals { stop, failed };
    let original_args: Vec<OsString> = std::env::args_os().skip(1).collect();
    let (mut args, mut restarts) = (original_args.clone(), RestartBudget::new(most_restarts));
    loop {
        let end = run(process_specs(method, &args)?, &signals).map_err(explain)?;
        let status = match end {
            JobOutcome::Done => return Ok(Status::Done),
            JobOutcome::UsageError => return Ok(Status::UsageError),
            JobOutcome::Failed => Status::Partial,
        };
        let Some(folder) = &folder else { return Ok(status) };
        if signals.stop.load(Ordering::Relaxed) {
            return Ok(status);
        }
        let step = restart::last_step(folder);
        let from = match step {
            Some(step) => format!("checkpoint-{step}"),
            None => "the beginning".to_owned(),
        };
        match restarts.after_failure(step) {
            RestartDecision::Restart { number } => {
                eprintln!(
                    "the run failed; restarting from {from} (restart {number} of {most_restarts})"
                );
                // A run that resumes from elsewhere does so again until it has a checkpoint of its own.
                if step.is_some() || !restart::has_resume(&original_args) {
                    args = restart::with_auto_resume(&original_args);
                }
            }
            RestartDecision::NoProgress => {
                eprintln!("the run failed again without progress since {from}; not restarting");
                return Ok(status);
            }
            RestartDecision::Exhausted => {
                eprintln!("the run failed after {most_restarts} restarts; it reached {from}");
                return Ok(status);
            }
        }
    }
}

fn process_specs(method: &LaunchMethod<'_>, args: &[OsString]) -> anyhow::Result<Vec<ProcessSpec>> {
    let program = std::env::current_exe().context("cannot locate this program's executable")?;
    let own = || {
        let mut command = Command::new(&program);
        command.args(args).env(LAUNCHER_ENV, launcher_id());
        command
    };
    match method {
        LaunchMethod::Mpi { ranks, hostfile } => {
            let mut command = mpirun(*ranks, *hostfile);
            command.arg(&program).args(args);
            Ok(vec![ProcessSpec { command, source: Some(Source::Tagged) }])
        }
        LaunchMethod::Single => {
            let mut command = own();
            command.envs(torchrun_env(0, 1));
            Ok(vec![ProcessSpec { command, source: None }])
        }
        LaunchMethod::Gpus(gpus) => {
            let rendezvous = gpus::rendezvous_env()?;
            let process_specs = gpus.iter().enumerate().map(|(rank, gpu)| {
                let mut command = own();
                command.envs(torchrun_env(rank, gpus.len()));
                command.envs(rendezvous.clone()).envs(gpu.env());
                ProcessSpec { command, source: Some(Source::Rank(rank)) }
            });
            Ok(process_specs.collect())
        }
    }
}

/// The environment that `torchrun` sets for a rank of a single machine.
fn torchrun_env(rank: usize, ranks: usize) -> [(&'static str, String); 4] {
    [("RANK", rank), ("LOCAL_RANK", rank), ("WORLD_SIZE", ranks), ("LOCAL_WORLD_SIZE", ranks)]
        .map(|(name, number)| (name, number.to_string()))
}

fn mpirun(ranks: usize, hostfile: Option<&Path>) -> Command {
    let mut command = Command::new(MPIRUN);
    command.args(["-n", &ranks.to_string(), "--bind-to", "none", "--tag-output", "--quiet"]);
    match hostfile {
        Some(file) => {
            let variables = ["-x", LAUNCHER_ENV, "-x", "EMBODIED_R_LOG"];
            command.arg("--hostfile").arg(file).args(["--map-by", "slot"]).args(&variables[..2]);
            if std::env::var_os(variables[3]).is_some() {
                command.args(&variables[2..]);
            }
        }
        None => drop(command.arg("--oversubscribe")),
    }
    if rustix::process::geteuid().is_root() {
        // In a container, root is often the only user.
        command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
    }
    command.env(LAUNCHER_ENV, launcher_id());
    command
}

fn explain(error: anyhow::Error) -> anyhow::Error {
    let missing = error.downcast_ref::<std::io::Error>();
    match missing.map(std::io::Error::kind) {
        Some(ErrorKind::NotFound) => exit::hint(
            format!("`{MPIRUN}`, which launches the ranks, was not found"),
            "install Open MPI (Debian, Ubuntu: `apt-get install openmpi-bin`)",
        ),
        _ => error.context("cannot start the ranks"),
    }
}
