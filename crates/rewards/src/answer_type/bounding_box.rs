//! Boxes in an image.

use serde_json::{Map, Value};

use super::kind::{Case, Drawing, Kind, Mark, with_reason};
use super::text;
use crate::pointing::{Grid, Rectangle, notation};
use crate::score::Score;

/// A box.
pub(super) static BOX: Kind = Kind {
    names: &["box", "spatial grounding", "bbox"],
    questions: "questions with boxes as answers",
    score: |case| score(case).unwrap_or_else(|score| score),
    answer: text::answer,
    drawing: Some(drawing),
};

/// The intersection over union of the first box of the answer and the only one of the reference answer.
fn score(case: &Case<'_>) -> Result<Score, Score> {
    let grid = case.grid()?;
    let target = notation::boxes(case.solution, grid).ok().and_then(only);
    let target = target.ok_or_else(|| case.invalid("not one box"))?;
    let boxes = case.answer(|text| notation::boxes(text, grid))?;
    let found = boxes.first().ok_or_else(|| Score::zero("the answer has no box"))?;
    Ok(compared(found, &target))
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
