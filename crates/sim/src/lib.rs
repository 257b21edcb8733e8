//! Procedural rooms: egocentric videos, questions and ground-truth answers.
//!
//! Everything is a pure function of seeds. [`room`] generates a room with objects, a camera
//! trajectory ([`embodied_r_data::scene::Scene`]) and questions. [`rationale`] reasons from captions
//! alone, and [`grounding`] checks a reply's reasoning against them. [`rooms()`] renders videos and writes them in the
//! benchmarks' layout. [`statement`] and [`wording`] are what rationales and other text about rooms are made of.

pub mod arm;
mod caption_trace;
mod captions;
mod catalogue;
mod error;
mod geometry;
mod grounding;
mod judge_examples;
mod question_template;
mod questions;
mod rationale;
mod render;
mod rooms;
pub mod statement;
mod video;
pub mod views;
pub mod wording;
mod world;

pub use caption_trace::{Action, CaptionTrace, Frame, captions_in};
pub use captions::captions_at;
pub use error::{Error, Result};
pub use grounding::{Grounding, grounding};
pub use judge_examples::{JudgeExample, judge_example};
pub use question_template::{Category, UnknownCategory};
pub use questions::{Room, RoomQuestion, TextQuestion, room, text_question};
pub use rationale::{Rationale, rationale, rationale_in_prompt};
pub use rooms::{RoomsOptions, RoomsSummary, rooms};
pub use video::render_video;
pub use world::{draw as random_room, keyframes_by_pose};
