//! Positions in space.

use super::kind::{Case, Kind};
use super::text;
use crate::answer;
use crate::score::Score;

/// A position, by one minus its L1 distance.
pub(super) static POSITION: Kind = Kind {
    names: &["position"],
    questions: "questions with positions as answers",
    score,
    answer: text::answer,
    drawing: None,
};

/// The score of one completion.
pub(crate) fn score(case: &Case<'_>) -> Score {
    let Ok(target) = answer::read_position(case.solution) else {
        return Score::absent(format!("the solution `{}` is no position", case.solution));
    };
    let position = match answer::position(case.completion) {
        Ok(position) => position,
        Err(error) => return Score::zero(error.to_string()),
    };
    let distance: f64 = position.iter().zip(target).map(|(a, b)| (a - b).abs()).sum();
    match distance {
        0.0 => Score::full(),
        _ => Score {
            value: Some((1.0 - distance).clamp(0.0, 1.0)),
            reason: Some(format!("at an L1 distance of {distance:.3} from {target:?}")),
        },
    }
}
