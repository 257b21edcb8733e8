//! Paths in an image, with depths or without.

use serde_json::{Map, Value};

use super::kind::{Case, Drawing, Kind, Mark, with_reason};
use super::text;
use crate::pointing::geometry::resampled;
use crate::pointing::notation::{self, NotationError, Point};
use crate::pointing::{Grid, PointingRewards};
use crate::score::Score;

/// A path.
pub(super) static TRACE: Kind = Kind {
    names: &["trace"],
    questions: "questions with traces as answers",
    score: |case| score(case, notation::points, compared).unwrap_or_else(|score| score),
    answer: text::answer,
    drawing: Some(drawing),
};

/// A path with depths.
pub(super) static TRACE_3D: Kind = Kind {
    names: &["trace_3d"],
    questions: "questions with traces as answers",
    score: |case| {
        score(case, notation::points_with_depth, compared_3d).unwrap_or_else(|score| score)
    },
    answer: text::answer,
    drawing: Some(drawing),
};

/// What another number of points than the true path's costs.
const LENGTH_PENALTY: f64 = 0.35;

fn score(
    case: &Case<'_>,
    read: fn(&str, Grid) -> Result<Vec<Point>, NotationError>,
    compared: fn(&[Point], &[Point], &PointingRewards) -> Score,
) -> Result<Score, Score> {
    let grid = case.grid()?;
    let target = read(case.solution, grid).map_err(|_| case.invalid("no trace"))?;
    let path = case.answer(|text| read(text, grid))?;
    Ok(match path.len() {
        0 | 1 => Score::zero("a trace has at least two points"),
        _ => compared(&path, &target, case.pointing),
    })
}

/// The score of a path of at least two points: by the root mean square of the distances of points in pairs. Of paths of unequal
/// lengths, both are interpolated to the longer, which costs 0.35.
pub(crate) fn compared(path: &[Point], target: &[Point], rewards: &PointingRewards) -> Score {
    let error = rms_distance(path, target);
    let reward = rewards.trace.of_image().reward(error);
    shortened(reward, path, target, format!("at a root mean square distance of {error:.1}"))
}

/// The score of a path with depths: half as [`compared`], half by the mean error of the depths.
pub(crate) fn compared_3d(path: &[Point], target: &[Point], rewards: &PointingRewards) -> Score {
    let (error, depth_error) = (rms_distance(path, target), mean_depth_error(path, target));
    let of_image = rewards.trace_3d.of_image().reward(error);
    let of_depth = rewards.trace_3d.of_depth().reward(depth_error);
    let reason =
        format!("at a root mean square distance of {error:.1}, {depth_error:.3} m off in depth");
    shortened((of_image + of_depth) / 2.0, path, target, reason)
}

fn shortened(reward: f64, path: &[Point], target: &[Point], reason: String) -> Score {
    if path.len() == target.len() {
        return with_reason(reward, || reason);
    }
    let lengths = format!("{reason}; {} points for {}", path.len(), target.len());
    with_reason((reward - LENGTH_PENALTY).max(0.0), || lengths)
}

/// Two paths' values in pairs, both interpolated to the longer.
fn pairs(a: &[Point], b: &[Point], value: impl Fn(&Point) -> f64) -> Vec<(f64, f64)> {
    let count = a.len().max(b.len());
    let of = |path: &[Point]| resampled(&path.iter().map(&value).collect::<Vec<_>>(), count);
    of(a).into_iter().zip(of(b)).collect()
}

fn rms_distance(a: &[Point], b: &[Point]) -> f64 {
    let squares = |value: fn(&Point) -> f64| -> f64 {
        pairs(a, b, value).into_iter().map(|(a, b)| (a - b).powi(2)).sum()
    };
    let total = squares(|point| point.place.x) + squares(|point| point.place.y);
    (total / a.len().max(b.len()) as f64).sqrt()
}

fn mean_depth_error(a: &[Point], b: &[Point]) -> f64 {
    let pairs = pairs(a, b, |point| point.depth.unwrap_or(f64::NAN));
    let count = pairs.len() as f64;
    pairs.into_iter().map(|(a, b)| (a - b).abs()).sum::<f64>() / count
}

fn drawing(answer: &str, columns: Option<&Map<String, Value>>) -> Option<Drawing> {
    let path = notation::points(answer, Grid::of_columns(columns).ok()?).ok()?;
    Some(vec![Mark::Path(path.into_iter().map(|point| point.place).collect())])
}
