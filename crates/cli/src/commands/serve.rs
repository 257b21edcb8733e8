//! `embodied-r serve`.

mod listen;
mod options;

use std::path::Path;

use anyhow::Context;
use embodied_r_inference::Model;
use embodied_r_policy::PAGE_SIZE;
use embodied_r_policy::tokenizer::{ChatMessage, GenerationPrompt};
use embodied_r_serve::{Error, Server, ServerOptions};
use embodied_r_vision::{PixelOptions, VisionOptions, is_vision_language_model};
use tokio::sync::mpsc;

use crate::args::serve::ServeArgs;
use crate::exit::{Status, Usage};
use crate::hub;
use crate::output::outln;

/// Serve a model.
pub(crate) fn run(args: ServeArgs) -> anyhow::Result<Status> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    options::check(&args)?;
    // Binds the address before the slow loading.
    let listener = runtime.block_on(listen::bind(&args.host, args.port))?;
    let address = listener.local_addr()?;
    let dir = hub::with_vision_encoder(&args.stored.model, args.stored.revision.as_deref())?;
    let options = options::of(&args, &dir)?;
    if options.api_key.is_none() && !address.ip().is_loopback() {
        eprintln!(
            "warning: `{address}` is reachable without authentication; set `{}` to require a key",
            options::API_KEY
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

fn load(args: &ServeArgs, dir: &Path, mut options: ServerOptions) -> anyhow::Result<Server> {
    let placement = args.stored.weights.placement()?;
    let model = match !args.language_model_only && is_vision_language_model(dir) {
        true => {
            let video_pixels = Some(args.video_pixels.into());
            let pixels = PixelOptions { video_pixels, ..PixelOptions::default() };
            let options = VisionOptions { placement, pixels };
            Model::load_with_vision(dir, &options)?
        }
        false => {
            options::refuse_media(args)?;
            Model::load(dir, placement)?
        }
    };
    let chat = [ChatMessage::user("Hello")];
    if let Err(error) = model.tokenizer.apply_chat_template(&chat, GenerationPrompt::Append) {
        eprintln!("warning: chats may fail, and completions of text do not: {error}");
    }
    let token_bytes = model.decoder.kv_bytes_per_token() as f64;
    let tokens = (args.kv_cache_gb * 1e9 / token_bytes) as usize;
    options.engine.kv_cache_tokens = Some(tokens);
    let most = model.max_model_len();
    options.max_model_len = max_model_len(args, most, tokens / PAGE_SIZE * PAGE_SIZE)?;
    let page = PAGE_SIZE as f64 * token_bytes / 1e9;
    Server::new(model, options).map_err(|error| match error {
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

/// The context length of a model with `most` positions: no request that it allows may exceed a KV cache of `cached`
/// tokens.
fn max_model_len(args: &ServeArgs, most: usize, cached: usize) -> Result<Option<usize>, Usage> {
    let gb = args.kv_cache_gb;
    match args.max_model_len {
        Some(length) if length <= most && length > cached => Err(Usage(format!(
            "`--max-model-len` is {length}, but a KV cache of `--kv-cache-gb` {gb} holds {cached} tokens: lower the \
             first or raise the second"
        ))),
        None if (1..most).contains(&cached) => {
            eprintln!(
                "warning: the context length is {cached} tokens instead of the model's {most}, because a KV cache of \
                 `--kv-cache-gb` {gb} holds no more"
            );
            Ok(Some(cached))
        }
        length => Ok(length),
    }
}
