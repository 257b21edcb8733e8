//! Worked answers to robot questions about simulated demonstrations, derived from the scene that a frame shows.

use super::demonstration::Demonstration;
use super::frames::hand;
use super::relation::{Relation, relations, things};
use super::scene::Scene;
use super::space::{Vector, norm, sub};
use super::statement::{at_height, direction, displacement, lettered, named, near, place, rounded};
use crate::question_template::letter;
use crate::rationale::tagged;

/// Largest horizontal distance in metres of a thing from the next key point that is above it or at it.
const OVER_M: f64 = 0.03;

/// A robot question with compact options, about a frame of a demonstration.
#[derive(Debug, Clone, Copy)]
pub struct AskedFrame<'a> {
    /// `waypoint`, `state` or `movement`.
    pub kind: &'a str,
    /// The frame.
    pub frame: usize,
    /// The frame of the next key point.
    pub key_point: usize,
    /// The texts of its options.
    pub options: &'a [String],
}

/// A worked answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkedAnswer {
    /// The reasoning and the answer in their tags.
    pub completion: String,
    /// The letter of the answer.
    pub letter: char,
    /// What the robot does in the frame, such as `lift red cup`; empty if the question is about its state.
    pub subtask: String,
}

/// The answer to a question, with what the frame shows as its reasons. `None` if nothing in the frame says where the next
/// key point is, as beside a block that is to be pushed, or if the frame is not in the demonstration.
///
/// All numbers are rounded to centimetres, so the letter may be wrong: compare it with the reference answer.
#[must_use]
pub fn worked_answer(
    demonstration: &Demonstration,
    asked: &AskedFrame<'_>,
) -> Option<WorkedAnswer> {
    let scene = &demonstration.steps.get(asked.frame)?.scene;
    let gripper = scene.gripper_position();
    if asked.kind == "state" {
        let letter = nearest(asked.options, rounded(gripper))?;
        let think = [place("gripper", gripper), near(gripper, letter)].join(" ");
        return Some(WorkedAnswer {
            completion: tagged(&think, letter),
            letter,
            subtask: String::new(),
        });
    }
    let subtask = shortened(demonstration.subtask(asked.frame));
    let target = demonstration.steps.get(asked.key_point)?.position;
    // Where the gripper is says whether it has arrived above a thing, and how far it has lifted one.
    let mut think = vec![place("gripper", gripper), format!("{}.", hand(scene))];
    think.extend(below(scene).map(|name| format!("gripper above {name}.")));
    think.push(format!("next: {subtask}."));
    let (name, at) = over(scene, target, &subtask)?;
    think.push(at_height(name, at, target[2]));
    let target = rounded([at[0], at[1], target[2]]);
    let letter = match asked.kind {
        "waypoint" => {
            let letter = nearest(asked.options, target)?;
            think.push(near(target, letter));
            letter
        }
        "movement" => {
            let way = rounded(sub(target, rounded(gripper)));
            let phrase = direction(way);
            let letter = letter(asked.options.iter().position(|option| *option == phrase)?);
            think.extend([displacement("gripper", gripper, target), named(way)]);
            think.push(lettered(&phrase, letter));
            letter
        }
        _ => return None,
    };
    Some(WorkedAnswer { completion: tagged(&think.join(" "), letter), letter, subtask })
}

/// A sentence of a plan without articles, capital and full stop.
fn shortened(sentence: &str) -> String {
    sentence.trim_end_matches('.').to_lowercase().replace("the ", "")
}

/// The object that the gripper is above, other than what it holds.
fn below(scene: &Scene) -> Option<&'static str> {
    let held = scene.held_body().map(|body| body.kind.name());
    let mut above = relations(scene).into_iter().filter(|(subject, relation, object)| {
        *subject == "gripper" && *relation == Relation::Above && Some(*object) != held
    });
    above.next().map(|(.., object)| object)
}

/// The thing that a position is above or at: the gripper itself, or an object that it does not hold, first one that the
/// subtask names and then the nearest.
fn over(scene: &Scene, target: Vector, subtask: &str) -> Option<(&'static str, Vector)> {
    let things = things(scene);
    let aside = |at: &Vector| (at[0] - target[0]).hypot(at[1] - target[1]);
    let (gripper, objects) = things.split_first()?;
    if aside(&gripper.1) <= OVER_M {
        return Some(*gripper);
    }
    let held = scene.held_body().map(|body| body.kind.name());
    let near = objects.iter().filter(|(name, at)| Some(*name) != held && aside(at) <= OVER_M);
    let is_unnamed = |name: &str| !subtask.contains(name);
    near.min_by(|(a, at), (b, other)| {
        is_unnamed(a).cmp(&is_unnamed(b)).then(aside(at).total_cmp(&aside(other)))
    })
    .copied()
}

/// The letter of the position that is nearest to `at`.
fn nearest(options: &[String], at: Vector) -> Option<char> {
    let positions: Option<Vec<Vector>> = options.iter().map(|option| parsed(option)).collect();
    let distances = positions?.into_iter().map(|option| norm(sub(option, at)));
    let (index, _) = distances.enumerate().min_by(|(_, a), (_, b)| a.total_cmp(b))?;
    Some(letter(index))
}

/// A position from its text, `0.31 -0.08 0.93`.
fn parsed(text: &str) -> Option<Vector> {
    let numbers: Vec<f64> = text.split(' ').map(str::parse).collect::<Result<_, _>>().ok()?;
    numbers.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arm::demonstration::demonstration;
    use crate::arm::statement::position;
    use crate::arm::task::Task;

    fn options(positions: &[Vector]) -> Vec<String> {
        positions.iter().map(|at| position(*at)).collect()
    }

    #[test]
    fn waypoints_are_found_from_the_frame() {
        for task in Task::SEEN {
            let (mut worked, mut right, mut asked) = (0, 0, 0);
            for episode in 0..20 {
                let demonstration = demonstration(3, task, episode);
                let others = [[0.4, 0.35, 1.2], [-0.1, -0.35, 1.1], [0.0, 0.3, 1.2]];
                for frame in (0..demonstration.steps.len() - 1).step_by(10) {
                    let key_point = demonstration.next_key_point(frame);
                    let target = demonstration.steps[key_point].position;
                    let options = options(&[others[0], target, others[1], others[2]]);
                    let question =
                        AskedFrame { kind: "waypoint", frame, key_point, options: &options };
                    asked += 1;
                    let Some(answer) = worked_answer(&demonstration, &question) else { continue };
                    worked += 1;
                    right += usize::from(answer.letter == 'B');
                    assert!(!answer.subtask.is_empty() && !answer.subtask.contains("the "));
                }
            }
            assert_eq!(right, worked, "{task}");
            assert!(worked * 10 >= asked * 6, "{task}: {worked} of {asked}");
        }
    }

    #[test]
    fn a_movement_ends_with_its_letter() {
        let demonstration = demonstration(3, Task::PickUpCup, 1);
        let frame = 0;
        let key_point = demonstration.next_key_point(frame);
        let from = rounded(demonstration.steps[frame].position);
        let way = sub(rounded(demonstration.steps[key_point].position), from);
        let phrase = direction(rounded(way));
        let options = ["up".to_owned(), "left".to_owned(), phrase.clone(), "right".to_owned()];
        let question = AskedFrame { kind: "movement", frame, key_point, options: &options };
        let answer = worked_answer(&demonstration, &question).unwrap();
        assert_eq!(answer.letter, 'C');
        let text = answer.completion;
        let start = format!("<think>gripper {}. gripper open. ", position(from));
        assert!(text.starts_with(&start), "{text}");
        assert!(text.contains(". next: move gripper above red cup. red cup "), "{text}");
        assert!(text.ends_with(&format!("{phrase}: C.</think><answer>C</answer>")), "{text}");
    }

    #[test]
    fn a_state_is_the_grippers_position() {
        let demonstration = demonstration(3, Task::PushButton, 1);
        let state = demonstration.steps[7].position;
        let options = options(&[[0.0; 3], [0.2, 0.2, 0.8], [0.1, 0.1, 0.9], state]);
        let question = AskedFrame { kind: "state", frame: 7, key_point: 20, options: &options };
        let answer = worked_answer(&demonstration, &question).unwrap();
        let at = position(state);
        let expected = format!("<think>gripper {at}. near {at}: D.</think><answer>D</answer>");
        assert_eq!((answer.completion, answer.letter), (expected, 'D'));
    }
}
