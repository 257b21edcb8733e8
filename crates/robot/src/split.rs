//! Splits of demonstrations into training, validation and test.

use std::collections::BTreeMap;

use embodied_r_random::stream;
use serde::Serialize;

/// Shares of training and validation; the rest is for testing.
const TRAIN: f64 = 0.85;
const VAL: f64 = 0.05;
const TEST: f64 = 0.1;

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

/// The splits of `episodes`, pairs of a number and a task, in their order: 85, 5 and 10 % of the episodes, of each task
/// as nearly as whole episodes allow. From three episodes on, no split is empty. The order of `episodes` does not
/// matter.
pub fn split(episodes: &[(usize, &str)], seed: u64) -> Vec<Split> {
    let mut by_task: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, (_, task)) in episodes.iter().enumerate() {
        by_task.entry(task).or_default().push(index);
    }
    let mut left = totals(episodes.len());
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

/// The numbers of episodes for training, validation and testing.
fn totals(episodes: usize) -> [usize; 3] {
    let share = |share: f64| ((share * episodes as f64).round() as usize).max(1);
    match episodes {
        0 | 1 => [episodes, 0, 0],
        2 => [1, 0, 1],
        _ => {
            let (val, test) = (share(VAL), share(TEST));
            debug_assert!((TRAIN + VAL + TEST - 1.0).abs() < 1e-12);
            [episodes - val - test, val, test]
        }
    }
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
            assert_eq!(counts(&split(&episodes, 0)), expected, "{n}");
        }
    }

    #[test]
    fn each_task_is_split_nearly_so() {
        let tasks = ["a", "b", "c", "d", "e"];
        let episodes: Vec<(usize, &str)> = (0..250).map(|i| (i, tasks[i % 5])).collect();
        let splits = split(&episodes, 3);
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
        let splits = split(&episodes, 5);
        assert_ne!(splits, split(&episodes, 6));
        let reversed: Vec<(usize, &str)> = episodes.iter().rev().copied().collect();
        let mut back = split(&reversed, 5);
        back.reverse();
        assert_eq!(back, splits);
    }
}
