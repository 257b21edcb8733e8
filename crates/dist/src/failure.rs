//! The report about the failed rank that aborted a job.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::operation::Call;

/// The failed rank and why it failed; the same on every surviving rank. Its JSON keys are the wire format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FailureReport {
    /// The failed rank.
    pub rank: usize,
    /// Its host.
    pub host: String,
    /// Its last known phase.
    pub phase: String,
    /// The last call that it is known to have entered.
    pub operation: Option<Call>,
    /// How long the others waited for it.
    pub waited: Duration,
    /// Why it failed.
    #[serde(rename = "why")]
    pub cause: FailureCause,
}

/// Why a rank failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum FailureCause {
    /// Its connection broke: the process died or the network failed.
    #[serde(rename = "Broken")]
    ConnectionLost,
    /// It sent no heartbeat: the process is stopped or the network is cut.
    #[serde(rename = "Silent")]
    HeartbeatTimeout,
    /// It sends heartbeats, but others wait for it in a collective and it makes no progress.
    Hung {
        /// The call that others have entered.
        awaited_in: Call,
    },
    /// Every rank has entered the collective, but no data moves.
    Stalled,
    /// It reported this error.
    Failed(String),
    /// It exited before the job finished.
    Left,
    /// It called a different collective than rank 0.
    Mismatch {
        /// This rank's call.
        here: Call,
        /// Rank 0's call.
        rank_0: Call,
    },
}

impl FailureCause {
    /// The cause without details.
    fn text(&self) -> &'static str {
        match self {
            Self::ConnectionLost => "lost its connection",
            Self::HeartbeatTimeout => "sent no heartbeat",
            Self::Hung { .. } => "hangs",
            Self::Stalled => "stalls: all ranks entered the collective, but no data moves",
            Self::Failed(_) => "failed",
            Self::Left => "exited before the job finished",
            Self::Mismatch { .. } => "called a different collective than rank 0",
        }
    }
}

impl fmt::Display for FailureReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rank {} on `{}` {}", self.rank, self.host, self.cause.text())?;
        match &self.cause {
            FailureCause::Failed(message) => write!(f, ": {message}")?,
            FailureCause::Mismatch { here, rank_0 } => {
                write!(f, ": {here}, but rank 0 called {rank_0}")?
            }
            FailureCause::Hung { awaited_in } => {
                write!(f, ": other ranks wait for it in {awaited_in}")?
            }
            _ => {}
        }
        if !self.phase.is_empty() {
            write!(f, "; phase `{}`", self.phase)?;
        }
        if let Some(call) = &self.operation {
            write!(f, ", last entered {call}")?;
        }
        if self.waited > Duration::ZERO {
            write!(f, ", waited {:.1} s", self.waited.as_secs_f64())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::{Operation, Reduce};

    #[test]
    fn it_names_rank_host_phase_operation_and_time() {
        let call = |sequence| Call {
            sequence,
            operation: Operation::AllReduce(Reduce::Sum),
            length: 9,
            root: 0,
        };
        let failure = FailureReport {
            rank: 3,
            host: "b".into(),
            phase: "rollout".into(),
            operation: Some(call(6)),
            waited: Duration::from_millis(2_040),
            cause: FailureCause::Hung { awaited_in: call(7) },
        };
        assert_eq!(
            failure.to_string(),
            "rank 3 on `b` hangs: other ranks wait for it in all-reduce (sum) of length 9 (call 7); \
             phase `rollout`, last entered all-reduce (sum) of length 9 (call 6), waited 2.0 s"
        );
    }

    #[test]
    fn the_wire_format_is_stable() {
        let report = |cause| FailureReport {
            rank: 0,
            host: "a".into(),
            phase: String::new(),
            operation: None,
            waited: Duration::ZERO,
            cause,
        };
        let json = |cause| serde_json::to_value(report(cause)).unwrap();
        assert_eq!(json(FailureCause::ConnectionLost)["why"], "Broken");
        assert_eq!(json(FailureCause::HeartbeatTimeout)["why"], "Silent");
    }
}
