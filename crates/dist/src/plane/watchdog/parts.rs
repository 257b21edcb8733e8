//! The same for calls that a part of the ranks makes without the others.

use std::collections::BTreeMap;
use std::time::Instant;

use super::{Seen, Watchdog};
use crate::operation::Call;
use crate::verdict::{Verdict, Why};

impl Watchdog {
    /// A rank that others of its part wait for and that shows no progress, or one that is least far in a call whose
    /// data do not move.
    pub(super) fn fault_in_part(&mut self, now: Instant) -> Option<Verdict> {
        let fronts = self.fronts();
        for seen in &mut self.ranks {
            let part = seen.signs.part.filter(|_| !seen.done);
            let front = part.and_then(|part| Some((part, fronts.get(&part.first)?)));
            match front {
                Some((part, front)) if part.calls() < front.sequence => {
                    seen.awaited_in_part.get_or_insert(now);
                }
                _ => seen.awaited_in_part = None,
            }
        }
        let found = self.hung_in_part(&fronts, now).or_else(|| self.stalled_in_part(&fronts, now));
        let (rank, why, since) = found?;
        let mut verdict = self.verdict(rank, why, now.saturating_duration_since(since));
        verdict.operation = self.ranks[rank].signs.part.and_then(|part| part.entered);
        Some(verdict)
    }

    /// The farthest call of each part, by its first rank.
    fn fronts(&self) -> BTreeMap<usize, Call> {
        let mut fronts: BTreeMap<usize, Call> = BTreeMap::new();
        for part in self.ranks.iter().filter_map(|seen| seen.signs.part) {
            let Some(entered) = part.entered else { continue };
            let front = fronts.entry(part.first).or_insert(entered);
            if front.sequence < entered.sequence {
                *front = entered;
            }
        }
        fronts
    }

    fn hung_in_part(
        &self,
        fronts: &BTreeMap<usize, Call>,
        now: Instant,
    ) -> Option<(usize, Why, Instant)> {
        let since = |seen: &Seen| Some(seen.awaited_in_part?.max(seen.progressed));
        let awaited = self.working().filter_map(|(rank, seen)| Some((rank, seen, since(seen)?)));
        let (rank, seen, since) = awaited.min_by_key(|(_, _, since)| *since)?;
        let awaited_in = *fronts.get(&seen.signs.part?.first)?;
        let is_late = now.saturating_duration_since(since) >= self.deadline;
        is_late.then_some((rank, Why::Hung { awaited_in }, since))
    }

    fn stalled_in_part(
        &self,
        fronts: &BTreeMap<usize, Call>,
        now: Instant,
    ) -> Option<(usize, Why, Instant)> {
        fronts.iter().find_map(|(first, front)| {
            let members = || {
                self.working().filter_map(|(rank, seen)| {
                    Some((rank, seen, seen.signs.part.filter(|part| part.first == *first)?))
                })
            };
            let all_entered = members().all(|(_, _, part)| part.calls() == front.sequence);
            let (rank, _, _) = members()
                .filter(|(_, _, part)| all_entered && part.finished < front.sequence)
                .min_by_key(|(_, seen, part)| (part.finished, seen.signs.moved))?;
            let last_moved = members().map(|(_, seen, _)| seen.moved).max()?;
            let is_still = now.saturating_duration_since(last_moved) >= self.deadline;
            is_still.then_some((rank, Why::Stalled, last_moved))
        })
    }
}
