//! Why a download failed.

use std::error::Error as _;
use std::io;
use std::path::PathBuf;

use reqwest::StatusCode;

/// Why a model or a data set cannot be downloaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubFault {
    /// The repository does not exist, or is hidden.
    #[error(
        "there is no such repository, or it is private; check the name, and set `HF_TOKEN` for a private one"
    )]
    NoRepository,
    /// The terms of the repository must be accepted.
    #[error(
        "it is gated; accept its terms at `{page}` and set `HF_TOKEN` to a token of that account"
    )]
    Gated {
        /// Its page.
        page: String,
    },
    /// The hub wants a token, or does not accept this one.
    #[error("the hub answers {status}; {}", match has_token {
        true => "check that the token in `HF_TOKEN` is valid and may read it",
        false => "set `HF_TOKEN` to a token that may read it",
    })]
    Refused {
        /// 401 or 403.
        status: StatusCode,
        /// Whether a token was sent.
        has_token: bool,
    },
    /// The revision does not exist.
    #[error("it has no such revision; give a branch, tag or commit")]
    NoRevision,
    /// The repository has no such file.
    #[error("it has no file `{file}`{}", listed(available))]
    NoFile {
        /// The file.
        file: String,
        /// Files of the same kind.
        available: Vec<String>,
    },
    /// No GGUF file, or several, have this quantization.
    #[error("{} GGUF file has quantization `{quantization}`{}", match several {
        true => "more than one",
        false => "no",
    }, listed(available))]
    Quantization {
        /// The quantization.
        quantization: String,
        /// Whether several files have it.
        several: bool,
        /// The GGUF files.
        available: Vec<String>,
    },
    /// The repository has several GGUF files and no other weights.
    #[error(
        "it has several GGUF files, name one: `{repo}/FILE` or `{repo}:Q4_K_M`{}",
        listed(available)
    )]
    SeveralGguf {
        /// The repository.
        repo: String,
        /// The GGUF files.
        available: Vec<String>,
    },
    /// A GGUF model is split into several files.
    #[error(
        "`{file}` is a part of a split model; merge the parts with `llama-gguf-split --merge` and give the local file"
    )]
    Split {
        /// The file.
        file: String,
    },
    /// The repository has nothing to load.
    #[error("it has neither safetensors, nor a GGUF file, nor a LoRA adapter")]
    NoWeights,
    /// The repository has no adapter.
    #[error("it has no `adapter_config.json` with `adapter_model.safetensors`")]
    NoAdapter,
    /// The server failed.
    #[error("`{host}` answers {status}")]
    Status {
        /// The server.
        host: String,
        /// The HTTP status.
        status: StatusCode,
    },
    /// The server cannot be reached, or the connection was lost.
    #[error("{why}; check the network, and `HF_ENDPOINT` if it is set")]
    Network {
        /// What happened.
        why: String,
    },
    /// An answer lacks a header, or has one that cannot be used.
    #[error(
        "the answer for `{file}` has no usable header `{header}`; is `HF_ENDPOINT` a mirror of the hub?"
    )]
    Header {
        /// The file.
        file: String,
        /// The header.
        header: &'static str,
    },
    /// The list of files cannot be parsed.
    #[error("the list of files cannot be parsed: {why}; is `HF_ENDPOINT` a mirror of the hub?")]
    Listing {
        /// What is wrong.
        why: String,
    },
    /// The connection ended early.
    #[error("`{file}` ended after {received} of {size} bytes")]
    Short {
        /// The file.
        file: String,
        /// Bytes received.
        received: u64,
        /// Its size.
        size: u64,
    },
    /// The server sent other bytes than asked for.
    #[error("`{file}` is damaged: {what}")]
    Damaged {
        /// The file.
        file: String,
        /// What differs.
        what: String,
    },
    /// `HF_ENDPOINT` is no URL.
    #[error("`HF_ENDPOINT` is `{endpoint}`, which is not the URL of a server: {why}")]
    Endpoint {
        /// The value.
        endpoint: String,
        /// What is wrong.
        why: String,
    },
    /// The token cannot be sent.
    #[error("the token in `HF_TOKEN` has characters that a token cannot have")]
    Token,
    /// The cache cannot be used.
    #[error(transparent)]
    Cache(#[from] embodied_r_files::Error),
}

impl HubFault {
    pub(super) fn cache(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let failed = embodied_r_files::Error::io(action, path);
        move |source| Self::Cache(failed(source))
    }

    /// From the HTTP client, without the URL, which may be signed.
    pub(super) fn network(host: &str, error: reqwest::Error) -> Self {
        let error = error.without_url();
        let mut why = format!("`{host}`: {error}");
        let mut source = error.source();
        while let Some(cause) = source {
            why.push_str(&format!(": {cause}"));
            source = cause.source();
        }
        Self::Network { why }
    }

    /// Whether another attempt may succeed.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Network { .. } | Self::Short { .. } | Self::Damaged { .. } => true,
            Self::Status { status, .. } => {
                status.is_server_error() || matches!(status.as_u16(), 403 | 408 | 416 | 429)
            }
            _ => false,
        }
    }
}

fn listed(files: &[String]) -> String {
    match files {
        [] => String::new(),
        files => format!("; it has {}", files.join(", ")),
    }
}
