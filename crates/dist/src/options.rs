//! Timeouts of a job, and the version and settings that must match on all ranks.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// Options of a [`Communicator`](crate::Communicator): timeouts, and the version and settings that must match on all
/// ranks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommunicatorOptions {
    /// How long a rank may send no heartbeat, or keep others waiting without progress. Fractions of a second are too
    /// short: a busy machine can be silent for that long.
    pub deadline: Duration,
    /// How long the rendezvous may take.
    pub join_timeout: Duration,
    /// The program's version.
    pub version: String,
    /// Settings that are named in the error if ranks differ in them. At most a few hundred short ones.
    pub settings: BTreeMap<String, String>,
    /// A digest of all settings.
    pub digest: String,
    /// The address on which rank 0 listens. By default the loopback if all ranks are on one machine, else the
    /// address that the host name resolves to, or the source address of outbound traffic. Unused if the launcher
    /// sets the rendezvous address.
    pub address: Option<IpAddr>,
}

impl CommunicatorOptions {
    /// The interval of heartbeats.
    pub(crate) fn heartbeat_interval(&self) -> Duration {
        (self.deadline / 8).clamp(Duration::from_millis(10), Duration::from_millis(250))
    }

    /// The interval of warnings about a straggler.
    pub(crate) fn reminder_interval(&self) -> Duration {
        (self.deadline / 4).max(self.heartbeat_interval())
    }
}

impl Default for CommunicatorOptions {
    /// A deadline of one minute, and five minutes for the rendezvous.
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(60),
            join_timeout: Duration::from_secs(300),
            version: String::new(),
            settings: BTreeMap::new(),
            digest: String::new(),
            address: None,
        }
    }
}
