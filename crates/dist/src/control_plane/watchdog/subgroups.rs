//! Failure detection for calls of a subgroup, which its ranks make without the others.

use std::collections::BTreeMap;
use std::time::Instant;

use super::{RankRecord, Watchdog};
use crate::failure::{FailureCause, FailureReport};
use crate::operation::Call;

impl Watchdog {
    /// A rank that others of its subgroup wait for and that makes no progress, or the one with the least progress in a
    /// call whose data does not move.
    pub(super) fn subgroup_failure(&mut self, now: Instant) -> Option<FailureReport> {
        let fronts = self.fronts();
        for record in &mut self.ranks {
            let subgroup = record.status.subgroup.filter(|_| !record.done);
            let front =
                subgroup.and_then(|subgroup| Some((subgroup, fronts.get(&subgroup.first)?)));
            match front {
                Some((subgroup, front)) if subgroup.calls() < front.sequence => {
                    record.awaited_in_subgroup.get_or_insert(now);
                }
                _ => record.awaited_in_subgroup = None,
            }
        }
        let hung = self.hung_in_subgroup(&fronts, now);
        let (rank, cause, since) = hung.or_else(|| self.stalled_in_subgroup(&fronts, now))?;
        let mut report = self.report(rank, cause, now.saturating_duration_since(since));
        report.operation = self.ranks[rank].status.subgroup.and_then(|subgroup| subgroup.entered);
        Some(report)
    }

    /// The latest call of each subgroup, by its first rank.
    fn fronts(&self) -> BTreeMap<usize, Call> {
        let mut fronts: BTreeMap<usize, Call> = BTreeMap::new();
        for subgroup in self.ranks.iter().filter_map(|record| record.status.subgroup) {
            let Some(entered) = subgroup.entered else { continue };
            let front = fronts.entry(subgroup.first).or_insert(entered);
            if front.sequence < entered.sequence {
                *front = entered;
            }
        }
        fronts
    }

    fn hung_in_subgroup(
        &self,
        fronts: &BTreeMap<usize, Call>,
        now: Instant,
    ) -> Option<(usize, FailureCause, Instant)> {
        let since =
            |record: &RankRecord| Some(record.awaited_in_subgroup?.max(record.last_progress));
        let awaited =
            self.working().filter_map(|(rank, record)| Some((rank, record, since(record)?)));
        let (rank, record, since) = awaited.min_by_key(|(_, _, since)| *since)?;
        let awaited_in = *fronts.get(&record.status.subgroup?.first)?;
        let is_late = now.saturating_duration_since(since) >= self.deadline;
        is_late.then_some((rank, FailureCause::Hung { awaited_in }, since))
    }

    fn stalled_in_subgroup(
        &self,
        fronts: &BTreeMap<usize, Call>,
        now: Instant,
    ) -> Option<(usize, FailureCause, Instant)> {
        fronts.iter().find_map(|(first, front)| {
            let members = || {
                self.working().filter_map(|(rank, record)| {
                    let subgroup = record.status.subgroup.filter(|it| it.first == *first)?;
                    Some((rank, record, subgroup))
                })
            };
            let all_entered = members().all(|(_, _, subgroup)| subgroup.calls() == front.sequence);
            let (rank, _, _) = members()
                .filter(|(_, _, subgroup)| all_entered && subgroup.finished < front.sequence)
                .min_by_key(|(_, record, it)| (it.finished, record.status.transfers))?;
            let last_transfer = members().map(|(_, record, _)| record.last_transfer).max()?;
            let is_stalled = now.saturating_duration_since(last_transfer) >= self.deadline;
            is_stalled.then_some((rank, FailureCause::Stalled, last_transfer))
        })
    }
}
