//! What the ranks of a job must have in common, and how long they wait for each other.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// Deadlines, and what every rank must have alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// How long a rank may be silent, or keep others waiting without a sign of progress. A fraction of
    /// a second is too short: a busy machine is silent for that long.
    pub deadline: Duration,
    /// How long ranks may take to come together.
    pub join_within: Duration,
    /// The program's version.
    pub version: String,
    /// Settings that are told by name where ranks differ in them. At most some hundred short ones.
    pub settings: BTreeMap<String, String>,
    /// A digest of all settings.
    pub digest: String,
    /// The address of rank 0's machine at which it listens for the others; where it is not given,
    /// the loopback if all ranks are on one machine, else what the machine's name is looked up to, or the
    /// address from which it speaks to the world.
    /// Not used where the launcher says where to meet.
    pub address: Option<IpAddr>,
}

impl Options {
    /// How often ranks tell that they are alive.
    pub(crate) fn pulse(&self) -> Duration {
        (self.deadline / 8).clamp(Duration::from_millis(10), Duration::from_millis(250))
    }

    /// How often it is logged that ranks wait for another.
    pub(crate) fn remind(&self) -> Duration {
        (self.deadline / 4).max(self.pulse())
    }
}

impl Default for Options {
    /// A minute to be silent, five to come together.
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(60),
            join_within: Duration::from_secs(300),
            version: String::new(),
            settings: BTreeMap::new(),
            digest: String::new(),
            address: None,
        }
    }
}
