//! Who is alive, who hangs and who is only slow. Knows no sockets and no clock.

mod parts;

use std::time::{Duration, Instant};

use crate::operation::Call;
use crate::verdict::{Verdict, Why};
use crate::watch::Signs;

/// What is known of a rank.
#[derive(Debug)]
struct Seen {
    host: String,
    signs: Signs,
    done: bool,
    /// When anything was heard of it.
    heard: Instant,
    /// When it last showed progress of its work.
    progressed: Instant,
    /// When its data last moved, or it entered a call.
    moved: Instant,
    /// Since when others are in calls that it has not entered.
    awaited: Option<Instant>,
    /// Since when others of its part are in calls that it has not entered.
    awaited_in_part: Option<Instant>,
    /// When it was last said that others wait for it.
    reminded: Option<Instant>,
}

/// What the watchdog has to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Notice {
    /// Others wait for a rank that gets on.
    Straggler { rank: usize, phase: String, waited: Duration },
    /// A rank is lost or hangs.
    Lost(Verdict),
}

/// The signs of all ranks, and what follows from them.
#[derive(Debug)]
pub(crate) struct Watchdog {
    deadline: Duration,
    remind: Duration,
    ranks: Vec<Seen>,
    /// When it last looked.
    looked: Instant,
}

impl Watchdog {
    pub(crate) fn new(
        hosts: Vec<String>,
        deadline: Duration,
        remind: Duration,
        now: Instant,
    ) -> Self {
        let seen = |host| Seen {
            host,
            signs: Signs::default(),
            done: false,
            heard: now,
            progressed: now,
            moved: now,
            awaited: None,
            awaited_in_part: None,
            reminded: None,
        };
        let ranks = hosts.into_iter().map(seen).collect();
        Self { deadline, remind, ranks, looked: now }
    }

    /// Rank `rank` told its signs.
    pub(crate) fn hear(&mut self, rank: usize, signs: Signs, now: Instant) {
        let Some(seen) = self.ranks.get_mut(rank) else { return };
        seen.heard = now;
        if signs != seen.signs {
            seen.progressed = now;
        }
        let data = |signs: &Signs| (signs.calls(), signs.finished, signs.moved, signs.part);
        if data(&signs) != data(&seen.signs) {
            seen.moved = now;
        }
        seen.signs = signs;
    }

    /// Rank `rank` has done all its work: nothing that happens to it counts any more.
    pub(crate) fn done(&mut self, rank: usize) {
        if let Some(seen) = self.ranks.get_mut(rank) {
            seen.done = true;
        }
    }

    pub(crate) fn is_done(&self, rank: usize) -> bool {
        self.ranks.get(rank).is_some_and(|seen| seen.done)
    }

    pub(crate) fn all_done(&self) -> bool {
        self.ranks.iter().all(|seen| seen.done)
    }

    /// Looks at all ranks. To be called often; where it was not for long, this process stood still, and
    /// the others cannot be blamed for what it did not hear.
    pub(crate) fn look(&mut self, now: Instant) -> Vec<Notice> {
        let gap = now.saturating_duration_since(self.looked);
        self.looked = now;
        if gap > self.deadline / 2 {
            self.forgive(gap);
        }
        let front = self.ranks.iter().filter_map(|seen| seen.signs.entered);
        let front = front.max_by_key(|call| call.sequence);
        if let Some(front) = front {
            self.note_who_is_awaited(&front, now);
        }
        let verdict = self.silent(now).or_else(|| self.hung(front, now));
        let verdict = verdict.or_else(|| self.stalled(now)).or_else(|| self.fault_in_part(now));
        match verdict {
            Some(verdict) => vec![Notice::Lost(verdict)],
            None => self.stragglers(now),
        }
    }

    /// What is known of `rank`, with the reason why it ends the job.
    pub(crate) fn verdict(&self, rank: usize, why: Why, waited: Duration) -> Verdict {
        let seen = self.ranks.get(rank);
        Verdict {
            rank,
            host: seen.map(|seen| seen.host.clone()).unwrap_or_default(),
            phase: seen.map(|seen| seen.signs.phase.clone()).unwrap_or_default(),
            operation: seen.and_then(|seen| seen.signs.entered),
            waited,
            why,
        }
    }

    fn forgive(&mut self, gap: Duration) {
        for seen in &mut self.ranks {
            seen.heard += gap;
            seen.progressed += gap;
            seen.moved += gap;
            seen.awaited = seen.awaited.map(|since| since + gap);
            seen.awaited_in_part = seen.awaited_in_part.map(|since| since + gap);
        }
    }

    fn note_who_is_awaited(&mut self, front: &Call, now: Instant) {
        for seen in &mut self.ranks {
            if seen.signs.calls() >= front.sequence || seen.done {
                seen.awaited = None;
                seen.reminded = None;
            } else {
                seen.awaited.get_or_insert(now);
            }
        }
    }

    fn working(&self) -> impl Iterator<Item = (usize, &Seen)> {
        self.ranks.iter().enumerate().filter(|(_, seen)| !seen.done)
    }

    /// The rank that was silent for longest, if that is too long.
    fn silent(&self, now: Instant) -> Option<Verdict> {
        let (rank, seen) = self.working().min_by_key(|(_, seen)| seen.heard)?;
        let silence = now.saturating_duration_since(seen.heard);
        (silence >= self.deadline).then(|| self.verdict(rank, Why::Silent, silence))
    }

    /// A rank that others wait for and that shows no progress.
    fn hung(&self, front: Option<Call>, now: Instant) -> Option<Verdict> {
        let awaited_in = front?;
        let idle =
            |seen: &Seen| Some(now.saturating_duration_since(seen.awaited?.max(seen.progressed)));
        let (rank, seen) = self.working().max_by_key(|(_, seen)| idle(seen))?;
        let idle = idle(seen)?;
        (idle >= self.deadline).then(|| self.verdict(rank, Why::Hung { awaited_in }, idle))
    }

    /// The rank that is least far, where all have entered a call whose data do not move.
    fn stalled(&self, now: Instant) -> Option<Verdict> {
        let all_entered = self.working().map(|(_, seen)| seen.signs.calls()).min()?;
        let (rank, seen) = self
            .working()
            .filter(|(_, seen)| seen.signs.finished < all_entered)
            .min_by_key(|(_, seen)| (seen.signs.finished, seen.signs.moved))?;
        let last_moved = self.working().map(|(_, seen)| seen.moved).max().unwrap_or(seen.moved);
        let still = now.saturating_duration_since(last_moved);
        (still >= self.deadline).then(|| self.verdict(rank, Why::Stalled, still))
    }

    fn stragglers(&mut self, now: Instant) -> Vec<Notice> {
        let mut notices = Vec::new();
        for (rank, seen) in self.ranks.iter_mut().enumerate() {
            let Some(since) = seen.awaited else { continue };
            let last = seen.reminded.unwrap_or(since);
            if now.saturating_duration_since(last) >= self.remind {
                seen.reminded = Some(now);
                let waited = now.saturating_duration_since(since);
                notices.push(Notice::Straggler { rank, phase: seen.signs.phase.clone(), waited });
            }
        }
        notices
    }
}

#[cfg(test)]
mod tests;
