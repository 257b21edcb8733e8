//! Options of `embodied-r serve`.

use std::path::PathBuf;

use clap::value_parser;

use super::direct::VideoPixelsName;
use super::frames::FrameArgs;
use super::model::StoredModel;

/// Serve a model over an OpenAI-compatible HTTP API.
///
/// Endpoints: `POST /v1/chat/completions`, `/v1/completions` and `/v1/responses`, `GET /v1/models`, `/health` and
/// `/metrics` (Prometheus), and vLLM's `/tokenize`, `/detokenize`, `/version` and `/ping`. If `EMBODIED_R_API_KEY` is set, clients must send it as the API key. Vision-language models accept
/// images and videos, of which they see 32 evenly spaced frames unless `--frames` or `--fps` says otherwise. On SIGTERM or
/// Ctrl-C the server drains: running requests finish, new ones are rejected; a second signal aborts them.
///
/// Clients that are too slow, and requests that would take too much memory, are refused with status 408, 413 or 503.
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
    /// Directory of images and videos that requests may reference by `file:` URLs [default: none, local files are
    /// rejected].
    #[arg(long, value_name = "DIR")]
    pub(crate) allowed_local_media_path: Option<PathBuf>,
    /// Hosts that images and videos may be downloaded from [default: none are allowed].
    #[arg(long, value_name = "HOST", num_args = 1..)]
    pub(crate) allowed_media_domains: Vec<String>,
    #[command(flatten)]
    pub(crate) frames: FrameArgs,
    /// What the limits of the model's video processor apply to; Qwen2.5-VL limits frames in either case.
    #[arg(long, value_enum, value_name = "WHAT", help_heading = "Videos", default_value_t)]
    pub(crate) video_pixels: VideoPixelsName,
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
    /// Maximum number of connections, at most the process's limit of open files less some for its own [default: 4096].
    /// At the limit, a new connection replaces the one that has been without a request for longest, or else the one whose
    /// body is slowest, below 4 KiB per second (status 408). If there is none within 1.5 s, the new one gets status 503.
    #[arg(long, value_name = "N", help_heading = "Limits on clients")]
    pub(crate) limit_concurrency: Option<usize>,
    /// Seconds in which a client must send the header of a request; status 408 after that.
    #[arg(long, value_name = "SECONDS", default_value_t = 10, help_heading = "Limits on clients")]
    #[arg(value_parser = value_parser!(u64).range(1..=MAX_SECONDS))]
    pub(crate) timeout_header: u64,
    /// Seconds in which a client must send the body of a request, plus one per 64 KiB received; status 408 after that.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, help_heading = "Limits on clients")]
    #[arg(value_parser = value_parser!(u64).range(1..=MAX_SECONDS))]
    pub(crate) timeout_body: u64,
    /// Seconds after which a client that reads nothing of its response is disconnected.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, help_heading = "Limits on clients")]
    #[arg(value_parser = value_parser!(u64).range(1..=MAX_SECONDS))]
    pub(crate) timeout_send: u64,
    /// Seconds after which an idle connection is closed.
    #[arg(long, value_name = "SECONDS", default_value_t = 75, help_heading = "Limits on clients")]
    #[arg(value_parser = value_parser!(u64).range(1..=MAX_SECONDS))]
    pub(crate) timeout_keep_alive: u64,
    /// Seconds in which a host of `--allowed-media-domains` must send an image or a video; status 400 after that.
    #[arg(long, value_name = "SECONDS", default_value_t = 20, help_heading = "Limits on clients")]
    #[arg(value_parser = value_parser!(u64).range(1..=MAX_SECONDS))]
    pub(crate) timeout_media: u64,
    /// Memory in GB (10^9 bytes) of the request bodies and files that are received and parsed at a time; status 503
    /// beyond. A client's share is half, or the largest body if that is more; beyond it, a client leaves a sixteenth free. A
    /// body has at most 16 MiB, 128 MiB with a vision-language model, an image file 32 MiB, a video 96 MiB.
    #[arg(long, value_name = "GB", default_value_t = 0.5, help_heading = "Limits on clients")]
    pub(crate) request_memory_gb: f64,
    /// Maximum number of pixels of a prompt's images and selected frames before they are resized. An image has at most 2^26 (8192 × 8192),
    /// and no more are decoded at a time.
    #[arg(long, value_name = "N", default_value_t = 1 << 29, help_heading = "Limits on clients")]
    pub(crate) max_prompt_pixels: u64,
}

/// A year.
const MAX_SECONDS: u64 = 366 * 24 * 3600;
