//! Questions in numbers that are equal over kinds, or bounded.

use std::collections::HashSet;
use std::path::Path;

use embodied_r_data::question::{Question, read_questions};
use embodied_r_random::{permutation, stream};
use embodied_r_robot::Kind;

use super::super::controls::write;

/// How many questions of each kind are selected.
#[derive(Debug, Clone, Copy)]
pub(super) enum PerKind {
    /// As many of each as there are of the rarest, and at most this many. A kind without questions does not count.
    Balanced(usize),
    /// At most this many.
    AtMost(usize),
}

/// Writes questions of `from`, drawn at random and in their order there, to `to`; returns their numbers in words.
pub(super) fn select(
    from: &Path,
    to: &Path,
    per_kind: PerKind,
    seed: u64,
) -> anyhow::Result<String> {
    let questions = read_questions(from)?;
    let of_kinds = Kind::ALL.map(|kind| (kind, drawn(&questions, kind, seed)));
    let rarest = of_kinds.iter().map(|(_, of_kind)| of_kind.len()).filter(|&len| len > 0).min();
    let most = match per_kind {
        PerKind::Balanced(most) => most.min(rarest.unwrap_or(0)),
        PerKind::AtMost(most) => most,
    };
    let mut counts = Vec::new();
    let mut selected: HashSet<usize> = HashSet::new();
    for (kind, of_kind) in &of_kinds {
        let some = &of_kind[..most.min(of_kind.len())];
        counts.push(format!("{} of {} {} questions", some.len(), of_kind.len(), kind.name()));
        selected.extend(some);
    }
    let questions = questions.into_iter().enumerate();
    let questions: Vec<Question> =
        questions.filter(|(index, _)| selected.contains(index)).map(|(_, it)| it).collect();
    write(to, &questions)?;
    Ok(counts.join(", "))
}

/// The indices of the questions of a kind in random order.
fn drawn(questions: &[Question], kind: Kind, seed: u64) -> Vec<usize> {
    let of_kind = |index: &usize| questions[*index].question_category == kind.name();
    permutation(questions.len(), stream(&[seed])).into_iter().filter(of_kind).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The kinds of what is selected of 5 waypoint, 3 state and `movement` movement questions.
    fn selected(movement: usize, per_kind: PerKind) -> [usize; 3] {
        let kinds = [("waypoint", 5), ("state", 3), ("movement", movement)];
        let kinds = kinds.into_iter().flat_map(|(kind, n)| std::iter::repeat_n(kind, n));
        let records: Vec<_> = kinds
            .enumerate()
            .map(|(id, kind)| json!({"Question_id": id, "question_category": kind, "question": "q", "answer": "A"}))
            .collect();
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from.json"), dir.path().join("to.json"));
        std::fs::write(&from, serde_json::to_vec(&records).unwrap()).unwrap();
        select(&from, &to, per_kind, 7).unwrap();
        let written = read_questions(&to).unwrap();
        assert!(written.is_sorted_by_key(|question| question.question_id.as_u64()));
        Kind::ALL.map(|kind| {
            written.iter().filter(|question| question.question_category == kind.name()).count()
        })
    }

    #[test]
    fn balanced_kinds_have_as_many_questions_as_the_rarest() {
        assert_eq!(selected(2, PerKind::Balanced(9)), [2, 2, 2]);
        assert_eq!(selected(2, PerKind::Balanced(1)), [1, 1, 1]);
        assert_eq!(selected(0, PerKind::Balanced(9)), [3, 3, 0]);
    }

    #[test]
    fn a_bound_takes_what_there_is() {
        assert_eq!(selected(2, PerKind::AtMost(4)), [4, 3, 2]);
    }
}
