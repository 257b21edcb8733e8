//! Reasoning from captions to an answer, in short statements of a regular language.

use embodied_r_data::prompts::{FrameText, question_part};

use crate::ask::{Ask, Moment, letter, parse_with_choices, step_text};
use crate::geometry::wrap_whole;
use crate::trace::{Trace, bearing_text, captions_in};

/// Reasoning about a question, and where it leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rationale {
    /// The statements; the last one is `so …`, naming the option's content.
    pub think: String,
    /// The letter of that option.
    pub answer: char,
}

impl Rationale {
    /// What a model is to write: `<think>…</think><answer>B</answer>`.
    pub fn completion(&self) -> String {
        format!("<think>{}</think><answer>{}</answer>", self.think, self.answer)
    }
}

/// Reasons about a question of [`crate::Category`], given as `Question: …` with its choices, from
/// the frames' captions alone. `None` where the captions do not support any of the options, or
/// either text has another form than this crate's.
///
/// What the captions say need not be true; compare [`Rationale::answer`] with the known answer
/// before learning from it.
pub fn rationale(question: &str, captions: &[FrameText]) -> Option<Rationale> {
    let (ask, options) = parse_with_choices(question)?;
    reason(&ask, &options, &Trace::from_captions(captions)?)
}

/// [`rationale`] for a whole perceived prompt, which holds the captions and the question.
pub fn rationale_in_prompt(prompt: &str) -> Option<Rationale> {
    rationale(question_part(prompt), &captions_in(prompt)?)
}

/// The rationale for `ask` with `options` from what `trace` says.
pub(crate) fn reason(ask: &Ask, options: &[String], trace: &Trace) -> Option<Rationale> {
    let (mut statements, content) = match ask {
        Ask::Order { names } => order(names, trace)?,
        Ask::Position { name } => position(name, trace, Quadrant::place)?,
        Ask::Action { name } => position(name, trace, Quadrant::action)?,
        Ask::Progress { route } => progress(route, trace)?,
        Ask::Counterfactual { moment, turn_deg } => {
            counterfactual(*moment, *turn_deg, options, trace)?
        }
        Ask::Direction { stand, face, target } => direction(stand, face, target, trace)?,
        Ask::Distance { to, among } => distance(to, among, trace)?,
    };
    let answer = letter(options.iter().position(|option| *option == content)?);
    statements.push(format!("so {content}."));
    Some(Rationale { think: statements.join(" "), answer })
}

/// Statements, and the content of the option that they lead to.
type Reasoning = (Vec<String>, String);

/// A quarter of the view all round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Quadrant {
    Ahead,
    Left,
    Right,
    Behind,
}

impl Quadrant {
    pub(crate) const ALL: [Self; 4] = [Self::Ahead, Self::Left, Self::Right, Self::Behind];

    /// The quadrant of a bearing; the borders lie at 45° and 135° to either side.
    pub(crate) fn of(bearing_deg: f64) -> Self {
        match bearing_deg {
            bearing if bearing.abs() <= 45.0 => Self::Ahead,
            bearing if bearing.abs() >= 135.0 => Self::Behind,
            bearing if bearing > 0.0 => Self::Left,
            _ => Self::Right,
        }
    }

    /// The option of a landmark question.
    pub(crate) fn place(self) -> &'static str {
        match self {
            Self::Ahead => "ahead",
            Self::Left => "left",
            Self::Right => "right",
            Self::Behind => "behind",
        }
    }

    /// The option of an action question: what brings one nearer to something there.
    pub(crate) fn action(self) -> &'static str {
        match self {
            Self::Ahead => "move forward",
            Self::Left => "rotate left",
            Self::Right => "rotate right",
            Self::Behind => "turn around",
        }
    }
}

/// The last sight of `name`, carried through every later turn: the statements, and the bearing at
/// the end. A move without turn leaves the bearing as it is.
pub(crate) fn carried(name: &str, trace: &Trace) -> Option<(Vec<String>, i32)> {
    let (seen, mut bearing) = trace.last_sight(name)?;
    let mut statements = vec![format!("last {name}: frame {seen} {}.", bearing_text(bearing))];
    for (frame, then) in trace.frames.iter().enumerate().skip(seen + 1) {
        let action = then.action.as_ref()?;
        bearing = wrap_whole(bearing - action.turn_deg);
        statements.push(format!("frame {frame} {}: {}.", action.text, bearing_text(bearing)));
    }
    Some((statements, bearing))
}

fn position(name: &str, trace: &Trace, option: fn(Quadrant) -> &'static str) -> Option<Reasoning> {
    let (statements, bearing) = carried(name, trace)?;
    Some((statements, option(Quadrant::of(f64::from(bearing))).to_owned()))
}

fn order(names: &[String], trace: &Trace) -> Option<Reasoning> {
    let mut firsts = Vec::with_capacity(names.len());
    for name in names {
        firsts.push((trace.first_sight(name)?.0, name.as_str()));
    }
    let statements = firsts.iter().map(|(frame, name)| first_text(name, *frame)).collect();
    firsts.sort_unstable();
    // Two that come into view in the same frame have no order that the captions tell.
    let distinct = firsts.windows(2).all(|pair| pair[0].0 != pair[1].0);
    let ordered: Vec<_> = firsts.iter().map(|(_, name)| *name).collect();
    distinct.then(|| (statements, ordered.join(", ")))
}

/// `first lamp: frame 3.`
pub(crate) fn first_text(name: &str, frame: usize) -> String {
    format!("first {name}: frame {frame}.")
}

fn progress(route: &[String], trace: &Trace) -> Option<Reasoning> {
    let faced: Vec<_> = route.iter().map(|name| trace.last_faced(name)).collect();
    let statements =
        route.iter().zip(&faced).map(|(name, frame)| faced_text(name, *frame)).collect();
    let (_, last) =
        faced.iter().zip(route).filter_map(|(frame, name)| Some(((*frame)?, name))).max()?;
    Some((statements, step_text(last)))
}

/// `faced lamp: frame 3.` or `faced lamp: none.`
pub(crate) fn faced_text(name: &str, frame: Option<usize>) -> String {
    match frame {
        Some(frame) => format!("faced {name}: frame {frame}."),
        None => format!("faced {name}: none."),
    }
}

/// `heading: 0 ahead, 1 left 60, 2 left 150.` for the frames up to `last`.
pub(crate) fn headings_text(trace: &Trace, last: usize) -> String {
    let headings = trace.headings();
    let told: Vec<_> = headings
        .iter()
        .enumerate()
        .take(last + 1)
        .map(|(frame, heading)| format!("{frame} {}", bearing_text(*heading)))
        .collect();
    format!("heading: {}.", told.join(", "))
}

/// Where `name` is seen from, and its bearing from the heading of frame 0, from its first sight:
/// `lamp: frame 2 left 150, right 30: left 120`.
pub(crate) fn placed(name: &str, trace: &Trace) -> Option<(String, i32)> {
    let (frame, bearing) = trace.first_sight(name)?;
    let heading = *trace.headings().get(frame)?;
    let place = wrap_whole(heading + bearing);
    let [heading, bearing, told] = [heading, bearing, place].map(bearing_text);
    Some((format!("{name}: frame {frame} {heading}, {bearing}: {told}"), place))
}

/// The last frame that a statement about the places of `names` needs the heading of.
fn last_needed<'a>(names: impl IntoIterator<Item = &'a String>, trace: &Trace) -> Option<usize> {
    let frames: Option<Vec<_>> =
        names.into_iter().map(|name| Some(trace.first_sight(name)?.0)).collect();
    frames?.into_iter().max()
}

/// Each of `names` with its angle off `from_deg`: the statements, and the name with the least.
/// `None` where two share the least.
fn nearest(names: &[String], from_deg: i32, trace: &Trace) -> Option<Reasoning> {
    let mut statements = Vec::with_capacity(names.len());
    let mut angles = Vec::with_capacity(names.len());
    for name in names {
        let (text, place) = placed(name, trace)?;
        let off = wrap_whole(place - from_deg).abs();
        statements.push(format!("{text}, off {off}."));
        angles.push((off, name));
    }
    angles.sort_unstable();
    let clear = angles.windows(2).next().is_none_or(|two| two[0].0 < two[1].0);
    let (_, name) = angles.first()?;
    clear.then(|| (statements, (*name).clone()))
}

fn counterfactual(
    moment: Moment,
    turn_deg: i32,
    options: &[String],
    trace: &Trace,
) -> Option<Reasoning> {
    let headings = trace.headings();
    let (then, last) = match moment {
        Moment::Start => (0, last_needed(options, trace)?),
        Moment::End => (*headings.last()?, headings.len() - 1),
    };
    let target = wrap_whole(then + turn_deg);
    let (mut told, name) = nearest(options, target, trace)?;
    let mut statements = vec![headings_text(trace, last)];
    statements.push(format!("target {}.", bearing_text(target)));
    statements.append(&mut told);
    Some((statements, name))
}

/// One who stands at `stand` and faces `face` looks across the camera's place where the two are
/// opposite each other; the turn from `face` to `target` is then the same side as from there.
fn direction(stand: &str, face: &str, target: &str, trace: &Trace) -> Option<Reasoning> {
    let names = [stand, face, target].map(str::to_owned);
    let mut statements = vec![headings_text(trace, last_needed(&names, trace)?)];
    let mut places = Vec::with_capacity(names.len());
    for name in &names {
        let (text, place) = placed(name, trace)?;
        statements.push(format!("{text}."));
        places.push(place);
    }
    let across = wrap_whole(places[0] - places[1]).abs();
    let turn = wrap_whole(places[2] - places[1]);
    if across < 140 || turn == 0 || turn == 180 {
        return None;
    }
    statements.push(format!("{face} to {target}: {}.", bearing_text(turn)));
    Some((statements, if turn > 0 { "left" } else { "right" }.to_owned()))
}

/// With the objects all round the camera, the closest is the one at the least angle.
fn distance(to: &str, among: &[String], trace: &Trace) -> Option<Reasoning> {
    let mut names = among.to_vec();
    names.push(to.to_owned());
    let mut statements = vec![headings_text(trace, last_needed(&names, trace)?)];
    let (text, place) = placed(to, trace)?;
    statements.push(format!("{text}."));
    let (mut told, name) = nearest(among, place, trace)?;
    statements.append(&mut told);
    Some((statements, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn captions() -> Vec<FrameText> {
        [
            (None, "lamp left 10, 3 m"),
            (Some("rotate left 60"), "bed left 40, 2 m; lamp right 50, 3 m"),
            (Some("rotate left 90"), "sofa ahead, 3 m"),
            (Some("rotate right 30 and move forward 1 m"), "sofa left 30, 3 m; bed right 20, 2 m"),
        ]
        .map(|(action, view)| FrameText {
            action: action.map(str::to_owned),
            view: view.to_owned(),
        })
        .to_vec()
    }

    fn solve(question: &str) -> Option<Rationale> {
        rationale(question, &captions())
    }

    #[test]
    fn a_position_is_carried_through_the_turns() {
        let found = solve(
            "Question: When you reach the current location, where is the lamp relative to you?\n\n\
             Choices:\nA. left\nB. right\nC. ahead\nD. behind",
        )
        .unwrap();
        assert_eq!(
            found.completion(),
            "<think>last lamp: frame 1 right 50. frame 2 rotate left 90: right 140. \
             frame 3 rotate right 30 and move forward 1 m: right 110. so right.</think>\
             <answer>B</answer>"
        );
    }

    #[test]
    fn an_order_is_told_by_first_frames() {
        let found = solve(
            "Question: What will be the first-time appearance order of the following categories \
             in the video: sofa, lamp, bed?\n\nChoices:\nA. lamp, bed, sofa\nB. sofa, lamp, bed",
        )
        .unwrap();
        assert_eq!(
            found.think,
            "first sofa: frame 2. first lamp: frame 0. first bed: frame 1. so lamp, bed, sofa."
        );
        assert_eq!(found.answer, 'A');
    }

    #[test]
    fn progress_is_the_last_step_that_was_faced() {
        let found = solve(
            "Question: You are asked to follow this route: face the lamp, face the sofa, face the \
             bed. Which step have you done last?\n\nChoices:\nA. face the bed\nB. face the sofa\n\
             C. face the lamp",
        )
        .unwrap();
        assert_eq!(
            found.think,
            "faced lamp: frame 0. faced sofa: frame 2. faced bed: none. so face the sofa."
        );
        assert_eq!(found.answer, 'B');
    }

    #[test]
    fn a_counterfactual_turn_is_compared_with_places() {
        let found = solve(
            "Question: If you had rotated left 90 at the start instead, which of these objects \
             would be nearest to straight ahead?\n\nChoices:\nA. lamp\nB. bed\nC. sofa",
        )
        .unwrap();
        assert_eq!(
            found.think,
            "heading: 0 ahead, 1 left 60, 2 left 150. target left 90. \
             lamp: frame 0 ahead, left 10: left 10, off 80. \
             bed: frame 1 left 60, left 40: left 100, off 10. \
             sofa: frame 2 left 150, ahead: left 150, off 60. so bed."
        );
        assert_eq!(found.answer, 'B');
    }

    #[test]
    fn there_is_no_rationale_without_support() {
        for question in [
            "Question: When you reach the current location, where is the desk relative to you?\n\n\
             Choices:\nA. left\nB. right\nC. ahead\nD. behind",
            "Question: When you reach the current location, where is the lamp relative to you?\n\n\
             Choices:\nA. left\nB. ahead",
            "Question: Why?\n\nChoices:\nA. left\nB. ahead",
        ] {
            assert_eq!(solve(question), None, "{question}");
        }
    }
}
