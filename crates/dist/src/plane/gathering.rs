//! Whether the ranks that come are the job that was asked for.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::message::Hello;

/// What keeps ranks from working together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Fault {
    /// Ranks did not come in time.
    Missing {
        /// Those that are missing.
        ranks: Vec<usize>,
        /// How long they were waited for.
        waited: Duration,
        /// Connections that came and did not know the job's token.
        strangers: usize,
    },
    /// Two processes say that they are the same rank.
    Doubled {
        /// The rank.
        rank: usize,
        /// Host and process of the one that came first.
        first: String,
        /// Host and process of the one that came then.
        second: String,
    },
    /// A process says that it is a rank that cannot be.
    OutOfRange {
        /// The rank.
        rank: usize,
        /// Its host and process.
        process: String,
        /// The number of ranks.
        world_size: usize,
    },
    /// A rank has something else than rank 0.
    Differs {
        /// The rank.
        rank: usize,
        /// Its machine.
        host: String,
        /// What it is that differs.
        what: String,
        /// What the rank has; `None` for nothing.
        has: Option<String>,
        /// What rank 0 has; `None` for nothing.
        rank_0: Option<String>,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { ranks, waited, strangers } => {
                let waited = waited.as_secs_f64();
                write!(f, "{} did not come within {waited:.1} s", list(ranks))?;
                match strangers {
                    0 => Ok(()),
                    count => write!(f, " ({count} connections did not know the job's token)"),
                }
            }
            Self::Doubled { rank, first, second } => {
                write!(f, "rank {rank} came twice: {first} and {second}")
            }
            Self::OutOfRange { rank, process, world_size } => {
                write!(f, "{process} says it is rank {rank}, but there are {world_size} ranks")
            }
            Self::Differs { rank, host, what, has, rank_0 } => {
                let name = |value: &Option<String>| {
                    value.as_ref().map_or("nothing".to_owned(), |value| format!("`{value}`"))
                };
                let (has, rank_0) = (name(has), name(rank_0));
                write!(f, "rank {rank} on `{host}` has {what} {has}, rank 0 has {rank_0}")
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

/// The ranks that have come so far, held against rank 0.
#[derive(Debug)]
pub(crate) struct Gathering {
    rank_0: Hello,
    seats: Vec<Option<Hello>>,
    faults: Vec<Fault>,
}

impl Gathering {
    pub(crate) fn new(rank_0: Hello) -> Self {
        let seats = vec![None; rank_0.world_size];
        Self { rank_0, seats, faults: Vec::new() }
    }

    /// Takes a rank in; what is wrong with it is among the faults. Returns whether it has a seat now.
    pub(crate) fn take(&mut self, hello: Hello) -> bool {
        let Some(seat) = self.seats.get(hello.rank) else {
            self.faults.push(Fault::OutOfRange {
                rank: hello.rank,
                process: process(&hello),
                world_size: self.seats.len(),
            });
            return false;
        };
        if let Some(first) = seat {
            let (first, second) = (process(first), process(&hello));
            self.faults.push(Fault::Doubled { rank: hello.rank, first, second });
            return false;
        }
        self.faults.extend(differences(&hello, &self.rank_0));
        let rank = hello.rank;
        self.seats[rank] = Some(hello);
        true
    }

    /// A rank that came has gone again, and may come back.
    pub(crate) fn leave(&mut self, rank: usize) {
        if let Some(seat) = self.seats.get_mut(rank) {
            *seat = None;
        }
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.seats.iter().all(Option::is_some)
    }

    pub(crate) fn has_faults(&self) -> bool {
        !self.faults.is_empty()
    }

    pub(crate) fn missing(&self) -> Vec<usize> {
        let seats = self.seats.iter().enumerate();
        seats.filter(|(_, seat)| seat.is_none()).map(|(rank, _)| rank).collect()
    }

    pub(crate) fn into_faults(self) -> Vec<Fault> {
        self.faults
    }

    /// The hosts of the ranks, in order.
    pub(crate) fn hosts(&self) -> Vec<String> {
        let host =
            |seat: &Option<Hello>| seat.as_ref().map_or_else(String::new, |it| it.host.clone());
        self.seats.iter().map(host).collect()
    }
}

fn process(hello: &Hello) -> String {
    format!("process {} on `{}`", hello.pid, hello.host)
}

fn differences(hello: &Hello, rank_0: &Hello) -> Vec<Fault> {
    let differs = |what: String, has: Option<String>, rank_0: Option<String>| Fault::Differs {
        rank: hello.rank,
        host: hello.host.clone(),
        what,
        has,
        rank_0,
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
        faults.push(differs("settings with the digest".into(), here, there));
    }
    faults
}
