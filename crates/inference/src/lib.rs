//! From prompts to text: what `serve`, local captioners, `chat`, `ask`, `infer`, `eval` and `filter` share.
//!
//! A [`Model`] turns conversations into prompts. The engine completes prompts on a thread of its own ([`EngineClient`],
//! [`EngineCore::spawn`]) or on the caller's ([`BlockingEngine`]); either way, a [`Generation`] has the events of a request,
//! and dropping it cancels the request. A [`Completion`] turns events into text. A [`VisionEngine`] does all of this for
//! conversations with images, on one rank or several.

mod blocking_engine;
mod completion;
mod engine_core;
mod error;
mod generation;
mod model;
mod vision_engine;
mod worker;

pub use blocking_engine::BlockingEngine;
pub use completion::Completion;
pub use engine_core::{EngineClient, EngineCore};
pub use error::{Error, Result};
pub use generation::{Event, Generation, GenerationOptions};
pub use model::{ChatPrompt, Model};
pub use vision_engine::{ImageChat, PreparedChat, VisionEngine, VisionEngineOptions};
pub use worker::{PromptRequest, Worker};
