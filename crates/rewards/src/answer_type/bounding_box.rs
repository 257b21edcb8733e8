//! Boxes in an image.

use serde_json::{Map, Value};

use super::kind::{Case, Drawing, Kind, Mark, excerpt, with_reason};
use super::text;
use crate::answer;
use crate::pointing::{Grid, Rectangle, notation};
use crate::score::Score;

/// A box.
pub(super) static BOX: Kind = Kind {
    names: &["box", "spatial grounding", "bbox"],
    questions: "questions with boxes as answers",
    score,
    answer: text::answer,
    drawing: Some(drawing),
};

/// The intersection over union of the first box of the answer and the only one of the reference answer.
fn score(case: &Case<'_>) -> Score {
    let grid = match case.grid() {
        Ok(grid) => grid,
        Err(absent) => return absent,
    };
    let Some(target) = notation::boxes(case.solution, grid).ok().and_then(only) else {
        return Score::absent(format!("the solution `{}` is not one box", excerpt(case.solution)));
    };
    let boxes = match answer::text(case.completion) {
        Ok(text) => notation::boxes(text, grid).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    match boxes.map(|boxes| boxes.first().copied()) {
        Ok(Some(found)) => compared(&found, &target),
        Ok(None) => Score::zero("the answer has no box"),
        Err(reason) => Score::zero(reason),
    }
}

/// The score of a box.
pub(crate) fn compared(found: &Rectangle, target: &Rectangle) -> Score {
    let share = found.intersection_over_union(target);
    with_reason(share, || format!("an intersection over union of {share:.3}"))
}

fn only(boxes: Vec<Rectangle>) -> Option<Rectangle> {
    let [target] = boxes.as_slice() else { return None };
    Some(*target)
}

fn drawing(answer: &str, columns: Option<&Map<String, Value>>) -> Option<Drawing> {
    let boxes = notation::boxes(answer, Grid::of_columns(columns).ok()?).ok()?;
    Some(boxes.into_iter().map(Mark::Box).collect())
}
