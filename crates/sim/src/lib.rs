//! Procedural rooms: egocentric videos, questions and true answers.
//!
//! Everything is a pure function of seeds: [`room`] draws a room with objects and a camera's path
//! ([`embodied_r_data::scene::Scene`]) and asks about it, [`rationale`] reasons from captions
//! alone, [`corpus`] writes text to pre-train a small model on, and [`rooms()`] films rooms and
//! lays them out as the benchmarks do.

mod ask;
mod captions;
mod catalogue;
pub mod corpus;
mod error;
mod geometry;
mod questions;
mod rationale;
mod render;
mod rng;
mod rooms;
mod trace;
mod video;
mod world;

pub use ask::{Category, UnknownCategory};
pub use captions::captions_at;
pub use error::{Error, Result};
pub use questions::{Room, RoomQuestion, TextQuestion, room, text_question};
pub use rationale::{Rationale, rationale, rationale_in_prompt};
pub use rooms::{RoomsOptions, RoomsSummary, rooms};
pub use trace::captions_in;
pub use video::film;
pub use world::keyframes_by_pose;
