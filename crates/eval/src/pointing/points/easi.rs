//! Points as VLMEvalKit's `Point2DParser` reads them, for `easi`.

use std::ops::Range;

use super::{listed, written_tuples};
use crate::extract::json::json;
use crate::extract::literal::literal;
use crate::extract::python::{float, strip};
use crate::extract::value::Value;
use crate::pointing::pixel::{Pixel, index};

/// Coordinates up to here lie on 0 to 1.
const MAX_SHARE: f64 = 1.5;
/// Coordinates in dictionaries up to here lie on 0 to 1000.
const MAX_PER_MILLE: f64 = 1000.0;
/// Rectangles end here: far beyond every image, and their pixels can still be counted.
const MAX_BOUND: f64 = 1e15;

/// The size of an image in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    /// Pixels in a row.
    pub(crate) width: usize,
    /// Pixels in a column.
    pub(crate) height: usize,
}

/// What an answer points at.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Target {
    /// A point in shares of the image's width and height.
    Point {
        /// From the left.
        x: f64,
        /// From the top.
        y: f64,
    },
    /// All pixels of a rectangle, which is not empty.
    Rectangle {
        /// Its columns.
        columns: Range<i64>,
        /// Its rows.
        rows: Range<i64>,
    },
}

/// The targets of an answer: those of dictionaries, or else those written in brackets. Empty if the harness fails on a number.
pub(crate) fn targets(answer: &str, size: Size) -> Vec<Target> {
    let targets = dictionary_points(answer, size);
    if targets.is_empty() { written_targets(answer, size).unwrap_or_default() } else { targets }
}

/// The targets for a reader, or the first of them; `None` if there are none.
pub(crate) fn shown(targets: &[Target]) -> Option<String> {
    let text = |target: &Target| match target {
        Target::Point { x, y } => format!("({x}, {y})"),
        Target::Rectangle { columns, rows } => {
            format!("({}, {}, {}, {})", columns.start, rows.start, columns.end, rows.end)
        }
    };
    listed(targets.iter().take(super::SHOWN).map(text).collect(), targets.len())
}

impl Target {
    /// The first point, in shares of the image's width and height.
    pub(crate) fn first_point(&self, size: Size) -> (f64, f64) {
        match self {
            Self::Point { x, y } => (*x, *y),
            Self::Rectangle { columns, rows } => {
                (columns.start as f64 / size.width as f64, rows.start as f64 / size.height as f64)
            }
        }
    }
}

/// The pixel of a point, moved into the image; what is no number stays beyond it.
pub(crate) fn clipped(x: f64, y: f64, size: Size) -> Pixel {
    let place = |share: f64, length: usize| {
        let length = length as f64;
        index((share * length).clamp(0.0, (length - 1.0).max(0.0)).round_ties_even())
    };
    Pixel { x: place(x, size.width), y: place(y, size.height) }
}

/// The points of a dictionary, or of a list of them, in JSON or as a literal of Python.
fn dictionary_points(answer: &str, size: Size) -> Vec<Target> {
    let text = without_fence(answer);
    // `null` is read again as a literal, which it is not.
    let value = json(text).filter(|value| *value != Value::NONE).or_else(|| literal(text));
    match value {
        Some(Value::List(items)) => {
            items.iter().filter_map(|item| dictionary_point(item, size)).collect()
        }
        Some(item) => dictionary_point(&item, size).into_iter().collect(),
        None => Vec::new(),
    }
}

fn dictionary_point(item: &Value, size: Size) -> Option<Target> {
    let named = |name| item.get(name);
    let (x, y) = named("point_2d").filter(|value| value.is_true()).or(named("point"))?.pair()?;
    let (x, y) = (x.float()?, y.float()?);
    let largest = largest(&[x, y]);
    Some(if largest <= MAX_SHARE {
        Target::Point { x, y }
    } else if largest <= MAX_PER_MILLE {
        Target::Point { x: x / 1000.0, y: y / 1000.0 }
    } else {
        Target::Point { x: x / size.width as f64, y: y / size.height as f64 }
    })
}

/// The points of every `(x, y)` and the rectangles of every `(x0, y0, x1, y1)`. `None` if a number cannot be read, or a
/// rectangle has no end.
fn written_targets(answer: &str, size: Size) -> Option<Vec<Target>> {
    let mut targets = Vec::new();
    for texts in written_tuples(answer) {
        let numbers: Vec<f64> = texts.into_iter().map(float).collect::<Option<_>>()?;
        let (width, height) = (size.width as f64, size.height as f64);
        let is_share = largest(&numbers) <= MAX_SHARE;
        match numbers[..] {
            [x, y] if is_share => targets.push(Target::Point { x, y }),
            [x, y] => targets.push(Target::Point { x: x / width, y: y / height }),
            [x0, y0, x1, y1] => {
                let (x_scale, y_scale) = if is_share { (width, height) } else { (1.0, 1.0) };
                let columns = bounds(x0 * x_scale, x1 * x_scale)?;
                let rows = bounds(y0 * y_scale, y1 * y_scale)?;
                if !columns.is_empty() && !rows.is_empty() {
                    targets.push(Target::Rectangle { columns, rows });
                }
            }
            _ => {}
        }
    }
    Some(targets)
}

/// The places between two ends in any order, both rounded; `None` if one is infinite.
fn bounds(from: f64, to: f64) -> Option<Range<i64>> {
    let place = |value: f64| {
        let rounded = value.round_ties_even().clamp(-MAX_BOUND, MAX_BOUND);
        value.is_finite().then_some(rounded as i64)
    };
    let (from, to) = (place(from)?, place(to)?);
    Some(from.min(to)..from.max(to))
}

/// The largest absolute value as Python's `max` finds it: a first one that is no number stays.
fn largest(numbers: &[f64]) -> f64 {
    let larger = |largest: f64, next: f64| if next > largest { next } else { largest };
    numbers.iter().copied().map(f64::abs).reduce(larger).unwrap_or(f64::NAN)
}

/// The text without a code fence around it.
fn without_fence(text: &str) -> &str {
    let text = strip(text);
    if !text.starts_with("```") {
        return text;
    }
    let inner = match text.split_once('\n') {
        Some((_, inner)) => inner,
        None => text.trim_start_matches('`'),
    };
    let inner = strip(inner);
    strip(inner.strip_suffix("```").unwrap_or(inner))
}
