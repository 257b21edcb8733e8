//! Detects dead, hung and slow ranks. Knows no sockets and no clock.

mod subgroups;

use std::time::{Duration, Instant};

use crate::failure::{FailureCause, FailureReport};
use crate::operation::Call;
use crate::rank_state::RankStatus;

/// The last known state of a rank.
#[derive(Debug)]
struct RankRecord {
    host: String,
    status: RankStatus,
    done: bool,
    /// When its last heartbeat arrived.
    last_heartbeat: Instant,
    /// When it last made progress.
    last_progress: Instant,
    /// When its data last moved, or it entered a call.
    last_transfer: Instant,
    /// Since when others have entered calls that it has not.
    awaited: Option<Instant>,
    /// Since when others of its subgroup have entered calls that it has not.
    awaited_in_subgroup: Option<Instant>,
    /// When the last straggler warning was logged.
    last_reminder: Option<Instant>,
}

/// A finding of the watchdog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Notice {
    /// Others wait for a rank that makes progress.
    Straggler { rank: usize, phase: String, waited: Duration },
    /// A rank is dead or hangs.
    Failure(FailureReport),
}

/// Derives failures and stragglers from the status of all ranks.
#[derive(Debug)]
pub(crate) struct Watchdog {
    deadline: Duration,
    reminder_interval: Duration,
    ranks: Vec<RankRecord>,
    /// When it last checked.
    last_check: Instant,
}

impl Watchdog {
    pub(crate) fn new(
        hosts: Vec<String>,
        deadline: Duration,
        reminder_interval: Duration,
        now: Instant,
    ) -> Self {
        let record = |host| RankRecord {
            host,
            status: RankStatus::default(),
            done: false,
            last_heartbeat: now,
            last_progress: now,
            last_transfer: now,
            awaited: None,
            awaited_in_subgroup: None,
            last_reminder: None,
        };
        let ranks = hosts.into_iter().map(record).collect();
        Self { deadline, reminder_interval, ranks, last_check: now }
    }

    /// Records the status of `rank`.
    pub(crate) fn record(&mut self, rank: usize, status: RankStatus, now: Instant) {
        let Some(record) = self.ranks.get_mut(rank) else { return };
        record.last_heartbeat = now;
        if status != record.status {
            record.last_progress = now;
        }
        let data = |it: &RankStatus| (it.calls(), it.finished, it.transfers, it.subgroup);
        if data(&status) != data(&record.status) {
            record.last_transfer = now;
        }
        record.status = status;
    }

    /// Marks `rank` as done; it is no longer monitored.
    pub(crate) fn mark_done(&mut self, rank: usize) {
        if let Some(record) = self.ranks.get_mut(rank) {
            record.done = true;
        }
    }

    pub(crate) fn is_done(&self, rank: usize) -> bool {
        self.ranks.get(rank).is_some_and(|record| record.done)
    }

    pub(crate) fn all_done(&self) -> bool {
        self.ranks.iter().all(|record| record.done)
    }

    /// Checks all ranks; must be called often. After a long gap this process itself was suspended, so all ranks get
    /// the gap as extra time.
    pub(crate) fn check(&mut self, now: Instant) -> Vec<Notice> {
        let gap = now.saturating_duration_since(self.last_check);
        self.last_check = now;
        if gap > self.deadline / 2 {
            self.extend_deadlines(gap);
        }
        let front = self.ranks.iter().filter_map(|record| record.status.entered);
        let front = front.max_by_key(|call| call.sequence);
        if let Some(front) = front {
            self.update_awaited(&front, now);
        }
        let failure = self.dead(now).or_else(|| self.hung(front, now));
        let failure = failure.or_else(|| self.stalled(now)).or_else(|| self.subgroup_failure(now));
        match failure {
            Some(report) => vec![Notice::Failure(report)],
            None => self.stragglers(now),
        }
    }

    /// A failure report from the last known state of `rank`.
    pub(crate) fn report(
        &self,
        rank: usize,
        cause: FailureCause,
        waited: Duration,
    ) -> FailureReport {
        let record = self.ranks.get(rank);
        FailureReport {
            rank,
            host: record.map(|record| record.host.clone()).unwrap_or_default(),
            phase: record.map(|record| record.status.phase.clone()).unwrap_or_default(),
            operation: record.and_then(|record| record.status.entered),
            waited,
            cause,
        }
    }

    fn extend_deadlines(&mut self, gap: Duration) {
        for record in &mut self.ranks {
            record.last_heartbeat += gap;
            record.last_progress += gap;
            record.last_transfer += gap;
            record.awaited = record.awaited.map(|since| since + gap);
            record.awaited_in_subgroup = record.awaited_in_subgroup.map(|since| since + gap);
        }
    }

    fn update_awaited(&mut self, front: &Call, now: Instant) {
        for record in &mut self.ranks {
            if record.status.calls() >= front.sequence || record.done {
                record.awaited = None;
                record.last_reminder = None;
            } else {
                record.awaited.get_or_insert(now);
            }
        }
    }

    fn working(&self) -> impl Iterator<Item = (usize, &RankRecord)> {
        self.ranks.iter().enumerate().filter(|(_, record)| !record.done)
    }

    /// The rank whose last heartbeat is oldest, if it exceeds the deadline.
    fn dead(&self, now: Instant) -> Option<FailureReport> {
        let (rank, record) = self.working().min_by_key(|(_, record)| record.last_heartbeat)?;
        let silence = now.saturating_duration_since(record.last_heartbeat);
        (silence >= self.deadline)
            .then(|| self.report(rank, FailureCause::HeartbeatTimeout, silence))
    }

    /// A rank that others wait for and that makes no progress.
    fn hung(&self, front: Option<Call>, now: Instant) -> Option<FailureReport> {
        let awaited_in = front?;
        let idle = |record: &RankRecord| {
            Some(now.saturating_duration_since(record.awaited?.max(record.last_progress)))
        };
        let (rank, record) = self.working().max_by_key(|(_, record)| idle(record))?;
        let idle = idle(record)?;
        (idle >= self.deadline).then(|| self.report(rank, FailureCause::Hung { awaited_in }, idle))
    }

    /// The rank with the least progress, if all have entered a call whose data does not move.
    fn stalled(&self, now: Instant) -> Option<FailureReport> {
        let all_entered = self.working().map(|(_, record)| record.status.calls()).min()?;
        let (rank, record) = self
            .working()
            .filter(|(_, record)| record.status.finished < all_entered)
            .min_by_key(|(_, record)| (record.status.finished, record.status.transfers))?;
        let last_transfer = self.working().map(|(_, record)| record.last_transfer).max();
        let last_transfer = last_transfer.unwrap_or(record.last_transfer);
        let stalled = now.saturating_duration_since(last_transfer);
        (stalled >= self.deadline).then(|| self.report(rank, FailureCause::Stalled, stalled))
    }

    fn stragglers(&mut self, now: Instant) -> Vec<Notice> {
        let mut notices = Vec::new();
        for (rank, record) in self.ranks.iter_mut().enumerate() {
            let Some(since) = record.awaited else { continue };
            let last = record.last_reminder.unwrap_or(since);
            if now.saturating_duration_since(last) >= self.reminder_interval {
                record.last_reminder = Some(now);
                let waited = now.saturating_duration_since(since);
                notices.push(Notice::Straggler {
                    rank,
                    phase: record.status.phase.clone(),
                    waited,
                });
            }
        }
        notices
    }
}

#[cfg(test)]
mod tests;
