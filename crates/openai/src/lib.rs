//! A client of OpenAI-compatible chat APIs (vLLM, SGLang, DashScope, OpenAI, …) that does not give
//! up easily.
//!
//! A [`Client`] spreads its requests over one or several base URLs by weight and fails over between
//! them. A request that may succeed later (429, 5xx, a timeout, a cut connection, a reply that is not
//! the JSON promised) is sent again after an exponential back-off with jitter, or after the time that
//! the server asks for with `Retry-After`; one that cannot succeed (400, 401, 403, 404, …) fails at
//! once. [`Error::is_retryable`] tells the two apart.
//!
//! What is known of a server serves all requests: one that is overrun gets half as many at a time, and
//! one more for every round that it copes with; one that fails three times in a row is left alone for
//! a while, then tried with a single request. A refusal ([`Error::Refused`], [`Ending::Refused`]) and
//! a reply that was cut off ([`Ending::Truncated`]) are results and not sent again.
//!
//! ```no_run
//! use embodied_r_openai::{ApiKey, ChatRequest, Client, ClientOptions, Message};
//!
//! # async fn example() -> embodied_r_openai::Result<()> {
//! let client = Client::new(&ClientOptions {
//!     api_key: ApiKey::from_env("OPENAI_API_KEY"),
//!     ..ClientOptions::new(["http://localhost:8000/v1"])
//! })?;
//! let request = ChatRequest::new("Qwen/Qwen2.5-7B-Instruct", vec![Message::user("Say hello.")]);
//! println!("{}", client.chat(&request).await?.text);
//! # Ok(())
//! # }
//! ```

pub mod chat;
mod circuit;
pub mod client;
mod endpoint;
pub mod error;
mod key;
mod pace;
mod pool;
mod retry;

pub use chat::{ChatReply, ChatRequest, Content, Ending, Message, Role, Usage};
pub use client::{Client, ClientOptions};
pub use error::{Deadline, Error, Result};
pub use key::ApiKey;
