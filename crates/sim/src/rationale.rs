//! Chain-of-thought rationales from captions, in short statements of a regular language.
//!
//! The language suits a small decoder: values follow their keys (a bearing its name, a letter its
//! choice), operands are next to their sum, and relevant items are marked inline.

use std::collections::HashMap;

use embodied_r_data::prompts::{FrameText, question_part};
use embodied_r_data::scene::{VisibleObject, view_text};

use crate::caption_trace::{CaptionTrace, bearing_text, captions_in, faced as is_faced};
use crate::geometry::wrap_whole;
use crate::question_template::{Moment, QuestionTemplate, letter, parse_with_choices, step_text};

/// A chain of thought and its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rationale {
    /// The choices, each with its letter.
    pub choices: String,
    /// The statements derived from the captions; empty for a direct answer.
    pub grounds: String,
    /// The content and letter of the chosen option.
    pub conclusion: String,
    /// The letter of the chosen option.
    pub answer: char,
}

impl Rationale {
    fn new(grounds: String, options: &[String], index: usize) -> Self {
        let answer = letter(index);
        let conclusion = options.get(index).map_or(String::new(), |option| so_text(option, answer));
        Self { choices: choices_text(options), grounds, conclusion, answer }
    }

    /// The rationale without its grounds: a direct answer.
    pub fn without_grounds(self) -> Self {
        Self { grounds: String::new(), ..self }
    }

    /// The same grounds with `options[index]` as the conclusion.
    pub(crate) fn concluding(self, options: &[String], index: usize) -> Self {
        Self::new(self.grounds, options, index)
    }

    /// The content of the `<think>` tag.
    pub fn think(&self) -> String {
        let parts = [&self.choices, &self.grounds, &self.conclusion].map(String::as_str);
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
    }

    /// The target completion: `<think>…</think><answer>B</answer>`.
    pub fn completion(&self) -> String {
        format!("<think>{}</think><answer>{}</answer>", self.think(), self.answer)
    }
}

/// The rationale for a question of [`crate::Category`], given as `Question: …` with its choices,
/// from captions alone. `None` if the captions support none of the options, or if either text is
/// not in this crate's format.
///
/// Captions may be wrong: compare [`Rationale::answer`] with the reference answer before training on
/// it.
pub fn rationale(question: &str, captions: &[FrameText]) -> Option<Rationale> {
    let (template, options) = parse_with_choices(question)?;
    derive_rationale(&template, &options, &CaptionTrace::from_captions(captions)?)
}

/// [`rationale`] for a whole perceived prompt with captions and question.
pub fn rationale_in_prompt(prompt: &str) -> Option<Rationale> {
    rationale(question_part(prompt), &captions_in(prompt)?)
}

/// The rationale for `template` with `options`, from the captions in `trace`.
pub(crate) fn derive_rationale(
    template: &QuestionTemplate,
    options: &[String],
    trace: &CaptionTrace,
) -> Option<Rationale> {
    let (statements, content) = match template {
        QuestionTemplate::Order { names } => order(names, trace)?,
        QuestionTemplate::Position { name } => position(name, trace, Quadrant::direction)?,
        QuestionTemplate::Action { name } => position(name, trace, Quadrant::action)?,
        QuestionTemplate::Progress { route } => progress(route, trace)?,
        QuestionTemplate::Counterfactual { moment, turn_deg } => {
            counterfactual(*moment, *turn_deg, options, trace)?
        }
        QuestionTemplate::Direction { stand, face, target } => {
            direction(stand, face, target, trace)?
        }
        QuestionTemplate::Distance { to, among } => distance(to, among, trace)?,
    };
    let index = options.iter().position(|option| *option == content)?;
    Some(Rationale::new(statements.join(" "), options, index))
}

/// `choices: left A, ahead B.`
pub(crate) fn choices_text(options: &[String]) -> String {
    let lettered: Vec<_> = options
        .iter()
        .enumerate()
        .map(|(index, option)| format!("{option} {}", letter(index)))
        .collect();
    format!("choices: {}.", lettered.join(", "))
}

/// `so left A.`: the conclusion and its letter.
pub(crate) fn so_text(content: &str, answer: char) -> String {
    format!("so {content} {answer}.")
}

/// Statements and the content of the resulting option.
type Reasoning = (Vec<String>, String);

/// A quadrant of directions around the camera.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Quadrant {
    Ahead,
    Left,
    Right,
    Behind,
}

impl Quadrant {
    pub(crate) const ALL: [Self; 4] = [Self::Ahead, Self::Left, Self::Right, Self::Behind];

    /// The quadrant of a bearing, with borders at 45° and 135° to either side.
    pub(crate) fn of(bearing_deg: f64) -> Self {
        match bearing_deg {
            bearing if bearing.abs() <= 45.0 => Self::Ahead,
            bearing if bearing.abs() >= 135.0 => Self::Behind,
            bearing if bearing > 0.0 => Self::Left,
            _ => Self::Right,
        }
    }

    /// The option of a landmark question.
    pub(crate) fn direction(self) -> &'static str {
        match self {
            Self::Ahead => "ahead",
            Self::Left => "left",
            Self::Right => "right",
            Self::Behind => "behind",
        }
    }

    /// The option of an action question: the action that leads towards this quadrant.
    pub(crate) fn action(self) -> &'static str {
        match self {
            Self::Ahead => "move forward",
            Self::Left => "rotate left",
            Self::Right => "rotate right",
            Self::Behind => "turn around",
        }
    }
}

/// The last bearing of `name`, updated by every later rotation: the statements and the final
/// bearing. Moves without rotation leave the bearing unchanged.
pub(crate) fn tracked(name: &str, trace: &CaptionTrace) -> Option<(Vec<String>, i32)> {
    let (seen, mut bearing) = trace.last_sight(name)?;
    let mut statements = vec![format!("last {}.", quoted(seen, name, trace)?)];
    for (frame, then) in trace.frames.iter().enumerate().skip(seen + 1) {
        let action = then.action.as_ref()?;
        bearing = wrap_whole(bearing - action.turn_deg);
        statements.push(format!("frame {frame} {}: {}.", action.text, bearing_text(bearing)));
    }
    Some((statements, bearing))
}

/// The caption of a frame from `name` on: `lamp left 30, 3 m; bed ahead, 2 m`. Copying to the end of
/// the caption brings the model to the next frame, with which the reasoning continues.
pub(crate) fn quoted(frame: usize, name: &str, trace: &CaptionTrace) -> Option<String> {
    let seen = &trace.frames.get(frame)?.seen;
    let from = seen.iter().position(|seen| seen.name == name)?;
    Some(view_text(&seen[from..]))
}

fn position(
    name: &str,
    trace: &CaptionTrace,
    option: fn(Quadrant) -> &'static str,
) -> Option<Reasoning> {
    let (statements, bearing) = tracked(name, trace)?;
    Some((statements, option(Quadrant::of(f64::from(bearing))).to_owned()))
}

fn order(names: &[String], trace: &CaptionTrace) -> Option<Reasoning> {
    let mut firsts = Vec::with_capacity(names.len());
    for name in names {
        firsts.push((trace.first_sight(name)?.0, name.as_str()));
    }
    firsts.sort_unstable();
    // The captions give no order for objects that first appear in the same frame.
    let distinct = firsts.windows(2).all(|pair| pair[0].0 != pair[1].0);
    let ordered: Vec<_> = firsts.iter().map(|(_, name)| *name).collect();
    distinct.then(|| (vec![seen_text(names, trace)], ordered.join(", ")))
}

/// `seen: lamp yes, bed.`: all objects in order of first appearance, with the `subjects` marked.
pub(crate) fn seen_text(subjects: &[String], trace: &CaptionTrace) -> String {
    let mut names: Vec<&String> = Vec::new();
    for seen in trace.frames.iter().flat_map(|frame| &frame.seen) {
        if !names.contains(&&seen.name) {
            names.push(&seen.name);
        }
    }
    let marked = names.into_iter().map(|name| match subjects.contains(name) {
        true => format!("{name} yes"),
        false => name.clone(),
    });
    format!("seen: {}.", list_or_none(&marked.collect::<Vec<_>>()))
}

fn progress(route: &[String], trace: &CaptionTrace) -> Option<Reasoning> {
    let mut faced: Vec<_> =
        route.iter().filter_map(|name| Some((trace.last_faced(name)?, name))).collect();
    faced.sort_unstable();
    let (frame, last) = *faced.last()?;
    let clear = faced.iter().filter(|(other, _)| *other == frame).count() == 1;
    clear.then(|| (vec![faced_text(route, trace)], step_text(last)))
}

/// `faced: 0 lamp left 30, bed ahead yes. 1 none.`: the objects of each frame, with the `subjects`
/// within 10 degrees of straight ahead marked.
pub(crate) fn faced_text(subjects: &[String], trace: &CaptionTrace) -> String {
    let object = |seen: &VisibleObject| {
        let yes = if is_faced(seen) && subjects.contains(&seen.name) { " yes" } else { "" };
        format!("{} {}{yes}", seen.name, bearing_text(seen.bearing_deg))
    };
    let frames = trace.frames.iter().enumerate().map(|(index, frame)| {
        let objects: Vec<_> = frame.seen.iter().map(object).collect();
        format!("{index} {}.", list_or_none(&objects))
    });
    format!("faced: {}", frames.collect::<Vec<_>>().join(" "))
}

/// The items separated by commas, or `none`.
pub(crate) fn list_or_none<T: AsRef<str>>(items: &[T]) -> String {
    match items {
        [] => "none".to_owned(),
        items => items.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(", "),
    }
}

/// The objects' directions relative to the heading of frame 0.
pub(crate) struct BearingMap {
    /// The sums: `map: 0 ahead: ahead; lamp left 30: left 30. 1 left 60: left 60.` Per frame its
    /// rotation and heading, then the bearings and directions of newly visible objects.
    pub(crate) text: String,
    /// The heading at the last frame.
    pub(crate) heading: i32,
    directions: HashMap<String, i32>,
}

impl BearingMap {
    /// The map of all frames.
    pub(crate) fn new(trace: &CaptionTrace) -> Self {
        let (mut heading, mut directions) = (0, HashMap::new());
        let mut parts = Vec::new();
        for (index, frame) in trace.frames.iter().enumerate() {
            let turn = frame.action.as_ref().map_or(0, |action| action.turn_deg);
            heading = wrap_whole(heading + turn);
            let mut text = format!("{index} {}: {}", bearing_text(turn), bearing_text(heading));
            let mut sign = ';';
            for seen in &frame.seen {
                if directions.contains_key(&seen.name) {
                    continue;
                }
                let direction = wrap_whole(heading + seen.bearing_deg);
                directions.insert(seen.name.clone(), direction);
                let [bearing, direction] = [seen.bearing_deg, direction].map(bearing_text);
                text.push_str(&format!("{sign} {} {bearing}: {direction}", seen.name));
                sign = ',';
            }
            parts.push(text);
        }
        Self { text: format!("map: {}.", parts.join(". ")), heading, directions }
    }

    /// `lamp left 30`, and its value.
    pub(crate) fn direction(&self, name: &str) -> Option<(String, i32)> {
        let direction = *self.directions.get(name)?;
        Some((format!("{name} {}", bearing_text(direction)), direction))
    }

    /// The angle of each of `names` from `from_deg`: the statements and the name with the smallest.
    /// `None` for a tie.
    pub(crate) fn nearest(&self, names: &[String], from_deg: i32) -> Option<Reasoning> {
        let mut statements = Vec::with_capacity(names.len());
        let mut angles = Vec::with_capacity(names.len());
        for name in names {
            let (text, direction) = self.direction(name)?;
            let off = wrap_whole(direction - from_deg).abs();
            statements.push(format!("{text}, off {off}."));
            angles.push((off, name));
        }
        angles.sort_unstable();
        let clear = angles.windows(2).next().is_none_or(|two| two[0].0 < two[1].0);
        let (_, name) = angles.first()?;
        clear.then(|| (statements, (*name).clone()))
    }
}

/// `target left 60, right 90: right 30.`: the heading, a rotation and the resulting heading.
pub(crate) fn target_text(heading: i32, turn_deg: i32) -> (String, i32) {
    let target = wrap_whole(heading + turn_deg);
    let [from, turn, to] = [heading, turn_deg, target].map(bearing_text);
    (format!("target {from}, {turn}: {to}."), target)
}

fn counterfactual(
    moment: Moment,
    turn_deg: i32,
    options: &[String],
    trace: &CaptionTrace,
) -> Option<Reasoning> {
    let map = BearingMap::new(trace);
    let from = match moment {
        Moment::Start => 0,
        Moment::End => map.heading,
    };
    let (target_statement, target) = target_text(from, turn_deg);
    let (mut angles, name) = map.nearest(options, target)?;
    let mut statements = vec![map.text, target_statement];
    statements.append(&mut angles);
    Some((statements, name))
}

/// If `stand` and `face` are opposite each other, the line of sight passes the camera, so `target`
/// is on the same side of `face` as seen from the camera.
fn direction(stand: &str, face: &str, target: &str, trace: &CaptionTrace) -> Option<Reasoning> {
    let names = [stand, face, target].map(str::to_owned);
    let map = BearingMap::new(trace);
    let mut statements = vec![map.text.clone()];
    let mut directions = Vec::with_capacity(names.len());
    for name in &names {
        let (text, direction) = map.direction(name)?;
        statements.push(format!("{text}."));
        directions.push(direction);
    }
    let across = wrap_whole(directions[0] - directions[1]).abs();
    let turn = wrap_whole(directions[2] - directions[1]);
    if across < 140 || turn == 0 || turn == 180 {
        return None;
    }
    statements.push(format!("{face} to {target}: {}.", bearing_text(turn)));
    Some((statements, if turn > 0 { "left" } else { "right" }.to_owned()))
}

/// With all objects around the camera, the closest is the one at the smallest angle.
fn distance(to: &str, among: &[String], trace: &CaptionTrace) -> Option<Reasoning> {
    let map = BearingMap::new(trace);
    let (text, direction) = map.direction(to)?;
    let (mut angles, name) = map.nearest(among, direction)?;
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
    fn a_bearing_is_updated_by_every_rotation() {
        let found = solve(WHERE_IS_THE_LAMP).unwrap();
        assert_eq!(
            found.completion(),
            "<think>choices: left A, right B, ahead C, behind D. last lamp right 50, 3 m. \
             frame 2 rotate left 90: right 140. frame 3 rotate right 30 and move forward 1 m: \
             right 110. so right B.</think><answer>B</answer>"
        );
    }

    #[test]
    fn a_direct_answer_has_the_same_conclusion_without_grounds() {
        let found = solve(WHERE_IS_THE_LAMP).unwrap();
        assert_eq!(
            found.without_grounds().completion(),
            "<think>choices: left A, right B, ahead C, behind D. so right B.</think>\
             <answer>B</answer>"
        );
    }

    #[test]
    fn an_order_follows_first_appearances() {
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
    fn a_counterfactual_rotation_is_compared_with_the_map() {
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
