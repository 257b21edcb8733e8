//! Arguments of `embodied-r serve`.

use std::path::PathBuf;

use super::model::StoredModel;

/// Serve a model over HTTP as OpenAI's API does.
///
/// `POST /v1/chat/completions`, `POST /v1/completions`, `GET /v1/models`; `/health` and `/metrics`
/// beside them. Clients have to show the key in `EMBODIED_R_API_KEY`, if it is set. On SIGTERM or
/// Ctrl-C no new requests are taken and the running ones finish; a second signal ends them. A
/// vision-language model takes pictures too.
#[derive(Debug, clap::Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    pub(crate) stored: StoredModel,
    /// Address or name to listen on; `0.0.0.0` is every one of this machine's.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub(crate) host: String,
    /// Port to listen on; 0 takes a free one.
    #[arg(long, value_name = "PORT", default_value_t = 8000)]
    pub(crate) port: u16,
    /// Name that clients ask for; by default what `--model` says.
    #[arg(long, value_name = "NAME")]
    pub(crate) served_model_name: Option<String>,
    /// Most tokens of a prompt and its completion together; by default what the model takes.
    #[arg(long, value_name = "N")]
    pub(crate) max_model_len: Option<usize>,
    /// Folder of pictures that requests may name by `file:` URLs; by default they bring theirs along.
    #[arg(long, value_name = "DIR")]
    pub(crate) allowed_local_media_path: Option<PathBuf>,
    /// Hosts that pictures may be fetched from; by default none is fetched.
    #[arg(long, value_name = "HOST", num_args = 1..)]
    pub(crate) allowed_media_domains: Vec<String>,
    /// Leave a vision-language model's tower out: requests hold text alone then.
    #[arg(long)]
    pub(crate) language_model_only: bool,
    /// Sequences that are decoded together, at most.
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub(crate) max_num_seqs: usize,
    /// Tokens that a step computes, at most.
    #[arg(long, value_name = "N", default_value_t = 2048)]
    pub(crate) max_num_batched_tokens: usize,
    /// Memory for keys and values, in GB. When it is full, the youngest sequences wait and are
    /// computed again.
    #[arg(long, value_name = "GB", default_value_t = 4.0)]
    pub(crate) kv_cache_gb: f64,
    /// Sequences that may wait for their turn; requests beyond them are refused with 429.
    #[arg(long, value_name = "N", default_value_t = 1024)]
    pub(crate) max_queue: usize,
    /// Seconds that running requests have to finish once the server is told to stop.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub(crate) drain_timeout: u64,
}
