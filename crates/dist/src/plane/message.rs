//! What the coordinator and the ranks say to each other.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Fault;
use crate::verdict::Verdict;
use crate::watch::Signs;

/// Who comes, and what it has in common with the others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) rank: usize,
    pub(crate) world_size: usize,
    pub(crate) host: String,
    pub(crate) pid: u32,
    pub(crate) version: String,
    pub(crate) digest: String,
    pub(crate) settings: BTreeMap<String, String>,
}

/// From a rank to the coordinator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum FromRank {
    /// Alive.
    Pulse(Signs),
    /// An error of its own ended it.
    Failed { words: String, signs: Signs },
    /// All of its work is done.
    Done,
    /// It leaves though not all is done.
    Left(Signs),
    /// What it found out by itself.
    Found(Verdict),
    /// It has said why the job ended, and may end too.
    Parted,
    /// The `number`th thing that rank 0 hands round.
    Share { number: u64, bytes: Vec<u8> },
}

/// From the coordinator to a rank.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum ToRank {
    /// All ranks are there and alike; their hosts.
    Welcome { hosts: Vec<String> },
    /// They are not.
    Refused { faults: Vec<Fault> },
    /// Alive.
    Pulse,
    /// The job is over.
    Lost(Verdict),
    /// All ranks are done.
    AllDone,
    /// All ranks that still can have said why the job ended.
    AllParted,
    /// The `number`th thing that rank 0 hands round.
    Share { number: u64, bytes: Vec<u8> },
}
