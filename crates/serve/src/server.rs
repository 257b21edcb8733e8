//! The server: options, startup and graceful shutdown.

use std::sync::Arc;
use std::time::Duration;

use embodied_r_policy::tokenizer::Tokenizer;
use embodied_r_policy::{Engine, EngineOptions, InferenceModel, SamplingDefaults};
use embodied_r_vision::EmbeddingCache;
use tokio::net::TcpListener;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::time::{sleep, timeout};

use crate::admission::Admission;
use crate::api_key::ApiKeyHash;
use crate::app::App;
use crate::budget::Budget;
use crate::connections;
use crate::driver::Driver;
use crate::error::{Error, Result};
use crate::limits::HttpLimits;
use crate::media::{Media, MediaOptions};
use crate::metrics::Metrics;
use crate::request::Model;
use crate::response::now_s;
use crate::routes;

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
    pub defaults: SamplingDefaults,
    /// Limits on connections and on the memory of requests.
    pub limits: HttpLimits,
}

/// Image support for a vision-language model.
pub struct Vision {
    /// The vision encoder with its embedding cache.
    pub embedding_cache: Arc<EmbeddingCache>,
    /// The allowed image URLs.
    pub media: MediaOptions,
}

/// An OpenAI-compatible server with a running engine.
pub struct Server {
    app: Arc<App>,
    engine_ended: oneshot::Receiver<()>,
    drain_timeout: Duration,
}

impl Server {
    /// Starts the engine thread. With `vision`, requests may contain images.
    ///
    /// # Errors
    /// [`Error::Option`] for invalid options; the engine or its thread cannot be started.
    pub fn new(
        model: Arc<InferenceModel>,
        vision: Option<Vision>,
        tokenizer: Arc<Tokenizer>,
        options: ServerOptions,
    ) -> Result<Self> {
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
        } = options;
        let (most, vocabulary) =
            (model.config().max_position_embeddings, model.config().vocab_size);
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
        let engine = Engine::new(model, engine)?;
        let (driver, engine_ended) = Driver::start(engine, metrics.clone())?;
        let media =
            vision.map(|Vision { embedding_cache, media }| Media::new(embedding_cache, media));
        let media = media.transpose()?;
        let model = Model {
            name,
            root,
            system_fingerprint,
            tokenizer,
            defaults,
            vocabulary,
            max_model_len,
            media,
        };
        let request_memory = Budget::new(limits.request_memory_bytes as u64);
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let workers = Arc::new(Semaphore::new(threads));
        let app = App {
            model,
            driver,
            admission,
            metrics,
            api_key,
            limits,
            request_memory,
            workers,
            began_s: now_s(),
        };
        Ok(Self { app: Arc::new(app), engine_ended, drain_timeout })
    }

    /// Serves until a message on `stop`, then drains: refuses new requests and returns when the running ones have
    /// finished, the drain timeout elapses, or `stop` gets another message.
    ///
    /// # Errors
    /// [`Error::EngineGone`], [`Error::Serve`].
    pub async fn run(self, listener: TcpListener, mut stop: UnboundedReceiver<()>) -> Result<()> {
        let Self { app, mut engine_ended, drain_timeout } = self;
        let (close, closing) = watch::channel(false);
        let router = routes::router(app.clone());
        let (limits, metrics) = (app.limits.clone(), app.metrics.clone());
        let serving = connections::serve(listener, router, limits, metrics, closing);
        let mut serving = tokio::spawn(serving);
        tokio::select! {
            _ = stop.recv() => {}
            _ = &mut engine_ended => return Err(Error::EngineGone),
            // It ends by a panic only.
            ended = &mut serving => {
                return ended.map_err(|lost| Error::Serve(std::io::Error::other(lost)));
            }
        }
        app.admission.close();
        tracing::info!(running = app.admission.admitted(), "stopping");
        tokio::select! {
            () = idle(&app.admission) => {}
            () = sleep(drain_timeout) => app.driver.abort(),
            _ = stop.recv() => app.driver.abort(),
            _ = &mut engine_ended => return Err(Error::EngineGone),
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
