//! Measured times of a device.

use std::time::Duration;

/// Mean times of a kind of call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Latency {
    /// The call.
    pub call: &'static str,
    /// Of the host, until the call returns.
    pub host: Duration,
    /// Of the device, between two events around many calls: the longer of both sides' times.
    pub device: Duration,
}

/// Total times of a launcher's calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LauncherTime {
    /// The launcher, or `gemm`.
    pub launcher: &'static str,
    /// Its calls.
    pub launches: usize,
    /// Of the host.
    pub host: Duration,
    /// Of the device.
    pub device: Duration,
}
