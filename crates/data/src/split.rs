//! Splits by scene: no scene is in two splits, and a seed gives the same splits everywhere.
//!
//! A benchmark's scenes are sorted by a hash and assigned in that order. The hash is FNV-1a (64
//! bits) over `{seed}\0{benchmark}\0{scene}` in UTF-8 with MurmurHash3's finalizer, so the result is
//! independent of machine, row order and library versions.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A split of the dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// Training set.
    Train,
    /// Validation set.
    Val,
    /// Test set.
    Test,
}

impl Split {
    /// All splits: train, val, test.
    pub const ALL: [Self; 3] = [Self::Train, Self::Val, Self::Test];

    /// `train`, `val` or `test`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Val => "val",
            Self::Test => "test",
        }
    }
}

/// How scenes are assigned to splits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SplitStrategy {
    /// 75 % of the scenes to train, 5 % to val, 20 % to test, as in the official code.
    #[serde(rename = "shares")]
    Ratios,
    /// K-fold cross-validation, as in the paper: each scene is in the test split of one fold; 5 % of
    /// the others go to val.
    Fold {
        /// The 0-based fold used as the test split.
        fold: usize,
        /// The number of folds.
        folds: usize,
    },
}

impl SplitStrategy {
    /// Fold `fold` (0-based) of `folds`.
    ///
    /// # Errors
    /// [`Error::Fold`] if `folds` is less than 2 or `fold` is out of range.
    pub fn fold(fold: usize, folds: usize) -> Result<Self> {
        if folds < 2 || fold >= folds {
            return Err(Error::Fold { fold, folds });
        }
        Ok(Self::Fold { fold, folds })
    }
}

/// Assigns the scenes of a benchmark to splits. Duplicate scenes count once.
///
/// With three or more scenes, val and test get at least one each.
pub fn assign<'a>(
    scenes: impl IntoIterator<Item = &'a str>,
    benchmark: &str,
    strategy: SplitStrategy,
    seed: u64,
) -> BTreeMap<String, Split> {
    let mut ordered: Vec<(u64, &str)> =
        scenes.into_iter().map(|scene| (hash(seed, benchmark, scene), scene)).collect();
    ordered.sort_unstable();
    ordered.dedup();
    let total = ordered.len();
    let (test, rest): (Vec<_>, Vec<_>) = match strategy {
        SplitStrategy::Ratios => {
            let test = share(total, 20, total);
            ordered.into_iter().enumerate().partition(|(rank, _)| *rank < test)
        }
        SplitStrategy::Fold { fold, folds } => {
            ordered.into_iter().enumerate().partition(|(rank, _)| rank % folds == fold)
        }
    };
    let val = match strategy {
        SplitStrategy::Ratios => share(total, 5, total),
        SplitStrategy::Fold { .. } => share(rest.len(), 5, total),
    };
    let rest = rest.into_iter().enumerate().map(|(rank, (_, (_, scene)))| {
        (scene.to_owned(), if rank < val { Split::Val } else { Split::Train })
    });
    let test = test.into_iter().map(|(_, (_, scene))| (scene.to_owned(), Split::Test));
    test.chain(rest).collect()
}

/// `percent` of `count`, rounded; at least 1 if `total` scenes are enough for three splits.
fn share(count: usize, percent: usize, total: usize) -> usize {
    let rounded = (count * percent + 50) / 100;
    if total >= 3 { rounded.max(1) } else { rounded }
}

fn hash(seed: u64, benchmark: &str, scene: &str) -> u64 {
    let text = format!("{seed}\0{benchmark}\0{scene}");
    let mut hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|number| format!("scene{number:04}_00")).collect()
    }

    fn assign_scenes(count: usize, strategy: SplitStrategy, seed: u64) -> BTreeMap<String, Split> {
        assign(names(count).iter().map(String::as_str), "VSI-Bench", strategy, seed)
    }

    fn sizes(parts: &BTreeMap<String, Split>) -> [usize; 3] {
        Split::ALL.map(|split| parts.values().filter(|&&part| part == split).count())
    }

    #[test]
    fn the_ratios_are_75_5_and_20_percent() {
        assert_eq!(sizes(&assign_scenes(200, SplitStrategy::Ratios, 0)), [150, 10, 40]);
        assert_eq!(sizes(&assign_scenes(288, SplitStrategy::Ratios, 0)), [216, 14, 58]);
    }

    #[test]
    fn three_scenes_are_enough_for_three_splits() {
        assert_eq!(sizes(&assign_scenes(3, SplitStrategy::Ratios, 0)), [1, 1, 1]);
        assert_eq!(
            sizes(&assign_scenes(3, SplitStrategy::Fold { fold: 1, folds: 3 }, 0)),
            [1, 1, 1]
        );
        assert_eq!(sizes(&assign_scenes(1, SplitStrategy::Ratios, 0)), [1, 0, 0]);
        assert_eq!(sizes(&assign_scenes(0, SplitStrategy::Ratios, 0)), [0, 0, 0]);
    }

    #[test]
    fn the_splits_are_the_same_on_every_machine() {
        let fingerprint = |seed| {
            let parts = assign_scenes(10, SplitStrategy::Ratios, seed);
            let letters = parts.values().map(|part| &part.name()[..2]);
            letters.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(fingerprint(0), "va tr te tr tr tr tr te tr tr");
        assert_eq!(fingerprint(1), "te tr tr tr tr tr tr te va tr");
    }

    #[test]
    fn an_invalid_fold_is_an_error() {
        for (fold, folds) in [(5, 5), (0, 1), (0, 0)] {
            assert!(
                matches!(SplitStrategy::fold(fold, folds), Err(Error::Fold { .. })),
                "{fold} {folds}"
            );
        }
        assert_eq!(SplitStrategy::fold(4, 5).unwrap(), SplitStrategy::Fold { fold: 4, folds: 5 });
    }

    proptest! {
        #[test]
        fn every_scene_is_in_one_split_for_any_order_of_the_rows(
            scenes in prop::collection::vec("[a-z]{1,3}", 0..60),
            seed: u64,
            fold in prop::option::of(0usize..5),
        ) {
            let strategy = match fold {
                Some(fold) => SplitStrategy::Fold { fold, folds: 5 },
                None => SplitStrategy::Ratios,
            };
            let parts = assign(scenes.iter().map(String::as_str), "b", strategy, seed);
            let backwards = assign(scenes.iter().rev().map(String::as_str), "b", strategy, seed);
            prop_assert_eq!(&parts, &backwards);
            let assigned: BTreeSet<_> = parts.keys().cloned().collect();
            prop_assert_eq!(assigned, scenes.into_iter().collect::<BTreeSet<_>>());
        }

        #[test]
        fn each_scene_is_in_the_test_split_of_one_fold(
            count in 0usize..80, folds in 2usize..8, seed: u64,
        ) {
            let tested: Vec<String> = (0..folds)
                .flat_map(|fold| assign_scenes(count, SplitStrategy::Fold { fold, folds }, seed))
                .filter(|(_, part)| *part == Split::Test)
                .map(|(scene, _)| scene)
                .collect();
            prop_assert_eq!(tested.len(), count);
            let distinct: BTreeSet<_> = tested.into_iter().collect();
            prop_assert_eq!(distinct.len(), count);
        }

        #[test]
        fn folds_differ_by_one_scene_at_most(count in 0usize..80, folds in 2usize..8) {
            let sizes: Vec<usize> = (0..folds)
                .map(|fold| sizes(&assign_scenes(count, SplitStrategy::Fold { fold, folds }, 0))[2])
                .collect();
            let (least, most) = (sizes.iter().min().unwrap(), sizes.iter().max().unwrap());
            prop_assert!(most - least <= 1, "{:?}", sizes);
        }
    }
}
