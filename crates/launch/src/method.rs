//! How ranks are launched, as command lines.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use embodied_r_dist::Rendezvous;
use tempfile::TempDir;

use crate::error::{Error, Result};
use crate::gpus::Gpu;
use crate::launcher::{LAUNCHER_ENV, MPIRUN, launcher_id};
use crate::lines::Source;
use crate::processes::ProcessSpec;

/// How the ranks are launched.
#[derive(Debug)]
pub enum LaunchMethod<'a> {
    /// With `mpirun`, here or on the machines of a hostfile.
    Mpi {
        /// The number of ranks.
        ranks: usize,
        /// The machines, in the format of `mpirun --hostfile`.
        hostfile: Option<&'a Path>,
        /// Environment variables that ranks on other machines need, where they are set.
        forwarded: &'a [&'a str],
    },
    /// One process per GPU.
    Gpus(Vec<Gpu>),
    /// A single process, so that it can be restarted.
    Single,
}

impl LaunchMethod<'_> {
    /// The processes of a job that runs this program with `args`.
    pub(crate) fn process_specs(&self, args: &[OsString]) -> Result<Vec<ProcessSpec>> {
        let program =
            std::env::current_exe().map_err(Error::io("locate this program's executable"))?;
        let own = || {
            let mut command = Command::new(&program);
            command.args(args).env(LAUNCHER_ENV, launcher_id());
            command
        };
        match self {
            Self::Mpi { ranks, hostfile, forwarded } => {
                let mut command = mpirun(*ranks, *hostfile, forwarded);
                command.arg(&program).args(args);
                let folder = hostfile.is_none().then(session_folder).transpose()?;
                if let Some(folder) = &folder {
                    command.env(SESSION_ENV, folder.path());
                }
                Ok(vec![ProcessSpec { command, source: Some(Source::Tagged), folder }])
            }
            Self::Single => {
                let mut command = own();
                command.envs(torchrun_env(0, 1));
                Ok(vec![ProcessSpec { command, source: None, folder: None }])
            }
            Self::Gpus(gpus) => {
                let rendezvous: BTreeMap<_, _> = Rendezvous::local_variables()?.into();
                let process_specs = gpus.iter().enumerate().map(|(rank, gpu)| {
                    let mut command = own();
                    command.envs(torchrun_env(rank, gpus.len()));
                    command.envs(&rendezvous).envs(gpu.env());
                    ProcessSpec { command, source: Some(Source::Rank(rank)), folder: None }
                });
                Ok(process_specs.collect())
            }
        }
    }
}

/// Where Open MPI keeps the files of a job. Jobs share one folder by default, which the job that ends first deletes while
/// another may be creating its own in it.
const SESSION_ENV: &str = "OMPI_MCA_orte_tmpdir_base";

fn session_folder() -> Result<TempDir> {
    TempDir::new().map_err(Error::io("create a folder for `mpirun`"))
}

/// The environment that `torchrun` sets for a rank of a single machine.
fn torchrun_env(rank: usize, ranks: usize) -> [(&'static str, String); 4] {
    [("RANK", rank), ("LOCAL_RANK", rank), ("WORLD_SIZE", ranks), ("LOCAL_WORLD_SIZE", ranks)]
        .map(|(name, number)| (name, number.to_string()))
}

fn mpirun(ranks: usize, hostfile: Option<&Path>, forwarded: &[&str]) -> Command {
    let mut command = Command::new(MPIRUN);
    command.args(["-n", &ranks.to_string(), "--bind-to", "none", "--tag-output", "--quiet"]);
    match hostfile {
        Some(file) => {
            command.arg("--hostfile").arg(file).args(["--map-by", "slot", "-x", LAUNCHER_ENV]);
            for name in forwarded.iter().filter(|name| std::env::var_os(name).is_some()) {
                command.args(["-x", name]);
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

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn session_folder_of(spec: &ProcessSpec) -> Option<PathBuf> {
        let mut variables = spec.command.get_envs();
        variables.find(|(name, _)| *name == SESSION_ENV)?.1.map(PathBuf::from)
    }

    #[test]
    fn a_job_of_this_machine_has_a_session_folder_of_its_own() {
        let job = |hostfile| {
            let method = LaunchMethod::Mpi { ranks: 2, hostfile, forwarded: &[] };
            method.process_specs(&[]).unwrap().remove(0)
        };
        let (one, other) = (job(None), job(None));
        let folders = [&one, &other].map(|spec| session_folder_of(spec).unwrap());
        assert!(folders[0] != folders[1] && folders.iter().all(|folder| folder.is_dir()));
        drop(one);
        assert!(!folders[0].exists());
        // On other machines it would not exist.
        assert_eq!(session_folder_of(&job(Some(Path::new("hosts")))), None);
    }
}
