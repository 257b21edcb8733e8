//! Options of `embodied-r serve`.

use std::path::PathBuf;

use super::model::StoredModel;

/// Serve a model over an OpenAI-compatible HTTP API.
///
/// Endpoints: `POST /v1/chat/completions`, `POST /v1/completions`, `GET /v1/models`, `/health` and `/metrics`
/// (Prometheus). If `EMBODIED_R_API_KEY` is set, clients must send it as the API key. Vision-language models accept
/// images. On SIGTERM or Ctrl-C the server drains: running requests finish, new ones are rejected; a second signal
/// aborts them.
#[derive(Debug, clap::Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    pub(crate) stored: StoredModel,
    /// Address or host name to listen on; `0.0.0.0` is all interfaces.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub(crate) host: String,
    /// Port to listen on; 0 picks a free one.
    #[arg(long, value_name = "PORT", default_value_t = 8000)]
    pub(crate) port: u16,
    /// Model name in the API [default: the value of `--model`].
    #[arg(long, value_name = "NAME")]
    pub(crate) served_model_name: Option<String>,
    /// Maximum context length: prompt and completion tokens together [default: that of the model].
    #[arg(long, value_name = "N")]
    pub(crate) max_model_len: Option<usize>,
    /// Directory of images that requests may reference by `file:` URLs [default: none, local files are rejected].
    #[arg(long, value_name = "DIR")]
    pub(crate) allowed_local_media_path: Option<PathBuf>,
    /// Hosts that images may be downloaded from [default: none are allowed].
    #[arg(long, value_name = "HOST", num_args = 1..)]
    pub(crate) allowed_media_domains: Vec<String>,
    /// Do not load the vision encoder of a vision-language model; requests are text-only.
    #[arg(long)]
    pub(crate) language_model_only: bool,
    /// Maximum number of sequences decoded concurrently.
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub(crate) max_num_seqs: usize,
    /// Maximum number of tokens per engine step (chunked prefill).
    #[arg(long, value_name = "N", default_value_t = 2048)]
    pub(crate) max_num_batched_tokens: usize,
    /// KV cache size in GB (10^9 bytes). When it is full, the newest sequences are preempted and recomputed later.
    #[arg(long, value_name = "GB", default_value_t = 4.0)]
    pub(crate) kv_cache_gb: f64,
    /// Maximum number of queued sequences; further requests get status 429.
    #[arg(long, value_name = "N", default_value_t = 1024)]
    pub(crate) max_queue: usize,
    /// Drain timeout in seconds: how long running requests may take to finish on shutdown.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub(crate) drain_timeout: u64,
}
