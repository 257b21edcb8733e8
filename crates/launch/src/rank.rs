//! What this process is in its job, and how it joins and leaves the other ranks.

#[cfg(any(feature = "mpi", feature = "cuda"))]
use std::time::Duration;

use embodied_r_dist::RankInfo;
#[cfg(feature = "cuda")]
use embodied_r_dist::Rendezvous;
#[cfg(any(feature = "mpi", feature = "cuda"))]
use embodied_r_dist::{Communicator, CommunicatorOptions};
#[cfg(any(feature = "mpi", feature = "cuda"))]
use embodied_r_dist::{FailureCause, FailureReport};

use crate::error::{Error, Result};

/// Prefix of a failure message whose cause is a usage error.
#[cfg(any(feature = "mpi", feature = "cuda"))]
const USAGE_ERROR_PREFIX: &str = "usage error: ";

/// This process's place among the ranks, from the variables that launchers set.
///
/// # Errors
/// The variables make no sense.
pub fn rank_info() -> Result<RankInfo> {
    RankInfo::from_env(|name| std::env::var(name).ok()).map_err(Error::Environment)
}

/// Whether this process is the job's first rank, or its only one.
pub fn is_first() -> bool {
    rank_info().map_or(true, |rank_info| rank_info.rank == 0)
}

/// Ranks on this machine (the local world size).
pub fn local_world_size() -> usize {
    rank_info().map_or(1, |rank_info| rank_info.local_size.max(1))
}

/// The CUDA device ordinal of this process.
///
/// # Errors
/// As [`rank_info`].
#[cfg(feature = "cuda")]
pub fn ordinal() -> Result<usize> {
    Ok(crate::gpus::ordinal(&rank_info()?))
}

/// A rank that has joined the others.
#[cfg(any(feature = "mpi", feature = "cuda"))]
pub struct Rank {
    communicator: Communicator,
}

/// A job that this rank has aborted, or seen aborted, and that it has not left yet.
#[cfg(any(feature = "mpi", feature = "cuda"))]
pub struct Aborted<'a> {
    communicator: &'a Communicator,
    /// Whether this rank is to report the error: the first does, for any rank, unless it is the lost one itself.
    pub reports: bool,
    /// Whether a usage error on any rank is the cause. Launchers return the exit code of the rank that exits first, so
    /// all ranks exit with the same one.
    pub is_usage_error: bool,
}

#[cfg(any(feature = "mpi", feature = "cuda"))]
impl Rank {
    /// Joins the other ranks over MPI. A rank that makes no progress for `deadline` while others wait for it is lost;
    /// without `pinned` it may run on all cores.
    ///
    /// # Errors
    /// The ranks cannot connect, or run different programs.
    #[cfg(feature = "mpi")]
    pub fn join_mpi(
        rank_info: &RankInfo,
        version: &str,
        deadline: Duration,
        pinned: bool,
    ) -> Result<Self> {
        Self::join(rank_info, version, deadline, pinned, |options| {
            Ok(Communicator::mpi(rank_info, options)?)
        })
    }

    /// Joins the other ranks over NCCL; otherwise as [`Self::join_mpi`].
    ///
    /// # Errors
    /// As [`Self::join_mpi`]; the rendezvous is not set.
    #[cfg(feature = "cuda")]
    pub fn join_nccl(
        rank_info: &RankInfo,
        version: &str,
        deadline: Duration,
        pinned: bool,
    ) -> Result<Self> {
        Self::join(rank_info, version, deadline, pinned, |options| {
            let lookup = |name: &str| std::env::var(name).ok();
            let rendezvous = Rendezvous::from_env(lookup).map_err(Error::Environment)?;
            let ordinal = crate::gpus::ordinal(rank_info);
            Ok(Communicator::nccl(rank_info, &rendezvous, ordinal, options)?)
        })
    }

    fn join(
        rank_info: &RankInfo,
        version: &str,
        deadline: Duration,
        pinned: bool,
        join: impl FnOnce(&CommunicatorOptions) -> Result<Communicator>,
    ) -> Result<Self> {
        pin_cores(rank_info, pinned);
        let settings = [("program".to_owned(), program_digest()?)].into();
        let options = CommunicatorOptions {
            version: version.to_owned(),
            settings,
            deadline,
            ..CommunicatorOptions::default()
        };
        let communicator = join(&options)?;
        watch_launcher(communicator.clone());
        Ok(Self { communicator })
    }

    /// The connection to the other ranks.
    pub fn communicator(&self) -> &Communicator {
        &self.communicator
    }

    /// Leaves the job at its end.
    ///
    /// # Errors
    /// Another rank has failed.
    pub fn finish(&self) -> Result<()> {
        Ok(self.communicator.finish()?)
    }

    /// Aborts the job on all ranks because of an error, given as text, unless another rank has aborted it before.
    pub fn abort(&self, error: &str, is_usage_error: bool) -> Aborted<'_> {
        let communicator = &self.communicator;
        if communicator.failure().is_none() {
            let prefix = if is_usage_error { USAGE_ERROR_PREFIX } else { "" };
            communicator.fail(&format!("{prefix}{error}"));
        }
        let failure = communicator.failure();
        let is_usage_error = is_usage_error || failure.as_ref().is_some_and(is_usage_failure);
        let is_lost = failure.is_some_and(|report| {
            report.rank == 0 && !matches!(report.cause, FailureCause::Failed(_))
        });
        let reports = communicator.rank() == 0 || is_lost && !is_usage_error;
        Aborted { communicator, reports, is_usage_error }
    }
}

#[cfg(any(feature = "mpi", feature = "cuda"))]
impl Aborted<'_> {
    /// Leaves the job, once the error is reported: the launcher kills all ranks as soon as one exits.
    pub fn leave(self) {
        self.communicator.acknowledge_failure();
        if self.is_usage_error {
            return;
        }
        match crate::launcher::launcher_process() {
            // `mpirun` may wait for an unreachable machine.
            Some(Some(id)) => {
                let _ = rustix::process::kill_process(id, rustix::process::Signal::USR2);
            }
            _ => stop_orphaned_daemon(self.communicator.failure()),
        }
    }
}

/// Whether the rank that failed had a usage error.
#[cfg(any(feature = "mpi", feature = "cuda"))]
fn is_usage_failure(report: &FailureReport) -> bool {
    matches!(&report.cause, FailureCause::Failed(words) if words.starts_with(USAGE_ERROR_PREFIX))
}

/// Digest of the executable: ranks must run the same build, not only the same version.
#[cfg(any(feature = "mpi", feature = "cuda"))]
fn program_digest() -> Result<String> {
    use std::io::Read as _;

    let mut program =
        std::fs::File::open("/proc/self/exe").map_err(Error::io("read this program"))?;
    let (mut hasher, mut piece) = (blake3::Hasher::new(), vec![0; 1 << 20]);
    loop {
        match program.read(&mut piece).map_err(Error::io("read this program"))? {
            0 => return Ok(hasher.finalize().to_hex()[..16].to_owned()),
            length => drop(hasher.update(&piece[..length])),
        }
    }
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
    let (id, parent) = (crate::launcher::launcher_process().flatten(), rustix::process::getppid());
    std::thread::spawn(move || {
        let is_there = || id.is_none_or(|id| rustix::process::test_kill_process(id).is_ok());
        while is_there() && rustix::process::getppid() == parent {
            std::thread::sleep(10 * crate::processes::POLL_INTERVAL);
        }
        communicator.fail("the launcher of the ranks is gone");
        std::process::exit(1);
    });
}

/// Pins each rank of a machine to its own cores and sizes its thread pool accordingly.
#[cfg(any(feature = "mpi", feature = "cuda"))]
fn pin_cores(rank_info: &RankInfo, pinned: bool) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut threads = (cores / rank_info.local_size.max(1)).max(1);
    // Other launchers have their own binding rules.
    if crate::launcher::launcher_process().is_some() && pinned {
        if let Some(mine) = crate::cores::pin(rank_info.local_rank, rank_info.local_size) {
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

#[cfg(test)]
#[cfg(any(feature = "mpi", feature = "cuda"))]
mod tests {
    use super::*;

    /// What the failed rank and the first one make of a failure of rank 1.
    fn aborted(is_usage_error: bool) -> [(bool, bool); 2] {
        let ranks = Communicator::threads(2, &CommunicatorOptions::default()).unwrap();
        let [first, failed] = [0, 1].map(|rank| Rank { communicator: ranks[rank].clone() });
        let of = |aborted: Aborted<'_>| (aborted.reports, aborted.is_usage_error);
        let failed = of(failed.abort("no such file", is_usage_error));
        let lost = first.communicator().barrier().unwrap_err().to_string();
        assert!(lost.contains("no such file"), "{lost}");
        // To the first rank, the failure of another one is no usage error of its own.
        [failed, of(first.abort(&lost, false))]
    }

    #[test]
    fn the_first_rank_reports_and_all_exit_like_the_one_with_the_usage_error() {
        assert_eq!(aborted(true), [(false, true), (true, true)]);
        assert_eq!(aborted(false), [(false, false), (true, false)]);
    }
}
