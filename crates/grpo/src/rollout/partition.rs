//! Partitions a step's groups over ranks.

use std::cmp::Reverse;
use std::ops::Range;

use crate::update::packing::GroupLengths;

/// The completions of a group that one rank samples, scores and trains on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupPart {
    /// Index of the group.
    pub group: usize,
    /// Range of its completions.
    pub completions: Range<usize>,
    /// The rank.
    pub rank: usize,
}

/// The least share of the busiest rank's tokens for whose saving a group is split although no rank is idle: expected lengths
/// are no more precise, and a split repeats the prompt.
const MIN_SAVING: f64 = 0.02;

/// Partitions groups over `ranks` so that the busiest rank has as few tokens as possible, and no rank is idle while another
/// has two completions of a group; in the order of the groups and their completions. Otherwise groups stay whole: each
/// rank that has a part computes the prompt.
///
/// A greedy heuristic, not the optimum. The result depends on nothing but the arguments, so all ranks agree on it.
#[must_use]
pub fn partition(groups: &[GroupLengths], ranks: usize) -> Vec<GroupPart> {
    let whole = whole(groups, ranks);
    let most = busiest(groups, &whole, ranks);
    // The smallest load for which `within` succeeds.
    let (mut refused, mut best) = (least(groups, ranks).saturating_sub(1), None);
    let mut accepted = most;
    while refused + 1 < accepted {
        let load = usize::midpoint(refused, accepted);
        match within(groups, ranks, load) {
            Some(parts) => (accepted, best) = (load, Some(parts)),
            None => refused = load,
        }
    }
    let is_worth_it = accepted as f64 <= (1.0 - MIN_SAVING) * most as f64;
    spread(groups, best.filter(|_| is_worth_it).unwrap_or(whole), ranks)
}

/// Gives half of a part to each idle rank, of the part with the most completions. The busiest rank keeps its load, or has
/// less.
fn spread(groups: &[GroupLengths], mut parts: Vec<GroupPart>, ranks: usize) -> Vec<GroupPart> {
    let mut loads = loads(groups, &parts, ranks);
    while let Some(idle) = loads.iter().position(|load| *load == 0) {
        let divisible = (0..parts.len()).filter(|&index| parts[index].completions.len() > 1);
        let size = |&index: &usize| (parts[index].completions.len(), loads[parts[index].rank]);
        let Some(index) = divisible.max_by_key(size) else { break };
        let GroupPart { group, completions, rank } = parts[index].clone();
        let middle = completions.start + completions.len().div_ceil(2);
        loads[rank] -= cost(&groups[group], &completions);
        let halves = [(completions.start..middle, rank), (middle..completions.end, idle)];
        parts.remove(index);
        for (completions, rank) in halves {
            loads[rank] += cost(&groups[group], &completions);
            parts.push(GroupPart { group, completions, rank });
        }
    }
    in_order(parts)
}

/// Whole groups: the most expensive first, each to the least-loaded rank.
#[must_use]
pub fn whole(groups: &[GroupLengths], ranks: usize) -> Vec<GroupPart> {
    let mut loads = vec![0; ranks.max(1)];
    let mut parts = Vec::with_capacity(groups.len());
    for group in most_expensive_first(groups) {
        let completions = 0..groups[group].completions.len();
        let rank = least_loaded(&loads);
        loads[rank] += cost(&groups[group], &completions);
        parts.push(GroupPart { group, completions, rank });
    }
    in_order(parts)
}

/// The tokens of the rank with the most.
#[must_use]
pub fn busiest(groups: &[GroupLengths], parts: &[GroupPart], ranks: usize) -> usize {
    loads(groups, parts, ranks).into_iter().max().unwrap_or(0)
}

/// The tokens of each rank.
fn loads(groups: &[GroupLengths], parts: &[GroupPart], ranks: usize) -> Vec<usize> {
    let mut loads = vec![0; ranks.max(1)];
    for part in parts {
        loads[part.rank] += cost(&groups[part.group], &part.completions);
    }
    loads
}

/// The number of completions of each rank.
#[must_use]
pub fn completions_per_rank(parts: &[GroupPart], ranks: usize) -> Vec<usize> {
    let mut completions = vec![0; ranks.max(1)];
    for part in parts {
        completions[part.rank] += part.completions.len();
    }
    completions
}

/// Partitions groups so that no rank has more than `most` tokens, if the heuristic finds a way: the most expensive group
/// first, to the least-loaded rank if that has room for all of it, else split over the least-loaded ranks.
fn within(groups: &[GroupLengths], ranks: usize, most: usize) -> Option<Vec<GroupPart>> {
    let mut loads = vec![0; ranks.max(1)];
    let mut parts = Vec::with_capacity(groups.len() + ranks);
    for group in most_expensive_first(groups) {
        let lengths = &groups[group];
        let (mut start, all) = (0, lengths.completions.len());
        // In the order of their loads, so that no rank gets two parts of a group.
        let mut least_loaded: Vec<usize> = (0..loads.len()).collect();
        least_loaded.sort_by_key(|&rank| loads[rank]);
        let mut least_loaded = least_loaded.into_iter();
        while start < all {
            let rank = least_loaded.next()?;
            let fits = |end: &usize| loads[rank] + cost(lengths, &(start..*end)) <= most;
            let end = (start + 1..=all).rev().find(fits)?;
            loads[rank] += cost(lengths, &(start..end));
            parts.push(GroupPart { group, completions: start..end, rank });
            start = end;
        }
    }
    Some(in_order(parts))
}

/// A lower bound of the busiest rank's tokens.
fn least(groups: &[GroupLengths], ranks: usize) -> usize {
    let all = |group: &GroupLengths| cost(group, &(0..group.completions.len()));
    let mean = groups.iter().map(all).sum::<usize>().div_ceil(ranks.max(1));
    let one = |group: &GroupLengths| {
        (0..group.completions.len()).map(|one| cost(group, &(one..one + 1))).max()
    };
    groups.iter().filter_map(one).fold(mean, usize::max)
}

/// The tokens of a prompt and some of its completions; 0 without completions. Empty completions cost something too, so
/// that they are spread.
fn cost(group: &GroupLengths, completions: &Range<usize>) -> usize {
    if completions.is_empty() {
        return 0;
    }
    let lengths = group.completions[completions.clone()].iter();
    group.prompt + lengths.map(|length| (*length).max(1)).sum::<usize>()
}

fn most_expensive_first(groups: &[GroupLengths]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..groups.len()).collect();
    let all = |group: &GroupLengths| cost(group, &(0..group.completions.len()));
    order.sort_by_key(|&index| (Reverse(all(&groups[index])), index));
    order
}

fn least_loaded(loads: &[usize]) -> usize {
    (0..loads.len()).min_by_key(|&rank| loads[rank]).unwrap_or_default()
}

fn in_order(mut parts: Vec<GroupPart>) -> Vec<GroupPart> {
    parts.sort_by_key(|part| (part.group, part.completions.start));
    parts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn groups(n: usize, prompt: usize, completions: usize, length: usize) -> Vec<GroupLengths> {
        vec![GroupLengths { prompt, completions: vec![length; completions] }; n]
    }

    /// Completions of each rank.
    fn completions(groups: &[GroupLengths], ranks: usize) -> Vec<usize> {
        completions_per_rank(&partition(groups, ranks), ranks)
    }

    #[test]
    fn groups_stay_whole_where_they_balance() {
        let parts = partition(&groups(4, 100, 8, 20), 2);
        assert_eq!(parts, whole(&groups(4, 100, 8, 20), 2));
        assert_eq!(parts.iter().map(|part| part.rank).collect::<Vec<_>>(), [0, 1, 0, 1]);
        assert_eq!(completions(&groups(3, 5, 2, 1), 1), [6]);
        assert_eq!(partition(&[], 3), []);
    }

    #[test]
    fn with_fewer_questions_than_ranks_all_ranks_work() {
        // The paper's step.
        assert_eq!(completions(&groups(4, 3072, 8, 200), 8), [4; 8]);
        assert_eq!(completions(&groups(1, 128, 8, 512), 2), [4; 2]);
        assert_eq!(completions(&groups(2, 10, 2, 10), 4), [1; 4]);
        // No more than one completion per rank can be had.
        assert_eq!(completions(&groups(1, 10, 2, 10), 4).iter().sum::<usize>(), 2);
    }

    #[test]
    fn a_group_is_split_where_the_number_of_groups_does_not_divide() {
        assert_eq!(completions(&groups(5, 100, 8, 200), 2), [20; 2]);
        // Of three groups over two ranks, one is split.
        let parts = partition(&groups(3, 10, 8, 50), 2);
        assert_eq!(parts.len(), 4);
    }

    #[test]
    fn a_prompt_is_not_repeated_where_that_saves_nothing() {
        // One of two ranks could be helped by the other, with another prompt.
        let two = [groups(1, 1000, 8, 10), groups(1, 1000, 2, 10)].concat();
        assert_eq!(partition(&two, 2), whole(&two, 2));
        // Half of a group could move: 30 of 3,740 tokens.
        let three = [groups(3, 1000, 7, 10), groups(2, 1200, 1, 400)].concat();
        assert_eq!(partition(&three, 2), whole(&three, 2));
    }

    #[test]
    fn no_rank_is_idle_where_there_are_completions_to_share() {
        // The busiest rank keeps a whole group, whatever the fifth and the third do.
        assert_eq!(completions(&groups(4, 100, 4, 10), 5), [4, 4, 4, 2, 2]);
        assert_eq!(completions(&groups(2, 1000, 8, 10), 3), [8, 4, 4]);
        let uneven = [groups(1, 300, 4, 2), groups(1, 200, 4, 2)].concat();
        assert_eq!(completions(&uneven, 4), [2; 4]);
    }

    fn lengths() -> impl Strategy<Value = Vec<GroupLengths>> {
        let group = (0usize..300, prop::collection::vec(0usize..60, 1..9))
            .prop_map(|(prompt, completions)| GroupLengths { prompt, completions });
        prop::collection::vec(group, 0..10)
    }

    proptest! {
        #[test]
        fn every_completion_has_one_rank_and_no_rank_has_two_parts_of_a_group(
            groups in lengths(), ranks in 1usize..12,
        ) {
            let parts = partition(&groups, ranks);
            let mut next = vec![0; groups.len()];
            let mut seen = std::collections::HashSet::new();
            for part in &parts {
                prop_assert!(part.rank < ranks && !part.completions.is_empty());
                prop_assert_eq!(part.completions.start, next[part.group]);
                next[part.group] = part.completions.end;
                prop_assert!(seen.insert((part.group, part.rank)));
            }
            let all: Vec<usize> = groups.iter().map(|group| group.completions.len()).collect();
            prop_assert_eq!(next, all);
        }

        #[test]
        fn the_busiest_rank_has_no_more_than_with_whole_groups_and_no_less_than_the_bound(
            groups in lengths(), ranks in 1usize..12,
        ) {
            let load = busiest(&groups, &partition(&groups, ranks), ranks);
            prop_assert!(load <= busiest(&groups, &whole(&groups, ranks), ranks));
            prop_assert!(load >= least(&groups, ranks));
        }

        #[test]
        fn no_rank_is_idle_while_another_has_two_completions_of_a_group(
            groups in lengths(), ranks in 1usize..12,
        ) {
            let parts = partition(&groups, ranks);
            let idle = completions_per_rank(&parts, ranks).contains(&0);
            prop_assert!(!idle || parts.iter().all(|part| part.completions.len() == 1));
        }
    }
}
