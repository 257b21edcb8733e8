//! Chain-of-thought rationales from captions, in the statements of [`crate::statement`].
//!
//! A rationale names sightings and what follows from them, step by step, and ends with an option.

use embodied_r_data::prompts::{FrameText, question_part};

use crate::caption_trace::{CaptionTrace, captions_in};
use crate::geometry::{Octant, wrap_whole};
use crate::question_template::{Moment, QuestionTemplate, letter, parse_with_choices, step_text};
use crate::statement::{Sighting, Statement, Which, written};

/// A chain of thought and its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rationale {
    statements: Vec<Statement>,
    /// The letter of the chosen option.
    pub answer: char,
}

impl Rationale {
    /// The content of the `<think>` tag.
    pub fn think(&self) -> String {
        written(&self.statements)
    }

    /// The target completion: `<think>…</think><answer>B</answer>`.
    pub fn completion(&self) -> String {
        tagged(&self.think(), self.answer)
    }
}

/// `<think>…</think><answer>B</answer>`
pub fn tagged(think: &str, answer: char) -> String {
    format!("<think>{think}</think><answer>{answer}</answer>")
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
    let mut statements = match template {
        QuestionTemplate::Order { names } => order(names, trace)?,
        QuestionTemplate::Position { name } | QuestionTemplate::Action { name } => {
            position(name, trace)?
        }
        QuestionTemplate::Progress { route } => progress(route, trace)?,
        QuestionTemplate::Counterfactual { moment, turn_deg } => {
            counterfactual(*moment, *turn_deg, options, trace)?
        }
        QuestionTemplate::Direction { stand, face, target } => {
            direction(stand, face, target, trace)?
        }
        QuestionTemplate::Distance { to, among } => distance(to, among, trace)?,
    };
    let content = conclusion(template, options, &statements)?;
    let index = options.iter().position(|option| *option == content)?;
    let answer = letter(index);
    statements.push(Statement::So { content, letter: answer });
    Some(Rationale { statements, answer })
}

/// The content of the option that follows from the last of `statements`, if they are about what the question asks for.
pub(crate) fn conclusion(
    template: &QuestionTemplate,
    options: &[String],
    statements: &[Statement],
) -> Option<String> {
    match (template, statements.last()?) {
        (QuestionTemplate::Order { names: asked }, Statement::Order { names, .. }) => {
            let all = asked.iter().all(|name| names.contains(name));
            (all && names.len() == asked.len()).then(|| names.join(", "))
        }
        (QuestionTemplate::Position { name }, Statement::Octant { octant, .. }) => {
            is_tracked(name, statements).then(|| octant.direction().to_owned())
        }
        (QuestionTemplate::Action { name }, Statement::Octant { octant, .. }) => {
            is_tracked(name, statements).then(|| octant.action().to_owned())
        }
        (
            QuestionTemplate::Progress { .. },
            Statement::Sighting { which: Which::Faced, name, at: Some(_) },
        ) => Some(step_text(name)),
        (
            QuestionTemplate::Counterfactual { .. } | QuestionTemplate::Distance { .. },
            Statement::Off { .. },
        ) => nearest(options, statements),
        (
            QuestionTemplate::Direction { face, target, .. },
            Statement::Between { from, to, turn_deg },
        ) => {
            let side = if *turn_deg > 0 { "left" } else { "right" };
            ([from, to] == [face, target]).then(|| side.to_owned())
        }
        _ => None,
    }
}

/// Whether the object that is tracked is the one of this name.
fn is_tracked(name: &str, statements: &[Statement]) -> bool {
    let mut sightings = statements.iter().rev().filter_map(|statement| match statement {
        Statement::Sighting { which: Which::Last, name, at: Some(_) } => Some(name),
        _ => None,
    });
    sightings.next().is_some_and(|tracked| tracked == name)
}

/// The option at the smallest stated angle; `None` for a tie, or if an option's angle is not stated.
fn nearest(options: &[String], statements: &[Statement]) -> Option<String> {
    let angle = |option: &String| {
        statements.iter().find_map(|statement| match statement {
            Statement::Off { name, angle_deg } if name == option => Some(*angle_deg),
            _ => None,
        })
    };
    let mut angles: Vec<(i32, &String)> =
        options.iter().map(|option| Some((angle(option)?, option))).collect::<Option<_>>()?;
    angles.sort_unstable();
    let clear = angles.windows(2).next().is_none_or(|two| two[0].0 < two[1].0);
    angles.first().filter(|_| clear).map(|(_, name)| (*name).clone())
}

/// A statement about one of the sightings of `name`, given as frame and bearing.
fn sighting(which: Which, name: &str, at: Option<(usize, i32)>) -> Statement {
    let at = at.map(|(frame, bearing_deg)| Sighting { bearing_deg, frame });
    Statement::Sighting { which, name: name.to_owned(), at }
}

/// The last bearing of `name`, updated by every later rotation, and its octant. Moves without rotation leave the bearing
/// unchanged.
fn position(name: &str, trace: &CaptionTrace) -> Option<Vec<Statement>> {
    let last @ (seen, mut after_deg) = trace.last_sight(name)?;
    let mut statements = vec![sighting(Which::Last, name, Some(last))];
    for (frame, then) in trace.frames.iter().enumerate().skip(seen + 1) {
        let action = then.action.as_ref()?;
        let before_deg = after_deg;
        after_deg = wrap_whole(before_deg - action.turn_deg);
        let action = action.rotation().to_owned();
        statements.push(Statement::Next { frame, before_deg, action, after_deg });
    }
    statements.push(Statement::End { bearing_deg: after_deg });
    let octant = Octant::of(f64::from(after_deg));
    statements.push(Statement::Octant { bearing_deg: after_deg, octant });
    Some(statements)
}

/// The first sighting of each name, and after each the order of those so far.
fn order(names: &[String], trace: &CaptionTrace) -> Option<Vec<Statement>> {
    let (mut statements, mut firsts) = (Vec::new(), Vec::new());
    for name in names {
        let first = trace.first_sight(name)?;
        if firsts.iter().any(|(_, frame)| *frame == first.0) {
            // The captions give no order for objects that first appear in the same frame.
            return None;
        }
        firsts.push((name.clone(), first.0));
        statements.push(sighting(Which::First, name, Some(first)));
        statements.push(Statement::order(firsts.clone()));
    }
    Some(statements)
}

/// From the end of the route back to the first object that was faced: the last step done, if those before it were faced
/// earlier and in order.
fn progress(route: &[String], trace: &CaptionTrace) -> Option<Vec<Statement>> {
    let mut statements = Vec::new();
    for (index, name) in route.iter().enumerate().rev() {
        let faced = trace.last_faced(name);
        statements.push(sighting(Which::Faced, name, faced));
        if faced.is_some() {
            let done = route[..=index].iter().map(|name| trace.last_faced(name));
            let frames: Vec<usize> =
                done.map(|at| at.map(|(frame, _)| frame)).collect::<Option<_>>()?;
            let in_order = frames.windows(2).all(|pair| pair[0] < pair[1]);
            return in_order.then_some(statements);
        }
    }
    None
}

/// The objects' directions relative to the heading of frame 0.
struct BearingMap<'a> {
    trace: &'a CaptionTrace,
    /// The heading at every frame.
    headings: Vec<i32>,
}

impl<'a> BearingMap<'a> {
    fn new(trace: &'a CaptionTrace) -> Self {
        let turns =
            trace.frames.iter().map(|frame| frame.action.as_ref().map_or(0, |a| a.turn_deg));
        let headings = turns.scan(0, |heading, turn| {
            *heading = wrap_whole(*heading + turn);
            Some(*heading)
        });
        Self { trace, headings: headings.collect() }
    }

    /// The headings of all frames but the first.
    fn statements(&self) -> Vec<Statement> {
        let frames = self.trace.frames.iter().zip(&self.headings).enumerate().skip(1);
        let heading =
            |(frame, (shown, heading_deg)): (usize, (&crate::caption_trace::Frame, &i32))| {
                let turn_deg = shown.action.as_ref().map_or(0, |action| action.turn_deg);
                Statement::Heading { frame, turn_deg, heading_deg: *heading_deg }
            };
        frames.map(heading).collect()
    }

    /// The heading at the last frame.
    fn heading(&self) -> i32 {
        self.headings.last().copied().unwrap_or_default()
    }

    /// The direction of `name` by its first sighting.
    fn direction(&self, name: &str) -> Option<(Statement, i32)> {
        let (frame, bearing_deg) = self.trace.first_sight(name)?;
        let direction_deg = wrap_whole(self.headings.get(frame)? + bearing_deg);
        let at = Sighting { bearing_deg, frame };
        Some((Statement::Direction { name: name.to_owned(), at, direction_deg }, direction_deg))
    }

    /// A statement of the direction `from_deg` rotated by `turn_deg`, and of the angle of each of `names` from it.
    fn angles_after(
        &self,
        names: &[String],
        from_deg: i32,
        turn_deg: i32,
    ) -> Option<Vec<Statement>> {
        let to_deg = wrap_whole(from_deg + turn_deg);
        let mut statements = self.statements();
        statements.push(Statement::Target { from_deg, turn_deg, to_deg });
        for name in names {
            let (direction, direction_deg) = self.direction(name)?;
            let angle_deg = wrap_whole(direction_deg - to_deg).abs();
            statements.extend([direction, Statement::Off { name: name.clone(), angle_deg }]);
        }
        Some(statements)
    }
}

fn counterfactual(
    moment: Moment,
    turn_deg: i32,
    options: &[String],
    trace: &CaptionTrace,
) -> Option<Vec<Statement>> {
    let map = BearingMap::new(trace);
    let from_deg = match moment {
        Moment::Start => 0,
        Moment::End => map.heading(),
    };
    map.angles_after(options, from_deg, turn_deg)
}

/// If `stand` and `face` are opposite each other, the line of sight passes the camera, so `target`
/// is on the same side of `face` as seen from the camera.
fn direction(
    stand: &str,
    face: &str,
    target: &str,
    trace: &CaptionTrace,
) -> Option<Vec<Statement>> {
    let map = BearingMap::new(trace);
    let mut statements = map.statements();
    let mut directions = [0; 3];
    for (name, direction_deg) in [stand, face, target].into_iter().zip(&mut directions) {
        let (statement, found_deg) = map.direction(name)?;
        statements.push(statement);
        *direction_deg = found_deg;
    }
    let [stand_deg, face_deg, target_deg] = directions;
    let across = wrap_whole(stand_deg - face_deg).abs();
    let turn_deg = wrap_whole(target_deg - face_deg);
    if across < 140 || turn_deg == 0 || turn_deg == 180 {
        return None;
    }
    statements.push(Statement::Between { from: face.to_owned(), to: target.to_owned(), turn_deg });
    Some(statements)
}

/// With all objects around the camera, the closest is the one at the smallest angle.
fn distance(to: &str, among: &[String], trace: &CaptionTrace) -> Option<Vec<Statement>> {
    let map = BearingMap::new(trace);
    let (direction, direction_deg) = map.direction(to)?;
    let mut statements = map.angles_after(among, direction_deg, 0)?;
    statements.insert(map.headings.len().saturating_sub(1), direction);
    Some(statements)
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
            "<think>last lamp right 50, frame 1. next 2: right 50, rotate left 90: right 140. \
             next 3: right 140, rotate right 30: right 110. next none: right 110. right 110 is right. so right B.\
             </think><answer>B</answer>"
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
            "first sofa ahead, frame 2. order sofa 2: sofa. first lamp left 10, frame 0. \
             order sofa 2, lamp 0: lamp, sofa. so lamp, sofa A."
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
            "faced bed none. faced desk none. faced lamp left 10, frame 0. so face the lamp C."
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
            "heading 1, left 60: left 60. heading 2, left 90: left 150. heading 3, right 30: left 120. \
             target ahead, left 90: left 90. \
             direction lamp left 10, frame 0: left 10. off lamp: 80. \
             direction bed left 40, frame 1: left 100. off bed: 10. \
             direction sofa ahead, frame 2: left 150. off sofa: 60. so bed B."
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
