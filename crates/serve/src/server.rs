//! The server: options, startup and graceful shutdown.

use std::sync::Arc;
use std::time::Duration;

use embodied_r_inference::EngineCore;
use embodied_r_media::embedding_cache::EmbeddingCache;
use embodied_r_policy::{Engine, EngineOptions, SamplingSettings};
use tokio::net::TcpListener;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};

use crate::admission::Admission;
use crate::api_key::ApiKeyHash;
use crate::app::{App, max_body_bytes};
use crate::budget::Budget;
use crate::connections;
use crate::error::{Error, Result};
use crate::limits::HttpLimits;
use crate::media::{Media, MediaOptions};
use crate::metrics::Metrics;
use crate::request::Model;
use crate::response::now_s;
use crate::routes;

/// Size of the embedding cache, so that repeated images and videos are encoded once.
const IMAGE_CACHE_BYTES: usize = 1 << 30;

/// The poll interval while draining.
const DRAIN_POLL: Duration = Duration::from_millis(20);

/// How long clients may take to read the last bytes after generation ends.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// The options of a server.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// The model's name in requests.
    pub name: String,
    /// Where the model was loaded from, for the list of models.
    pub root: String,
    /// Identifies the weights and the settings that answers depend on (`system_fingerprint`).
    pub system_fingerprint: String,
    /// The context length: maximum tokens of prompt and completion together. `None` uses the model's.
    pub max_model_len: Option<usize>,
    /// The engine's options.
    pub engine: EngineOptions,
    /// Sequences that may be queued; further requests are refused.
    pub max_queue: usize,
    /// How long running requests may take to finish on shutdown.
    pub drain_timeout: Duration,
    /// The required API key; `None` disables authentication.
    pub api_key: Option<ApiKeyHash>,
    /// Defaults of the sampling parameters.
    pub defaults: SamplingSettings,
    /// Limits on connections and on the memory of requests.
    pub limits: HttpLimits,
    /// The URLs of images and videos that requests may use, if the model accepts them.
    pub media: MediaOptions,
}

/// An OpenAI-compatible server with a running engine.
pub struct Server {
    app: Arc<App>,
    drain_timeout: Duration,
}

impl Server {
    /// Starts the engine thread. Requests may contain images if the model has a vision encoder.
    ///
    /// # Errors
    /// [`Error::Option`] for invalid options; the engine or its thread cannot be started.
    pub fn new(model: embodied_r_inference::Model, options: ServerOptions) -> Result<Self> {
        let ServerOptions {
            name,
            root,
            system_fingerprint,
            max_model_len,
            engine,
            max_queue,
            drain_timeout,
            api_key,
            defaults,
            limits,
            media,
        } = options;
        let (most, vocabulary) = (model.max_model_len(), model.decoder.config().vocab_size);
        let max_model_len = max_model_len.unwrap_or(most);
        if max_model_len < 2 || max_model_len > most {
            let want = format!("at least 2 and at most the model's context length, {most}");
            return Err(Error::Option { field: "max_model_len", found: max_model_len, want });
        }
        for (field, found) in [
            ("max_num_seqs", engine.max_num_seqs),
            ("max_num_batched_tokens", engine.max_num_batched_tokens),
        ] {
            if found == 0 {
                return Err(Error::Option { field, found, want: "1 or more".into() });
            }
        }
        let metrics = Arc::new(Metrics::new()?);
        let admission = Admission::new(engine.max_num_seqs, max_queue);
        let (engine, core) = EngineCore::new(Engine::new(model.decoder, engine)?);
        let core = core.with_error_log();
        core.spawn()?;
        let media = model.vision_encoder.map(|encoder| {
            let embedding_cache = EmbeddingCache::new(encoder, IMAGE_CACHE_BYTES);
            Media::new(Arc::new(embedding_cache), media)
        });
        let media = media.transpose()?;
        let model = Model {
            name,
            root,
            system_fingerprint,
            tokenizer: model.tokenizer,
            defaults,
            vocabulary,
            max_model_len,
            media,
        };
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let workers = Arc::new(Semaphore::new(threads));
        let (memory, largest) = (limits.request_memory_bytes, max_body_bytes(&model));
        let request_memory = Budget::of_clients(memory as u64, largest as u64);
        let app = App {
            model,
            engine,
            admission,
            metrics,
            api_key,
            limits,
            request_memory,
            workers,
            began_s: now_s(),
        };
        Ok(Self { app: Arc::new(app), drain_timeout })
    }

    /// Serves until a message on `stop`, then drains: refuses new requests and returns when the running ones have
    /// finished, the drain timeout elapses, or `stop` gets another message.
    ///
    /// # Errors
    /// [`Error::EngineGone`], [`Error::Serve`].
    pub async fn run(self, listener: TcpListener, mut stop: UnboundedReceiver<()>) -> Result<()> {
        let Self { app, drain_timeout } = self;
        let (close, closing) = watch::channel(false);
        let router = routes::router(app.clone());
        let (limits, metrics) = (app.limits.clone(), app.metrics.clone());
        let serving = connections::serve(listener, router, limits, metrics, closing);
        let mut serving = tokio::spawn(serving);
        tokio::select! {
            _ = stop.recv() => {}
            () = app.engine.ended() => return Err(Error::EngineGone),
            // It ends by a panic only.
            ended = &mut serving => {
                return ended.map_err(|lost| Error::Serve(std::io::Error::other(lost)));
            }
        }
        app.admission.close();
        tracing::info!(running = app.admission.admitted(), "stopping");
        tokio::select! {
            () = idle(&app.admission) => {}
            () = sleep(drain_timeout) => app.engine.abort(),
            _ = stop.recv() => app.engine.abort(),
            () = app.engine.ended() => return Err(Error::EngineGone),
        }
        let _ = close.send(true);
        // A client that does not read its response must not block the shutdown.
        let _ = timeout(FLUSH_TIMEOUT, serving).await;
        Ok(())
    }
}

/// Waits until all admitted sequences have finished.
async fn idle(admission: &Admission) {
    while admission.admitted() > 0 {
        sleep(DRAIN_POLL).await;
    }
}
