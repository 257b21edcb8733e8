//! Processes that do one job together: started here, or by whoever started this one.

use std::path::PathBuf;
use std::time::Duration;

#[cfg(any(feature = "mpi", feature = "cuda"))]
use anyhow::Context as _;
#[cfg(any(feature = "mpi", feature = "cuda"))]
use embodied_r_dist::{Communicator, Options};
use embodied_r_dist::{Launcher, Place};
#[cfg(any(feature = "mpi", feature = "cuda", test))]
use embodied_r_dist::{Verdict, Why};
use embodied_r_grpo::team::Team;

use crate::args::device::DeviceName;
use crate::args::run::{JobArgs, RankArgs};
use crate::exit::{self, Status, Usage};
use launch::{Way, launch};

#[cfg_attr(
    not(any(feature = "mpi", feature = "cuda", test)),
    expect(dead_code, reason = "only ranks are kept to cores")
)]
mod cores;
mod gpus;
mod launch;
mod lines;
mod restart;
mod running;

/// What starts the ranks.
const LAUNCHER: &str = "mpirun";

/// Where ranks find the process that asked for them, as `ID@MACHINE`.
const SELF: &str = "EMBODIED_R_LAUNCHER";

/// How the words of a rank begin that found its arguments wrong.
#[cfg(any(feature = "mpi", feature = "cuda", test))]
const WRONG_USAGE: &str = "wrong usage: ";

/// How often the launcher is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Does a command's work on the ranks that are asked for: alone, as one of those that a launcher has started, or by
/// starting them. Ranks on GPUs (`--gpus`, or `device`) talk through NCCL.
///
/// # Errors
/// What `work` returns, of any rank.
pub(crate) fn together(
    ranks: &RankArgs,
    device: DeviceName,
    work: impl FnOnce(&Team) -> anyhow::Result<Status>,
) -> anyhow::Result<Status> {
    let job = JobArgs { ranks: ranks.clone(), restarts: 0, device };
    let none = || Err(anyhow::anyhow!("a job without restarts has no folder"));
    do_job(&job, none, work)
}

/// As [`together`], on GPUs too and with restarts. `folder` tells that of the run.
///
/// # Errors
/// As [`together`].
pub(crate) fn do_job(
    job: &JobArgs,
    folder: impl Fn() -> anyhow::Result<PathBuf>,
    work: impl FnOnce(&Team) -> anyhow::Result<Status>,
) -> anyhow::Result<Status> {
    let (place, args) = (place()?, &job.ranks);
    let is_alone = place.launcher == Launcher::Alone;
    let given = place.world_size;
    let asked = args.gpus.or(args.ranks).unwrap_or(given);
    if is_alone && let Some(count) = args.gpus {
        return launch(&Way::Gpus(gpus::first(count)?), job.restarts, folder);
    }
    if is_alone && (asked > 1 || args.hostfile.is_some()) {
        if !cfg!(feature = "mpi") {
            return Err(without_mpi());
        }
        let way = Way::Mpi { ranks: asked, hostfile: args.hostfile.as_deref() };
        return launch(&way, job.restarts, folder);
    }
    if is_alone && job.restarts > 0 {
        return launch(&Way::One, job.restarts, folder);
    }
    if asked != given {
        let flag = if args.gpus.is_some() { "--gpus" } else { "--ranks" };
        let told = format!("`{flag}` is {asked}, but the launcher started {given}");
        return Err(Usage(format!("{told}; leave `{flag}` out")).into());
    }
    if job.restarts > 0 && started_by().is_none() {
        let told = "`--restarts` is for processes that this program starts, and another launcher started this one";
        return Err(Usage(format!("{told}; let that one start them again, with `--resume`")).into());
    }
    match place.launcher {
        _ if given == 1 => work(&Team::default()),
        #[cfg(feature = "cuda")]
        _ if job.device.or_gpus(args.gpus) == DeviceName::Cuda => {
            take_part(&place, args, work, |options| gpus::join(&place, options))
        }
        Launcher::OpenMpi => as_one_of(&place, args, work),
        launcher => {
            let told =
                format!("{launcher:?} started this process, and ranks on CPUs talk through MPI");
            Err(Usage(format!("{told}: start them with `{LAUNCHER} -n N embodied-r …`")).into())
        }
    }
}

/// Refuses processes that cannot be started, for a command that starts them after other work.
///
/// # Errors
/// This build lacks what they talk through, or the machine has fewer GPUs.
pub(crate) fn refuse_impossible(ranks: Option<usize>, gpus: Option<usize>) -> anyhow::Result<()> {
    if let Some(count) = gpus {
        gpus::first(count)?;
    }
    match ranks {
        Some(2..) if !cfg!(feature = "mpi") => Err(without_mpi()),
        _ => Ok(()),
    }
}

/// Which of the GPUs that CUDA shows is this process's.
#[cfg(feature = "cuda")]
pub(crate) fn ordinal() -> anyhow::Result<usize> {
    Ok(gpus::ordinal(&place()?))
}

fn place() -> anyhow::Result<Place> {
    Place::from_env(|name| std::env::var(name).ok())
        .map_err(|error| Usage(error.to_string()).into())
}

/// How many ranks share this machine.
pub(crate) fn on_this_machine() -> usize {
    place().map_or(1, |place| place.local_size.max(1))
}

/// This process, as its ranks are told of it.
fn who_started() -> String {
    format!("{}@{}", std::process::id(), machine())
}

fn machine() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The process that started the ranks: its number, where it is on this machine; `None` where no process of this program
/// did.
fn started_by() -> Option<Option<rustix::process::Pid>> {
    let told = std::env::var(SELF).ok()?;
    let (id, on) = told.split_once('@')?;
    let id = id.parse().ok().and_then(rustix::process::Pid::from_raw)?;
    Some((on == machine()).then_some(id))
}

#[cfg(not(feature = "mpi"))]
fn as_one_of(
    _: &Place,
    _: &RankArgs,
    _: impl FnOnce(&Team) -> anyhow::Result<Status>,
) -> anyhow::Result<Status> {
    Err(without_mpi())
}

/// Works as the rank of this place, among others that talk through MPI.
#[cfg(feature = "mpi")]
fn as_one_of(
    place: &Place,
    args: &RankArgs,
    work: impl FnOnce(&Team) -> anyhow::Result<Status>,
) -> anyhow::Result<Status> {
    take_part(place, args, work, |options| Ok(Communicator::mpi(place, options)?))
}

/// Works as the rank of this place, among those that `join` brings together.
#[cfg(any(feature = "mpi", feature = "cuda"))]
fn take_part(
    place: &Place,
    args: &RankArgs,
    work: impl FnOnce(&Team) -> anyhow::Result<Status>,
    join: impl FnOnce(&Options) -> anyhow::Result<Communicator>,
) -> anyhow::Result<Status> {
    share_cores(place, args.no_pin);
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let settings = [("program".to_owned(), program_digest()?)].into();
    let options = Options { version, settings, deadline: args.deadline, ..Options::default() };
    let team = Team::new(join(&options)?);
    let communicator = team.communicator();
    watch_launcher(communicator.clone());
    match work(&team) {
        Ok(status) => {
            communicator.finish()?;
            Ok(status)
        }
        Err(error) => Ok(end(&team, error)),
    }
}

/// What tells this build of the program from others of the same version.
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

/// Ends the job on all ranks because of `error`, and tells it where that is this rank's to do.
#[cfg(any(feature = "mpi", feature = "cuda"))]
fn end(team: &Team, error: anyhow::Error) -> Status {
    let communicator = team.communicator();
    if communicator.verdict().is_none() {
        let of = if is_wrong_usage(&error, None) { WRONG_USAGE } else { "" };
        communicator.fail(&format!("{of}{error:#}"));
    }
    let is_usage = is_wrong_usage(&error, communicator.verdict());
    // The first rank says what was wrong, wherever that was, unless it is the one that is lost.
    let is_lost = |verdict: Verdict| verdict.rank == 0 && !matches!(verdict.why, Why::Failed(_));
    let lost = communicator.verdict().is_some_and(is_lost);
    if team.is_first() || lost && !is_usage {
        exit::code(Err(error));
    }
    // The launcher ends all ranks when the first of them ends.
    communicator.part();
    if is_usage {
        return Status::Wrong;
    }
    match started_by() {
        // MPI's own launcher may wait for a machine that cannot be reached any more.
        Some(Some(id)) => drop(rustix::process::kill_process(id, rustix::process::Signal::USR2)),
        _ => end_cut_off_daemon(communicator.verdict()),
    }
    Status::Partial
}

/// Whether the job ends because a rank found its arguments wrong, this one or another: launchers give the exit code of
/// the rank that ends first, so all have the same.
#[cfg(any(feature = "mpi", feature = "cuda", test))]
fn is_wrong_usage(error: &anyhow::Error, verdict: Option<Verdict>) -> bool {
    let is_told = |verdict: Verdict| match verdict.why {
        Why::Failed(words) => words.starts_with(WRONG_USAGE),
        _ => false,
    };
    error.chain().any(|cause| cause.is::<Usage>()) || verdict.is_some_and(is_told)
}

/// Ends MPI's daemon on this machine, where the one on which the ranks were started cannot be reached any more: it would
/// wait for it for a quarter of an hour.
#[cfg(any(feature = "mpi", feature = "cuda"))]
fn end_cut_off_daemon(verdict: Option<Verdict>) {
    let is_cut_off = verdict.is_some_and(|it| it.rank == 0 && it.why == Why::Silent);
    let Some(parent) = rustix::process::getppid().filter(|_| is_cut_off) else { return };
    let name = std::fs::read_to_string(format!("/proc/{}/comm", parent.as_raw_nonzero()));
    if name.is_ok_and(|name| name.trim_end() == "orted") {
        let _ = rustix::process::kill_process(parent, rustix::process::Signal::TERM);
    }
}

/// Ends this rank once the program that started the ranks, or the one that started this process, is gone.
#[cfg(any(feature = "mpi", feature = "cuda"))]
fn watch_launcher(communicator: Communicator) {
    let (id, parent) = (started_by().flatten(), rustix::process::getppid());
    std::thread::spawn(move || {
        let is_there = || id.is_none_or(|id| rustix::process::test_kill_process(id).is_ok());
        while is_there() && rustix::process::getppid() == parent {
            std::thread::sleep(10 * LOOK_EVERY);
        }
        communicator.fail("the program that started the ranks is gone");
        std::process::exit(1);
    });
}

/// Gives each rank of a machine cores of its own, and as many threads.
#[cfg(any(feature = "mpi", feature = "cuda"))]
fn share_cores(place: &Place, no_pin: bool) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut threads = (cores / place.local_size.max(1)).max(1);
    // Another launcher has its own rules.
    if started_by().is_some() && !no_pin {
        if let Some(mine) = cores::pin(place.local_rank, place.local_size) {
            tracing::info!(rank = place.rank, cores = ?mine, "this rank keeps to its cores");
            threads = mine.len();
        }
    } else if std::env::var("OMPI_MCA_orte_bound_at_launch").is_ok_and(|bound| bound == "1") {
        threads = cores;
    }
    if std::env::var_os("RAYON_NUM_THREADS").is_none() {
        // Where the pool is there already, it stays as it is.
        let _ = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
    }
}

fn without_mpi() -> anyhow::Error {
    exit::hint(
        "this program was built without MPI, through which ranks on CPUs talk",
        "`cargo build --release --package embodied-r-cli --features mpi` builds it with; Debian's packages are \
         libopenmpi-dev, openmpi-bin and libclang-dev",
    )
}

#[cfg(test)]
mod tests {
    use embodied_r_dist::{Communicator, Options};

    use super::*;

    #[test]
    fn all_ranks_end_as_the_one_that_found_its_arguments_wrong() {
        let ended = |error: anyhow::Error| {
            let ranks = Communicator::threads(2, &Options::default()).unwrap();
            let of = if is_wrong_usage(&error, None) { WRONG_USAGE } else { "" };
            ranks[1].fail(&format!("{of}{error:#}"));
            let lost: anyhow::Error = ranks[0].barrier().unwrap_err().into();
            assert!(lost.to_string().contains("no such file"), "{lost}");
            is_wrong_usage(&lost, ranks[0].verdict())
        };
        assert!(ended(Usage("no such file".into()).into()));
        assert!(!ended(anyhow::anyhow!("no such file")));
    }
}
