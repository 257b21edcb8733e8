//! Rewards of answers that point, beside those of a second program (`scripts/parity/make_pointing_rewards.py`).

#![allow(clippy::panic, clippy::unwrap_used)]

use embodied_r_rewards::embodied_r15::ProblemType;
use embodied_r_rewards::pointing::{PointReward, PointingRewards};
use embodied_r_rewards::{Accuracy, AnswerType, Reward as _, RewardInput};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// Both programs use doubles, and their sums have other orders.
const TOLERANCE: f64 = 1e-9;

fn fixtures(name: &str) -> Vec<Map<String, Value>> {
    let text = include_str!("fixtures/pointing.json");
    let mut all: Map<String, Value> = serde_json::from_str(text).unwrap();
    serde_json::from_value(all.remove(name).unwrap()).unwrap()
}

fn text<'a>(case: &'a Map<String, Value>, name: &str) -> &'a str {
    case[name].as_str().unwrap()
}

fn accuracy(case: &Map<String, Value>, solution: &str, answer: &str, recall: bool) -> f64 {
    let completion = format!("<think>so</think><answer>{answer}</answer>");
    let mut pointing = PointingRewards::default();
    pointing.point.recall = recall;
    let input = RewardInput {
        solution,
        completion: &completion,
        answer_type: AnswerType::of_columns(case),
        columns: Some(case),
        ..RewardInput::default()
    };
    let score = Accuracy { pointing }.score(&[input]).unwrap().remove(0);
    let value = score.value.unwrap_or_else(|| panic!("{case:?}: {score:?}"));
    assert_eq!(score.reason.is_none(), value == 1.0, "{case:?}");
    value
}

fn close(found: f64, expected: &Value, case: &Map<String, Value>) {
    let expected = expected.as_f64().unwrap();
    assert!((found - expected).abs() < TOLERANCE, "{found}, not {expected}: {case:?}");
}

#[test]
fn answers_score_as_by_a_second_program() {
    let many = format!("[{}[1, 1]]", "[1, 1], ".repeat(10_000));
    for case in fixtures("answers") {
        let answer = text(&case, "answer");
        let answer = if answer == "MANY" { &many } else { answer };
        close(accuracy(&case, text(&case, "solution"), answer, false), &case["accuracy"], &case);
        if let Some(expected) = case.get("with_recall") {
            close(accuracy(&case, text(&case, "solution"), answer, true), expected, &case);
        }
    }
}

#[test]
fn embodied_r15s_records_score_as_by_a_second_program() {
    for case in fixtures("records") {
        let kind = ProblemType::parse(text(&case, "problem_type")).unwrap();
        let rewards = PointingRewards::default();
        let scores = kind.scores(text(&case, "completion"), text(&case, "answer"), &rewards);
        close(scores.accuracy.value.unwrap(), &case["accuracy"], &case);
        close(scores.format.value.unwrap(), &case["format"], &case);
    }
}

#[test]
fn one_safe_point_earns_all_only_without_recall() {
    let case = json!({"answer_type": "point"}).as_object().unwrap().clone();
    let regions = r#"[{"box_2d": [0, 0, 100, 100]}, {"box_2d": [500, 500, 600, 600]}]"#;
    let places = "[[50, 50], [550, 550]]";
    for solution in [regions, places] {
        assert_eq!(accuracy(&case, solution, "[50, 50]", false), 1.0);
        assert!(accuracy(&case, solution, "[50, 50]", true) < 0.7);
        assert_eq!(accuracy(&case, solution, places, true), 1.0);
    }
}

#[test]
fn a_question_whose_answer_or_grid_is_wrong_is_not_scored() {
    for (columns, solution, reason) in [
        (json!({"answer_type": "box"}), "[[0, 0, 1, 1], [2, 2, 3, 3]]", "is not one box"),
        (json!({"answer_type": "point"}), "B", "is neither points nor regions"),
        (json!({"answer_type": "trace_3d"}), "[[1, 2], [3, 4]]", "is no trace"),
        (json!({"answer_type": "point", "coordinates": "pixels"}), "[1, 2]", "`width` must be"),
    ] {
        let columns = columns.as_object();
        let input = RewardInput {
            solution,
            answer_type: columns.and_then(AnswerType::of_columns),
            columns,
            ..RewardInput::default()
        };
        let found = Accuracy::default().unscored(&input).unwrap();
        assert!(found.contains(reason), "{found}");
    }
}

#[test]
fn settings_move_the_ends_of_a_reward() {
    let columns = json!({"answer_type": "point"});
    let input = RewardInput {
        solution: "[0, 0]",
        completion: "<answer>[60, 80]</answer>",
        answer_type: Some(AnswerType::Point),
        columns: columns.as_object(),
        ..RewardInput::default()
    };
    let point = PointReward { full: 50.0, zero: 150.0, recall: false };
    let pointing = PointingRewards { point, ..PointingRewards::default() };
    let score = |accuracy: Accuracy| accuracy.score(&[input]).unwrap()[0].value.unwrap();
    assert_eq!(score(Accuracy { pointing }), 0.5);
    assert!((score(Accuracy::default()) - 5.0 / 11.0).abs() < TOLERANCE);
}

/// Places near enough to each other that most rewards are between 0 and 1.
fn places(length: std::ops::Range<usize>) -> impl Strategy<Value = Vec<[u16; 2]>> {
    prop::collection::vec(prop::array::uniform2(0..=250u16), length)
}

proptest! {
    #[test]
    fn a_permuted_list_of_points_has_the_same_reward(
        points in places(1..8).prop_shuffle(), targets in places(1..8), recall: bool, seed in 0..8usize,
    ) {
        let case = json!({"answer_type": "points"}).as_object().unwrap().clone();
        let mut moved = points.clone();
        moved.rotate_left(seed % points.len());
        moved.reverse();
        let of = |points: &[[u16; 2]]| {
            accuracy(&case, &json!(targets).to_string(), &json!(points).to_string(), recall)
        };
        prop_assert!((of(&points) - of(&moved)).abs() < TOLERANCE);
    }

    /// Against the true trace interpolated to the answer's length, the distances are the same, and nothing is subtracted.
    #[test]
    fn a_longer_trace_is_never_better_than_against_the_interpolated_one(
        target in prop::array::uniform2(prop::array::uniform2(100.0..900.0)),
        offsets in prop::collection::vec(prop::array::uniform2(-70.0..70.0), 3..9),
    ) {
        let case = json!({"answer_type": "trace"}).as_object().unwrap().clone();
        let [from, to] = target;
        let last = (offsets.len() - 1) as f64;
        let at = |index: usize| {
            [0, 1].map(|axis| from[axis] + index as f64 / last * (to[axis] - from[axis]))
        };
        let longer: Vec<_> = (0..offsets.len()).map(at).collect();
        let path: Vec<_> =
            longer.iter().zip(&offsets).map(|(at, by)| [at[0] + by[0], at[1] + by[1]]).collect();
        let answer = json!(path).to_string();
        let short = accuracy(&case, &json!(target).to_string(), &answer, false);
        let long = accuracy(&case, &json!(longer).to_string(), &answer, false);
        prop_assert!(long > 0.0);
        prop_assert!((short - (long - 0.35).max(0.0)).abs() < TOLERANCE);
    }

    #[test]
    fn boxes_score_the_same_when_exchanged(
        corners in prop::array::uniform2(prop::array::uniform4(0..=500u16)),
    ) {
        let case = json!({"answer_type": "box"}).as_object().unwrap().clone();
        let [a, b] = corners.map(|[x, y, width, height]| json!([x, y, x + width, y + height]).to_string());
        prop_assert_eq!(accuracy(&case, &a, &b, false), accuracy(&case, &b, &a, false));
    }
}
