//! Starting this program again, as the ranks of a job.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use anyhow::Context as _;
use signal_hook::consts::SIGUSR2;

use super::lines::Source;
use super::restart::{self, Next, Restarts};
use super::running::{Ears, End, Start, run};
use super::{LAUNCHER, SELF, gpus, who_started};
use crate::exit::{self, Status};
use crate::interrupt::on_interrupt;

/// Set once a rank has told that it ended the job: a process has one, however many jobs it starts.
static FAILED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// How the ranks are started.
pub(super) enum Way<'a> {
    /// By MPI's launcher, here or on the machines of a file.
    Mpi { ranks: usize, hostfile: Option<&'a Path> },
    /// One process for each of these devices.
    Gpus(Vec<gpus::Gpu>),
    /// One process that can be started again.
    One,
}

/// Starts the ranks with the arguments that this process has, and again after a failure as often as the user wants.
///
/// # Errors
/// They cannot be started; the folder of the run cannot be told.
pub(super) fn launch(
    way: &Way<'_>,
    most_restarts: u32,
    folder: impl Fn() -> anyhow::Result<PathBuf>,
) -> anyhow::Result<Status> {
    // Wrong settings are told before anything is started.
    let folder = (most_restarts > 0).then(folder).transpose()?;
    let stop = on_interrupt("stopping all ranks after a checkpoint")?;
    let failed = Arc::clone(FAILED.get_or_init(Arc::default));
    signal_hook::flag::register(SIGUSR2, Arc::clone(&failed))
        .context("cannot listen to signals")?;
    let ears = Ears { stop, failed };
    let typed: Vec<OsString> = std::env::args_os().skip(1).collect();
    let (mut words, mut restarts) = (typed.clone(), Restarts::new(most_restarts));
    loop {
        let end = run(starts(way, &words)?, &ears).map_err(explain)?;
        let status = match end {
            End::Done => return Ok(Status::Done),
            End::Wrong => return Ok(Status::Wrong),
            End::Failed => Status::Partial,
        };
        let Some(folder) = &folder else { return Ok(status) };
        if ears.stop.load(Ordering::Relaxed) {
            return Ok(status);
        }
        let step = restart::last_step(folder);
        let from = match step {
            Some(step) => format!("checkpoint-{step}"),
            None => "the beginning".to_owned(),
        };
        match restarts.after_failure(step) {
            Next::Again { number } => {
                eprintln!(
                    "the run failed and goes on from {from}: restart {number} of {most_restarts}"
                );
                // One that was to go on from elsewhere does so until it has a checkpoint of its own.
                if step.is_some() || !restart::resumes(&typed) {
                    words = restart::resuming(&typed);
                }
            }
            Next::NoProgress => {
                eprintln!(
                    "the run failed again and got no further than {from}: it is not started again"
                );
                return Ok(status);
            }
            Next::Spent => {
                eprintln!("the run failed after {most_restarts} restarts; it got to {from}");
                return Ok(status);
            }
        }
    }
}

fn starts(way: &Way<'_>, words: &[OsString]) -> anyhow::Result<Vec<Start>> {
    let program = std::env::current_exe().context("cannot tell this program's own place")?;
    let own = || {
        let mut command = Command::new(&program);
        command.args(words).env(SELF, who_started());
        command
    };
    match way {
        Way::Mpi { ranks, hostfile } => {
            let mut command = mpirun(*ranks, *hostfile);
            command.arg(&program).args(words);
            Ok(vec![Start { command, prints: Some(Source::Tagged) }])
        }
        Way::One => {
            let mut command = own();
            command.envs(place_among(0, 1));
            Ok(vec![Start { command, prints: None }])
        }
        Way::Gpus(gpus) => {
            let meeting = gpus::meeting()?;
            let starts = gpus.iter().enumerate().map(|(rank, gpu)| {
                let mut command = own();
                command.envs(place_among(rank, gpus.len()));
                command.envs(meeting.clone()).envs(gpu.variables());
                Start { command, prints: Some(Source::Rank(rank)) }
            });
            Ok(starts.collect())
        }
    }
}

/// The variables of `torchrun` for one of the ranks of this machine.
fn place_among(rank: usize, ranks: usize) -> [(&'static str, String); 4] {
    [("RANK", rank), ("LOCAL_RANK", rank), ("WORLD_SIZE", ranks), ("LOCAL_WORLD_SIZE", ranks)]
        .map(|(name, number)| (name, number.to_string()))
}

fn mpirun(ranks: usize, hostfile: Option<&Path>) -> Command {
    let mut command = Command::new(LAUNCHER);
    command.args(["-n", &ranks.to_string(), "--bind-to", "none", "--tag-output", "--quiet"]);
    match hostfile {
        Some(file) => {
            let variables = ["-x", SELF, "-x", "EMBODIED_R_LOG"];
            command.arg("--hostfile").arg(file).args(["--map-by", "slot"]).args(&variables[..2]);
            if std::env::var_os(variables[3]).is_some() {
                command.args(&variables[2..]);
            }
        }
        None => drop(command.arg("--oversubscribe")),
    }
    if rustix::process::geteuid().is_root() {
        // In a container there is nobody else.
        command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
    }
    command.env(SELF, who_started());
    command
}

fn explain(error: anyhow::Error) -> anyhow::Error {
    let missing = error.downcast_ref::<std::io::Error>();
    match missing.map(std::io::Error::kind) {
        Some(ErrorKind::NotFound) => exit::hint(
            format!("there is no `{LAUNCHER}`, which starts the ranks"),
            "on Debian and Ubuntu, `apt-get install openmpi-bin` brings it",
        ),
        _ => error.context("cannot start the ranks"),
    }
}
