//! Captions parsed into numbers, the only input of reasoning about a video.

use embodied_r_data::prompts::FrameText;
use embodied_r_data::scene::VisibleObject;

/// The frames of a video as described by their captions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaptionTrace {
    /// In order.
    pub frames: Vec<Frame>,
}

/// One frame of a [`CaptionTrace`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The movement since the previous frame; `None` for the first.
    pub action: Option<Action>,
    /// The objects that are visible.
    pub seen: Vec<VisibleObject>,
}

/// A movement between two frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Action {
    /// The caption's wording.
    pub text: String,
    /// The rotation in degrees, left positive.
    pub turn_deg: i32,
}

impl Action {
    /// The wording up to its first part: the rotation, or the move if there is none.
    pub fn rotation(&self) -> &str {
        self.text.split_once(" and ").map_or(&self.text, |(rotation, _)| rotation)
    }
}

impl CaptionTrace {
    /// Parses captions in the format of `data::scene`; `None` for any other format.
    pub fn from_captions(captions: &[FrameText]) -> Option<Self> {
        let frames = captions.iter().enumerate().map(|(index, FrameText { action, view })| {
            let action = match (index, action) {
                (0, None) => None,
                (0, Some(_)) | (_, None) => return None,
                (_, Some(text)) => Some(Action { text: text.clone(), turn_deg: parse_turn(text)? }),
            };
            Some(Frame { action, seen: parse_view(view)? })
        });
        let frames = frames.collect::<Option<Vec<_>>>()?;
        (!frames.is_empty()).then_some(Self { frames })
    }

    /// The bearing of `name` in frame `index`.
    pub fn bearing_in(&self, index: usize, name: &str) -> Option<i32> {
        self.frames.get(index)?.seen.iter().find(|seen| seen.name == name).map(|s| s.bearing_deg)
    }

    /// Frame and bearing at which `name` is first visible.
    pub fn first_sight(&self, name: &str) -> Option<(usize, i32)> {
        (0..self.frames.len()).find_map(|frame| Some((frame, self.bearing_in(frame, name)?)))
    }

    /// Frame and bearing at which `name` is last visible.
    pub fn last_sight(&self, name: &str) -> Option<(usize, i32)> {
        (0..self.frames.len()).rev().find_map(|frame| Some((frame, self.bearing_in(frame, name)?)))
    }

    /// Frame and bearing at which `name` is last faced: within 10 degrees of straight ahead.
    pub fn last_faced(&self, name: &str) -> Option<(usize, i32)> {
        (0..self.frames.len()).rev().find_map(|frame| {
            let bearing = self.bearing_in(frame, name).filter(|bearing| faced(*bearing))?;
            Some((frame, bearing))
        })
    }
}

/// Whether an object at this bearing is within 10 degrees of straight ahead.
pub(crate) fn faced(bearing_deg: i32) -> bool {
    bearing_deg.abs() <= 10
}

/// The captions in a perceived prompt: its lines `Frame 0: Observe: …` and
/// `Frame 1: After …, Observe: …`. `None` without captions or for a malformed line.
pub fn captions_in(prompt: &str) -> Option<Vec<FrameText>> {
    let mut captions = Vec::new();
    for line in prompt.lines() {
        let Some(rest) = line.strip_prefix(&format!("Frame {}: ", captions.len())) else {
            continue;
        };
        captions.push(match rest.strip_prefix("After ") {
            Some(rest) => {
                let (action, view) = rest.split_once(", Observe: ")?;
                FrameText { action: Some(action.to_owned()), view: view.to_owned() }
            }
            None => FrameText { action: None, view: rest.strip_prefix("Observe: ")?.to_owned() },
        });
    }
    (!captions.is_empty()).then_some(captions)
}

/// A bearing as text: `ahead`, `left 30`, `right 120`, `behind`.
pub fn bearing_text(bearing_deg: i32) -> String {
    match bearing_deg {
        0 => "ahead".to_owned(),
        180 | -180 => "behind".to_owned(),
        left if left > 0 => format!("left {left}"),
        right => format!("right {}", -right),
    }
}

/// Parses `ahead`, `left 30`, `right 30` or `behind`.
pub(crate) fn parse_bearing(text: &str) -> Option<i32> {
    match text {
        "ahead" => return Some(0),
        "behind" => return Some(180),
        _ => {}
    }
    let (side, degrees) = text.split_once(' ')?;
    let degrees: i32 = degrees.parse().ok().filter(|degrees| (0..=180).contains(degrees))?;
    match side {
        "left" => Some(degrees),
        "right" => Some(-degrees),
        _ => None,
    }
}

/// The rotation in an action such as `rotate left 60 and move forward 1 m`, 0 for none.
fn parse_turn(action: &str) -> Option<i32> {
    let mut turn = 0;
    for part in action.split(" and ") {
        if let Some(rotation) = part.strip_prefix("rotate ") {
            turn += parse_bearing(rotation)?;
        } else if part != "stay" {
            let (way, metres) = part.strip_prefix("move ")?.strip_suffix(" m")?.split_once(' ')?;
            let known = ["forward", "backward", "left", "right"].contains(&way);
            (known && metres.parse::<u32>().is_ok()).then_some(())?;
        }
    }
    Some(turn)
}

/// Parses a view such as `chair left 30, 2 m; lamp ahead, 4 m`.
fn parse_view(view: &str) -> Option<Vec<VisibleObject>> {
    if view == "nothing" {
        return Some(Vec::new());
    }
    let object = |text: &str| {
        let (direction, metres) = text.split_once(", ")?;
        let (name, bearing) = direction.split_once(' ')?;
        Some(VisibleObject {
            name: name.to_owned(),
            bearing_deg: parse_bearing(bearing)?,
            distance_m: metres.strip_suffix(" m")?.parse().ok()?,
        })
    };
    view.split("; ").map(object).collect()
}

#[cfg(test)]
mod tests {
    use embodied_r_data::prompts::{CaptionStyle, perceived_prompt};
    use proptest::prelude::*;

    use super::*;
    use crate::captions::captions_at;
    use crate::world::{draw, keyframes_by_pose};

    fn caption(action: Option<&str>, view: &str) -> FrameText {
        FrameText { action: action.map(str::to_owned), view: view.to_owned() }
    }

    #[test]
    fn captions_are_parsed_into_numbers() {
        let trace = CaptionTrace::from_captions(&[
            caption(None, "chair left 30, 2 m; lamp ahead, 4 m"),
            caption(Some("rotate right 90 and move forward 1 m"), "nothing"),
            caption(Some("move left 1 m"), "chair right 10, 3 m"),
        ])
        .unwrap();
        assert_eq!(trace.first_sight("chair"), Some((0, 30)));
        assert_eq!(trace.last_sight("chair"), Some((2, -10)));
        assert_eq!(trace.last_faced("lamp"), Some((0, 0)));
        let turns = trace.frames.iter().map(|frame| frame.action.as_ref().map(|a| a.turn_deg));
        assert_eq!(turns.collect::<Vec<_>>(), [None, Some(-90), Some(0)]);
    }

    #[test]
    fn captions_in_another_format_are_rejected() {
        for (action, view) in [
            (Some("fly upwards"), "nothing"),
            (None, "nothing"),
            (Some("rotate left 60"), "a chair stands to the left"),
            (Some("rotate left far"), "nothing"),
        ] {
            let captions = [caption(None, "nothing"), caption(action, view)];
            assert_eq!(CaptionTrace::from_captions(&captions), None, "{action:?} {view}");
        }
    }

    #[test]
    fn captions_round_trip_through_a_perceived_prompt() {
        for seed in 0..50 {
            let scene = draw(&[seed]);
            let captions = captions_at(&scene, &keyframes_by_pose(&scene));
            let prompt = perceived_prompt(
                &captions,
                "Question: Where?\n\nChoices:\nA. here",
                CaptionStyle::Bearings,
            );
            assert_eq!(captions_in(&prompt), Some(captions));
        }
        assert_eq!(captions_in("Question: Where?"), None);
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_parser(action in "\\PC{0,30}", view in "\\PC{0,60}") {
            let captions = [caption(None, &view), caption(Some(&action), &view)];
            if let Some(trace) = CaptionTrace::from_captions(&captions) {
                prop_assert_eq!(trace.frames.len(), 2);
            }
            captions_in(&format!("Frame 0: {view}\nFrame 1: After {action}, Observe: {view}"));
        }
    }
}
