//! Questions about where an object is in a frame, which are answered with a point or a box.
//!
//! Coordinates count thousandths of the frame's width and height, rounded to ten, about one pixel.

use std::str::FromStr;

use embodied_r_data::scene::{Pose, SceneObject, VisibleObject, view_text};
use embodied_r_random::Rng;

use super::{VIEW_SIZE, Views, focal_px, views};
use crate::geometry::{bearing_deg, floor_distance_m};

/// What coordinates are rounded to.
const STEP: f64 = 10.0;

/// The largest coordinate.
const SIDE: f64 = 1000.0;

/// Objects with a corner nearer than this, in metres, are not asked about: it would be far outside of the frame.
const NEAREST_M: f64 = 0.2;

/// What a question about a frame is answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ViewAnswer {
    /// The middle of an object.
    Point,
    /// The box around what the frame shows of an object.
    Box,
}

impl ViewAnswer {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Point, Self::Box];

    /// Its name, which is the question's category and `answer_type`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Point => "point",
            Self::Box => "box",
        }
    }

    /// The question about an object.
    fn question(self, object: &str) -> String {
        match self {
            Self::Point => format!("Where is the {object}? Answer with its middle as [x, y]."),
            Self::Box => format!("Where is the {object}? Answer with its box as [x1, y1, x2, y2]."),
        }
    }
}

impl FromStr for ViewAnswer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|answer| answer.name() == text);
        known.ok_or_else(|| format!("`{text}` is neither `point` nor `box`"))
    }
}

/// A question about where an object is in a frame.
#[derive(Debug, Clone, PartialEq)]
pub struct PointingQuestion {
    /// The room.
    pub views: Views,
    /// Index of the frame.
    pub frame: usize,
    /// What it is answered with.
    pub answer_type: ViewAnswer,
    /// The question.
    pub text: String,
    /// The correct answer: its numbers in a list.
    pub answer: String,
    /// What a truthful caption says of the object.
    pub rationale: String,
}

/// Where a frame shows an object.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Shown {
    /// The middle.
    at: [f64; 2],
    /// Left, upper, right and lower end, cut at the frame's edges.
    ends: [f64; 4],
}

/// Question `index` of `seed`, cycling through `answers`; `None` without them.
pub fn pointing_question(
    seed: u64,
    index: u64,
    answers: &[ViewAnswer],
) -> Option<PointingQuestion> {
    let turn = index.checked_rem(answers.len() as u64)?;
    let answer_type = *answers.get(turn as usize)?;
    (0..).find_map(|round: u64| {
        let mut rng = Rng::new(&[seed, index, 36, round]);
        let views = views(rng.next_u64(), index);
        let mut frames: Vec<usize> = (0..views.frames()).collect();
        rng.shuffle(&mut frames);
        let (frame, seen, shown) = frames.into_iter().find_map(|frame| {
            let objects = in_frame(&views, frame);
            let (seen, shown) = objects.get(rng.below(objects.len().max(1)))?;
            Some((frame, seen.clone(), *shown))
        })?;
        let numbers: &[f64] = match answer_type {
            ViewAnswer::Point => &shown.at,
            ViewAnswer::Box => &shown.ends,
        };
        let rounded = |number: &f64| format!("{:.0}", (number * SIDE / STEP).round() * STEP);
        let numbers: Vec<String> = numbers.iter().map(rounded).collect();
        Some(PointingQuestion {
            text: answer_type.question(&seen.name),
            answer: format!("[{}]", numbers.join(", ")),
            rationale: format!("{}.", view_text(&[seen])),
            views,
            frame,
            answer_type,
        })
    })
}

/// The objects visible in a frame, and where it shows them.
fn in_frame(views: &Views, frame: usize) -> Vec<(VisibleObject, Shown)> {
    let Some(pose) = views.scene.camera.get(frame) else { return Vec::new() };
    let focal_px = focal_px(&views.scene);
    let visible = views.scene.visible_from(pose).into_iter();
    let shown = visible.filter_map(|seen| {
        let object = views.scene.objects.iter().find(|it| it.name == seen.name)?;
        Some((seen, shown(object, pose, focal_px)?))
    });
    shown.collect()
}

/// Where a frame shows an object; `None` if it is too near or its middle is outside.
fn shown(object: &SceneObject, pose: &Pose, focal_px: f64) -> Option<Shown> {
    let at = projected(object.center_m, object, pose, focal_px)?;
    let mut ends = [f64::INFINITY, f64::INFINITY, f64::NEG_INFINITY, f64::NEG_INFINITY];
    for corner in 0..8 {
        let offset = |axis: usize| {
            let half = object.size_m[axis] / 2.0;
            if corner >> axis & 1 == 0 { -half } else { half }
        };
        let place = [0, 1, 2].map(|axis| object.center_m[axis] + offset(axis));
        let [x, y] = projected(place, object, pose, focal_px)?;
        ends = [ends[0].min(x), ends[1].min(y), ends[2].max(x), ends[3].max(y)];
    }
    let is_inside = at.iter().all(|part| (0.0..1.0).contains(part));
    is_inside.then(|| Shown { at, ends: ends.map(|end| end.clamp(0.0, 1.0)) })
}

/// Where a place near an object is shown, as fractions of the frame's width and height; `None` if it is too near.
fn projected(
    place: [f64; 3],
    object: &SceneObject,
    pose: &Pose,
    focal_px: f64,
) -> Option<[f64; 2]> {
    let (width, height) = VIEW_SIZE;
    let at = SceneObject { center_m: place, ..object.clone() };
    let bearing = bearing_deg(pose, &at).to_radians();
    let distance_m = floor_distance_m(place, pose.position_m);
    let (ahead_m, left_m) = (distance_m * bearing.cos(), distance_m * bearing.sin());
    (ahead_m >= NEAREST_M).then(|| {
        let up_m = place[2] - pose.position_m[2];
        let pixels = [-left_m, -up_m].map(|offset_m| focal_px * offset_m / ahead_m);
        [0.5 + pixels[0] / width as f64, 0.5 + pixels[1] / height as f64]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_take_turns_and_are_the_same_again() {
        for index in 0..40 {
            let question = pointing_question(3, index, &ViewAnswer::ALL).unwrap();
            assert_eq!(question, pointing_question(3, index, &ViewAnswer::ALL).unwrap());
            assert_eq!(question.answer_type, ViewAnswer::ALL[index as usize % 2]);
            let numbers: Vec<f64> = serde_json::from_str(&question.answer).unwrap();
            assert_eq!(numbers.len(), if index % 2 == 0 { 2 } else { 4 });
            assert!(numbers.iter().all(|it| (0.0..=SIDE).contains(it) && it % STEP == 0.0));
            if let [x1, y1, x2, y2] = *numbers.as_slice() {
                assert!(x1 <= x2 && y1 <= y2, "{}", question.answer);
            }
        }
        assert_eq!(pointing_question(3, 0, &[]), None);
    }

    /// The middle and the box are where the renderer draws the object: without it, pixels of the box change, and few others do.
    #[test]
    fn the_box_is_where_the_object_is_drawn() {
        let (width, height) = VIEW_SIZE;
        let (mut inside, mut outside) = (0, 0);
        for index in 0..6 {
            let question = pointing_question(5, index, &[ViewAnswer::Box]).unwrap();
            let ends: Vec<f64> = serde_json::from_str(&question.answer).unwrap();
            let name =
                question.text.split(['?']).next().unwrap().trim_start_matches("Where is the ");
            let with = question.views.render(question.frame);
            let mut without = question.views.clone();
            // Below the floor it cannot be seen.
            let objects = without.scene.objects.iter_mut();
            objects.filter(|it| it.name == name).for_each(|object| object.center_m[2] = -9.0);
            let without = without.render(question.frame);
            for pixel in 0..width * height {
                let changed =
                    (0..3).any(|c| with[3 * pixel + c].abs_diff(without[3 * pixel + c]) > 8);
                let at = [(pixel % width) as f64 + 0.5, (pixel / width) as f64 + 0.5];
                let (x, y) = (at[0] / width as f64 * SIDE, at[1] / height as f64 * SIDE);
                // One pixel and the rounding around the box.
                let margin = STEP / 2.0 + SIDE / height as f64;
                let near = (ends[0] - margin..=ends[2] + margin).contains(&x)
                    && (ends[1] - margin..=ends[3] + margin).contains(&y);
                match (changed, near) {
                    (true, true) => inside += 1,
                    (true, false) => outside += 1,
                    _ => {}
                }
            }
        }
        assert!(inside > 300 && outside * 20 < inside, "{inside} inside, {outside} outside");
    }

    #[test]
    fn only_known_names_are_answers() {
        assert_eq!("box".parse(), Ok(ViewAnswer::Box));
        assert_eq!(
            "trace".parse::<ViewAnswer>().unwrap_err(),
            "`trace` is neither `point` nor `box`"
        );
    }
}
