//! An OpenAI-compatible HTTP server over the generation engine.
//!
//! The engine runs on a thread of its own. Handlers parse requests, submit them and detokenize the generated tokens. A
//! request whose client disconnects is cancelled at the next step. Parameters that would change the response are refused
//! if they are not supported; others are ignored.
//!
//! | module | contents |
//! |---|---|
//! | `server` | [`Server`]: options, start, drain |
//! | `limits` | [`HttpLimits`] |
//! | `connections` | accepting connections, closing slow ones |
//! | `client` | who sends requests |
//! | `routes` | paths and their handlers |
//! | `app` | the state that handlers share |
//! | `body` | receiving request bodies within limits, and parsing them |
//! | `json_size` | how many values a body has, before it is parsed |
//! | `budget` | memory that concurrent requests share |
//! | `request` | request bodies to prompts and sampling parameters |
//! | `media` | loading images and videos from URLs |
//! | `images` | images and videos of a prompt: from files to embeddings |
//! | `videos` | selecting and decoding the frames of a video |
//! | `choice` | tokens to one choice's text and log-probabilities |
//! | `response` | choices to JSON, whole or streamed |
//! | `admission` | admission control |
//! | `refusal` | errors in OpenAI's format |

mod admission;
mod api_key;
mod app;
mod body;
mod budget;
mod choice;
mod client;
mod connections;
mod error;
mod images;
mod json_size;
mod limits;
mod media;
mod metrics;
mod refusal;
mod request;
mod response;
mod routes;
mod server;
mod videos;

pub use api_key::ApiKeyHash;
pub use app::MAX_IMAGE_BODY_BYTES;
pub use error::{Error, Result};
pub use limits::HttpLimits;
pub use media::MediaOptions;
pub use server::{Server, ServerOptions};
