//! Micro-batches: the completions of a step, cut into pieces that fit a budget of tokens.

use std::ops::Range;

/// The lengths of a group: its prompt, which is computed once a piece, and its completions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lengths {
    /// Tokens of the prompt.
    pub prompt: usize,
    /// Tokens of each completion.
    pub completions: Vec<usize>,
}

impl Lengths {
    /// Tokens of the prompt and of all completions.
    pub fn tokens(&self) -> usize {
        self.prompt + self.completions.iter().sum::<usize>()
    }
}

/// Some completions of one group that run together after one copy of the prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Which group.
    pub group: usize,
    /// Which of its completions.
    pub completions: Range<usize>,
}

/// Packs groups into micro-batches of at most `budget` tokens.
///
/// The longest come first, each into the fullest micro-batch that has room for it (best fit, decreasing),
/// so that few micro-batches are begun. A group that fits one micro-batch is never cut; a longer one is,
/// between completions, and its parts follow each other. Parts do not go through the model with their prompt: where that
/// takes more than half of the budget, each may have as many tokens as it. A single completion that does not fit gets a
/// micro-batch of its own: nothing is left out.
pub fn pack(groups: &[Lengths], budget: usize) -> Vec<Vec<Piece>> {
    let mut order: Vec<usize> = (0..groups.len()).collect();
    order.sort_by_key(|&index| std::cmp::Reverse(groups[index].tokens()));
    let mut batches: Vec<Vec<Piece>> = Vec::new();
    // Micro-batches with room, as (tokens left, index).
    let mut open: Vec<(usize, usize)> = Vec::new();
    for group in order {
        let mut runs = cut(&groups[group], budget).into_iter();
        let (Some(completions), None) = (runs.next(), runs.next()) else {
            let pieces = cut(&groups[group], budget).into_iter();
            batches.extend(pieces.map(|completions| vec![Piece { group, completions }]));
            continue;
        };
        let (tokens, piece) = (groups[group].tokens(), Piece { group, completions });
        let fits = open.iter_mut().filter(|(left, _)| *left >= tokens).min();
        match fits {
            Some((left, index)) => {
                *left -= tokens;
                batches[*index].push(piece);
            }
            None => {
                open.push((budget.saturating_sub(tokens), batches.len()));
                batches.push(vec![piece]);
            }
        }
    }
    batches
}

/// Tokens of completions that go behind a prompt together, unless a single one has more.
pub(crate) fn room_behind(prompt: usize, budget: usize) -> usize {
    budget.saturating_sub(prompt).max(prompt)
}

/// Cuts one group's completions into runs for which there is room behind the prompt.
fn cut(group: &Lengths, budget: usize) -> Vec<Range<usize>> {
    let room = room_behind(group.prompt, budget);
    let mut runs: Vec<Range<usize>> = Vec::new();
    let mut used = 0;
    for (index, &length) in group.completions.iter().enumerate() {
        match runs.last_mut() {
            Some(run) if used + length <= room => {
                run.end = index + 1;
                used += length;
            }
            _ => {
                runs.push(index..index + 1);
                used = length;
            }
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn group(prompt: usize, completions: &[usize]) -> Lengths {
        Lengths { prompt, completions: completions.to_vec() }
    }

    fn piece(group: usize, completions: Range<usize>) -> Piece {
        Piece { group, completions }
    }

    #[test]
    fn groups_that_fit_share_a_micro_batch() {
        let packed = pack(&[group(4, &[2, 2]), group(3, &[1, 1])], 13);
        assert_eq!(packed, [vec![piece(0, 0..2), piece(1, 0..2)]]);
    }

    #[test]
    fn a_group_that_fits_alone_is_not_cut_to_fill_another() {
        let packed = pack(&[group(4, &[2, 2]), group(3, &[1, 1])], 12);
        assert_eq!(packed, [vec![piece(0, 0..2)], vec![piece(1, 0..2)]]);
    }

    #[test]
    fn a_short_group_fills_the_room_that_a_long_one_leaves() {
        let packed = pack(&[group(6, &[1]), group(2, &[2]), group(3, &[1]), group(5, &[2])], 11);
        let expected = [vec![piece(0, 0..1), piece(1, 0..1)], vec![piece(3, 0..1), piece(2, 0..1)]];
        assert_eq!(packed, expected);
    }

    #[test]
    fn a_group_that_is_too_long_is_cut_between_completions() {
        let packed = pack(&[group(4, &[3, 3, 3])], 10);
        assert_eq!(packed, [vec![piece(0, 0..2)], vec![piece(0, 2..3)]]);
    }

    #[test]
    fn behind_a_prompt_of_more_than_half_the_budget_there_is_room_for_as_much() {
        let packed = pack(&[group(5, &[2, 2, 2, 2, 2])], 9);
        assert_eq!(packed, [vec![piece(0, 0..2)], vec![piece(0, 2..4)], vec![piece(0, 4..5)]]);
        // All of it fits, but nothing beside it.
        let packed = pack(&[group(8, &[2, 2]), group(1, &[1])], 9);
        assert_eq!(packed, [vec![piece(0, 0..2)], vec![piece(1, 0..1)]]);
        let packed = pack(&[group(10, &[2, 4, 4, 2])], 9);
        assert_eq!(packed, [vec![piece(0, 0..3)], vec![piece(0, 3..4)]]);
    }

    #[test]
    fn a_completion_that_fits_nowhere_runs_alone() {
        let packed = pack(&[group(4, &[30, 1])], 10);
        assert_eq!(packed, [vec![piece(0, 0..1)], vec![piece(0, 1..2)]]);
    }

    proptest! {
        #[test]
        fn every_completion_runs_once_and_budgets_hold(
            groups in prop::collection::vec((1usize..20, prop::collection::vec(1usize..20, 1..6)), 0..8),
            budget in 1usize..80,
        ) {
            let groups: Vec<_> = groups.iter().map(|(p, c)| group(*p, c)).collect();
            let packed = pack(&groups, budget);
            let mut seen: Vec<_> = packed.iter().flatten()
                .flat_map(|p| p.completions.clone().map(|c| (p.group, c))).collect();
            seen.sort_unstable();
            let expected: Vec<_> = groups.iter().enumerate()
                .flat_map(|(g, group)| (0..group.completions.len()).map(move |c| (g, c))).collect();
            prop_assert_eq!(seen, expected);
            for batch in &packed {
                let own = |p: &Piece| groups[p.group].completions[p.completions.clone()].iter().sum::<usize>();
                let tokens: usize = batch.iter().map(|p| groups[p.group].prompt + own(p)).sum();
                let lone = batch.len() == 1
                    && (batch[0].completions.len() == 1
                        || own(&batch[0]) <= groups[batch[0].group].prompt);
                prop_assert!(tokens <= budget || lone);
            }
        }
    }
}
