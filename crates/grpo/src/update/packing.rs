//! Packs the completions of a step into micro-batches within a token budget.

use std::ops::Range;

/// The lengths of a group: its prompt, computed once per slice, and its completions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupLengths {
    /// Prompt length in tokens.
    pub prompt: usize,
    /// Length of each completion in tokens.
    pub completions: Vec<usize>,
}

impl GroupLengths {
    /// Total tokens of prompt and completions.
    pub fn tokens(&self) -> usize {
        self.prompt + self.completions.iter().sum::<usize>()
    }

    /// The same prompt with a range of the completions.
    pub fn part(&self, completions: Range<usize>) -> Self {
        Self { prompt: self.prompt, completions: self.completions[completions].to_vec() }
    }
}

/// Completions of one group that share one copy of the prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupSlice {
    /// Index of the group.
    pub group: usize,
    /// Range of its completions.
    pub completions: Range<usize>,
}

/// Packs groups into micro-batches of at most `budget` tokens.
///
/// Uses best-fit decreasing: the longest groups first, each into the fullest micro-batch that fits it. A group is only
/// split if it exceeds the budget, between completions; its parts are adjacent. Parts share one forward pass of the
/// prompt: if the prompt takes more than half of the budget, each part may hold as many completion tokens as the
/// prompt. A single completion that exceeds the budget forms a micro-batch of its own; nothing is dropped.
pub fn pack(groups: &[GroupLengths], budget: usize) -> Vec<Vec<GroupSlice>> {
    let mut order: Vec<usize> = (0..groups.len()).collect();
    order.sort_by_key(|&index| std::cmp::Reverse(groups[index].tokens()));
    let mut batches: Vec<Vec<GroupSlice>> = Vec::new();
    // Open micro-batches, as (tokens left, index).
    let mut open: Vec<(usize, usize)> = Vec::new();
    for group in order {
        let mut runs = split(&groups[group], budget).into_iter();
        let (Some(completions), None) = (runs.next(), runs.next()) else {
            let slices = split(&groups[group], budget).into_iter();
            batches.extend(slices.map(|completions| vec![GroupSlice { group, completions }]));
            continue;
        };
        let (tokens, slice) = (groups[group].tokens(), GroupSlice { group, completions });
        let fits = open.iter_mut().filter(|(left, _)| *left >= tokens).min();
        match fits {
            Some((left, index)) => {
                *left -= tokens;
                batches[*index].push(slice);
            }
            None => {
                open.push((budget.saturating_sub(tokens), batches.len()));
                batches.push(vec![slice]);
            }
        }
    }
    batches
}

/// Completion tokens that may share one prompt; a single longer completion is allowed.
pub(crate) fn completion_budget(prompt: usize, budget: usize) -> usize {
    budget.saturating_sub(prompt).max(prompt)
}

/// Splits a group's completions into runs that fit the completion budget.
fn split(group: &GroupLengths, budget: usize) -> Vec<Range<usize>> {
    let room = completion_budget(group.prompt, budget);
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

    fn group(prompt: usize, completions: &[usize]) -> GroupLengths {
        GroupLengths { prompt, completions: completions.to_vec() }
    }

    fn slice(group: usize, completions: Range<usize>) -> GroupSlice {
        GroupSlice { group, completions }
    }

    #[test]
    fn groups_that_fit_share_a_micro_batch() {
        let packed = pack(&[group(4, &[2, 2]), group(3, &[1, 1])], 13);
        assert_eq!(packed, [vec![slice(0, 0..2), slice(1, 0..2)]]);
    }

    #[test]
    fn a_group_that_fits_alone_is_not_split_to_fill_another() {
        let packed = pack(&[group(4, &[2, 2]), group(3, &[1, 1])], 12);
        assert_eq!(packed, [vec![slice(0, 0..2)], vec![slice(1, 0..2)]]);
    }

    #[test]
    fn a_short_group_fills_the_budget_left_by_a_long_one() {
        let packed = pack(&[group(6, &[1]), group(2, &[2]), group(3, &[1]), group(5, &[2])], 11);
        let expected = [vec![slice(0, 0..1), slice(1, 0..1)], vec![slice(3, 0..1), slice(2, 0..1)]];
        assert_eq!(packed, expected);
    }

    #[test]
    fn a_group_over_budget_is_split_between_completions() {
        let packed = pack(&[group(4, &[3, 3, 3])], 10);
        assert_eq!(packed, [vec![slice(0, 0..2)], vec![slice(0, 2..3)]]);
    }

    #[test]
    fn after_a_prompt_over_half_the_budget_a_part_may_be_as_long_as_the_prompt() {
        let packed = pack(&[group(5, &[2, 2, 2, 2, 2])], 9);
        assert_eq!(packed, [vec![slice(0, 0..2)], vec![slice(0, 2..4)], vec![slice(0, 4..5)]]);
        // It fits exactly, without room for another group.
        let packed = pack(&[group(8, &[2, 2]), group(1, &[1])], 9);
        assert_eq!(packed, [vec![slice(0, 0..2)], vec![slice(1, 0..1)]]);
        let packed = pack(&[group(10, &[2, 4, 4, 2])], 9);
        assert_eq!(packed, [vec![slice(0, 0..3)], vec![slice(0, 3..4)]]);
    }

    #[test]
    fn a_completion_over_budget_runs_alone() {
        let packed = pack(&[group(4, &[30, 1])], 10);
        assert_eq!(packed, [vec![slice(0, 0..1)], vec![slice(0, 1..2)]]);
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
                let own = |p: &GroupSlice| groups[p.group].completions[p.completions.clone()].iter().sum::<usize>();
                let tokens: usize = batch.iter().map(|p| groups[p.group].prompt + own(p)).sum();
                let lone = batch.len() == 1
                    && (batch[0].completions.len() == 1
                        || own(&batch[0]) <= groups[batch[0].group].prompt);
                prop_assert!(tokens <= budget || lone);
            }
        }
    }
}
