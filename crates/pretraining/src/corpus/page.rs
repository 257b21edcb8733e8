//! Lines of statements of random kinds.

use embodied_r_random::Rng;

use super::drills;
use super::letters::LetteredList;
use super::lookups::{Lookup, Lookups};
use super::notes::{self, NoteStep};

/// Fraction of lines after the first about the prompt's subject.
const SUBJECT_BETWEEN: f64 = 0.2;

/// The same if the prompt has several subjects.
const LISTED_BETWEEN: f64 = 0.85;

/// A kind of line in a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Practice {
    Lookup(Lookup),
    /// The letter of a content.
    Letter,
    Sum,
    Octant,
    /// A note and a step from it.
    Note(NoteStep),
}

impl Practice {
    /// Lines about a video, with their weights.
    pub(super) const LOOKUPS: [(Self, usize); 7] = [
        (Self::Lookup(Lookup::First), 4),
        (Self::Lookup(Lookup::Last), 6),
        (Self::Lookup(Lookup::Faced), 5),
        (Self::Lookup(Lookup::Every), 2),
        (Self::Lookup(Lookup::View), 2),
        (Self::Lookup(Lookup::Action), 5),
        (Self::Letter, 5),
    ];

    /// Lines about frames that are shown, with their weights.
    pub(super) const VIEWS: [(Self, usize); 10] = [
        (Self::Lookup(Lookup::First), 4),
        (Self::Lookup(Lookup::Last), 6),
        (Self::Lookup(Lookup::Faced), 5),
        (Self::Lookup(Lookup::Every), 3),
        (Self::Lookup(Lookup::View), 6),
        (Self::Lookup(Lookup::Action), 3),
        (Self::Letter, 2),
        (Self::Sum, 1),
        (Self::Octant, 1),
        (Self::Note(NoteStep::Next), 3),
    ];

    /// Lines without a context, with their weights.
    pub(super) const DRILLS: [(Self, usize); 3] =
        [(Self::Sum, 5), (Self::Octant, 3), (Self::Note(NoteStep::Order), 2)];

    /// Lines of chats, with their weights.
    const CHATS: [(Self, usize); 11] = [
        (Self::Lookup(Lookup::First), 4),
        (Self::Lookup(Lookup::Last), 6),
        (Self::Lookup(Lookup::Faced), 5),
        (Self::Lookup(Lookup::Every), 2),
        (Self::Lookup(Lookup::View), 1),
        (Self::Lookup(Lookup::Action), 1),
        (Self::Letter, 3),
        (Self::Sum, 1),
        (Self::Note(NoteStep::Next), 12),
        (Self::Note(NoteStep::Octant), 3),
        (Self::Note(NoteStep::Order), 20),
    ];

    /// Kinds that follow each other in a rationale, or do the same as those.
    const RATIONALES: [(Self, Self); 14] = [
        (Self::Lookup(Lookup::Last), Self::Lookup(Lookup::Action)),
        (Self::Lookup(Lookup::Last), Self::Octant),
        (Self::Lookup(Lookup::Action), Self::Sum),
        (Self::Lookup(Lookup::First), Self::Letter),
        (Self::Lookup(Lookup::First), Self::Note(NoteStep::Order)),
        (Self::Lookup(Lookup::Last), Self::Note(NoteStep::Order)),
        (Self::Lookup(Lookup::Faced), Self::Note(NoteStep::Order)),
        (Self::Note(NoteStep::Order), Self::Lookup(Lookup::First)),
        (Self::Note(NoteStep::Order), Self::Letter),
        (Self::Lookup(Lookup::Faced), Self::Letter),
        (Self::Sum, Self::Lookup(Lookup::Action)),
        (Self::Sum, Self::Octant),
        (Self::Octant, Self::Letter),
        (Self::Note(NoteStep::Octant), Self::Letter),
    ];

    /// Lines of a document that is no chat, with their weights.
    pub(super) fn documents() -> Vec<(Self, usize)> {
        [&Self::LOOKUPS[..], &Self::DRILLS].concat()
    }

    /// Whether this kind may follow on one of `before`: it is another kind, and the two are no part of a rationale.
    pub(super) fn may_follow(self, before: Option<Self>) -> bool {
        before.is_none_or(|before| before != self && !Self::RATIONALES.contains(&(before, self)))
    }
}

/// What the lines of a document are about.
#[derive(Default)]
pub(super) struct Page<'a> {
    pub(super) lookups: Option<Lookups<'a>>,
    pub(super) list: Option<LetteredList>,
    /// The objects that the first line and some others are about, in turn.
    pub(super) subjects: Vec<String>,
}

impl Page<'_> {
    /// Lines of random kinds with `words` words or more in all; kinds that lack their context are left out.
    pub(super) fn lines(
        &self,
        words: usize,
        practice: &[(Practice, usize)],
        rng: &mut Rng,
    ) -> Vec<String> {
        let kinds: Vec<Practice> = practice
            .iter()
            .flat_map(|(kind, weight)| std::iter::repeat_n(*kind, *weight))
            .collect();
        let between = if self.subjects.len() > 1 { LISTED_BETWEEN } else { SUBJECT_BETWEEN };
        let mut turns = self.subjects.iter().cycle().peekable();
        let (mut lines, mut count, mut before) = (Vec::new(), 0, None);
        while count < words {
            let subject = turns.peek().copied().filter(|_| lines.is_empty() || rng.chance(between));
            let kind = match subject {
                Some(_) => rng.pick(&Lookup::BY_NAME).map(|lookup| Practice::Lookup(*lookup)),
                None => rng.pick(&kinds).copied(),
            };
            let Some(kind) = kind.filter(|kind| kind.may_follow(before)) else { continue };
            let Some(line) = self.line(kind, subject, rng) else { continue };
            if subject.is_some() {
                turns.next();
            }
            count += line.split_whitespace().count();
            lines.push(line);
            before = Some(kind);
        }
        lines
    }

    /// [`Self::lines`] of chats.
    pub(super) fn chat_lines(&self, words: usize, rng: &mut Rng) -> Vec<String> {
        self.lines(words, &Practice::CHATS, rng)
    }

    /// A line; `None` if it needs a context that the page lacks.
    fn line(&self, kind: Practice, subject: Option<&String>, rng: &mut Rng) -> Option<String> {
        Some(match (kind, subject) {
            (Practice::Lookup(lookup), Some(name)) => self.lookups.as_ref()?.about(lookup, name),
            (Practice::Lookup(lookup), None) => self.lookups.as_ref()?.any(lookup, rng),
            (Practice::Letter, _) => self.list.as_ref()?.lookup(rng),
            (Practice::Sum, _) => drills::sum(rng),
            (Practice::Octant, _) => drills::octant(rng),
            (Practice::Note(step), _) => {
                notes::with_step(step, self.lookups.as_ref().map(|lookups| lookups.trace), rng)?
            }
        })
    }
}
