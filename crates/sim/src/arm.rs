//! A simulated robot arm at a table.
mod bench;
mod camera;
mod chain;
mod demonstration;
mod frames;
mod layout;
mod look;
mod mesh;
mod motion;
mod objects;
mod relation;
mod render;
mod scene;
mod script;
mod space;
mod task;

pub use bench::{BenchFrame, BenchQuestion, QUESTION_TYPES, bench_frame};
pub use camera::image_position;
pub use chain::{JOINTS, Joints};
pub use demonstration::{Demonstration, Step, demonstration};
pub use frames::{Located, classes, descriptions, located, random_scene};
pub use objects::{Body, Kind};
pub use relation::{MOVEMENT_EPSILON_M, Relation, directions, movement_sentence};
pub use render::Renderer;
pub use scene::Scene;
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
