//! Open questions about frames with true answers: planning, high-level action, movement and spatial, as in Robot-R1 Bench
//! (arXiv 2506.00070).

use embodied_r_random::Rng;
use serde_json::{Value, json};

use super::demonstration::{Demonstration, demonstration};
use super::relation::{Relation, movement_sentence, relations};
use super::scene::Scene;
use super::space::{norm, sub};
use super::task::Task;

/// The first episode that questions of the bench are about; data sets have fewer.
pub(super) const FIRST_EPISODE: u64 = 1 << 32;

/// Least distance to the next key point of a frame of the bench, in metres.
const FAR_M: f64 = 0.03;

/// The four types of questions, as the files name them.
pub const QUESTION_TYPES: [&str; 4] = ["planning", "high-level action", "movement", "spatial"];

/// A frame of a demonstration that is in no data set, with a question of each type.
#[derive(Debug, Clone, PartialEq)]
pub struct BenchFrame {
    /// The demonstration.
    pub demonstration: Demonstration,
    /// The frame's index in it.
    pub frame: usize,
    /// The questions, in the order of [`QUESTION_TYPES`].
    pub questions: Vec<BenchQuestion>,
}

/// An open question.
#[derive(Debug, Clone, PartialEq)]
pub struct BenchQuestion {
    /// One of [`QUESTION_TYPES`].
    pub kind: &'static str,
    /// The question.
    pub question: String,
    /// The true answer.
    pub answer: String,
    /// What a judge by rules needs: of a movement the displacement in metres, `{"displacement": {"x", "y", "z"}}`; of a
    /// spatial question how the subject lies relative to the object, `{"relation", "subject", "object"}`.
    pub facts: Option<Value>,
}

/// Frame `index` of a task for the bench; `None` if the demonstration has no frame far from its next key point, which does
/// not occur.
#[must_use]
pub fn bench_frame(seed: u64, task: Task, index: u64) -> Option<BenchFrame> {
    let demonstration = demonstration(seed, task, FIRST_EPISODE + index);
    let number = Task::ALL.iter().position(|other| *other == task).unwrap_or(0) as u64;
    let mut rng = Rng::new(&[seed, number, index, 52]);
    let displacement = |frame: usize| {
        let next = demonstration.next_key_point(frame);
        sub(demonstration.steps[next].position, demonstration.steps[frame].position)
    };
    let far: Vec<usize> = (0..demonstration.steps.len())
        .filter(|&frame| norm(displacement(frame)) >= FAR_M)
        .collect();
    let frame = *rng.pick(&far)?;
    let task = format!("The task is to {}.", demonstration.instruction);
    let remaining = demonstration.plan.get(demonstration.steps[frame].subtask..)?;
    let [x, y, z] = displacement(frame);
    let questions = vec![
        BenchQuestion {
            kind: QUESTION_TYPES[0],
            question: format!("{task} What steps remain to finish it?"),
            answer: numbered(remaining),
            facts: None,
        },
        BenchQuestion {
            kind: QUESTION_TYPES[1],
            question: format!("{task} What is the robot's next action?"),
            answer: remaining.first()?.clone(),
            facts: None,
        },
        BenchQuestion {
            kind: QUESTION_TYPES[2],
            question: format!("{task} In which directions does the gripper have to move next?"),
            answer: movement_sentence([x, y, z]),
            facts: Some(json!({ "displacement": { "x": x, "y": y, "z": z } })),
        },
        spatial(&demonstration.steps[frame].scene, &mut rng),
    ];
    Some(BenchFrame { demonstration, frame, questions })
}

/// Sentences as a numbered list on one line.
fn numbered(sentences: &[String]) -> String {
    let items = sentences.iter().zip(1..).map(|(sentence, number)| format!("{number}. {sentence}"));
    items.collect::<Vec<_>>().join(" ")
}

/// A question about a clear relation of two things.
fn spatial(scene: &Scene, rng: &mut Rng) -> BenchQuestion {
    let relations = relations(scene);
    // The gripper is always above the table.
    let (subject, relation, object) =
        rng.pick(&relations).copied().unwrap_or(("gripper", Relation::Above, "table"));
    let words = relation.words();
    BenchQuestion {
        kind: QUESTION_TYPES[3],
        question: format!(
            "From the camera's view, where is the {subject} relative to the {object}?"
        ),
        answer: format!("The {subject} is {words} the {object}."),
        facts: Some(json!({ "relation": words, "subject": subject, "object": object })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arm::Split;

    fn frames() -> impl Iterator<Item = BenchFrame> {
        let of = |task| (0..20).map(move |index| bench_frame(3, task, index).unwrap());
        Task::ALL.into_iter().flat_map(of)
    }

    /// Where a thing is, by its name.
    fn place(scene: &Scene, name: &str) -> [f64; 3] {
        let body = scene.bodies.iter().find(|body| body.kind.name() == name);
        body.map_or_else(|| scene.gripper_position(), super::super::Body::middle)
    }

    #[test]
    fn spatial_answers_hold_in_the_image() {
        let mut kinds = std::collections::BTreeSet::new();
        for BenchFrame { demonstration, frame, questions } in frames() {
            let question = &questions[3];
            let scene = &demonstration.steps[frame].scene;
            let of =
                |field: &str| question.facts.as_ref().unwrap()[field].as_str().unwrap().to_owned();
            let (subject, relation, object) = (of("subject"), of("relation"), of("object"));
            let (a, mut b) = (place(scene, &subject), place(scene, &object));
            if object == "table" {
                b[2] = crate::arm::TABLE_CENTRE[2];
            }
            let [left_a, left_b] = [a, b].map(|at| crate::arm::image_position(at, 1.0)[0]);
            let is_true = match relation.as_str() {
                "left of" => left_a < left_b && a[1] < b[1],
                "right of" => left_a > left_b && a[1] > b[1],
                "in front of" => a[0] > b[0] + 0.04,
                "behind" => a[0] < b[0] - 0.04,
                "above" => a[2] > b[2] && (left_a - left_b).abs() < 0.1,
                "below" => a[2] < b[2] && (left_a - left_b).abs() < 0.1,
                other => panic!("{other}"),
            };
            assert!(is_true, "{} {a:?} {b:?}", question.answer);
            assert_eq!(question.answer, format!("The {subject} is {relation} the {object}."));
            assert!(question.question.contains(&format!("{subject} relative to the {object}")));
            kinds.insert(relation);
        }
        assert!(kinds.len() >= 5, "{kinds:?}");
    }

    #[test]
    fn movement_answers_name_each_axis_on_the_way_to_the_next_stop_of_the_gripper() {
        for BenchFrame { demonstration, frame, questions } in frames() {
            // The next frame at rest, or the next change of the gripper, found without the script.
            let steps = &demonstration.steps;
            let is_key = |at: &usize| {
                let is_change = steps[*at].gripper_open != steps[at - 1].gripper_open;
                is_change || steps[*at].joint_velocities.iter().all(|v| v.abs() < 0.1)
            };
            let resting = (1..=frame + 3).contains(&frame) && is_key(&frame.max(1));
            let from =
                if resting { (frame + 1..).find(|at| !is_key(at)).unwrap() } else { frame + 1 };
            let next = (from..steps.len()).find(is_key).unwrap();
            let answer = questions[2].answer.to_lowercase();
            for (axis, [positive, negative]) in
                [["forward", "backward"], ["right", "left"], ["up", "down"]].into_iter().enumerate()
            {
                let moved = steps[next].position[axis] - steps[frame].position[axis];
                let named = (answer.contains(positive), answer.contains(negative));
                assert_eq!(named, (moved >= 0.005, moved <= -0.005), "{answer} {moved}");
            }
        }
    }

    #[test]
    fn planning_begins_with_the_next_action_and_ends_with_the_plan() {
        for BenchFrame { demonstration, frame, questions } in frames() {
            let (plan, action) = (&questions[0].answer, &questions[1].answer);
            assert_eq!(action, demonstration.subtask(frame));
            assert!(plan.starts_with(&format!("1. {action}")), "{plan}");
            assert!(plan.ends_with(demonstration.plan.last().unwrap()), "{plan}");
            let passed = demonstration.key_points.iter().filter(|key| **key <= frame).count();
            let last = format!("{}. ", demonstration.plan.len() - passed);
            assert!(
                plan.contains(&last)
                    && !plan.contains(&format!("{}. ", demonstration.plan.len() - passed + 1)),
                "{plan}"
            );
        }
    }

    #[test]
    fn questions_have_the_types_in_order_and_follow_from_the_seed() {
        let frame = bench_frame(3, Task::LampOn, 2).unwrap();
        let kinds: Vec<_> = frame.questions.iter().map(|question| question.kind).collect();
        assert_eq!(kinds, QUESTION_TYPES);
        assert_eq!(bench_frame(3, Task::LampOn, 2), Some(frame.clone()));
        assert_ne!(bench_frame(4, Task::LampOn, 2), Some(frame));
        assert_eq!(Task::LampOn.split(), Split::HeldOut);
    }
}
