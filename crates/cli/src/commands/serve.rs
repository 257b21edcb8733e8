//! `embodied-r serve`.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use embodied_r_policy::tokenizer::Tokenizer;
use embodied_r_policy::{EngineOptions, InferenceModel, PAGE_SIZE, SamplingDefaults};
use embodied_r_serve::{ApiKeyHash, Error, MediaOptions, Server, ServerOptions, Vision};
use embodied_r_vision::{
    EmbeddingCache, VisionLanguageModel, VisionOptions, is_vision_language_model,
};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::args::serve::ServeArgs;
use crate::exit::{self, Status, Usage};
use crate::hub;
use crate::output::outln;

/// Environment variable with the API key that clients must send.
const API_KEY: &str = "EMBODIED_R_API_KEY";

/// Size of the image embedding cache, so that repeated images are encoded once.
const IMAGE_CACHE_BYTES: usize = 1 << 30;

/// Serve a model.
pub(crate) fn run(args: ServeArgs) -> anyhow::Result<Status> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    // Binds the address before the slow loading.
    let (host, port) = (args.host.as_str(), args.port);
    let listener = runtime.block_on(TcpListener::bind((host, port))).map_err(|error| {
        let message = format!("cannot listen on `{host}`, port {port}: {error}");
        exit::hint(message, "choose another `--port`, or 0 for a free one")
    })?;
    let address = listener.local_addr()?;
    let dir = hub::with_vision_encoder(&args.stored.model, args.stored.revision.as_deref())?;
    let options = options(&args, &dir)?;
    if options.api_key.is_none() && !address.ip().is_loopback() {
        eprintln!(
            "warning: `{address}` is reachable without authentication; set `{API_KEY}` to require a key"
        );
    }
    let server = load(&args, &dir, options)?;
    let (signal, stop) = mpsc::unbounded_channel();
    ctrlc::set_handler(move || {
        let _ = signal.send(());
    })
    .context("cannot listen for Ctrl-C")?;
    outln!("listening on http://{address}")?;
    let served = runtime.block_on(server.run(listener, stop));
    // Connections have had their drain timeout.
    runtime.shutdown_background();
    served?;
    Ok(Status::Done)
}

fn options(args: &ServeArgs, dir: &Path) -> anyhow::Result<ServerOptions> {
    if !(args.kv_cache_gb > 0.0 && args.kv_cache_gb.is_finite()) {
        let what = format!("`--kv-cache-gb` must be a number above 0, not {}", args.kv_cache_gb);
        return Err(Usage(what).into());
    }
    let engine = EngineOptions {
        max_num_seqs: args.max_num_seqs,
        max_num_batched_tokens: args.max_num_batched_tokens,
        ..EngineOptions::default()
    };
    Ok(ServerOptions {
        name: args.served_model_name.clone().unwrap_or_else(|| args.stored.model.clone()),
        max_model_len: args.max_model_len,
        engine,
        max_queue: args.max_queue,
        drain_timeout: Duration::from_secs(args.drain_timeout),
        api_key: ApiKeyHash::from_env(API_KEY),
        defaults: SamplingDefaults::from_dir(dir)?,
    })
}

/// Rejects media options for a text-only model.
fn refuse_media(args: &ServeArgs) -> Result<(), Usage> {
    let folder = args.allowed_local_media_path.is_some();
    let typed = [
        ("--allowed-local-media-path", folder),
        ("--allowed-media-domains", !args.allowed_media_domains.is_empty()),
    ];
    match typed.iter().find(|(_, typed)| *typed) {
        Some((flag, _)) => Err(Usage(format!("`{flag}` needs a vision-language model"))),
        None => Ok(()),
    }
}

fn media(args: &ServeArgs) -> MediaOptions {
    MediaOptions {
        folder: args.allowed_local_media_path.clone(),
        domains: args.allowed_media_domains.clone(),
    }
}

fn load(args: &ServeArgs, dir: &Path, mut options: ServerOptions) -> anyhow::Result<Server> {
    let tokenizer = Arc::new(Tokenizer::from_dir(dir)?);
    let placement = args.stored.weights.placement()?;
    let (model, vision) = match !args.language_model_only && is_vision_language_model(dir) {
        true => {
            let options = VisionOptions { placement, max_pixels: None };
            let model = VisionLanguageModel::load(dir, &options)?;
            let embedding_cache =
                Arc::new(EmbeddingCache::new(model.vision_encoder().clone(), IMAGE_CACHE_BYTES));
            (model.decoder().clone(), Some(Vision { embedding_cache, media: media(args) }))
        }
        false => {
            refuse_media(args)?;
            (Arc::new(InferenceModel::load(dir, placement)?), None)
        }
    };
    let tokens = args.kv_cache_gb * 1e9 / model.kv_bytes_per_token() as f64;
    options.engine.kv_cache_tokens = Some(tokens as usize);
    let page = PAGE_SIZE as f64 * model.kv_bytes_per_token() as f64 / 1e9;
    Server::new(model, vision, tokenizer, options).map_err(|error| match error {
        Error::Policy(embodied_r_policy::Error::Engine { option: "kv_cache_tokens", .. }) => {
            let found = args.kv_cache_gb;
            let expected = format!("at least {page:.6}, the size of one KV cache page");
            Usage(format!("`--kv-cache-gb` must be {expected}, not {found}")).into()
        }
        Error::Option { field, found, want }
        | Error::Policy(embodied_r_policy::Error::Engine { option: field, found, want }) => {
            Usage(format!("`--{}` must be {want}, not {found}", field.replace('_', "-"))).into()
        }
        other => other.into(),
    })
}
