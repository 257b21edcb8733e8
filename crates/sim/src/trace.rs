//! What captions say, as figures: the only ground that reasoning about a video may stand on.

use embodied_r_data::prompts::FrameText;
use embodied_r_data::scene::Seen;

/// The frames of a video as their captions tell them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trace {
    pub(crate) frames: Vec<Frame>,
}

/// One frame of a [`Trace`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    /// How the camera came here; `None` for the first frame.
    pub(crate) action: Option<Action>,
    pub(crate) seen: Vec<Seen>,
}

/// A movement between two frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Action {
    /// As the caption words it.
    pub(crate) text: String,
    /// Left positive.
    pub(crate) turn_deg: i32,
}

impl Trace {
    /// Reads captions in the form of `data::scene`; `None` where a caption has another form.
    pub(crate) fn from_captions(captions: &[FrameText]) -> Option<Self> {
        let frames = captions.iter().enumerate().map(|(index, FrameText { action, view })| {
            let action = match (index, action) {
                (0, None) => None,
                (0, Some(_)) | (_, None) => return None,
                (_, Some(text)) => Some(Action { text: text.clone(), turn_deg: turn_of(text)? }),
            };
            Some(Frame { action, seen: seen_in(view)? })
        });
        let frames = frames.collect::<Option<Vec<_>>>()?;
        (!frames.is_empty()).then_some(Self { frames })
    }

    /// The bearing at which `name` is seen in frame `index`.
    pub(crate) fn bearing_in(&self, index: usize, name: &str) -> Option<i32> {
        self.frames.get(index)?.seen.iter().find(|seen| seen.name == name).map(|s| s.bearing_deg)
    }

    /// Frame and bearing of the first sight of `name`.
    pub(crate) fn first_sight(&self, name: &str) -> Option<(usize, i32)> {
        (0..self.frames.len()).find_map(|frame| Some((frame, self.bearing_in(frame, name)?)))
    }

    /// Frame and bearing of the last sight of `name`.
    pub(crate) fn last_sight(&self, name: &str) -> Option<(usize, i32)> {
        (0..self.frames.len()).rev().find_map(|frame| Some((frame, self.bearing_in(frame, name)?)))
    }

    /// The last frame in which `name` is [`faced`].
    pub(crate) fn last_faced(&self, name: &str) -> Option<usize> {
        (0..self.frames.len()).rev().find(|&frame| {
            self.frames[frame].seen.iter().any(|seen| seen.name == name && faced(seen))
        })
    }
}

/// Whether something is within 10 degrees of straight ahead.
pub(crate) fn faced(seen: &Seen) -> bool {
    seen.bearing_deg.abs() <= 10
}

/// The captions within a perceived prompt: its lines `Frame 0: Observe: …` and
/// `Frame 1: After …, Observe: …`. `None` where there are none, or one has no known action.
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

/// A bearing in words: `ahead`, `left 30`, `right 120`, `behind`.
pub(crate) fn bearing_text(bearing_deg: i32) -> String {
    match bearing_deg {
        0 => "ahead".to_owned(),
        180 | -180 => "behind".to_owned(),
        left if left > 0 => format!("left {left}"),
        right => format!("right {}", -right),
    }
}

/// The figure of `ahead`, `left 30` or `right 30`.
fn bearing_of(text: &str) -> Option<i32> {
    if text == "ahead" {
        return Some(0);
    }
    let (side, degrees) = text.split_once(' ')?;
    let degrees: i32 = degrees.parse().ok().filter(|degrees| (0..=180).contains(degrees))?;
    match side {
        "left" => Some(degrees),
        "right" => Some(-degrees),
        _ => None,
    }
}

/// The turn that an action such as `rotate left 60 and move forward 1 m` holds, 0 for none.
fn turn_of(action: &str) -> Option<i32> {
    let mut turn = 0;
    for part in action.split(" and ") {
        if let Some(rotation) = part.strip_prefix("rotate ") {
            turn += bearing_of(rotation)?;
        } else if part != "stay" {
            let (way, metres) = part.strip_prefix("move ")?.strip_suffix(" m")?.split_once(' ')?;
            let known = ["forward", "backward", "left", "right"].contains(&way);
            (known && metres.parse::<u32>().is_ok()).then_some(())?;
        }
    }
    Some(turn)
}

/// The objects of a view such as `chair left 30, 2 m; lamp ahead, 4 m`.
fn seen_in(view: &str) -> Option<Vec<Seen>> {
    if view == "nothing" {
        return Some(Vec::new());
    }
    let object = |text: &str| {
        let (place, metres) = text.split_once(", ")?;
        let (name, bearing) = place.split_once(' ')?;
        Some(Seen {
            name: name.to_owned(),
            bearing_deg: bearing_of(bearing)?,
            distance_m: metres.strip_suffix(" m")?.parse().ok()?,
        })
    };
    view.split("; ").map(object).collect()
}

#[cfg(test)]
mod tests {
    use embodied_r_data::prompts::perceived;
    use proptest::prelude::*;

    use super::*;
    use crate::captions::captions_at;
    use crate::world::{draw, keyframes_by_pose};

    fn caption(action: Option<&str>, view: &str) -> FrameText {
        FrameText { action: action.map(str::to_owned), view: view.to_owned() }
    }

    #[test]
    fn captions_are_read_back_as_figures() {
        let trace = Trace::from_captions(&[
            caption(None, "chair left 30, 2 m; lamp ahead, 4 m"),
            caption(Some("rotate right 90 and move forward 1 m"), "nothing"),
            caption(Some("move left 1 m"), "chair right 10, 3 m"),
        ])
        .unwrap();
        assert_eq!(trace.first_sight("chair"), Some((0, 30)));
        assert_eq!(trace.last_sight("chair"), Some((2, -10)));
        assert_eq!(trace.last_faced("lamp"), Some(0));
        let turns = trace.frames.iter().map(|frame| frame.action.as_ref().map(|a| a.turn_deg));
        assert_eq!(turns.collect::<Vec<_>>(), [None, Some(-90), Some(0)]);
    }

    #[test]
    fn captions_of_another_form_are_refused() {
        for (action, view) in [
            (Some("fly upwards"), "nothing"),
            (None, "nothing"),
            (Some("rotate left 60"), "a chair stands to the left"),
            (Some("rotate left far"), "nothing"),
        ] {
            let captions = [caption(None, "nothing"), caption(action, view)];
            assert_eq!(Trace::from_captions(&captions), None, "{action:?} {view}");
        }
    }

    #[test]
    fn captions_are_found_in_a_perceived_prompt() {
        for seed in 0..50 {
            let scene = draw(&[seed]);
            let captions = captions_at(&scene, &keyframes_by_pose(&scene));
            let prompt = perceived(&captions, "Question: Where?\n\nChoices:\nA. here");
            assert_eq!(captions_in(&prompt), Some(captions));
        }
        assert_eq!(captions_in("Question: Where?"), None);
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_reader(action in "\\PC{0,30}", view in "\\PC{0,60}") {
            let captions = [caption(None, &view), caption(Some(&action), &view)];
            if let Some(trace) = Trace::from_captions(&captions) {
                prop_assert_eq!(trace.frames.len(), 2);
            }
            captions_in(&format!("Frame 0: {view}\nFrame 1: After {action}, Observe: {view}"));
        }
    }
}
