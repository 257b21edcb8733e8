//! Points in an image.

use serde_json::{Map, Value};

use super::kind::{Case, Drawing, Kind, Mark, with_reason};
use super::text;
use crate::pointing::geometry::{Place, mean_nearest_distance};
use crate::pointing::notation;
use crate::pointing::target::{Region, Shape, Target};
use crate::pointing::{Grid, PointReward};
use crate::score::Score;

/// One or more points.
pub(super) static POINT: Kind = Kind {
    names: &["point", "points"],
    questions: "questions with points as answers",
    score: |case| score(case).unwrap_or_else(|score| score),
    answer: text::answer,
    drawing: Some(drawing),
};

/// What another number of points than the question asks for costs.
const COUNT_PENALTY: f64 = 0.3;

/// The share of the points in any of the true regions, or else by their mean distance to the nearest true point. Another number
/// of points than the reference answer's `count` costs 0.3. With `recall`, the harmonic mean with the share of the regions that
/// have a point, or with the same of the true points' mean distance to the nearest answered one.
fn score(case: &Case<'_>) -> Result<Score, Score> {
    let grid = case.grid()?;
    let target = Target::parse(case.solution, grid);
    let target = target.ok_or_else(|| case.invalid("neither points nor regions"))?;
    let points = case.answer(|text| notation::points(text, grid))?;
    let places: Vec<Place> = points.iter().map(|point| point.place).collect();
    Ok(compared(&places, &target, case.pointing.point))
}

/// The score of points, at least one.
pub(crate) fn compared(points: &[Place], target: &Target, reward: PointReward) -> Score {
    let (precision, mut reason) = match &target.shape {
        Shape::Regions(regions) => {
            let is_inside = |place: &&Place| regions.iter().any(|region| region.contains(**place));
            let inside = points.iter().filter(is_inside).count();
            let reason = format!("{inside} of {} points are inside", points.len());
            (inside as f64 / points.len() as f64, reason)
        }
        Shape::Places(places) => {
            let distance = mean_nearest_distance(points, places);
            (reward.of_distance().reward(distance), format!("at a mean distance of {distance:.1}"))
        }
    };
    let mut value = precision;
    if reward.recall {
        let (recall, found) = recall(points, &target.shape, reward);
        value = harmonic_mean(precision, recall);
        reason += &found;
    }
    if let Some(count) = target.count.filter(|count| *count != points.len()) {
        value = (value - COUNT_PENALTY).max(0.0);
        reason += &format!("; {} points for {count}", points.len());
    }
    with_reason(value, || reason)
}

/// How much of the target the points reach, and the words for it.
fn recall(points: &[Place], shape: &Shape, reward: PointReward) -> (f64, String) {
    match shape {
        Shape::Regions(regions) => {
            let is_found = |region: &&Region| points.iter().any(|place| region.contains(*place));
            let found = regions.iter().filter(is_found).count();
            let words = format!("; {found} of {} regions have one", regions.len());
            (found as f64 / regions.len() as f64, words)
        }
        Shape::Places(places) => {
            let distance = mean_nearest_distance(places, points);
            let words = format!("; true points at one of {distance:.1}");
            (reward.of_distance().reward(distance), words)
        }
    }
}

fn harmonic_mean(a: f64, b: f64) -> f64 {
    if a + b > 0.0 { 2.0 * a * b / (a + b) } else { 0.0 }
}

fn drawing(answer: &str, columns: Option<&Map<String, Value>>) -> Option<Drawing> {
    let grid = Grid::of_columns(columns).ok()?;
    Some(match Target::parse(answer, grid)?.shape {
        Shape::Places(places) => places.into_iter().map(Mark::Point).collect(),
        Shape::Regions(regions) => {
            let mark = |region| match region {
                Region::Polygon(corners) => Mark::Polygon(corners),
                Region::Rectangle(rectangle) => Mark::Box(rectangle),
            };
            regions.into_iter().map(mark).collect()
        }
    })
}
