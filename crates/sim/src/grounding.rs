//! Checks a reply's reasoning against the captions of its prompt.

use embodied_r_data::prompts::question_part;

use crate::caption_trace::{Action, CaptionTrace, captions_in, faced};
use crate::geometry::{Octant, wrap_whole};
use crate::question_template::{letter, parse_with_choices};
use crate::rationale::conclusion;
use crate::statement::{Sighting, Statement, Which, parsed};

/// What of a reply's reasoning the captions bear out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grounding {
    /// It quotes a true sighting (frame and bearing) of an object that the question or its choices name.
    pub reasons: bool,
    /// It is in the statements of [`crate::rationale`], all of them hold in the captions or follow from the statements
    /// before, its conclusion follows from the last of them, and is the content of the answered option. Such a reply can
    /// still be wrong.
    pub sound: bool,
}

/// Checks the reasoning `think` behind the answer `answer` (a letter) to a perceived prompt.
///
/// `None` if the prompt is not one of a built-in room.
pub fn grounding(prompt: &str, think: &str, answer: char) -> Option<Grounding> {
    let trace = CaptionTrace::from_captions(&captions_in(prompt)?)?;
    let question = question_part(prompt);
    let (template, options) = parse_with_choices(question)?;
    let named: Vec<&str> = question.split(|c: char| !c.is_alphanumeric()).collect();
    let is_true_quote = |text: &str| match Statement::parse(text) {
        Some(
            Statement::Sighting { name, at: Some(at), .. } | Statement::Direction { name, at, .. },
        ) => named.contains(&name.as_str()) && is_visible(&trace, &name, at),
        _ => false,
    };
    let reasons = think.trim().trim_end_matches('.').split(". ").any(is_true_quote);
    let sound = parsed(think).is_some_and(|statements| {
        let concluded = match statements.split_last() {
            Some((Statement::So { content, letter: named }, grounds)) => {
                let follows = conclusion(&template, &options, grounds).as_ref() == Some(content);
                let index = options.iter().position(|option| option == content);
                index.filter(|index| follows && letter(*index) == *named)
            }
            _ => None,
        };
        let mut checker =
            Checker { trace: &trace, tracked: None, target_deg: None, directed: None };
        concluded.is_some_and(|index| letter(index) == answer)
            && statements.iter().all(|statement| checker.holds(statement))
    });
    Some(Grounding { reasons, sound })
}

fn is_visible(trace: &CaptionTrace, name: &str, at: Sighting) -> bool {
    trace.bearing_in(at.frame, name) == Some(at.bearing_deg)
}

/// Checks statements in order; some depend on those before.
struct Checker<'a> {
    trace: &'a CaptionTrace,
    /// Frame and bearing of the object that is tracked.
    tracked: Option<Sighting>,
    target_deg: Option<i32>,
    /// The object and direction of the last [`Statement::Direction`].
    directed: Option<(String, i32)>,
}

impl Checker<'_> {
    fn holds(&mut self, statement: &Statement) -> bool {
        match statement {
            Statement::Sighting { which, name, at } => {
                self.tracked = at.filter(|_| *which == Which::Last);
                let known = match which {
                    Which::First => self.trace.first_sight(name),
                    Which::Last => self.trace.last_sight(name),
                    Which::Faced => self.trace.last_faced(name),
                };
                match (which, at) {
                    // The object may have been faced more than once.
                    (Which::Faced, Some(at)) => {
                        faced(at.bearing_deg) && is_visible(self.trace, name, *at)
                    }
                    (_, at) => known == at.map(|at| (at.frame, at.bearing_deg)),
                }
            }
            Statement::Next { frame, before_deg, action, after_deg } => {
                let (Some(before), Some(turn_deg)) = (self.tracked, self.turn(*frame)) else {
                    return false;
                };
                self.tracked = Some(Sighting { bearing_deg: *after_deg, frame: *frame });
                let rotation = self.trace.frames[*frame].action.as_ref().map(Action::rotation);
                before == Sighting { bearing_deg: *before_deg, frame: frame.saturating_sub(1) }
                    && rotation == Some(action.as_str())
                    && *after_deg == wrap_whole(before_deg - turn_deg)
            }
            Statement::End { bearing_deg } => {
                let frame = self.trace.frames.len() - 1;
                self.tracked == Some(Sighting { bearing_deg: *bearing_deg, frame })
            }
            Statement::Octant { bearing_deg, octant } => {
                let tracked =
                    self.tracked.is_some_and(|tracked| tracked.bearing_deg == *bearing_deg);
                tracked && *octant == Octant::of(f64::from(*bearing_deg))
            }
            Statement::Order { firsts, .. } => {
                let seen = |(name, frame): &(String, usize)| {
                    self.trace.first_sight(name).is_some_and(|(first, _)| first == *frame)
                };
                firsts.iter().all(seen) && Statement::order(firsts.clone()) == *statement
            }
            Statement::Heading { frame, turn_deg, heading_deg } => {
                self.turn(*frame) == Some(*turn_deg) && self.heading(*frame) == Some(*heading_deg)
            }
            Statement::Direction { name, at, direction_deg } => {
                self.directed = Some((name.clone(), *direction_deg));
                let heading = self.heading(at.frame);
                is_visible(self.trace, name, *at)
                    && heading.is_some_and(|h| wrap_whole(h + at.bearing_deg) == *direction_deg)
            }
            Statement::Target { from_deg, turn_deg, to_deg } => {
                self.target_deg = Some(*to_deg);
                wrap_whole(from_deg + turn_deg) == *to_deg
            }
            Statement::Off { name, angle_deg } => match (&self.directed, self.target_deg) {
                (Some((directed, direction_deg)), Some(target_deg)) => {
                    directed == name && wrap_whole(direction_deg - target_deg).abs() == *angle_deg
                }
                _ => false,
            },
            Statement::Between { from, to, turn_deg } => {
                let direction = |name: &str| {
                    let (frame, bearing_deg) = self.trace.first_sight(name)?;
                    Some(self.heading(frame)? + bearing_deg)
                };
                let both = direction(from).zip(direction(to));
                both.is_some_and(|(from, to)| wrap_whole(to - from) == *turn_deg)
            }
            Statement::So { .. } => true,
        }
    }

    /// The rotation before `frame`; `None` for the first frame and beyond the last.
    fn turn(&self, frame: usize) -> Option<i32> {
        Some(self.trace.frames.get(frame)?.action.as_ref()?.turn_deg)
    }

    /// The heading at `frame` relative to frame 0.
    fn heading(&self, frame: usize) -> Option<i32> {
        self.trace.frames.get(frame)?;
        (1..=frame).try_fold(0, |heading, frame| Some(wrap_whole(heading + self.turn(frame)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::question_template::Category;
    use crate::questions::text_question;

    #[test]
    fn every_rationale_is_sound_and_reasons() {
        for category in Category::ALL {
            for index in 0..60 {
                let found = text_question(3, index, &[category]).unwrap();
                let prompt = found.perceived().question;
                let think = found.rationale.think();
                let checked = grounding(&prompt, &think, found.rationale.answer);
                assert_eq!(checked, Some(Grounding { reasons: true, sound: true }), "{think}");
            }
        }
    }

    const PROMPT: &str = "<\nFrame 0: Observe: lamp left 10, 3 m\n\
        Frame 1: After rotate left 60, Observe: bed left 40, 2 m; lamp right 50, 3 m\n\
        Frame 2: After rotate left 90, Observe: sofa ahead, 3 m\n>\n\
        Question: When you reach the current location, where is the lamp relative to you?\n\n\
        Choices:\nA. left\nB. right\nC. ahead\nD. behind right";

    const RIGHT: &str = "last lamp right 50, frame 1. next 2: right 50, rotate left 90: right 140. \
        next none: right 140. right 140 is behind right. so behind right D.";

    fn checked(think: &str, answer: char) -> (bool, bool) {
        let Grounding { reasons, sound } = grounding(PROMPT, think, answer).unwrap();
        (reasons, sound)
    }

    #[test]
    fn one_false_statement_makes_a_reply_unsound() {
        let right = RIGHT;
        assert_eq!(checked(right, 'D'), (true, true));
        for (from, to) in [
            ("right 50", "right 40"),
            ("frame 1", "frame 0"),
            ("rotate left 90", "rotate left 60"),
            ("right 140", "right 130"),
            ("next 2: right 50", "next 1: right 50"),
            ("next 2: right 50", "next 2: right 40"),
            ("next 2: right 50, rotate left 90: right 140. ", ""),
            ("none: right 140", "none: right 130"),
            ("right 140 is", "right 130 is"),
            ("is behind right", "is right"),
            ("so behind right D", "so left D"),
            ("so behind right D", "so behind right A"),
            ("last", "first"),
            ("lamp", "bed"),
        ] {
            assert!(!checked(&right.replacen(from, to, 1), 'D').1, "{from} {to}");
        }
    }

    #[test]
    fn a_conclusion_other_than_the_answer_is_unsound() {
        let right = RIGHT;
        assert_eq!(checked(right, 'A'), (true, false));
        assert_eq!(checked("so right B.", 'B'), (false, false));
        assert_eq!(checked("last lamp right 50, frame 1.", 'B'), (true, false));
    }

    #[test]
    fn a_conclusion_that_does_not_follow_from_the_last_statement_is_unsound() {
        let guessed = RIGHT.replace("so behind right D", "so left A");
        assert_eq!(checked(&guessed, 'A'), (true, false), "another direction");
        let early = RIGHT.replace("right 140 is behind right. ", "");
        assert_eq!(checked(&early, 'D'), (true, false), "the direction is not stated");
        let other = "last lamp right 50, frame 1. last sofa ahead, frame 2. next none: ahead. \
                     ahead is ahead. so ahead C.";
        assert_eq!(checked(other, 'C'), (true, false), "another object");
    }

    #[test]
    fn an_order_of_some_of_the_objects_is_unsound() {
        let (captions, _) = PROMPT.split_once("Question:").unwrap();
        let prompt = format!(
            "{captions}Question: What will be the first-time appearance order of the following categories in the \
             video: sofa, lamp?\n\nChoices:\nA. lamp\nB. sofa, lamp"
        );
        let partial = "first lamp left 10, frame 0. order lamp 0: lamp. so lamp A.";
        assert!(!grounding(&prompt, partial, 'A').unwrap().sound);
    }

    #[test]
    fn a_reply_reasons_only_with_a_true_sighting_of_a_named_object() {
        assert!(checked("well. last lamp right 50, frame 1. whatever.", 'B').0);
        assert!(!checked("last lamp right 60, frame 1. so right B.", 'B').0);
        assert!(
            !checked("last bed left 40, frame 1. so right B.", 'B').0,
            "the question names no bed"
        );
        assert!(!checked("last lamp none. so right B.", 'B').0);
    }

    #[test]
    fn a_sum_without_its_operand_is_unsound() {
        assert!(!checked("next 2: right 50, rotate left 90: right 140. so behind D.", 'D').1);
        assert!(!checked("right 140 is behind. so behind D.", 'D').1);
    }

    #[test]
    fn an_object_that_is_not_tracked_to_the_last_frame_is_unsound() {
        let early =
            "last lamp right 50, frame 1. next none: right 50. right 50 is right. so right B.";
        assert_eq!(checked(early, 'B'), (true, false));
    }

    #[test]
    fn a_false_comparison_makes_an_order_unsound() {
        let (captions, _) = PROMPT.split_once("Question:").unwrap();
        let prompt = format!(
            "{captions}Question: What will be the first-time appearance order of the following categories in the \
             video: sofa, lamp?\n\nChoices:\nA. lamp, sofa\nB. sofa, lamp"
        );
        let right = "first sofa ahead, frame 2. order sofa 2: sofa. first lamp left 10, frame 0. \
                     order sofa 2, lamp 0: lamp, sofa. so lamp, sofa A.";
        assert!(grounding(&prompt, right, 'A').unwrap().sound);
        for (from, to) in [("lamp 0", "lamp 1"), (": lamp, sofa", ": sofa, lamp")] {
            assert!(!grounding(&prompt, &right.replace(from, to), 'A').unwrap().sound, "{to}");
        }
    }

    #[test]
    fn a_prompt_of_another_kind_is_not_checked() {
        assert_eq!(grounding("Question: Why?\n\nChoices:\nA. so", "so.", 'A'), None);
    }
}
