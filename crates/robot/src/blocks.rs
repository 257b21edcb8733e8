//! Blocks: four questions that share their four options, of which each is the answer to one.
//!
//! Whatever a rule or a trained model makes of the options' texts, it chooses the same one in all four questions and is
//! right in one: the text does not give the answer away. A question that fits into no block is left out; it must be,
//! since an answer of more than a quarter of all questions cannot be at chance among four different options.

use std::collections::BTreeMap;

use embodied_r_random::Rng;

use crate::demonstration::{Position, distance};
use crate::movement::Movement;

/// The options of a question.
pub(crate) const OPTIONS: usize = 4;

/// Points of which blocks are made at a time: time and memory grow with the square of it.
const POOL: usize = 2048;

/// Points of which blocks are made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Points<'a> {
    /// The answers.
    pub(crate) points: &'a [Position],
    /// The least distance of two of a block.
    pub(crate) min_distance: f64,
    /// What each question shows beside its options. Those of a block are near each other, so that they say less about
    /// which option is the answer; `None` if nothing is shown.
    pub(crate) shown: Option<&'a [Position]>,
}

/// Blocks of points, by index. The points of a block are far enough apart, and different.
pub(crate) fn of_points(points: Points<'_>, rng: &mut Rng) -> Vec<[usize; OPTIONS]> {
    let mut order: Vec<usize> = (0..points.points.len()).collect();
    rng.shuffle(&mut order);
    let pools = order.len().div_ceil(POOL).max(1);
    let of_pool = |pool: &[usize]| of_pool(points, pool);
    order.chunks(order.len().div_ceil(pools).max(1)).flat_map(of_pool).collect()
}

/// Greedily: the point that conflicts with most others is the hardest to place, and comes first.
fn of_pool(points: Points<'_>, pool: &[usize]) -> Vec<[usize; OPTIONS]> {
    let Points { points, min_distance, shown } = points;
    let is_near = |a: usize, b: usize| {
        let (a, b) = (points[pool[a]], points[pool[b]]);
        a == b || distance(a, b) < min_distance
    };
    let near: Vec<Vec<usize>> = (0..pool.len())
        .map(|a| (0..pool.len()).filter(|&b| b != a && is_near(a, b)).collect())
        .collect();
    let mut conflicts: Vec<usize> = near.iter().map(Vec::len).collect();
    let mut left: Vec<usize> = (0..pool.len()).collect();
    let mut blocks = Vec::new();
    loop {
        // Stable: points with as many conflicts stay in the pool's random order.
        left.sort_by_key(|&point| std::cmp::Reverse(conflicts[point]));
        let Some(&first) = left.first() else { break };
        let mut others = left[1..].to_vec();
        if let Some(shown) = shown {
            let away = |point: usize| distance(shown[pool[first]], shown[pool[point]]);
            others.sort_by(|a, b| away(*a).total_cmp(&away(*b)));
        }
        let mut block = vec![first];
        for other in others {
            if block.iter().all(|member| !near[*member].contains(&other)) {
                block.push(other);
                if block.len() == OPTIONS {
                    break;
                }
            }
        }
        // Without a block, only the first point is left out.
        if let Ok(members) = <[usize; OPTIONS]>::try_from(block.as_slice()) {
            blocks.push(members.map(|member| pool[member]));
        } else {
            block.truncate(1);
        }
        left.retain(|point| !block.contains(point));
        for &other in block.iter().flat_map(|member| &near[*member]) {
            conflicts[other] -= 1;
        }
    }
    blocks
}

/// Blocks of `movements`, by index: those of a block are an option set of each of them.
pub(crate) fn of_movements(movements: &[Movement], rng: &mut Rng) -> Vec<[usize; OPTIONS]> {
    let mut order: Vec<usize> = (0..movements.len()).collect();
    rng.shuffle(&mut order);
    let mut left: BTreeMap<Movement, Vec<usize>> = BTreeMap::new();
    for index in order {
        left.entry(movements[index]).or_default().push(index);
    }
    let mut blocks = Vec::new();
    // The most frequent movement is the hardest to place, and comes first.
    while let Some((&movement, questions)) = left.iter().max_by_key(|(_, it)| it.len()) {
        if questions.is_empty() {
            break;
        }
        let count = |option: &Movement| left.get(option).map_or(0, Vec::len);
        let mut sets = movement.option_sets();
        rng.shuffle(&mut sets);
        let rarest = |set: &[Movement; OPTIONS]| set.iter().map(count).min().unwrap_or(0);
        let best = sets.into_iter().filter(|set| rarest(set) > 0).max_by_key(rarest);
        let Some(set) = best else {
            left.remove(&movement);
            continue;
        };
        let taken: Vec<usize> =
            set.iter().filter_map(|option| left.get_mut(option)?.pop()).collect();
        blocks.extend(<[usize; OPTIONS]>::try_from(taken));
    }
    blocks
}

/// For each question of a block, the members that its options A to D are. Each letter is the answer once.
pub(crate) fn options_of(block: [usize; OPTIONS], rng: &mut Rng) -> [[usize; OPTIONS]; OPTIONS] {
    let mut letters = [0, 1, 2, 3];
    rng.shuffle(&mut letters);
    let mut question = 0;
    letters.map(|letter| {
        let answer = block[question];
        question += 1;
        let mut options = block;
        options.sort_unstable();
        rng.shuffle(&mut options);
        let at = options.iter().position(|option| *option == answer).unwrap_or(letter);
        options.swap(at, letter);
        options
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use embodied_r_random::Rng;
    use proptest::prelude::*;

    use super::*;

    fn of(points: &[Position], min_distance: f64, seed: u64) -> Vec<[usize; OPTIONS]> {
        of_points(Points { points, min_distance, shown: None }, &mut Rng::new(&[seed]))
    }

    fn used(blocks: &[[usize; OPTIONS]]) -> BTreeSet<usize> {
        blocks.iter().flatten().copied().collect()
    }

    proptest! {
        #[test]
        fn points_of_a_block_are_apart_and_in_one_block(
            cells in prop::collection::vec((0..6u8, 0..6u8), 0..80),
            seed in any::<u64>(),
        ) {
            let points: Vec<Position> =
                cells.iter().map(|(x, y)| [f64::from(*x) * 0.02, f64::from(*y) * 0.02, 1.0]).collect();
            let blocks = of(&points, 0.05, seed);
            prop_assert_eq!(used(&blocks).len(), 4 * blocks.len());
            for block in &blocks {
                for a in 0..4 {
                    for b in a + 1..4 {
                        prop_assert!(distance(points[block[a]], points[block[b]]) >= 0.05);
                    }
                }
            }
            prop_assert_eq!(blocks, of(&points, 0.05, seed));
        }

        #[test]
        fn movements_of_a_block_are_an_option_set(
            deltas in prop::collection::vec((-3i8..4, -3i8..4, -3i8..4), 0..120),
            seed in any::<u64>(),
        ) {
            let movements: Vec<Movement> = deltas
                .iter()
                .filter_map(|(x, y, z)| {
                    Movement::between([0.0; 3], [*x, *y, *z].map(f64::from), 0.5)
                })
                .collect();
            let blocks = of_movements(&movements, &mut Rng::new(&[seed]));
            prop_assert_eq!(used(&blocks).len(), 4 * blocks.len());
            let as_set = |set: [Movement; 4]| set.into_iter().collect::<BTreeSet<_>>();
            for block in &blocks {
                let members = as_set(block.map(|index| movements[index]));
                let sets = movements[block[0]].option_sets();
                prop_assert!(sets.into_iter().any(|set| as_set(set) == members));
            }
        }

        #[test]
        fn each_letter_is_the_answer_once(seed in any::<u64>()) {
            let block = [9, 4, 7, 5];
            let options = options_of(block, &mut Rng::new(&[seed]));
            let letter = |question: usize| {
                options[question].iter().position(|option| *option == block[question]).unwrap()
            };
            let letters: BTreeSet<usize> = (0..4).map(letter).collect();
            prop_assert_eq!(letters.len(), 4);
            for shown in options {
                prop_assert_eq!(BTreeSet::from(shown), BTreeSet::from(block));
            }
        }
    }

    #[test]
    fn four_clusters_of_equal_size_are_used_up() {
        let points: Vec<Position> =
            (0..400).map(|i| [f64::from(i % 4), f64::from(i) * 1e-5, 0.0]).collect();
        assert_eq!(of(&points, 0.05, 1).len(), 100);
    }

    #[test]
    fn a_cluster_of_more_than_a_quarter_is_thinned_out() {
        // 200 in one place, 100 apart from all others: three of each block are of the latter.
        let points: Vec<Position> =
            (0..300).map(|i| [if i < 200 { 0.0 } else { f64::from(i) }, 0.0, 0.0]).collect();
        assert_eq!(of(&points, 0.05, 1).len(), 33);
    }

    #[test]
    fn blocks_are_of_questions_that_show_similar_things() {
        let points: Vec<Position> = (0..80).map(|i| [f64::from(i), 0.0, 0.0]).collect();
        let shown: Vec<Position> = (0..80).map(|i| [0.0, f64::from(i % 20), 0.0]).collect();
        let given = Points { points: &points, min_distance: 0.05, shown: Some(&shown) };
        let blocks = of_points(given, &mut Rng::new(&[1]));
        assert_eq!(blocks.len(), 20);
        for block in blocks {
            assert!(block.iter().all(|member| shown[*member] == shown[block[0]]), "{block:?}");
        }
    }

    #[test]
    fn all_orders_of_the_options_occur() {
        let orders: BTreeSet<[usize; OPTIONS]> =
            (0..1000).map(|seed| options_of([9, 4, 7, 5], &mut Rng::new(&[seed]))[0]).collect();
        assert_eq!(orders.len(), 24);
    }

    #[test]
    fn points_at_the_least_distance_are_far_enough() {
        let points = [0.0, 0.5, 1.0, 1.5].map(|x| [x, 0.0, 0.0]);
        assert_eq!(of(&points, 0.5, 1).len(), 1);
        assert_eq!(of(&points, 0.51, 1).len(), 0);
    }

    #[test]
    fn a_point_without_a_block_leaves_the_others_to_one() {
        // The first is near three of the others, which are apart from each other.
        let points = [[0.0, 0.0], [0.04, 0.0], [-0.04, 0.0], [0.0, 0.04], [1.0, 0.0]];
        let blocks = of(&points.map(|[x, y]| [x, y, 0.0]), 0.05, 1);
        assert_eq!(used(&blocks), BTreeSet::from([1, 2, 3, 4]));
    }

    #[test]
    fn equal_points_are_never_in_one_block() {
        assert!(of(&[[0.0; 3]; 9], 0.0, 1).is_empty());
    }

    #[test]
    fn many_points_are_used_up_in_pools() {
        let points: Vec<Position> = (0..5000).map(|i| [f64::from(i), 0.0, 0.0]).collect();
        // At most three of each of the three pools are left.
        assert!(of(&points, 0.05, 1).len() >= 1247);
    }
}
