//! The ranks of a command: launched by it, or joined as one of them.

use std::path::{Path, PathBuf};

use embodied_r_dist::Launcher;
use embodied_r_dist::ProcessGroup;
use embodied_r_grpo::checkpoint::Checkpoints;
#[cfg(any(feature = "mpi", feature = "cuda"))]
use embodied_r_launch::Rank;
use embodied_r_launch::{
    Error, Job, JobOutcome, LaunchMethod, MPIRUN, RestartDecision, Restarts,
    is_launched_by_this_program, rank_info, require_mpi, select_gpus,
};

use crate::args::device::DeviceName;
use crate::args::run::{JobArgs, RankArgs};
use crate::exit::{self, Status, Usage};
use crate::interrupt::on_interrupt;

mod lines;
mod resume;

/// Environment variables that ranks on other machines need.
const FORWARDED: [&str; 1] = ["EMBODIED_R_LOG"];

/// Runs a command's work on the requested ranks: in this process if it is the only rank or was launched as one,
/// otherwise by launching them. Ranks on GPUs (`--gpus`, or `device`) communicate over NCCL.
///
/// # Errors
/// An error that `work` returns on any rank.
pub(crate) fn run_on_ranks(
    ranks: &RankArgs,
    device: DeviceName,
    work: impl FnOnce(&ProcessGroup) -> anyhow::Result<Status>,
) -> anyhow::Result<Status> {
    let job = JobArgs { ranks: ranks.clone(), restarts: 0, device };
    let none = || Err(anyhow::anyhow!("a job without restarts has no output directory"));
    run_job(&job, none, work)
}

/// [`run_on_ranks`] with automatic restarts. `folder` returns the run's folder.
///
/// # Errors
/// See [`run_on_ranks`].
pub(crate) fn run_job(
    job: &JobArgs,
    folder: impl Fn() -> anyhow::Result<PathBuf>,
    work: impl FnOnce(&ProcessGroup) -> anyhow::Result<Status>,
) -> anyhow::Result<Status> {
    let (rank_info, args) = (rank_info().map_err(explain)?, &job.ranks);
    let is_alone = rank_info.launcher == Launcher::Standalone;
    let given = rank_info.world_size;
    let requested = args.gpus.or(args.ranks).unwrap_or(given);
    if is_alone && let Some(count) = args.gpus {
        return launch(
            &LaunchMethod::Gpus(select_gpus(count).map_err(explain)?),
            job.restarts,
            folder,
        );
    }
    if is_alone && (requested > 1 || args.hostfile.is_some()) {
        require_mpi().map_err(explain)?;
        let hostfile = args.hostfile.as_deref();
        let method = LaunchMethod::Mpi { ranks: requested, hostfile, forwarded: &FORWARDED };
        return launch(&method, job.restarts, folder);
    }
    if is_alone && job.restarts > 0 {
        return launch(&LaunchMethod::Single, job.restarts, folder);
    }
    if requested != given {
        let flag = if args.gpus.is_some() { "--gpus" } else { "--ranks" };
        let message = format!("`{flag}` is {requested}, but the launcher started {given} ranks");
        return Err(Usage(format!("{message}; remove `{flag}`")).into());
    }
    if job.restarts > 0 && !is_launched_by_this_program() {
        let message = "`--restarts` needs this program as the launcher, but another launcher started this process";
        return Err(Usage(format!("{message}; restart from that launcher, with `--resume`")).into());
    }
    match rank_info.launcher {
        _ if given == 1 => work(&ProcessGroup::default()),
        #[cfg(feature = "cuda")]
        _ if job.device.or_gpus(args.gpus) == DeviceName::Cuda => {
            run_rank(work, || Rank::join_nccl(&rank_info, VERSION, args.deadline, !args.no_pin))
        }
        #[cfg(feature = "mpi")]
        Launcher::OpenMpi => {
            run_rank(work, || Rank::join_mpi(&rank_info, VERSION, args.deadline, !args.no_pin))
        }
        #[cfg(not(feature = "mpi"))]
        Launcher::OpenMpi => Err(explain(Error::NoMpi)),
        launcher => {
            let message = format!(
                "{launcher:?} started this process, but ranks on CPUs communicate over MPI"
            );
            Err(Usage(format!("{message}: start them with `{MPIRUN} -n N embodied-r …`")).into())
        }
    }
}

/// Checks that ranks can be launched, for a command that launches them after other work.
///
/// # Errors
/// This build lacks MPI or CUDA, or the machine has fewer GPUs.
pub(crate) fn check_launchable(ranks: Option<usize>, gpus: Option<usize>) -> anyhow::Result<()> {
    if let Some(count) = gpus {
        select_gpus(count).map_err(explain)?;
    }
    match ranks {
        Some(2..) => require_mpi().map_err(explain),
        _ => Ok(()),
    }
}

/// Launches the ranks with this process's arguments, and again after a failure up to `most_restarts` times.
fn launch(
    method: &LaunchMethod<'_>,
    most_restarts: u32,
    folder: impl Fn() -> anyhow::Result<PathBuf>,
) -> anyhow::Result<Status> {
    // Reports invalid settings before anything is started.
    let folder = (most_restarts > 0).then(folder).transpose()?;
    let stop = on_interrupt("stopping all ranks after a checkpoint")?;
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    let restart_args = |step: Option<u64>| resume::of_restart(&args, step);
    let last_step = || folder.as_deref().and_then(last_step);
    let report = |decision: &RestartDecision, step| report_restart(decision, most_restarts, step);
    let restarts = Restarts {
        most: most_restarts,
        last_step: &last_step,
        args: &restart_args,
        report: &report,
    };
    let restarts = folder.is_some().then_some(restarts);
    let (stdout, stderr) = (lines::stdout, lines::stderr);
    let job = Job { method, args: args.clone(), stop, stdout, stderr, restarts };
    Ok(match embodied_r_launch::launch(job).map_err(explain)? {
        JobOutcome::Done => Status::Done,
        JobOutcome::UsageError => Status::UsageError,
        JobOutcome::Failed => Status::Partial,
    })
}

/// The step of the last checkpoint in a run's folder.
fn last_step(folder: &Path) -> Option<u64> {
    Checkpoints::new(folder, 1).steps().ok()?.last().copied()
}

fn report_restart(decision: &RestartDecision, most: u32, step: Option<u64>) {
    let from = match step {
        Some(step) => format!("checkpoint-{step}"),
        None => "the beginning".to_owned(),
    };
    match decision {
        RestartDecision::Restart { number } => {
            eprintln!("the run failed; restarting from {from} (restart {number} of {most})");
        }
        RestartDecision::NoProgress => {
            eprintln!("the run failed again without progress since {from}; not restarting");
        }
        RestartDecision::Exhausted => {
            eprintln!("the run failed after {most} restarts; it reached {from}");
        }
    }
}

/// The version that all ranks must have.
#[cfg(any(feature = "mpi", feature = "cuda"))]
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Runs `work` as a rank of the job that `join` connects to.
#[cfg(any(feature = "mpi", feature = "cuda"))]
fn run_rank(
    work: impl FnOnce(&ProcessGroup) -> anyhow::Result<Status>,
    join: impl FnOnce() -> embodied_r_launch::Result<Rank>,
) -> anyhow::Result<Status> {
    let rank = join().map_err(explain)?;
    let error = match work(&ProcessGroup::new(rank.communicator().clone())) {
        Ok(status) => {
            rank.finish()?;
            return Ok(status);
        }
        Err(error) => error,
    };
    let is_usage_error = error.chain().any(|cause| cause.is::<Usage>());
    let aborted = rank.abort(&format!("{error:#}"), is_usage_error);
    if aborted.reports {
        exit::code(Err(error));
    }
    let status = if aborted.is_usage_error { Status::UsageError } else { Status::Partial };
    aborted.leave();
    Ok(status)
}

/// Adds hints, and says which errors are those of usage.
fn explain(error: Error) -> anyhow::Error {
    let message = error.to_string();
    match error {
        Error::NoMpi => exit::usage_hint(
            message,
            "rebuild with `cargo build --release --package embodied-r-cli --features mpi`; it needs libopenmpi-dev, \
             openmpi-bin and libclang-dev on Debian",
        ),
        Error::NoCuda => exit::usage_hint(
            message,
            "rebuild with `cargo build --release --package embodied-r-cli --features cuda`; it needs NVIDIA's CUDA \
             toolkit. `--ranks N` trains with several processes on the CPU",
        ),
        Error::NoNvidiaSmi => exit::hint(message, "run `embodied-r doctor`"),
        Error::NoMpirun => {
            exit::hint(message, "install Open MPI (Debian, Ubuntu: `apt-get install openmpi-bin`)")
        }
        Error::TooFewGpus { .. } | Error::Environment(_) => Usage(message).into(),
        Error::Io { .. } | Error::Dist(_) => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use embodied_r_launch::HAS_MPI;

    use super::*;

    #[test]
    fn a_build_without_mpi_refuses_several_ranks_and_says_how_to_build_one_with_it() {
        let error = explain(Error::NoMpi);
        assert!(error.to_string().contains("built without it"), "{error}");
        let hint = format!("{:?}", error.downcast_ref::<exit::Hint>());
        assert!(hint.contains("--features mpi"), "{hint}");
        assert_eq!(check_launchable(Some(2), None).is_ok(), HAS_MPI);
        assert!(check_launchable(Some(1), None).is_ok());
    }
}
