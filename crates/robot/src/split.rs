//! Splits of demonstrations into training, validation and test.

use std::collections::BTreeMap;

use embodied_r_random::stream;
use serde::Serialize;

/// Tells the random numbers of splits from all others of the seed.
const SPLITS: u64 = 1;

/// What the questions about a demonstration are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// Training.
    Train,
    /// Validation.
    Val,
    /// Testing.
    Test,
    /// Testing on a task that is in no other split.
    HeldOut,
}

impl Split {
    /// All splits.
    pub const ALL: [Self; 4] = [Self::Train, Self::Val, Self::Test, Self::HeldOut];

    /// The name of its files, without extension.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Val => "val",
            Self::Test => "test",
            Self::HeldOut => "held_out",
        }
    }
}

/// The shares of the episodes for training, validation and testing, in per cent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Shares {
    train: u8,
    val: u8,
    test: u8,
}

impl Default for Shares {
    fn default() -> Self {
        Self { train: 85, val: 5, test: 10 }
    }
}

impl Shares {
    /// The shares for training, validation and testing; `None` unless they are at least 1 each and sum to 100.
    pub fn new([train, val, test]: [u8; 3]) -> Option<Self> {
        let shares = [train, val, test];
        let sum: u32 = shares.into_iter().map(u32::from).sum();
        (!shares.contains(&0) && sum == 100).then_some(Self { train, val, test })
    }

    /// The numbers of episodes for training, validation and testing; from three episodes on, none is 0.
    fn totals(self, episodes: usize) -> [usize; 3] {
        let share =
            |percent: u8| ((f64::from(percent) / 100.0 * episodes as f64).round() as usize).max(1);
        match episodes {
            0 | 1 => [episodes, 0, 0],
            2 => [1, 0, 1],
            _ => {
                let test = share(self.test).min(episodes - 2);
                let val = share(self.val).min(episodes - 1 - test);
                [episodes - val - test, val, test]
            }
        }
    }
}

/// The splits of `episodes`, pairs of a number and a task, in their order: `shares` of the episodes, of each task as
/// nearly as whole episodes allow. From three episodes on, no split is empty. The order of `episodes` does not matter.
pub fn split(episodes: &[(usize, &str)], shares: Shares, seed: u64) -> Vec<Split> {
    let mut by_task: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, (_, task)) in episodes.iter().enumerate() {
        by_task.entry(task).or_default().push(index);
    }
    let mut left = shares.totals(episodes.len());
    let targets = left.map(|total| total as f64 / episodes.len().max(1) as f64);
    let mut splits = vec![Split::Train; episodes.len()];
    let mut given = [0usize; 3];
    let mut done = 0.0;
    for indices in by_task.values_mut() {
        indices.sort_by_key(|&index| {
            let number = episodes[index].0 as u64;
            (stream(&[seed, SPLITS, number]), number)
        });
        for &index in &*indices {
            done += 1.0;
            // The split that is furthest behind its share.
            let behind = |split: usize| targets[split] * done - given[split] as f64;
            let open = (0..3).filter(|split| left[*split] > 0);
            let next = open.max_by(|a, b| behind(*a).total_cmp(&behind(*b)).then(b.cmp(a)));
            let Some(next) = next else { continue };
            left[next] -= 1;
            given[next] += 1;
            splits[index] = [Split::Train, Split::Val, Split::Test][next];
        }
    }
    splits
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(splits: &[Split]) -> [usize; 3] {
        [Split::Train, Split::Val, Split::Test]
            .map(|split| splits.iter().filter(|other| **other == split).count())
    }

    #[test]
    fn episodes_are_split_85_5_and_10() {
        for (n, expected) in [
            (0, [0, 0, 0]),
            (1, [1, 0, 0]),
            (2, [1, 0, 1]),
            (3, [1, 1, 1]),
            (10, [8, 1, 1]),
            (20, [17, 1, 2]),
            (250, [212, 13, 25]),
        ] {
            let episodes: Vec<(usize, &str)> = (0..n).map(|episode| (episode, "a")).collect();
            assert_eq!(counts(&split(&episodes, Shares::default(), 0)), expected, "{n}");
        }
    }

    #[test]
    fn other_shares_leave_no_split_empty() {
        let shares = |percent| Shares::new(percent).unwrap();
        for (n, percent, expected) in [
            (250, [55, 10, 35], [137, 25, 88]),
            (20, [55, 10, 35], [11, 2, 7]),
            (3, [1, 49, 50], [1, 1, 1]),
            (10, [1, 1, 98], [1, 1, 8]),
            (10, [1, 98, 1], [1, 8, 1]),
        ] {
            let episodes: Vec<(usize, &str)> = (0..n).map(|episode| (episode, "a")).collect();
            assert_eq!(counts(&split(&episodes, shares(percent), 0)), expected, "{n} {percent:?}");
        }
    }

    #[test]
    fn shares_sum_to_100_and_none_is_0() {
        assert_eq!(Shares::new([85, 5, 10]), Some(Shares::default()));
        for percent in [[90, 10, 0], [50, 20, 20], [255, 1, 100]] {
            assert_eq!(Shares::new(percent), None, "{percent:?}");
        }
    }

    #[test]
    fn each_task_is_split_nearly_so() {
        let tasks = ["a", "b", "c", "d", "e"];
        let episodes: Vec<(usize, &str)> = (0..250).map(|i| (i, tasks[i % 5])).collect();
        let splits = split(&episodes, Shares::default(), 3);
        for task in tasks {
            let of_task = episodes.iter().zip(&splits).filter(|((_, other), _)| *other == task);
            let of_task: Vec<Split> = of_task.map(|(_, split)| *split).collect();
            let [train, val, test] = counts(&of_task);
            let is_near = (42..=43).contains(&train) && (2..=3).contains(&val) && test == 5;
            assert!(is_near, "{task}: {train}, {val}, {test}");
        }
    }

    #[test]
    fn the_splits_depend_on_the_seed_and_not_on_the_order() {
        let episodes: Vec<(usize, &str)> = (0..40).map(|i| (i, "a")).collect();
        let split = |episodes: &[(usize, &str)], seed| split(episodes, Shares::default(), seed);
        let splits = split(&episodes, 5);
        assert_ne!(splits, split(&episodes, 6));
        let reversed: Vec<(usize, &str)> = episodes.iter().rev().copied().collect();
        let mut back = split(&reversed, 5);
        back.reverse();
        assert_eq!(back, splits);
    }
}
