//! A simulated robot arm at a table: scripted demonstrations of ten tasks, rendered from the front, and true answers to
//! questions about them.
//!
//! The world frame is RLBench's: metres, the origin of the table's surface at [`TABLE_CENTRE`], x from the robot towards
//! the camera, y to the camera's right, z up. The arm has the dimensions of a Franka Panda, and its joint angles follow from
//! the gripper's path by inverse kinematics. Everything is a pure function of seed, task and episode.
//!
//! [`demonstration`] makes a demonstration, [`Renderer`] renders its moments, [`bench_frame`] asks about one.
//! [`random_scene`], [`descriptions`], [`located`], [`things`], [`relations`] and [`hand`] are for pretraining, and
//! [`worked_answer`] is for a cold start; [`statement`] has the words of both.
//! [`write_arm`] writes a data set, and [`WrittenArm`] repeats its demonstrations.
//!
//! ```
//! use embodied_r_sim::arm::{Renderer, Task, demonstration};
//!
//! let demonstration = demonstration(0, Task::PickUpCup, 3);
//! let step = &demonstration.steps[10];
//! let [x, y, z] = step.position;
//! let pixels = Renderer::new((112, 84)).draw(&step.scene);
//! assert_eq!(pixels.len(), 112 * 84 * 3);
//! assert!(demonstration.is_successful() && z > 0.752, "{x} {y} {z}");
//! ```

mod bench;
mod camera;
mod chain;
mod dataset;
mod demonstration;
mod frames;
mod layout;
mod look;
mod mesh;
mod motion;
mod objects;
mod rationale;
mod relation;
mod render;
mod scene;
mod script;
mod space;
pub mod statement;
mod task;

pub use bench::{BenchFrame, BenchQuestion, QUESTION_TYPES, bench_frame};
pub use camera::image_position;
pub use chain::{JOINTS, Joints};
pub use dataset::{ArmOptions, ArmOutput, ArmSummary, IMAGE_SIZE, WrittenArm, write_arm};
pub use demonstration::{Demonstration, Step, demonstration};
pub use frames::{Located, classes, descriptions, hand, located, random_scene};
pub use objects::{Body, Kind};
pub use rationale::{AskedFrame, WorkedAnswer, worked_answer};
pub use relation::{
    DIRECTIONS, MOVEMENT_EPSILON_M, Relation, directions, movement_sentence, relations, things,
};
pub use render::Renderer;
pub use scene::Scene;
pub use statement::EPSILON_M;
pub use task::{Split, Task, UnknownTask};

/// The centre of the table's surface in metres, as in RLBench.
pub const TABLE_CENTRE: [f64; 3] = [0.25, 0.0, 0.752];

/// Distance between the fingers of the open gripper in metres.
pub const OPEN_M: f64 = 0.08;

/// Frames per second of a demonstration.
pub const FPS: u32 = 10;

/// Seconds between two frames.
const DT_S: f64 = 1.0 / FPS as f64;

/// Joint speed up to which ARM's rule takes the arm for stopped, in radians per second.
const STOPPED_RAD_S: f64 = 0.1;
