//! Options of the commands that may run a model behind an API in place of a local one.

use std::time::Duration;

use super::value::{at_least_one, seconds};

/// The servers of the model; `--model` is then its name on them.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Model behind an OpenAI-compatible API")]
pub(crate) struct ApiArgs {
    /// Base URLs of OpenAI-compatible servers of the model, such as `http://localhost:8000/v1`; requests are balanced
    /// across them.
    #[arg(long, num_args = 1.., value_name = "URL", requires = "model")]
    pub(crate) base_url: Vec<String>,
    /// Environment variable that holds the API key [default: OPENAI_API_KEY].
    #[arg(long, value_name = "VARIABLE", requires = "base_url")]
    pub(crate) api_key_env: Option<String>,
    /// Maximum number of concurrent requests [default: 16].
    #[arg(long, value_name = "N", requires = "base_url", value_parser = at_least_one)]
    pub(crate) concurrency: Option<usize>,
    /// Request timeout in seconds [default: 300].
    #[arg(long, value_name = "SECONDS", requires = "base_url", value_parser = seconds)]
    pub(crate) timeout_s: Option<Duration>,
    /// Maximum number of retries per failed request. Rate-limited requests (429) are retried for up to ten minutes
    /// without counting [default: 5].
    #[arg(long, value_name = "N", requires = "base_url")]
    pub(crate) max_retries: Option<u32>,
}

impl ApiArgs {
    /// Whether the model is behind an API.
    pub(crate) fn is_given(&self) -> bool {
        !self.base_url.is_empty()
    }
}
