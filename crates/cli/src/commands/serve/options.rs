//! From the command line to the server's options. Contradictions are found before the model is loaded.

use std::path::Path;
use std::time::Duration;

use embodied_r_media::sampled_video::FrameSelection;
use embodied_r_policy::{EngineOptions, FingerprintExtent, SamplingSettings, fingerprint};
use embodied_r_serve::{ApiKeyHash, HttpLimits, MAX_IMAGE_BODY_BYTES, MediaOptions, ServerOptions};

use crate::args::serve::ServeArgs;
use crate::descriptors;
use crate::exit::Usage;

/// Environment variable with the API key that clients must send.
pub(super) const API_KEY: &str = "EMBODIED_R_API_KEY";

/// File descriptors for anything but connections: files, image hosts, refused connections.
const RESERVED_DESCRIPTORS: u64 = 256;

/// The frames of a video without options, as in vLLM.
const FRAMES: FrameSelection = FrameSelection::Uniform(32);

/// The default of `--limit-concurrency`.
const LIMIT_CONCURRENCY: usize = 4096;

/// The smallest `--request-memory-gb`: a body of the largest size, rounded up to 10 MB.
const LEAST_REQUEST_MEMORY_GB: f64 = MAX_IMAGE_BODY_BYTES.div_ceil(10_000_000) as f64 / 100.0;

/// Checks options that need no model.
pub(super) fn check(args: &ServeArgs) -> Result<(), Usage> {
    let usage = |what: String| Err(Usage(what));
    if !(args.kv_cache_gb > 0.0 && args.kv_cache_gb.is_finite()) {
        return usage(format!(
            "`--kv-cache-gb` must be a number above 0, not {}",
            args.kv_cache_gb
        ));
    }
    let gb = args.request_memory_gb;
    if !(gb >= LEAST_REQUEST_MEMORY_GB && gb.is_finite()) {
        let least = LEAST_REQUEST_MEMORY_GB;
        return usage(format!(
            "`--request-memory-gb` must be {least} or more, the size of the largest request, not {gb}"
        ));
    }
    let (seqs, tokens) = (args.max_num_seqs, args.max_num_batched_tokens);
    for (flag, found) in [("max-num-seqs", seqs), ("max-num-batched-tokens", tokens)] {
        if found == 0 {
            return usage(format!("`--{flag}` must be 1 or more, not 0"));
        }
    }
    if tokens < seqs {
        return usage(format!(
            "`--max-num-batched-tokens` must be at least `--max-num-seqs`, which is {seqs}, not {tokens}"
        ));
    }
    if args.max_prompt_pixels == 0 {
        return usage("`--max-prompt-pixels` must be 1 or more, not 0".into());
    }
    match &args.served_model_name {
        Some(name) if name.trim().is_empty() || name.chars().any(char::is_control) => {
            return usage(format!(
                "`--served-model-name` must be a name without control characters, not {name:?}"
            ));
        }
        _ => {}
    }
    match &args.allowed_local_media_path {
        Some(dir) if !dir.is_dir() => {
            let dir = dir.display();
            usage(format!("`--allowed-local-media-path` must be a directory, which `{dir}` is not"))
        }
        _ => media(args)?
            .check()
            .map_err(|error| Usage(format!("`--allowed-media-domains`: {error}"))),
    }
}

/// The server's options for the model in `dir`.
///
/// # Errors
/// The API key, the limit of connections, or the model's own defaults are invalid.
pub(super) fn of(args: &ServeArgs, dir: &Path) -> anyhow::Result<ServerOptions> {
    let engine = EngineOptions {
        max_num_seqs: args.max_num_seqs,
        max_num_batched_tokens: args.max_num_batched_tokens,
        ..EngineOptions::default()
    };
    Ok(ServerOptions {
        root: args.stored.model.clone(),
        system_fingerprint: system_fingerprint(args, dir)?,
        name: args.served_model_name.clone().unwrap_or_else(|| args.stored.model.clone()),
        max_model_len: args.max_model_len,
        engine,
        max_queue: args.max_queue,
        drain_timeout: Duration::from_secs(args.drain_timeout),
        api_key: ApiKeyHash::from_env(API_KEY).map_err(|error| Usage(error.to_string()))?,
        defaults: SamplingSettings::from_dir(dir)?,
        limits: limits(args)?,
        media: media(args)?,
    })
}

/// Identifies what an answer to a seeded request depends on: the model, its precision and this version.
fn system_fingerprint(args: &ServeArgs, dir: &Path) -> anyhow::Result<String> {
    let model = fingerprint(dir, FingerprintExtent::Sampled)?;
    let settings = format!("{model} {:?}", args.stored.weights);
    let hash = blake3::hash(settings.as_bytes()).to_hex();
    Ok(format!("embodied-r-{}-{}", env!("CARGO_PKG_VERSION"), &hash[..8]))
}

fn limits(args: &ServeArgs) -> Result<HttpLimits, Usage> {
    Ok(HttpLimits {
        limit_concurrency: limit_concurrency(args.limit_concurrency, descriptors::raised_limit())?,
        timeout_header: Duration::from_secs(args.timeout_header),
        timeout_body: Duration::from_secs(args.timeout_body),
        timeout_send: Duration::from_secs(args.timeout_send),
        timeout_keep_alive: Duration::from_secs(args.timeout_keep_alive),
        request_memory_bytes: (args.request_memory_gb * 1e9) as usize,
        max_prompt_pixels: args.max_prompt_pixels,
    })
}

/// The maximum number of connections, if the process may open `files`.
fn limit_concurrency(typed: Option<usize>, files: Option<u64>) -> Result<usize, Usage> {
    let usable = |files: u64| files.saturating_sub(RESERVED_DESCRIPTORS).max(files / 2);
    let most =
        files.map_or(usize::MAX, |files| usize::try_from(usable(files)).unwrap_or(usize::MAX));
    match typed {
        None => Ok(LIMIT_CONCURRENCY.min(most)),
        Some(typed) if (1..=most).contains(&typed) => Ok(typed),
        Some(typed) => {
            let files = files.map_or_else(|| "any number of".to_owned(), |files| files.to_string());
            Err(Usage(format!(
                "`--limit-concurrency` must be from 1 to {most}, as the process may open {files} files (`ulimit -n`), \
                 not {typed}"
            )))
        }
    }
}

/// Rejects media options for a text-only model.
pub(super) fn refuse_media(args: &ServeArgs) -> Result<(), Usage> {
    let folder = args.allowed_local_media_path.is_some();
    let typed = [
        ("--allowed-local-media-path", folder),
        ("--allowed-media-domains", !args.allowed_media_domains.is_empty()),
        ("--frames`, `--fps` or `--max-frames", args.frames.is_given()),
    ];
    match typed.iter().find(|(_, typed)| *typed) {
        Some((flag, _)) => Err(Usage(format!("`{flag}` needs a vision-language model"))),
        None => Ok(()),
    }
}

/// The URLs of images and videos that requests may use, and the frames of videos.
fn media(args: &ServeArgs) -> Result<MediaOptions, Usage> {
    Ok(MediaOptions {
        folder: args.allowed_local_media_path.clone(),
        domains: args.allowed_media_domains.clone(),
        fetch_timeout: Duration::from_secs(args.timeout_media),
        frames: args.frames.selection(FRAMES)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_file_descriptors_for_anything_else() {
        assert_eq!(limit_concurrency(None, Some(1024)).unwrap(), 768);
        assert_eq!(limit_concurrency(None, Some(100)).unwrap(), 50);
        assert_eq!(limit_concurrency(None, Some(1 << 20)).unwrap(), 4096);
        assert_eq!(limit_concurrency(None, None).unwrap(), 4096);
        assert_eq!(limit_concurrency(Some(768), Some(1024)).unwrap(), 768);
    }

    #[test]
    fn more_connections_than_file_descriptors_are_refused() {
        for typed in [0, 769] {
            let message = limit_concurrency(Some(typed), Some(1024)).unwrap_err().0;
            assert!(
                message.contains("from 1 to 768") && message.contains("1024 files"),
                "{message}"
            );
        }
    }
}
