//! An HTTP server that speaks OpenAI's API over the generation engine.
//!
//! One thread drives the engine (`driver`); handlers read requests, hand them to it through a
//! channel and turn the tokens that come back into text. A request whose client has left is ended at
//! the next step. What a request asks for and this server does not do is refused, never ignored.
//!
//! | module | holds |
//! |---|---|
//! | `server` | [`Server`]: options, start, drain |
//! | `routes` | paths and their handlers |
//! | `request` | bodies to prompts and sampling |
//! | `media` | pictures that requests name, as far as they may |
//! | `driver` | the engine's thread |
//! | `choice` | tokens to one choice's text and log-probabilities |
//! | `reply` | choices to JSON, whole or as events |
//! | `admission` | how many sequences are taken in at once |
//! | `refusal` | errors in OpenAI's form |

mod admission;
mod api_key;
mod choice;
mod driver;
mod error;
mod media;
mod metrics;
mod refusal;
mod reply;
mod request;
mod routes;
mod server;

pub use api_key::ApiKey;
pub use error::{Error, Result};
pub use media::MediaOptions;
pub use server::{Server, ServerOptions, Vision};
