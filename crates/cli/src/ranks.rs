//! Ranks: the processes of one job, started here or by an external launcher.

use std::path::PathBuf;

#[cfg(any(feature = "mpi", feature = "cuda"))]
use anyhow::Context as _;
#[cfg(any(feature = "mpi", feature = "cuda"))]
use embodied_r_dist::{Communicator, CommunicatorOptions};
#[cfg(any(feature = "mpi", feature = "cuda", test))]
use embodied_r_dist::{FailureCause, FailureReport};
use embodied_r_dist::{Launcher, RankInfo};
use embodied_r_grpo::process_group::ProcessGroup;

use crate::args::device::DeviceName;
use crate::args::run::{JobArgs, RankArgs};
use crate::exit::{self, Status, Usage};
use launch::{LaunchMethod, launch};
use launcher::{MPIRUN, launcher_process};

#[cfg_attr(
    not(any(feature = "mpi", feature = "cuda", test)),
    expect(dead_code, reason = "only ranks are pinned to cores")
)]
mod cores;
mod gpus;
mod launch;
mod launcher;
mod lines;
mod processes;
mod restart;

/// Prefix of a failure message whose cause is a usage error.
#[cfg(any(feature = "mpi", feature = "cuda", test))]
const USAGE_ERROR_PREFIX: &str = "usage error: ";

/// Whether this build can run several ranks on CPUs.
const HAS_MPI: bool = cfg!(feature = "mpi");

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
    let (rank_info, args) = (rank_info()?, &job.ranks);
    let is_alone = rank_info.launcher == Launcher::Standalone;
    let given = rank_info.world_size;
    let requested = args.gpus.or(args.ranks).unwrap_or(given);
    if is_alone && let Some(count) = args.gpus {
        return launch(&LaunchMethod::Gpus(gpus::select(count)?), job.restarts, folder);
    }
    if is_alone && (requested > 1 || args.hostfile.is_some()) {
        require_mpi(HAS_MPI)?;
        let method = LaunchMethod::Mpi { ranks: requested, hostfile: args.hostfile.as_deref() };
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
    if job.restarts > 0 && launcher_process().is_none() {
        let message = "`--restarts` needs this program as the launcher, but another launcher started this process";
        return Err(Usage(format!("{message}; restart from that launcher, with `--resume`")).into());
    }
    match rank_info.launcher {
        _ if given == 1 => work(&ProcessGroup::default()),
        #[cfg(feature = "cuda")]
        _ if job.device.or_gpus(args.gpus) == DeviceName::Cuda => {
            run_rank(&rank_info, args, work, |options| gpus::join(&rank_info, options))
        }
        Launcher::OpenMpi => run_mpi_rank(&rank_info, args, work),
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
        gpus::select(count)?;
    }
    match ranks {
        Some(2..) => require_mpi(HAS_MPI),
        _ => Ok(()),
    }
}

/// The CUDA device ordinal of this process.
#[cfg(feature = "cuda")]
pub(crate) fn ordinal() -> anyhow::Result<usize> {
    Ok(gpus::ordinal(&rank_info()?))
}

fn rank_info() -> anyhow::Result<RankInfo> {
    RankInfo::from_env(|name| std::env::var(name).ok())
        .map_err(|error| Usage(error.to_string()).into())
}

/// Whether this process is the job's first rank, or its only one.
pub(crate) fn is_first() -> bool {
    rank_info().map_or(true, |rank_info| rank_info.rank == 0)
}

/// Ranks on this machine (the local world size).
pub(crate) fn local_world_size() -> usize {
    rank_info().map_or(1, |rank_info| rank_info.local_size.max(1))
}

#[cfg(not(feature = "mpi"))]
fn run_mpi_rank(
    _: &RankInfo,
    _: &RankArgs,
    _: impl FnOnce(&ProcessGroup) -> anyhow::Result<Status>,
) -> anyhow::Result<Status> {
    // Always an error in this build.
    require_mpi(HAS_MPI).map(|()| Status::Done)
}

/// Runs `work` as a rank of an MPI job.
#[cfg(feature = "mpi")]
fn run_mpi_rank(
    rank_info: &RankInfo,
    args: &RankArgs,
    work: impl FnOnce(&ProcessGroup) -> anyhow::Result<Status>,
) -> anyhow::Result<Status> {
    run_rank(rank_info, args, work, |options| Ok(Communicator::mpi(rank_info, options)?))
}

/// Runs `work` as a rank of the job that `join` connects to.
#[cfg(any(feature = "mpi", feature = "cuda"))]
fn run_rank(
    rank_info: &RankInfo,
    args: &RankArgs,
    work: impl FnOnce(&ProcessGroup) -> anyhow::Result<Status>,
    join: impl FnOnce(&CommunicatorOptions) -> anyhow::Result<Communicator>,
) -> anyhow::Result<Status> {
    pin_cores(rank_info, args.no_pin);
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let settings = [("program".to_owned(), program_digest()?)].into();
    let options = CommunicatorOptions {
        version,
        settings,
        deadline: args.deadline,
        ..CommunicatorOptions::default()
    };
    let process_group = ProcessGroup::new(join(&options)?);
    let communicator = process_group.communicator();
    watch_launcher(communicator.clone());
    match work(&process_group) {
        Ok(status) => {
            communicator.finish()?;
            Ok(status)
        }
        Err(error) => Ok(abort(&process_group, error)),
    }
}

/// Digest of the executable: ranks must run the same build, not only the same version.
#[cfg(any(feature = "mpi", feature = "cuda"))]
fn program_digest() -> anyhow::Result<String> {
    use std::io::Read as _;

    let mut program = std::fs::File::open("/proc/self/exe").context("cannot read this program")?;
    let (mut hasher, mut piece) = (blake3::Hasher::new(), vec![0; 1 << 20]);
    loop {
        match program.read(&mut piece).context("cannot read this program")? {
            0 => return Ok(hasher.finalize().to_hex()[..16].to_owned()),
            length => drop(hasher.update(&piece[..length])),
        }
    }
}

/// Aborts the job on all ranks because of `error`. The first rank reports it.
#[cfg(any(feature = "mpi", feature = "cuda"))]
fn abort(process_group: &ProcessGroup, error: anyhow::Error) -> Status {
    let communicator = process_group.communicator();
    if communicator.failure().is_none() {
        let of = if is_usage_error(&error, None) { USAGE_ERROR_PREFIX } else { "" };
        communicator.fail(&format!("{of}{error:#}"));
    }
    let is_usage = is_usage_error(&error, communicator.failure());
    // The first rank reports the failure of any rank, unless it is the lost one itself.
    let is_lost = |report: FailureReport| {
        report.rank == 0 && !matches!(report.cause, FailureCause::Failed(_))
    };
    let lost = communicator.failure().is_some_and(is_lost);
    if process_group.is_rank_zero() || lost && !is_usage {
        exit::code(Err(error));
    }
    // The launcher kills all ranks as soon as one exits.
    communicator.acknowledge_failure();
    if is_usage {
        return Status::UsageError;
    }
    match launcher_process() {
        // `mpirun` may wait for an unreachable machine.
        Some(Some(id)) => drop(rustix::process::kill_process(id, rustix::process::Signal::USR2)),
        _ => stop_orphaned_daemon(communicator.failure()),
    }
    Status::Partial
}

/// Whether a usage error of any rank aborted the job. Launchers return the exit code of the rank that exits first, so
/// all ranks exit with the same one.
#[cfg(any(feature = "mpi", feature = "cuda", test))]
fn is_usage_error(error: &anyhow::Error, report: Option<FailureReport>) -> bool {
    let is_usage_failure = |report: FailureReport| match report.cause {
        FailureCause::Failed(words) => words.starts_with(USAGE_ERROR_PREFIX),
        _ => false,
    };
    error.chain().any(|cause| cause.is::<Usage>()) || report.is_some_and(is_usage_failure)
}

/// Terminates MPI's daemon on this machine if the launching machine is unreachable: the daemon would wait a quarter of
/// an hour for it.
#[cfg(any(feature = "mpi", feature = "cuda"))]
fn stop_orphaned_daemon(report: Option<FailureReport>) {
    let is_cut_off =
        report.is_some_and(|it| it.rank == 0 && it.cause == FailureCause::HeartbeatTimeout);
    let Some(parent) = rustix::process::getppid().filter(|_| is_cut_off) else { return };
    let name = std::fs::read_to_string(format!("/proc/{}/comm", parent.as_raw_nonzero()));
    if name.is_ok_and(|name| name.trim_end() == "orted") {
        let _ = rustix::process::kill_process(parent, rustix::process::Signal::TERM);
    }
}

/// Exits this rank once the launcher or the parent process is gone.
#[cfg(any(feature = "mpi", feature = "cuda"))]
fn watch_launcher(communicator: Communicator) {
    let (id, parent) = (launcher_process().flatten(), rustix::process::getppid());
    std::thread::spawn(move || {
        let is_there = || id.is_none_or(|id| rustix::process::test_kill_process(id).is_ok());
        while is_there() && rustix::process::getppid() == parent {
            std::thread::sleep(10 * processes::POLL_INTERVAL);
        }
        communicator.fail("the launcher of the ranks is gone");
        std::process::exit(1);
    });
}

/// Pins each rank of a machine to its own cores and sizes its thread pool accordingly.
#[cfg(any(feature = "mpi", feature = "cuda"))]
fn pin_cores(rank_info: &RankInfo, no_pin: bool) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut threads = (cores / rank_info.local_size.max(1)).max(1);
    // Other launchers have their own binding rules.
    if launcher_process().is_some() && !no_pin {
        if let Some(mine) = cores::pin(rank_info.local_rank, rank_info.local_size) {
            tracing::info!(rank = rank_info.rank, cores = ?mine, "pinned this rank to its cores");
            threads = mine.len();
        }
    } else if std::env::var("OMPI_MCA_orte_bound_at_launch").is_ok_and(|bound| bound == "1") {
        threads = cores;
    }
    if std::env::var_os("RAYON_NUM_THREADS").is_none() {
        // Fails only if the pool exists already; that one is kept.
        let _ = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
    }
}

/// Refuses ranks on CPUs in a build without MPI.
fn require_mpi(has_mpi: bool) -> anyhow::Result<()> {
    if has_mpi {
        return Ok(());
    }
    Err(exit::hint(
        "ranks on CPUs need MPI, and this program was built without it",
        "rebuild with `cargo build --release --package embodied-r-cli --features mpi`; it needs libopenmpi-dev, \
         openmpi-bin and libclang-dev on Debian",
    ))
}

#[cfg(test)]
mod tests {
    use embodied_r_dist::{Communicator, CommunicatorOptions};

    use super::*;

    #[test]
    fn a_build_without_mpi_refuses_several_ranks_and_says_how_to_build_one_with_it() {
        let error = require_mpi(false).unwrap_err();
        assert!(error.to_string().contains("built without it"), "{error}");
        let hint = format!("{:?}", error.downcast_ref::<exit::Hint>());
        assert!(hint.contains("--features mpi"), "{hint}");
        assert!(require_mpi(true).is_ok());
        assert_eq!(check_launchable(Some(2), None).is_ok(), HAS_MPI);
        assert!(check_launchable(Some(1), None).is_ok());
    }

    #[test]
    fn all_ranks_exit_like_the_one_with_the_usage_error() {
        let ended = |error: anyhow::Error| {
            let ranks = Communicator::threads(2, &CommunicatorOptions::default()).unwrap();
            let of = if is_usage_error(&error, None) { USAGE_ERROR_PREFIX } else { "" };
            ranks[1].fail(&format!("{of}{error:#}"));
            let lost: anyhow::Error = ranks[0].barrier().unwrap_err().into();
            assert!(lost.to_string().contains("no such file"), "{lost}");
            is_usage_error(&lost, ranks[0].failure())
        };
        assert!(ended(Usage("no such file".into()).into()));
        assert!(!ended(anyhow::anyhow!("no such file")));
    }
}
