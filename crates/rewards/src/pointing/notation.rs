//! Points and boxes as models and data sets write them.
//!
//! Read are JSON objects and lists, tuples, code fences around them, and `<point>` tags: `[{"point_2d": [x, y]}]`, `[x, y]`,
//! `(x, y), (x, y)`, `<point>x, y</point>`, `<point x="…" y="…"/>`, `{"bbox_2d": [x1, y1, x2, y2]}`, `{"boxes": […]}`. A text with
//! anything else is none.

use embodied_r_data::answer::{BOX_KEYS, POINT_KEYS};
use serde_json::{Map, Value};

use super::geometry::{Place, Rectangle};
use super::grid::Grid;

/// An answer with more points is malformed.
pub(crate) const MAX_POINTS: usize = 1000;

/// The key of a point's depth.
const DEPTH: &str = "depth";

/// A point, perhaps with a depth.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Point {
    /// Where it is in the image.
    pub(crate) place: Place,
    /// Its depth in metres.
    pub(crate) depth: Option<f64>,
}

/// Why a text is no answer that points.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum NotationError {
    /// It is in no known form.
    #[error("no {0} can be read: write JSON, such as `{1}`")]
    Form(&'static str, &'static str),
    /// It has a coordinate outside of the image.
    #[error("a coordinate is outside of the image: ({0}, {1})")]
    Outside(f64, f64),
    /// The corners of a box are in another order.
    #[error("the corners of a box must be the upper left and the lower right one")]
    Corners,
    /// A depth is missing.
    #[error("a point has no `depth`")]
    NoDepth,
    /// A depth is negative or no finite number.
    #[error("the depth {0} is not a number of metres")]
    Depth(f64),
    /// There are too many points.
    #[error("there are more than {MAX_POINTS} points")]
    TooMany,
}

type Result<T> = std::result::Result<T, NotationError>;

const NO_POINT: NotationError = NotationError::Form("point", "[{\"point_2d\": [x, y]}]");
const NO_BOX: NotationError = NotationError::Form("box", "{\"bbox_2d\": [x1, y1, x2, y2]}");

/// The points that `text` is, at least one.
///
/// # Errors
/// Why it is none.
pub(crate) fn points(text: &str, grid: Grid) -> Result<Vec<Point>> {
    let value = value(text).ok_or(NO_POINT)?;
    points_of(&value, grid)
}

/// The points with depths that `text` is, at least one.
///
/// # Errors
/// Why it is none.
pub(crate) fn points_with_depth(text: &str, grid: Grid) -> Result<Vec<Point>> {
    let points = points(text, grid)?;
    match points.iter().all(|point| point.depth.is_some()) {
        true => Ok(points),
        false => Err(NotationError::NoDepth),
    }
}

/// The boxes that `text` is, at least one.
///
/// # Errors
/// Why it is none.
pub(crate) fn boxes(text: &str, grid: Grid) -> Result<Vec<Rectangle>> {
    let value = value(text).ok_or(NO_BOX)?;
    boxes_of(&value, grid)
}

/// The points of a value, at least one.
pub(crate) fn points_of(value: &Value, grid: Grid) -> Result<Vec<Point>> {
    let mut found = Vec::new();
    add_points(value, grid, &mut found)?;
    Ok(found)
}

/// The boxes of a value, at least one.
pub(crate) fn boxes_of(value: &Value, grid: Grid) -> Result<Vec<Rectangle>> {
    let mut found = Vec::new();
    add_boxes(value, grid, &mut found)?;
    Ok(found)
}

fn add_points(value: &Value, grid: Grid, found: &mut Vec<Point>) -> Result<()> {
    if let Some(numbers) = numbers(value) {
        let (x, y, depth) = match *numbers.as_slice() {
            [x, y] => (x, y, None),
            [x, y, depth] => (x, y, Some(depth)),
            _ => return Err(NO_POINT),
        };
        return push(found, point(x, y, depth, grid)?);
    }
    match value {
        Value::Array(items) if !items.is_empty() => {
            items.iter().try_for_each(|item| add_points(item, grid, found))
        }
        Value::Object(fields) => {
            let first = found.len();
            add_points(one_of(fields, &POINT_KEYS).ok_or(NO_POINT)?, grid, found)?;
            let Some(depth) = fields.get(DEPTH) else { return Ok(()) };
            let depth = depth.as_f64().ok_or(NotationError::NoDepth)?;
            match &mut found[first..] {
                [point] => point.depth = Some(checked_depth(depth)?),
                _ => return Err(NO_POINT),
            }
            Ok(())
        }
        _ => Err(NO_POINT),
    }
}

fn add_boxes(value: &Value, grid: Grid, found: &mut Vec<Rectangle>) -> Result<()> {
    if let Some(numbers) = numbers(value) {
        let [x1, y1, x2, y2] = *numbers.as_slice() else { return Err(NO_BOX) };
        return push(found, rectangle([x1, y1, x2, y2], grid)?);
    }
    match value {
        Value::Array(items) if !items.is_empty() => {
            items.iter().try_for_each(|item| add_boxes(item, grid, found))
        }
        Value::Object(fields) => add_boxes(one_of(fields, &BOX_KEYS).ok_or(NO_BOX)?, grid, found),
        _ => Err(NO_BOX),
    }
}

fn push<T>(found: &mut Vec<T>, item: T) -> Result<()> {
    found.push(item);
    if found.len() > MAX_POINTS { Err(NotationError::TooMany) } else { Ok(()) }
}

fn point(x: f64, y: f64, depth: Option<f64>, grid: Grid) -> Result<Point> {
    let place = grid.place(x, y).ok_or(NotationError::Outside(x, y))?;
    Ok(Point { place, depth: depth.map(checked_depth).transpose()? })
}

fn checked_depth(depth: f64) -> Result<f64> {
    if depth.is_finite() && depth >= 0.0 { Ok(depth) } else { Err(NotationError::Depth(depth)) }
}

fn rectangle([x1, y1, x2, y2]: [f64; 4], grid: Grid) -> Result<Rectangle> {
    let place = |x, y| grid.place(x, y).ok_or(NotationError::Outside(x, y));
    let (from, to) = (place(x1, y1)?, place(x2, y2)?);
    let ordered = from.x <= to.x && from.y <= to.y;
    if ordered { Ok(Rectangle { from, to }) } else { Err(NotationError::Corners) }
}

/// The numbers of a list of nothing else, at least one.
pub(crate) fn numbers(value: &Value) -> Option<Vec<f64>> {
    let items = value.as_array().filter(|items| !items.is_empty())?;
    items.iter().map(Value::as_f64).collect()
}

/// The value of the only one of these keys.
fn one_of<'a>(fields: &'a Map<String, Value>, keys: &[&str]) -> Option<&'a Value> {
    let mut found = keys.iter().filter_map(|key| fields.get(*key));
    found.next().filter(|_| found.next().is_none())
}

/// The value that a text is, without a code fence.
fn value(text: &str) -> Option<Value> {
    let text = without_fence(text.trim());
    if let Some(points) = tagged(text) {
        return points.map(Value::Array);
    }
    let text = bracketed(text);
    let whole = serde_json::from_str(&text).ok();
    // Several tuples, or two numbers, without brackets around them.
    whole
        .filter(|value: &Value| !value.is_number())
        .or_else(|| serde_json::from_str(&format!("[{text}]")).ok())
}

/// What stands in a code fence around the whole text.
pub(crate) fn without_fence(text: &str) -> &str {
    let inner = text.strip_prefix("```").and_then(|rest| rest.strip_suffix("```"));
    match inner.and_then(|inner| inner.split_once('\n')) {
        Some((language, inner)) if !language.contains(['[', '{', '(']) => inner.trim(),
        _ => inner.map_or(text, str::trim),
    }
}

/// A text with the brackets and quotes of Python as those of JSON, out of texts in double quotes.
fn bracketed(text: &str) -> String {
    let mut in_text = false;
    let mut escaped = false;
    let swap = |char: char| {
        let swapped = match char {
            _ if in_text => char,
            '(' => '[',
            ')' => ']',
            '\'' => '"',
            _ => char,
        };
        if char == '"' && !escaped {
            in_text = !in_text;
        }
        escaped = in_text && char == '\\' && !escaped;
        swapped
    };
    text.chars().map(swap).collect()
}

/// The points of a text of `<point>` tags and nothing else but separators; `None` if it does not begin with one, and nothing in
/// it if a tag is malformed.
fn tagged(text: &str) -> Option<Option<Vec<Value>>> {
    const TAG: &str = "<point";
    text.starts_with(TAG).then_some(())?;
    let mut points = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let Some((point, after)) = rest.strip_prefix(TAG).and_then(tagged_point) else {
            return Some(None);
        };
        points.push(point);
        rest = after.trim_start_matches(|char: char| char.is_whitespace() || char == ',');
    }
    Some(Some(points))
}

/// The point of a tag, whose name was read, and what follows the tag.
fn tagged_point(text: &str) -> Option<(Value, &str)> {
    let (attributes, rest) = text.split_once('>')?;
    let attribute = |name: &str| {
        let (_, value) = attributes.split_once(&format!(" {name}=\""))?;
        value.split_once('"')?.0.trim().parse::<f64>().ok()
    };
    let pair = || Some(Value::from(vec![attribute("x")?, attribute("y")?]));
    if attributes.ends_with('/') {
        return Some((pair()?, rest));
    }
    let (inner, rest) = rest.split_once("</point>")?;
    let point = match attributes.trim() {
        "" => {
            let inner = inner.trim().trim_start_matches(['(', '[']).trim_end_matches([')', ']']);
            let separates = |char: char| char == ',' || char.is_whitespace();
            let parts = inner.split(separates).filter(|part| !part.is_empty());
            let numbers: Option<Vec<f64>> = parts.map(|part| part.parse().ok()).collect();
            Value::from(numbers?)
        }
        _ => pair()?,
    };
    Some((point, rest))
}

#[cfg(test)]
mod tests;
