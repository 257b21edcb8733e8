//! Questions from robot demonstrations, as in Robot-R1 (arXiv 2506.00070), and the scoring of its bench.
//!
//! - [`demonstration`]: a recorded episode as numbers. [`key_points`](mod@key_points) finds where its gripper changes or its arm stops,
//!   by ARM's rule; [`split`](mod@split) divides episodes into training, validation and test.
//! - [`questions`](mod@questions): what the next key point is ([`Kind`]), with distractors such that the text alone
//!   does not give the answer away. [`movement`] says a displacement in words; [`prompt`] writes prompts about a [`Robot`].
//! - [`Prepared`]: all of this for a LeRobot data set, whose columns [`columns`] finds. [`records`] and [`output`] write
//!   it as question files; [`plot`](mod@plot) draws a demonstration with its key points.
//! - [`bench`](mod@bench): open questions, a judge's prompts, scores by rules, and mean scores.
//!
//! ```
//! use embodied_r_robot::{Movement, Robot, Wording};
//!
//! let movement = Movement::between([0.27, -0.11, 1.15], [0.31, -0.20, 0.89], 0.005);
//! let text = movement.map(|movement| movement.text(&Robot::default(), Wording::Sentence));
//! assert_eq!(text.as_deref(), Some("slightly move forward, slightly move left, and move down"));
//! ```

pub mod annotations;
pub mod bench;
mod blocks;
pub mod columns;
pub mod demonstration;
pub mod error;
pub mod key_points;
pub mod kind;
pub mod movement;
pub mod output;
pub mod plot;
pub mod prepared;
pub mod prompt;
pub mod questions;
pub mod records;
pub mod robot;
#[cfg(test)]
mod scripted;
pub mod split;

pub use columns::{ColumnOptions, Columns, Gripper, GripperColumn, VelocityColumn};
pub use demonstration::{Annotation, AnnotationKind, Demonstration, Position};
pub use error::{Error, Result};
pub use key_points::{Cause, KeyPoint, Stillness, key_points};
pub use kind::Kind;
pub use movement::{Movement, Wording};
pub use plot::plot;
pub use prepared::{Prepared, Settings};
pub use prompt::{AnswerForm, PromptStyle, Prompts};
pub use questions::{Distractors, QuestionOptions, Questions, RobotQuestion, Source, StartFrame};
pub use records::{Records, Worked};
pub use robot::Robot;
pub use split::{Shares, Split, split};
