//! The reward of an open answer that is a position: the closer to the reference answer, the higher.

use crate::answer_type::AnswerType;
use crate::answer_type::kind::Case;
use crate::error::Result;
use crate::pointing::PointingRewards;
use crate::reward::{Reward, RewardInput, Score, best_score};

/// `clip(1 - L1, 0, 1)`, where L1 is the sum over the axes of the distances between the position in the `<answer>` tag
/// and the reference answer, in the data's unit (Robot-R1, arXiv 2506.00070, its open-ended variant). 0 without a
/// position in the tag; no score if the reference answer is none.
#[derive(Debug, Clone, Copy, Default)]
pub struct WaypointDistance;

impl WaypointDistance {
    /// Its name in stage weights.
    pub const NAME: &'static str = "waypoint_distance";
}

impl Reward for WaypointDistance {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn score(&self, batch: &[RewardInput<'_>]) -> Result<Vec<Score>> {
        let pointing = PointingRewards::default();
        let score = |&RewardInput { completion, solution, columns, .. }: &RewardInput<'_>| {
            AnswerType::Position.score(&Case { completion, solution, columns, pointing: &pointing })
        };
        Ok(batch.iter().map(|input| best_score(input, score)).collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::answer;

    const TARGET: &str = "[0.254, -0.197, 0.894]";

    fn of(solution: &str, answer: &str) -> Score {
        let completion = format!("<think>[1, 2, 3]</think><answer>{answer}</answer>");
        let input = RewardInput { solution, completion: &completion, ..RewardInput::default() };
        WaypointDistance.score(&[input]).unwrap().remove(0)
    }

    fn value(answer: &str) -> f64 {
        of(TARGET, answer).value.unwrap()
    }

    #[test]
    fn the_distance_is_summed_over_the_axes() {
        // The L1 distances of the paper's two printed examples, at other positions.
        for (answer, distance) in
            [("[0.354, -0.247, 0.853]", 0.191), ("[0.214, -0.197, 0.971]", 0.117)]
        {
            let found = of(TARGET, answer);
            assert!((found.value.unwrap() - (1.0 - distance)).abs() < 1e-12, "{found:?}");
            assert!(found.reason.unwrap().contains(&format!("L1 distance of {distance}")));
        }
        assert_eq!(of(TARGET, TARGET), Score::full());
    }

    #[test]
    fn the_score_is_clipped_at_zero() {
        for far in ["[1.254, -0.197, 0.894]", "[9, 9, 9]", "[1e308, -1e308, 1e308]"] {
            assert_eq!(value(far), 0.0, "{far}");
        }
        assert!((value("[0.254, -0.197, 0.395]") - 0.501).abs() < 1e-12);
    }

    #[test]
    fn brackets_and_spaces_are_optional() {
        for same in [
            "0.254, -0.197, 0.894",
            " ( 0.254,-0.197 ,0.894 ) \n",
            "[[0.254, -0.197, 0.894]]",
            "0.254 -0.197\t0.894",
            "[0.254 -0.197 0.894]",
            "[+.254, -1.97e-1, 0.8940]",
        ] {
            assert_eq!(value(same), 1.0, "`{same}`");
        }
    }

    #[test]
    fn anything_but_three_finite_numbers_scores_zero() {
        for bad in [
            "",
            "[]",
            "[0.254, -0.197]",
            "[0.254, -0.197, 0.894, 0]",
            "[0.254, -0.197, 0.894] or [0, 0, 0]",
            "[0.254,, -0.197, 0.894]",
            "[0.254, -0.197, 0.894,]",
            "[0.254, -0.197, nan]",
            "[inf, 0, 0]",
            "[1e999, 0, 0]",
            "[0.254, -0.197, 0.894 m]",
            "go to [0.254, -0.197, 0.894]",
            "A",
        ] {
            assert_eq!(value(bad), 0.0, "`{bad}`");
        }
        let twice = format!("{TARGET}</answer><answer>[0, 0, 0]");
        assert_eq!(of(TARGET, &twice), Score::zero("there are several answers"));
        let untagged =
            RewardInput { solution: TARGET, completion: TARGET, ..RewardInput::default() };
        let found = WaypointDistance.score(&[untagged]).unwrap().remove(0);
        assert_eq!(found, Score::zero("no `<answer>` tag"));
    }

    #[test]
    fn without_a_reference_position_there_is_no_score() {
        assert_eq!(of("A", TARGET), Score::absent("the solution `A` is no position"));
    }

    proptest! {
        #[test]
        fn a_score_is_from_zero_to_one(answer in "[-+0-9.e, \\[\\]()a-z]{0,40}") {
            let score = of(TARGET, &answer).value.unwrap();
            prop_assert!((0.0..=1.0).contains(&score), "{score}");
        }

        #[test]
        fn a_position_is_read_as_it_is_written(position in prop::array::uniform3(-9e3f64..9e3)) {
            let text = format!("{position:?}");
            prop_assert_eq!(answer::read_position(&text), Ok(position));
        }
    }
}
