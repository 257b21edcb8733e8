//! Splits by scene: no scene is in two parts, and the same seed gives the same parts everywhere.
//!
//! The scenes of a benchmark are put in the order of a hash and dealt out in that order. The hash is
//! FNV-1a (64 bits) over `{seed}\0{benchmark}\0{scene}` in UTF-8, its bits mixed by the finaliser of
//! MurmurHash3, so that neither the machine, the order of the rows nor a library's release matters.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::error::{Error, Result};

/// A part of the questions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// To learn from.
    Train,
    /// To choose by.
    Val,
    /// To be scored by.
    Test,
}

impl Split {
    /// All parts, in their usual order.
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

/// How the scenes are dealt out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Plan {
    /// 75 % of the scenes to train, 5 % to val, 20 % to test, as the official code does.
    Shares,
    /// Cross-validation, as in the paper: each scene is in the test part of one fold; of the
    /// others, 5 % go to val.
    Fold {
        /// The fold that is the test part, counted from 0.
        fold: usize,
        /// The number of folds.
        folds: usize,
    },
}

impl Plan {
    /// Fold `fold` of `folds`, counted from 0.
    ///
    /// # Errors
    /// [`Error::Fold`] if there are fewer than two folds or no such fold.
    pub fn fold(fold: usize, folds: usize) -> Result<Self> {
        if folds < 2 || fold >= folds {
            return Err(Error::Fold { fold, folds });
        }
        Ok(Self::Fold { fold, folds })
    }
}

/// Deals out the scenes of a benchmark. Scenes named twice count once.
///
/// Val and test get at least one scene each as soon as there are three.
pub fn assign<'a>(
    scenes: impl IntoIterator<Item = &'a str>,
    benchmark: &str,
    plan: Plan,
    seed: u64,
) -> BTreeMap<String, Split> {
    let mut ordered: Vec<(u64, &str)> =
        scenes.into_iter().map(|scene| (hash(seed, benchmark, scene), scene)).collect();
    ordered.sort_unstable();
    ordered.dedup();
    let total = ordered.len();
    let (test, rest): (Vec<_>, Vec<_>) = match plan {
        Plan::Shares => {
            let test = share(total, 20, total);
            ordered.into_iter().enumerate().partition(|(rank, _)| *rank < test)
        }
        Plan::Fold { fold, folds } => {
            ordered.into_iter().enumerate().partition(|(rank, _)| rank % folds == fold)
        }
    };
    let val = match plan {
        Plan::Shares => share(total, 5, total),
        Plan::Fold { .. } => share(rest.len(), 5, total),
    };
    let rest = rest.into_iter().enumerate().map(|(rank, (_, (_, scene)))| {
        (scene.to_owned(), if rank < val { Split::Val } else { Split::Train })
    });
    let test = test.into_iter().map(|(_, (_, scene))| (scene.to_owned(), Split::Test));
    test.chain(rest).collect()
}

/// `percent` of `count`, rounded, and at least one where `total` scenes are enough for three parts.
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

    fn dealt(count: usize, plan: Plan, seed: u64) -> BTreeMap<String, Split> {
        assign(names(count).iter().map(String::as_str), "VSI-Bench", plan, seed)
    }

    fn sizes(parts: &BTreeMap<String, Split>) -> [usize; 3] {
        Split::ALL.map(|split| parts.values().filter(|&&part| part == split).count())
    }

    #[test]
    fn the_shares_are_75_5_and_20_percent() {
        assert_eq!(sizes(&dealt(200, Plan::Shares, 0)), [150, 10, 40]);
        assert_eq!(sizes(&dealt(288, Plan::Shares, 0)), [216, 14, 58]);
    }

    #[test]
    fn three_scenes_are_enough_for_three_parts() {
        assert_eq!(sizes(&dealt(3, Plan::Shares, 0)), [1, 1, 1]);
        assert_eq!(sizes(&dealt(3, Plan::Fold { fold: 1, folds: 3 }, 0)), [1, 1, 1]);
        assert_eq!(sizes(&dealt(1, Plan::Shares, 0)), [1, 0, 0]);
        assert_eq!(sizes(&dealt(0, Plan::Shares, 0)), [0, 0, 0]);
    }

    #[test]
    fn the_parts_are_the_same_on_every_machine() {
        let told = |seed| {
            let parts = dealt(10, Plan::Shares, seed);
            let letters = parts.values().map(|part| &part.name()[..2]);
            letters.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(told(0), "va tr te tr tr tr tr te tr tr");
        assert_eq!(told(1), "te tr tr tr tr tr tr te va tr");
    }

    #[test]
    fn a_fold_that_does_not_exist_is_refused() {
        for (fold, folds) in [(5, 5), (0, 1), (0, 0)] {
            assert!(matches!(Plan::fold(fold, folds), Err(Error::Fold { .. })), "{fold} {folds}");
        }
        assert_eq!(Plan::fold(4, 5).unwrap(), Plan::Fold { fold: 4, folds: 5 });
    }

    proptest! {
        #[test]
        fn every_scene_is_in_one_part_whatever_the_order_of_the_rows(
            scenes in prop::collection::vec("[a-z]{1,3}", 0..60),
            seed: u64,
            fold in prop::option::of(0usize..5),
        ) {
            let plan = fold.map_or(Plan::Shares, |fold| Plan::Fold { fold, folds: 5 });
            let parts = assign(scenes.iter().map(String::as_str), "b", plan, seed);
            let backwards = assign(scenes.iter().rev().map(String::as_str), "b", plan, seed);
            prop_assert_eq!(&parts, &backwards);
            let dealt: BTreeSet<_> = parts.keys().cloned().collect();
            prop_assert_eq!(dealt, scenes.into_iter().collect::<BTreeSet<_>>());
        }

        #[test]
        fn each_scene_is_tested_in_one_fold(count in 0usize..80, folds in 2usize..8, seed: u64) {
            let tested: Vec<String> = (0..folds)
                .flat_map(|fold| dealt(count, Plan::Fold { fold, folds }, seed))
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
                .map(|fold| sizes(&dealt(count, Plan::Fold { fold, folds }, 0))[2])
                .collect();
            let (least, most) = (sizes.iter().min().unwrap(), sizes.iter().max().unwrap());
            prop_assert!(most - least <= 1, "{:?}", sizes);
        }
    }
}
