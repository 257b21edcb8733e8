//! Reasoning from captions to an answer, in short statements of a regular language.
//!
//! The language suits a small decoder: what is looked up follows what it is looked up by (a bearing
//! its name, a letter its choice), operands stand beside their sum, and what matters is marked where
//! it is met.

use std::collections::HashMap;

use embodied_r_data::prompts::{FrameText, question_part};
use embodied_r_data::scene::{Seen, view_text};

use crate::ask::{Ask, Moment, letter, parse_with_choices, step_text};
use crate::geometry::wrap_whole;
use crate::trace::{Trace, bearing_text, captions_in, faced as is_faced};

/// Reasoning about a question, and where it leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rationale {
    /// The choices, each with its letter.
    pub choices: String,
    /// What the captions say that bears on the question; empty where the answer is given at once.
    pub grounds: String,
    /// The content and the letter of one choice.
    pub conclusion: String,
    /// The letter of that choice.
    pub answer: char,
}

impl Rationale {
    fn new(grounds: String, options: &[String], index: usize) -> Self {
        let answer = letter(index);
        let conclusion = options.get(index).map_or(String::new(), |option| so_text(option, answer));
        Self { choices: choices_text(options), grounds, conclusion, answer }
    }

    /// The same without its grounds, as one answers who does not look.
    pub fn at_once(self) -> Self {
        Self { grounds: String::new(), ..self }
    }

    /// The same grounds, but another one of `options` in the conclusion.
    pub(crate) fn concluding(self, options: &[String], index: usize) -> Self {
        Self::new(self.grounds, options, index)
    }

    /// All of the reasoning.
    pub fn think(&self) -> String {
        let parts = [&self.choices, &self.grounds, &self.conclusion].map(String::as_str);
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
    }

    /// What a model is to write: `<think>…</think><answer>B</answer>`.
    pub fn completion(&self) -> String {
        format!("<think>{}</think><answer>{}</answer>", self.think(), self.answer)
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
    let (statements, content) = match ask {
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
    let index = options.iter().position(|option| *option == content)?;
    Some(Rationale::new(statements.join(" "), options, index))
}

/// `choices: left A, ahead B.`
pub(crate) fn choices_text(options: &[String]) -> String {
    let told: Vec<_> = options
        .iter()
        .enumerate()
        .map(|(index, option)| format!("{option} {}", letter(index)))
        .collect();
    format!("choices: {}.", told.join(", "))
}

/// `so left A.`: the conclusion, followed by its letter as among the choices.
pub(crate) fn so_text(content: &str, answer: char) -> String {
    format!("so {content} {answer}.")
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
    let mut statements = vec![format!("last {}.", quoted(seen, name, trace)?)];
    for (frame, then) in trace.frames.iter().enumerate().skip(seen + 1) {
        let action = then.action.as_ref()?;
        bearing = wrap_whole(bearing - action.turn_deg);
        statements.push(format!("frame {frame} {}: {}.", action.text, bearing_text(bearing)));
    }
    Some((statements, bearing))
}

/// What the caption of a frame says from `name` on: `lamp left 30, 3 m; bed ahead, 2 m`. Its end is
/// followed by the next frame, with which the reasoning goes on.
pub(crate) fn quoted(frame: usize, name: &str, trace: &Trace) -> Option<String> {
    let seen = &trace.frames.get(frame)?.seen;
    let from = seen.iter().position(|seen| seen.name == name)?;
    Some(view_text(&seen[from..]))
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
    firsts.sort_unstable();
    // Two that come into view in the same frame have no order that the captions tell.
    let distinct = firsts.windows(2).all(|pair| pair[0].0 != pair[1].0);
    let ordered: Vec<_> = firsts.iter().map(|(_, name)| *name).collect();
    distinct.then(|| (vec![seen_text(names, trace)], ordered.join(", ")))
}

/// `seen: lamp yes, bed.`: everything, in the order in which it came into view, and which of it was
/// `asked` for.
pub(crate) fn seen_text(asked: &[String], trace: &Trace) -> String {
    let mut names: Vec<&String> = Vec::new();
    for seen in trace.frames.iter().flat_map(|frame| &frame.seen) {
        if !names.contains(&&seen.name) {
            names.push(&seen.name);
        }
    }
    let marked = names.into_iter().map(|name| match asked.contains(name) {
        true => format!("{name} yes"),
        false => name.clone(),
    });
    format!("seen: {}.", list_or_none(&marked.collect::<Vec<_>>()))
}

fn progress(route: &[String], trace: &Trace) -> Option<Reasoning> {
    let mut faced: Vec<_> =
        route.iter().filter_map(|name| Some((trace.last_faced(name)?, name))).collect();
    faced.sort_unstable();
    let (frame, last) = *faced.last()?;
    let clear = faced.iter().filter(|(other, _)| *other == frame).count() == 1;
    clear.then(|| (vec![faced_text(route, trace)], step_text(last)))
}

/// `faced: 0 lamp left 30, bed ahead yes. 1 none.`: what each frame shows, and which of `asked` was
/// within 10 degrees of straight ahead.
pub(crate) fn faced_text(asked: &[String], trace: &Trace) -> String {
    let object = |seen: &Seen| {
        let yes = if is_faced(seen) && asked.contains(&seen.name) { " yes" } else { "" };
        format!("{} {}{yes}", seen.name, bearing_text(seen.bearing_deg))
    };
    let frames = trace.frames.iter().enumerate().map(|(index, frame)| {
        let objects: Vec<_> = frame.seen.iter().map(object).collect();
        format!("{index} {}.", list_or_none(&objects))
    });
    format!("faced: {}", frames.collect::<Vec<_>>().join(" "))
}

/// The items with commas between them, or `none`.
pub(crate) fn list_or_none<T: AsRef<str>>(items: &[T]) -> String {
    match items {
        [] => "none".to_owned(),
        items => items.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(", "),
    }
}

/// Where things are, as bearings from the heading of frame 0.
pub(crate) struct Map {
    /// What was added up: `map: 0 ahead: ahead; lamp left 30: left 30. 1 left 60: left 60.` Each
    /// frame's turn and heading, then the bearings and places of what comes into view.
    pub(crate) text: String,
    /// The heading at the last frame.
    pub(crate) heading: i32,
    places: HashMap<String, i32>,
}

impl Map {
    /// The map of all frames.
    pub(crate) fn new(trace: &Trace) -> Self {
        let (mut heading, mut places) = (0, HashMap::new());
        let mut told = Vec::new();
        for (index, frame) in trace.frames.iter().enumerate() {
            let turn = frame.action.as_ref().map_or(0, |action| action.turn_deg);
            heading = wrap_whole(heading + turn);
            let mut text = format!("{index} {}: {}", bearing_text(turn), bearing_text(heading));
            let mut sign = ';';
            for seen in &frame.seen {
                if places.contains_key(&seen.name) {
                    continue;
                }
                let place = wrap_whole(heading + seen.bearing_deg);
                places.insert(seen.name.clone(), place);
                let [bearing, place] = [seen.bearing_deg, place].map(bearing_text);
                text.push_str(&format!("{sign} {} {bearing}: {place}", seen.name));
                sign = ',';
            }
            told.push(text);
        }
        Self { text: format!("map: {}.", told.join(". ")), heading, places }
    }

    /// `lamp left 30`, and the figure.
    pub(crate) fn place(&self, name: &str) -> Option<(String, i32)> {
        let place = *self.places.get(name)?;
        Some((format!("{name} {}", bearing_text(place)), place))
    }

    /// Each of `names` with its angle off `from_deg`: the statements, and the name with the least.
    /// `None` where two share the least.
    pub(crate) fn nearest(&self, names: &[String], from_deg: i32) -> Option<Reasoning> {
        let mut statements = Vec::with_capacity(names.len());
        let mut angles = Vec::with_capacity(names.len());
        for name in names {
            let (text, place) = self.place(name)?;
            let off = wrap_whole(place - from_deg).abs();
            statements.push(format!("{text}, off {off}."));
            angles.push((off, name));
        }
        angles.sort_unstable();
        let clear = angles.windows(2).next().is_none_or(|two| two[0].0 < two[1].0);
        let (_, name) = angles.first()?;
        clear.then(|| (statements, (*name).clone()))
    }
}

/// `target left 60, right 90: right 30.`: the heading, a turn, and where it leads.
pub(crate) fn target_text(heading: i32, turn_deg: i32) -> (String, i32) {
    let target = wrap_whole(heading + turn_deg);
    let [from, turn, to] = [heading, turn_deg, target].map(bearing_text);
    (format!("target {from}, {turn}: {to}."), target)
}

fn counterfactual(
    moment: Moment,
    turn_deg: i32,
    options: &[String],
    trace: &Trace,
) -> Option<Reasoning> {
    let map = Map::new(trace);
    let from = match moment {
        Moment::Start => 0,
        Moment::End => map.heading,
    };
    let (told, target) = target_text(from, turn_deg);
    let (mut angles, name) = map.nearest(options, target)?;
    let mut statements = vec![map.text, told];
    statements.append(&mut angles);
    Some((statements, name))
}

/// One who stands at `stand` and faces `face` looks across the camera's place where the two are
/// opposite each other; the turn from `face` to `target` is then the same side as from there.
fn direction(stand: &str, face: &str, target: &str, trace: &Trace) -> Option<Reasoning> {
    let names = [stand, face, target].map(str::to_owned);
    let map = Map::new(trace);
    let mut statements = vec![map.text.clone()];
    let mut places = Vec::with_capacity(names.len());
    for name in &names {
        let (text, place) = map.place(name)?;
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
    let map = Map::new(trace);
    let (text, place) = map.place(to)?;
    let (mut angles, name) = map.nearest(among, place)?;
    let mut statements = vec![map.text, format!("{text}.")];
    statements.append(&mut angles);
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

    const WHERE_IS_THE_LAMP: &str = "Question: When you reach the current location, where is the lamp relative to you?\n\n\
         Choices:\nA. left\nB. right\nC. ahead\nD. behind";

    fn solve(question: &str) -> Option<Rationale> {
        rationale(question, &captions())
    }

    #[test]
    fn a_position_is_carried_through_the_turns() {
        let found = solve(WHERE_IS_THE_LAMP).unwrap();
        assert_eq!(
            found.completion(),
            "<think>choices: left A, right B, ahead C, behind D. last lamp right 50, 3 m. \
             frame 2 rotate left 90: right 140. frame 3 rotate right 30 and move forward 1 m: \
             right 110. so right B.</think><answer>B</answer>"
        );
    }

    #[test]
    fn an_answer_at_once_has_the_same_conclusion_without_grounds() {
        let found = solve(WHERE_IS_THE_LAMP).unwrap();
        assert_eq!(
            found.at_once().completion(),
            "<think>choices: left A, right B, ahead C, behind D. so right B.</think>\
             <answer>B</answer>"
        );
    }

    #[test]
    fn an_order_is_told_by_what_came_into_view() {
        let found = solve(
            "Question: What will be the first-time appearance order of the following categories \
             in the video: sofa, lamp?\n\nChoices:\nA. lamp, sofa\nB. sofa, lamp",
        )
        .unwrap();
        assert_eq!(
            found.think(),
            "choices: lamp, sofa A, sofa, lamp B. seen: lamp yes, bed, sofa yes. so lamp, sofa A."
        );
        assert_eq!(found.answer, 'A');
    }

    #[test]
    fn progress_is_the_last_step_that_was_faced() {
        let found = solve(
            "Question: You are asked to follow this route: face the lamp, face the desk, face the \
             bed. Which step have you done last?\n\nChoices:\nA. face the bed\nB. face the desk\n\
             C. face the lamp",
        )
        .unwrap();
        assert_eq!(
            found.think(),
            "choices: face the bed A, face the desk B, face the lamp C. \
             faced: 0 lamp left 10 yes. 1 bed left 40, lamp right 50. 2 sofa ahead. \
             3 sofa left 30, bed right 20. so face the lamp C."
        );
        assert_eq!(found.answer, 'C');
    }

    #[test]
    fn a_counterfactual_turn_is_compared_with_places() {
        let found = solve(
            "Question: If you had rotated left 90 at the start instead, which of these objects \
             would be nearest to straight ahead?\n\nChoices:\nA. lamp\nB. bed\nC. sofa",
        )
        .unwrap();
        assert_eq!(
            found.think(),
            "choices: lamp A, bed B, sofa C. \
             map: 0 ahead: ahead; lamp left 10: left 10. 1 left 60: left 60; bed left 40: left 100. \
             2 left 90: left 150; sofa ahead: left 150. 3 right 30: left 120. \
             target ahead, left 90: left 90. \
             lamp left 10, off 80. bed left 100, off 10. sofa left 150, off 60. so bed B."
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
