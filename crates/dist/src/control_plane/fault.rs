//! Why a rendezvous fails.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

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
