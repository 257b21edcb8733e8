//! Procedural rooms: egocentric videos, questions and ground-truth answers.
//!
//! Everything is a pure function of seeds. [`room`] generates a room with objects, a camera
//! trajectory ([`embodied_r_data::scene::Scene`]) and questions. [`rationale`] reasons from captions
//! alone, and [`grounding`] checks a reply's reasoning against them. [`corpus`] generates pre-training text for a small model. [`rooms()`] renders videos and
//! writes them in the benchmarks' layout.

pub mod arm;
mod caption_trace;
mod captions;
mod catalogue;
pub mod corpus;
mod error;
mod geometry;
mod grounding;
mod judge_examples;
mod question_template;
mod questions;
mod rationale;
mod render;
mod rooms;
mod statement;
mod video;
pub mod views;
mod world;

pub use caption_trace::captions_in;
pub use captions::captions_at;
pub use error::{Error, Result};
pub use grounding::{Grounding, grounding};
pub use judge_examples::{JudgeExample, judge_example};
pub use question_template::{Category, UnknownCategory};
pub use questions::{Room, RoomQuestion, TextQuestion, room, text_question};
pub use rationale::{Rationale, rationale, rationale_in_prompt};
pub use rooms::{RoomsOptions, RoomsSummary, rooms};
pub use video::render_video;
pub use world::keyframes_by_pose;
