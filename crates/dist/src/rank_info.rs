//! The rank and world size of a process, read from its launcher's environment variables.

use crate::error::{Error, Result};

mod slurm;

/// A process's rank in the job and on its machine.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RankInfo {
    /// This process's rank, from 0.
    pub rank: usize,
    /// The number of processes in the job.
    pub world_size: usize,
    /// This process's rank on its machine, from 0.
    pub local_rank: usize,
    /// The number of processes on its machine.
    pub local_size: usize,
    /// The host name.
    pub host: String,
    /// The launcher whose variables were read.
    pub launcher: Launcher,
}

/// The program that started this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Launcher {
    /// No multi-process launcher.
    Standalone,
    /// `torchrun`, or a manifest that sets the same variables.
    Torchrun,
    /// Slurm's `srun`.
    Slurm,
    /// Open MPI's `mpirun`.
    OpenMpi,
}

/// Ranks and sizes from one launcher, with the names of its rank and world size variables.
struct LauncherVariables {
    launcher: Launcher,
    names: [&'static str; 2],
    rank: usize,
    world_size: usize,
    local_rank: usize,
    local_size: usize,
}

impl RankInfo {
    /// The only rank of a job of one.
    pub fn standalone() -> Self {
        Self {
            rank: 0,
            world_size: 1,
            local_rank: 0,
            local_size: 1,
            host: host_name(),
            launcher: Launcher::Standalone,
        }
    }

    /// Reads the variables of torchrun, Open MPI and Slurm by `lookup` (for example
    /// `|name| std::env::var(name).ok()`); a standalone process if none is set.
    ///
    /// Slurm often starts `torchrun` and `mpirun`, whose processes then inherit the variables of Slurm's task. So
    /// Slurm's variables count only within an `srun` step and only if no other launcher's are set. Torchrun's and
    /// Open MPI's must agree.
    ///
    /// # Errors
    ///
    /// Variables that are not numbers, are inconsistent, contradict each other or are missing.
    pub fn from_env(lookup: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let variables = Variables(&lookup);
        let torchrun = variables.torchrun()?;
        let mpi = variables.open_mpi()?;
        if let (Some(one), Some(other)) = (&torchrun, &mpi) {
            one.agree_with(other)?;
        }
        let found = match torchrun.or(mpi) {
            Some(found) => Some(found),
            None => variables.slurm()?,
        };
        found.map_or_else(|| Ok(Self::standalone()), LauncherVariables::checked)
    }
}

impl LauncherVariables {
    fn agree_with(&self, other: &Self) -> Result<()> {
        let pairs = [(self.rank, other.rank), (self.world_size, other.world_size)];
        for (at, (here, there)) in pairs.into_iter().enumerate() {
            if here != there {
                return Err(Error::Contradiction {
                    name: self.names[at].into(),
                    value: here.to_string(),
                    other: other.names[at].into(),
                    other_value: there.to_string(),
                });
            }
        }
        Ok(())
    }

    fn checked(self) -> Result<RankInfo> {
        let [rank, size] = self.names;
        below(rank, self.rank, size, self.world_size)?;
        below("local rank", self.local_rank, "local size", self.local_size)?;
        if self.local_size > self.world_size {
            return Err(Error::Variable {
                name: size.into(),
                value: self.world_size.to_string(),
                why: format!(
                    "but there are {} ranks on this machine; check the launcher's variables",
                    self.local_size
                ),
            });
        }
        Ok(RankInfo {
            rank: self.rank,
            world_size: self.world_size,
            local_rank: self.local_rank,
            local_size: self.local_size,
            host: host_name(),
            launcher: self.launcher,
        })
    }
}

fn below(name: &str, number: usize, bound: &str, size: usize) -> Result<()> {
    if number < size {
        return Ok(());
    }
    Err(Error::Variable {
        name: name.into(),
        value: number.to_string(),
        why: format!(
            "but must be below `{bound}` = {size}; start the ranks with `mpirun`, `srun` or `torchrun`"
        ),
    })
}

/// Environment variables, parsed as numbers.
struct Variables<'a, F>(&'a F);

impl<F: Fn(&str) -> Option<String>> Variables<'_, F> {
    fn text(&self, name: &str) -> Option<String> {
        (self.0)(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    }

    fn number(&self, name: &str) -> Result<Option<usize>> {
        let Some(value) = self.text(name) else { return Ok(None) };
        match value.parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(Error::Variable {
                name: name.into(),
                value,
                why: "which is not a non-negative integer; let the launcher set it".into(),
            }),
        }
    }

    fn needed(&self, name: &str, because: &str) -> Result<usize> {
        self.number(name)?.ok_or_else(|| Error::MissingVariable {
            name: name.into(),
            why: format!("but `{because}` is; set both, or neither for a single process"),
        })
    }

    /// Rank and size from the variables of these names; `None` if neither is set.
    fn pair(&self, [rank, size]: [&str; 2]) -> Result<Option<(usize, usize)>> {
        if self.text(rank).is_none() && self.text(size).is_none() {
            return Ok(None);
        }
        Ok(Some((self.needed(rank, size)?, self.needed(size, rank)?)))
    }

    fn torchrun(&self) -> Result<Option<LauncherVariables>> {
        let names = ["RANK", "WORLD_SIZE"];
        let Some((rank, world_size)) = self.pair(names)? else { return Ok(None) };
        // A manifest with one process per machine sets neither of these.
        let local = self.pair(["LOCAL_RANK", "LOCAL_WORLD_SIZE"])?;
        let (local_rank, local_size) = local.unwrap_or((0, 1));
        let launcher = Launcher::Torchrun;
        Ok(Some(LauncherVariables { launcher, names, rank, world_size, local_rank, local_size }))
    }

    fn open_mpi(&self) -> Result<Option<LauncherVariables>> {
        let names = ["OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"];
        let Some((rank, world_size)) = self.pair(names)? else { return Ok(None) };
        let local = self.pair(["OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"])?;
        let (local_rank, local_size) = local.unwrap_or((0, 1));
        let launcher = Launcher::OpenMpi;
        Ok(Some(LauncherVariables { launcher, names, rank, world_size, local_rank, local_size }))
    }

    fn slurm(&self) -> Result<Option<LauncherVariables>> {
        // A batch script has Slurm's variables too, but is not a rank.
        if self.text("SLURM_STEP_ID").or_else(|| self.text("SLURM_STEPID")).is_none() {
            return Ok(None);
        }
        let step = self.text("SLURM_STEP_NUM_TASKS").is_some();
        let size = if step { "SLURM_STEP_NUM_TASKS" } else { "SLURM_NTASKS" };
        let names = ["SLURM_PROCID", size];
        let Some((rank, world_size)) = self.pair(names)? else { return Ok(None) };
        let local_rank = self.needed("SLURM_LOCALID", "SLURM_PROCID")?;
        let local_size = self.slurm_local_size(world_size)?;
        let launcher = Launcher::Slurm;
        Ok(Some(LauncherVariables { launcher, names, rank, world_size, local_rank, local_size }))
    }

    fn slurm_local_size(&self, world_size: usize) -> Result<usize> {
        let node = self.number("SLURM_NODEID")?.unwrap_or(0);
        let step = self.text("SLURM_STEP_TASKS_PER_NODE").is_some();
        let name = if step { "SLURM_STEP_TASKS_PER_NODE" } else { "SLURM_TASKS_PER_NODE" };
        let Some(value) = self.text(name) else { return Ok(world_size) };
        slurm::tasks_of_node(&value, node).ok_or_else(|| Error::Variable {
            name: name.into(),
            value,
            why: format!(
                "which does not list the tasks of node {node}; start the ranks with `srun`"
            ),
        })
    }
}

/// This machine's host name.
fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests;
