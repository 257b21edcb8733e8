//! Processes that do one job together: started here, or by whoever started this one.

use std::io::ErrorKind;
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context as _;
use embodied_r_dist::{Launcher, Place};
use embodied_r_grpo::team::Team;

use crate::args::run::RankArgs;
use crate::exit::{self, Status, Usage};
use crate::interrupt::on_interrupt;

/// What starts the ranks.
const LAUNCHER: &str = "mpirun";

/// Where ranks find the process that asked for them.
const LAUNCHER_ID: &str = "EMBODIED_R_LAUNCHER";

/// How often the launcher is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Does a command's work on the ranks that are asked for: alone, as one of those that a launcher has started, or by
/// starting them.
///
/// # Errors
/// What `work` returns, of any rank.
pub(crate) fn together(
    args: &RankArgs,
    work: impl FnOnce(&Team) -> anyhow::Result<Status>,
) -> anyhow::Result<Status> {
    let place = place()?;
    let (given, asked) = (place.world_size, args.ranks.unwrap_or(place.world_size));
    match place.launcher {
        Launcher::Alone if asked > 1 => launch(asked),
        _ if asked != given => {
            let told = format!("`--ranks` is {asked}, but the launcher started {given}");
            Err(Usage(format!("{told}; leave `--ranks` out")).into())
        }
        _ if given == 1 => work(&Team::default()),
        Launcher::OpenMpi => as_one_of(&place, args.deadline, work),
        launcher => {
            let told =
                format!("{launcher:?} started this process, and ranks on CPUs talk through MPI");
            Err(Usage(format!("{told}: start them with `{LAUNCHER} -n N embodied-r …`")).into())
        }
    }
}

fn place() -> anyhow::Result<Place> {
    Place::from_env(|name| std::env::var(name).ok())
        .map_err(|error| Usage(error.to_string()).into())
}

/// How many ranks share this machine.
pub(crate) fn on_this_machine() -> usize {
    place().map_or(1, |place| place.local_size.max(1))
}

#[cfg(not(feature = "mpi"))]
fn as_one_of(
    _: &Place,
    _: Duration,
    _: impl FnOnce(&Team) -> anyhow::Result<Status>,
) -> anyhow::Result<Status> {
    Err(without_mpi())
}

/// Works as the rank of this place.
#[cfg(feature = "mpi")]
fn as_one_of(
    place: &Place,
    deadline: Duration,
    work: impl FnOnce(&Team) -> anyhow::Result<Status>,
) -> anyhow::Result<Status> {
    use embodied_r_dist::{Communicator, Options, Verdict, Why};

    share_cores(place);
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let options = Options { version, deadline, ..Options::default() };
    let team = Team::new(Communicator::mpi(place, &options)?);
    let communicator = team.communicator();
    watch_launcher(communicator.clone());
    match work(&team) {
        Ok(status) => {
            communicator.finish()?;
            Ok(status)
        }
        Err(error) => {
            if communicator.verdict().is_none() {
                communicator.fail(&format!("{error:#}"));
            }
            // The first rank says what was wrong, wherever that was, unless it is the one that is lost.
            let is_lost =
                |verdict: Verdict| verdict.rank == 0 && !matches!(verdict.why, Why::Failed(_));
            let lost = communicator.verdict().is_some_and(is_lost);
            let is_usage = error.chain().any(|cause| cause.is::<Usage>());
            if team.is_first() || lost && !is_usage {
                exit::code(Err(error));
            }
            // The launcher ends all ranks when the first of them ends.
            communicator.part();
            Ok(if is_usage { Status::Wrong } else { Status::Partial })
        }
    }
}

/// Ends this rank once the program that started the ranks is gone.
#[cfg(feature = "mpi")]
fn watch_launcher(communicator: embodied_r_dist::Communicator) {
    let id = std::env::var(LAUNCHER_ID).ok().and_then(|id| id.parse().ok());
    let Some(id) = id.and_then(rustix::process::Pid::from_raw) else { return };
    std::thread::spawn(move || {
        while rustix::process::test_kill_process(id).is_ok() {
            std::thread::sleep(10 * LOOK_EVERY);
        }
        communicator.fail("the program that started the ranks is gone");
        std::process::exit(1);
    });
}

/// Gives each rank of a machine as many threads as there are cores for it.
#[cfg(feature = "mpi")]
fn share_cores(place: &Place) {
    if std::env::var_os("RAYON_NUM_THREADS").is_some() {
        return;
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = (cores / place.local_size.max(1)).max(1);
    // Where the pool is there already, it stays as it is.
    let _ = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
}

fn without_mpi() -> anyhow::Error {
    exit::hint(
        "this program was built without MPI, through which ranks on CPUs talk",
        "`cargo build --release --package embodied-r-cli --features mpi` builds it with; Debian's packages are \
         libopenmpi-dev, openmpi-bin and libclang-dev",
    )
}

/// Starts this program again, so many times, with the arguments that it has.
fn launch(ranks: usize) -> anyhow::Result<Status> {
    if !cfg!(feature = "mpi") {
        return Err(without_mpi());
    }
    let program = std::env::current_exe().context("cannot tell this program's own place")?;
    let mut command = Command::new(LAUNCHER);
    command.args(["-n", &ranks.to_string(), "--oversubscribe", "--bind-to", "none"]);
    command.arg("--quiet").arg(program).args(std::env::args_os().skip(1));
    if rustix::process::geteuid().is_root() {
        // In a container there is nobody else.
        command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
    }
    command.env(LAUNCHER_ID, std::process::id().to_string());
    // Ctrl-C is for this process, which passes it on: the launcher would end the ranks at once.
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let stop = on_interrupt("stopping all ranks after a checkpoint")?;
    let mut launcher = command.spawn().map_err(|error| match error.kind() {
        ErrorKind::NotFound => exit::hint(
            format!("there is no `{LAUNCHER}`, which starts the ranks"),
            "on Debian and Ubuntu, `apt-get install openmpi-bin` brings it",
        ),
        _ => anyhow::Error::new(error).context(format!("cannot run `{LAUNCHER}`")),
    })?;
    let mut is_passed_on = false;
    loop {
        if let Some(status) = launcher.try_wait().context("cannot wait for the ranks")? {
            return match status.code() {
                Some(0) => Ok(Status::Done),
                Some(2) => Ok(Status::Wrong),
                _ => Ok(Status::Partial),
            };
        }
        if stop.load(Ordering::Relaxed) && !is_passed_on {
            is_passed_on = true;
            let id = rustix::process::Pid::from_child(&launcher);
            rustix::process::kill_process(id, rustix::process::Signal::USR1)
                .context("cannot tell the ranks to stop")?;
        }
        std::thread::sleep(LOOK_EVERY);
    }
}
