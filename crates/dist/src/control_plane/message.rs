//! Messages between the coordinator and the ranks. The serialized names are the wire protocol.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::RendezvousFault;
use crate::failure::FailureReport;
use crate::rank_state::RankStatus;

/// A rank's identity, and the version and settings that must match on all ranks.
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
    /// A heartbeat.
    #[serde(rename = "Pulse")]
    Heartbeat(RankStatus),
    /// The rank failed with an error.
    Failed {
        #[serde(rename = "words")]
        message: String,
        #[serde(rename = "signs")]
        status: RankStatus,
    },
    /// All work of the rank is done.
    Done,
    /// The rank exits before the job finished.
    Left(RankStatus),
    /// A failure that this rank detected.
    #[serde(rename = "Found")]
    Detected(FailureReport),
    /// The rank has reported the failure to its user and may exit.
    #[serde(rename = "Parted")]
    Acknowledged,
    /// The `number`th broadcast by rank 0.
    #[serde(rename = "Share")]
    Broadcast { number: u64, bytes: Vec<u8> },
}

/// From the coordinator to a rank.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum ToRank {
    /// All ranks have joined and match; their hosts.
    Welcome { hosts: Vec<String> },
    /// The rendezvous failed.
    Refused { faults: Vec<RendezvousFault> },
    /// A heartbeat.
    #[serde(rename = "Pulse")]
    Heartbeat,
    /// A rank failed.
    #[serde(rename = "Lost")]
    Abort(FailureReport),
    /// All ranks are done.
    AllDone,
    /// All reachable ranks have reported the failure.
    #[serde(rename = "AllParted")]
    AllAcknowledged,
    /// The `number`th broadcast by rank 0.
    #[serde(rename = "Share")]
    Broadcast { number: u64, bytes: Vec<u8> },
}
