//! Validates that the joining ranks form the configured job.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::message::Hello;

/// Why a rendezvous failed. Its JSON keys are the wire format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum RendezvousFault {
    /// Ranks did not join in time.
    Missing {
        /// The missing ranks.
        ranks: Vec<usize>,
        /// The timeout.
        waited: Duration,
        /// Connections that failed to authenticate.
        #[serde(rename = "strangers")]
        unauthenticated: usize,
    },
    /// Two processes have the same rank.
    #[serde(rename = "Doubled")]
    Duplicate {
        /// The rank.
        rank: usize,
        /// Process and host that joined first.
        first: String,
        /// Process and host that joined second.
        second: String,
    },
    /// A process has a rank beyond the world size.
    OutOfRange {
        /// The rank.
        rank: usize,
        /// Its process and host.
        process: String,
        /// The number of ranks.
        world_size: usize,
    },
    /// A rank's version, world size or settings differ from rank 0's.
    #[serde(rename = "Differs")]
    Mismatch {
        /// The rank.
        rank: usize,
        /// Its host.
        host: String,
        /// What differs.
        what: String,
        /// The rank's value; `None` if unset.
        has: Option<String>,
        /// Rank 0's value; `None` if unset.
        rank_0: Option<String>,
    },
}

impl fmt::Display for RendezvousFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { ranks, waited, unauthenticated } => {
                let waited = waited.as_secs_f64();
                write!(f, "{} did not join within {waited:.1} s", list(ranks))?;
                match unauthenticated {
                    0 => Ok(()),
                    count => write!(f, " ({count} connections failed to authenticate)"),
                }
            }
            Self::Duplicate { rank, first, second } => {
                write!(f, "rank {rank} joined twice: {first} and {second}")
            }
            Self::OutOfRange { rank, process, world_size } => {
                write!(f, "{process} joined as rank {rank}, but the world size is {world_size}")
            }
            Self::Mismatch { rank, host, what, has, rank_0 } => {
                let name = |value: &Option<String>| {
                    value.as_ref().map_or("unset".to_owned(), |value| format!("`{value}`"))
                };
                let (has, rank_0) = (name(has), name(rank_0));
                write!(f, "rank {rank} on `{host}`: {what} is {has}, but {rank_0} on rank 0")
            }
        }
    }
}

fn list(ranks: &[usize]) -> String {
    let names: Vec<_> = ranks.iter().take(16).map(usize::to_string).collect();
    let word = if ranks.len() == 1 { "rank" } else { "ranks" };
    let more = match ranks.len() {
        0..=16 => String::new(),
        count => format!(" and {} more", count - 16),
    };
    format!("{word} {}{more}", names.join(", "))
}

/// The ranks that have joined so far, compared with rank 0.
#[derive(Debug)]
pub(crate) struct Roster {
    rank_0: Hello,
    members: Vec<Option<Hello>>,
    faults: Vec<RendezvousFault>,
}

impl Roster {
    pub(crate) fn new(rank_0: Hello) -> Self {
        let members = vec![None; rank_0.world_size];
        Self { rank_0, members, faults: Vec::new() }
    }

    /// Adds a rank and records its faults. Returns whether it is a member now.
    pub(crate) fn add(&mut self, hello: Hello) -> bool {
        let Some(member) = self.members.get(hello.rank) else {
            self.faults.push(RendezvousFault::OutOfRange {
                rank: hello.rank,
                process: process(&hello),
                world_size: self.members.len(),
            });
            return false;
        };
        if let Some(first) = member {
            let (first, second) = (process(first), process(&hello));
            self.faults.push(RendezvousFault::Duplicate { rank: hello.rank, first, second });
            return false;
        }
        self.faults.extend(differences(&hello, &self.rank_0));
        let rank = hello.rank;
        self.members[rank] = Some(hello);
        true
    }

    /// Removes a rank that disconnected; it may join again.
    pub(crate) fn remove(&mut self, rank: usize) {
        if let Some(member) = self.members.get_mut(rank) {
            *member = None;
        }
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.members.iter().all(Option::is_some)
    }

    pub(crate) fn has_faults(&self) -> bool {
        !self.faults.is_empty()
    }

    pub(crate) fn missing(&self) -> Vec<usize> {
        let members = self.members.iter().enumerate();
        members.filter(|(_, member)| member.is_none()).map(|(rank, _)| rank).collect()
    }

    pub(crate) fn into_faults(self) -> Vec<RendezvousFault> {
        self.faults
    }

    /// The hosts of the ranks, in order.
    pub(crate) fn hosts(&self) -> Vec<String> {
        let host =
            |member: &Option<Hello>| member.as_ref().map_or_else(String::new, |it| it.host.clone());
        self.members.iter().map(host).collect()
    }
}

fn process(hello: &Hello) -> String {
    format!("process {} on `{}`", hello.pid, hello.host)
}

fn differences(hello: &Hello, rank_0: &Hello) -> Vec<RendezvousFault> {
    let differs = |what: String, has: Option<String>, rank_0: Option<String>| {
        RendezvousFault::Mismatch { rank: hello.rank, host: hello.host.clone(), what, has, rank_0 }
    };
    let mut faults = Vec::new();
    let sizes = [hello.world_size, rank_0.world_size].map(|size| size.to_string());
    let versions = [hello.version.clone(), rank_0.version.clone()];
    for (what, [here, there]) in [("world size", sizes), ("version", versions)] {
        if here != there {
            faults.push(differs(what.into(), Some(here), Some(there)));
        }
    }
    let names: std::collections::BTreeSet<_> =
        hello.settings.keys().chain(rank_0.settings.keys()).collect();
    for name in names {
        let (here, there) = (hello.settings.get(name), rank_0.settings.get(name));
        if here != there {
            faults.push(differs(format!("`{name}`"), here.cloned(), there.cloned()));
        }
    }
    if faults.is_empty() && hello.digest != rank_0.digest {
        let [here, there] = [&hello.digest, &rank_0.digest].map(|digest| Some(digest.clone()));
        faults.push(differs("settings digest".into(), here, there));
    }
    faults
}
