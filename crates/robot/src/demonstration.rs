//! A demonstration as numbers.

use embodied_r_lerobot::TaskSpan;

use crate::error::{Error, Result};

/// A position of the gripper in the world frame: x, y and z in metres.
pub type Position = [f64; 3];

/// One recorded episode of a task.
#[derive(Debug, Clone, PartialEq)]
pub struct Demonstration {
    /// The number of the episode in its data set.
    pub episode: usize,
    /// The instructions of its frames, in order; the first from frame 0 on.
    pub tasks: Vec<TaskSpan>,
    /// The gripper's position in each frame.
    pub positions: Vec<Position>,
    /// How far the gripper is open in each frame, in any unit, larger being wider; empty if it is not recorded.
    pub gripper: Vec<f64>,
    /// The speed of the fastest joint in each frame, in rad/s; empty if velocities are not recorded.
    pub joint_speeds: Vec<f64>,
    /// What the demonstration says about itself; empty without.
    pub annotations: Vec<Annotation>,
}

/// A text about a demonstration that holds from a frame on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Annotation {
    /// The first frame that it is about.
    pub frame: usize,
    /// Its kind.
    pub kind: AnnotationKind,
    /// The text.
    pub text: String,
}

/// What an [`Annotation`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnnotationKind {
    /// The steps of the whole task.
    Plan,
    /// The step that is being done.
    Subtask,
}

impl Demonstration {
    /// The number of frames.
    pub fn frames(&self) -> usize {
        self.positions.len()
    }

    /// The instruction of `frame`.
    pub fn task(&self, frame: usize) -> &str {
        let span = self.tasks.iter().rev().find(|span| span.start <= frame);
        span.map_or("", |span| span.task.as_str())
    }

    /// All instructions, for a title.
    pub fn title(&self) -> String {
        let tasks: Vec<&str> = self.tasks.iter().map(|span| span.task.as_str()).collect();
        tasks.join(", then ")
    }

    /// The text of `kind` that holds in `frame`.
    pub fn annotation(&self, kind: AnnotationKind, frame: usize) -> Option<&str> {
        let holds = |note: &&Annotation| note.kind == kind && note.frame <= frame;
        let latest = self.annotations.iter().filter(holds).max_by_key(|note| note.frame);
        latest.map(|note| note.text.as_str())
    }

    /// Checks that all columns are of the same length and finite.
    ///
    /// # Errors
    /// [`Error::Demonstration`] with the episode, the column and the frame.
    pub fn check(&self) -> Result<()> {
        let fault = |column: &'static str, reason: String| {
            Err(Error::Demonstration { episode: self.episode, column, reason })
        };
        if self.positions.is_empty() {
            return fault("position", "has no frames".to_owned());
        }
        let lengths = [("gripper", self.gripper.len()), ("joint speed", self.joint_speeds.len())];
        for (column, length) in lengths {
            if length != 0 && length != self.frames() {
                let reason = format!("has {length} frames, the position {}", self.frames());
                return fault(column, reason);
            }
        }
        for frame in 0..self.frames() {
            let of = |column: &[f64]| column.get(frame).copied();
            let columns = [
                ("position", self.positions[frame].map(Some)),
                ("gripper", [of(&self.gripper), None, None]),
                ("joint speed", [of(&self.joint_speeds), None, None]),
            ];
            for (column, values) in columns {
                if let Some(value) = values.into_iter().flatten().find(|value| !value.is_finite()) {
                    return fault(column, format!("is {value} in frame {frame}"));
                }
            }
        }
        Ok(())
    }
}

/// The distance between two positions.
pub fn distance(a: Position, b: Position) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demonstration() -> Demonstration {
        Demonstration {
            episode: 7,
            tasks: vec![TaskSpan { start: 0, task: "pick up the cup".to_owned() }],
            positions: vec![[0.0; 3]; 4],
            gripper: vec![1.0; 4],
            joint_speeds: vec![0.0; 4],
            annotations: Vec::new(),
        }
    }

    #[test]
    fn a_number_that_is_not_finite_is_reported_with_its_place() {
        for (column, spoil) in [
            ("position", (|it| it.positions[2][1] = f64::NAN) as fn(&mut Demonstration)),
            ("gripper", |it| it.gripper[2] = f64::NAN),
            ("joint speed", |it| it.joint_speeds[2] = f64::NAN),
        ] {
            let mut spoilt = demonstration();
            assert!(spoilt.check().is_ok());
            spoil(&mut spoilt);
            let error = spoilt.check().unwrap_err().to_string();
            assert_eq!(error, format!("episode 7: the {column} is NaN in frame 2"));
        }
    }

    #[test]
    fn columns_of_other_lengths_are_refused() {
        let mut short = demonstration();
        short.joint_speeds.pop();
        let error = short.check().unwrap_err().to_string();
        assert_eq!(error, "episode 7: the joint speed has 3 frames, the position 4");
    }

    #[test]
    fn a_frame_has_the_instruction_that_starts_last_before_it() {
        let span = |start, task: &str| TaskSpan { start, task: task.to_owned() };
        let tasks = vec![span(0, "reach"), span(2, "carry")];
        let changing = Demonstration { tasks, ..demonstration() };
        assert_eq!([0, 1, 2, 3].map(|it| changing.task(it)), ["reach", "reach", "carry", "carry"]);
        assert_eq!(changing.title(), "reach, then carry");
    }

    #[test]
    fn the_latest_annotation_holds() {
        let note = |frame, kind, text: &str| Annotation { frame, kind, text: text.to_owned() };
        let mut annotated = demonstration();
        annotated.annotations = vec![
            note(1, AnnotationKind::Subtask, "reach"),
            note(3, AnnotationKind::Subtask, "grasp"),
            note(0, AnnotationKind::Plan, "all"),
        ];
        let subtask = |frame| annotated.annotation(AnnotationKind::Subtask, frame);
        assert_eq!([0, 1, 2, 3].map(subtask), [None, Some("reach"), Some("reach"), Some("grasp")]);
        assert_eq!(annotated.annotation(AnnotationKind::Plan, 3), Some("all"));
    }
}
