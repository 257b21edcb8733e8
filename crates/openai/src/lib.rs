//! A client of OpenAI-compatible chat APIs (vLLM, SGLang, DashScope, OpenAI, …) that does not give
//! up easily.
//!
//! A [`Client`] spreads its requests over one or several base URLs and fails over between them. A
//! request that may succeed later (429, 5xx, a timeout, a cut connection, a reply that is not the
//! JSON promised) is sent again after an exponential back-off with jitter, or after the time that
//! the server asks for with `Retry-After`; one that cannot succeed (400, 401, 403, 404, …) fails at
//! once. [`Error::is_retryable`] tells the two apart.
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
pub mod client;
mod endpoint;
pub mod error;
mod key;
mod retry;

pub use chat::{ChatReply, ChatRequest, Content, Message, Role, Usage};
pub use client::{Client, ClientOptions};
pub use error::{Error, Result};
pub use key::ApiKey;
