//! A fault-tolerant client of OpenAI-compatible chat APIs (vLLM, SGLang, DashScope, OpenAI, …).
//!
//! A [`Client`] balances its requests over one or several base URLs by weight and fails over between
//! them. Transient failures (429, 5xx, a timeout, a broken connection, invalid JSON) are retried with
//! exponential back-off and jitter, or after the server's `Retry-After`; permanent ones (400, 401, 403,
//! 404, …) fail at once ([`Error::is_retryable`]).
//!
//! All requests share the state of a server: an AIMD concurrency limit halves when the server is
//! overloaded, and a circuit breaker opens after three consecutive failures, then probes with a single
//! request. Refusals ([`Error::ContentFiltered`], [`CompletionStatus::Refused`]) and truncated
//! completions ([`CompletionStatus::Truncated`]) are results and not retried.
//!
//! ```no_run
//! use embodied_r_openai::{ApiKey, Client, ClientOptions};
//! use embodied_r_openai::{ChatCompletionMessage, ChatCompletionRequest};
//!
//! # async fn example() -> embodied_r_openai::Result<()> {
//! let client = Client::new(&ClientOptions {
//!     api_key: ApiKey::from_env("OPENAI_API_KEY"),
//!     ..ClientOptions::new(["http://localhost:8000/v1"])
//! })?;
//! let messages = vec![ChatCompletionMessage::user("Say hello.")];
//! let request = ChatCompletionRequest::new("Qwen/Qwen2.5-7B-Instruct", messages);
//! println!("{}", client.chat(&request).await?.text);
//! # Ok(())
//! # }
//! ```

pub mod chat;
mod circuit_breaker;
pub mod client;
mod concurrency;
mod endpoint;
pub mod error;
mod key;
mod pool;
mod retry;

pub use chat::{
    ChatCompletion, ChatCompletionMessage, ChatCompletionRequest, CompletionStatus, ContentPart,
    Role, Usage,
};
pub use client::{Client, ClientOptions};
pub use endpoint::check_base_url;
pub use error::{Error, Result, TimeoutKind, with_causes};
pub use key::ApiKey;
