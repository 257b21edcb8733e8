//! Why a job of many ranks ended: which rank, where, in what, and for how long.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::operation::Call;

/// The rank that ended the job, the same on every rank that is left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Verdict {
    /// The rank at fault.
    pub rank: usize,
    /// The machine it runs on.
    pub host: String,
    /// The phase it was in, as last heard.
    pub phase: String,
    /// The call that it entered last, as last heard.
    pub operation: Option<Call>,
    /// How long the others waited for it.
    pub waited: Duration,
    /// What was wrong.
    pub why: Why,
}

/// What was wrong with a rank.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Why {
    /// Its connection broke: the process died, or the network.
    Broken,
    /// Nothing was heard of it: the process is stopped, or the network is cut.
    Silent,
    /// It is alive, but others wait for it in a collective, and it makes no progress.
    Hung {
        /// The call that others have entered.
        awaited_in: Call,
    },
    /// Every rank is in the collective, but its data do not move.
    Stalled,
    /// It ended by itself, with these words.
    Failed(String),
    /// It left before the work was done.
    Left,
    /// It calls something else than rank 0 does.
    Mismatch {
        /// What this rank calls.
        here: Call,
        /// What rank 0 calls.
        rank_0: Call,
    },
}

impl Why {
    /// The reason without details.
    fn text(&self) -> &'static str {
        match self {
            Self::Broken => "is lost: its connection broke",
            Self::Silent => "is lost: it is silent",
            Self::Hung { .. } => "hangs",
            Self::Stalled => "stalls: all ranks are in the collective, but its data do not move",
            Self::Failed(_) => "failed",
            Self::Left => "left before the work was done",
            Self::Mismatch { .. } => "calls something else than rank 0",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rank {} on `{}` {}", self.rank, self.host, self.why.text())?;
        match &self.why {
            Why::Failed(words) => write!(f, ": {words}")?,
            Why::Mismatch { here, rank_0 } => write!(f, ": {here}, where rank 0 calls {rank_0}")?,
            Why::Hung { awaited_in } => write!(f, ": others wait for it in {awaited_in}")?,
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
        let verdict = Verdict {
            rank: 3,
            host: "b".into(),
            phase: "rollout".into(),
            operation: Some(call(6)),
            waited: Duration::from_millis(2_040),
            why: Why::Hung { awaited_in: call(7) },
        };
        assert_eq!(
            verdict.to_string(),
            "rank 3 on `b` hangs: others wait for it in all-reduce (sum) of length 9 (call 7); \
             phase `rollout`, last entered all-reduce (sum) of length 9 (call 6), waited 2.0 s"
        );
    }
}
