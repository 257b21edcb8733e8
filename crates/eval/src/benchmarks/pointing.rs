//! What the pointing benchmarks share: masks as columns, and lmms-eval's two forms of points.

use embodied_r_data::multimodal::annotations::Annotation;
use serde_json::Value;

use crate::benchmark::{Scored, wrong_solution};
use crate::error::Result;
use crate::extract::reasoning::without_reasoning;
use crate::pointing::mask::{Inside, Mask};
use crate::pointing::points;
use crate::predictions::Prediction;

/// The column of the mask.
pub(super) const MASK: &str = "mask";

/// The mask of a record, as a column; none if the record has none.
pub(super) fn mask_column(
    annotation: &Annotation<'_>,
) -> embodied_r_data::Result<Option<(String, Value)>> {
    let Some(bytes) = annotation.bytes(MASK) else { return Ok(None) };
    let mask = Mask::decode(bytes).map_err(|reason| annotation.error(MASK, reason))?;
    Ok(Some((MASK.to_owned(), mask.to_json())))
}

/// The mask of a record that needs one.
pub(super) fn required_mask(
    annotation: &Annotation<'_>,
) -> embodied_r_data::Result<(String, Value)> {
    mask_column(annotation)?.ok_or_else(|| annotation.error(MASK, "must be an image in the table"))
}

/// The mask of a question.
pub(super) fn mask(prediction: &Prediction) -> Result<Mask> {
    let mask = prediction.columns.get(MASK).and_then(Mask::from_json);
    mask.ok_or_else(|| wrong_solution(prediction, "a region: the question has no `mask`"))
}

/// The share of the points of every `(x, y)` on 0 to 1 that are inside. Reasoning is removed.
pub(super) fn official(prediction: &Prediction) -> Result<Scored> {
    share(prediction, points::tuples)
}

/// The same of every `[x, y]` or `(x, y)`, on 0 to 1000, or with a decimal point on 0 to 1.
pub(super) fn json(prediction: &Prediction) -> Result<Scored> {
    share(prediction, points::pairs)
}

fn share(
    prediction: &Prediction,
    read: fn(&str, &Mask) -> Vec<crate::pointing::pixel::Pixel>,
) -> Result<Scored> {
    let mask = mask(prediction)?;
    let answer = prediction.output.answer().map(without_reasoning).unwrap_or_default();
    let points = read(&answer, &mask);
    Ok(Scored { extracted: points::shown(&points), score: mask.share(&points, Inside::Rounded) })
}
