//! The server as a whole: its options, its start and its end.

use std::sync::Arc;
use std::time::Duration;

use axum::serve::ListenerExt as _;
use embodied_r_policy::tokenizer::Tokenizer;
use embodied_r_policy::{Engine, EngineOptions, InferenceModel, SamplingDefaults};
use embodied_r_vision::Gallery;
use tokio::net::TcpListener;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use crate::admission::Admission;
use crate::api_key::ApiKey;
use crate::driver::Driver;
use crate::error::{Error, Result};
use crate::media::{Media, MediaOptions};
use crate::metrics::Metrics;
use crate::reply::now_s;
use crate::request::Model;
use crate::routes::{self, App};

/// How often a server that drains looks whether it is done.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How long clients have to take the last bytes once nothing more is drawn.
const LAST_BYTES: Duration = Duration::from_secs(2);

/// What a server may do.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// The name that clients ask for.
    pub name: String,
    /// Most tokens of a prompt and its completion together; none: as many as the model takes.
    pub max_model_len: Option<usize>,
    /// What the engine may use.
    pub engine: EngineOptions,
    /// Sequences that may wait for a place in the engine; requests beyond them are refused.
    pub max_queue: usize,
    /// How long running requests may take to finish once the server is told to stop.
    pub drain_timeout: Duration,
    /// The key that clients have to show; none: no key is asked for.
    pub api_key: Option<ApiKey>,
    /// Sampling where a request says nothing.
    pub defaults: SamplingDefaults,
}

/// What a model that can see looks at pictures with.
pub struct Vision {
    /// Its eyes, and what they saw lately.
    pub gallery: Arc<Gallery>,
    /// Which pictures requests may name.
    pub media: MediaOptions,
}

/// A model behind OpenAI's API, its engine started.
pub struct Server {
    app: Arc<App>,
    engine_ended: oneshot::Receiver<()>,
    drain_timeout: Duration,
}

impl Server {
    /// Starts the engine's thread. With `vision` requests may hold pictures.
    ///
    /// # Errors
    /// [`Error::Option`] for options that cannot be; the engine or its thread cannot be made.
    pub fn new(
        model: Arc<InferenceModel>,
        vision: Option<Vision>,
        tokenizer: Arc<Tokenizer>,
        options: ServerOptions,
    ) -> Result<Self> {
        let ServerOptions {
            name,
            max_model_len,
            engine,
            max_queue,
            drain_timeout,
            api_key,
            defaults,
        } = options;
        let (most, vocabulary) =
            (model.config().max_position_embeddings, model.config().vocab_size);
        let max_model_len = max_model_len.unwrap_or(most);
        if max_model_len < 2 || max_model_len > most {
            let want = format!("at least 2 and at most {most}, which the model takes");
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
            vision.map(|Vision { gallery, media }| Media::new(gallery, media)).transpose()?;
        let model = Model { name, tokenizer, defaults, vocabulary, max_model_len, media };
        let app = App { model, driver, admission, metrics, api_key, began_s: now_s() };
        Ok(Self { app: Arc::new(app), engine_ended, drain_timeout })
    }

    /// Serves until `stop` gives something; then takes no new requests and ends when the running
    /// ones have, when their time is over, or when `stop` gives something again.
    ///
    /// # Errors
    /// [`Error::EngineGone`], [`Error::Serve`].
    pub async fn run(self, listener: TcpListener, mut stop: UnboundedReceiver<()>) -> Result<()> {
        let Self { app, mut engine_ended, drain_timeout } = self;
        let (close, closed) = oneshot::channel::<()>();
        // An event of a stream is small, and its reader waits for it.
        let listener = listener.tap_io(|stream| {
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "cannot send without delay");
            }
        });
        let serve = axum::serve(listener, routes::router(app.clone()));
        let serve = serve.with_graceful_shutdown(async {
            let _ = closed.await;
        });
        let mut serving = tokio::spawn(async move { serve.await });
        tokio::select! {
            _ = stop.recv() => {}
            _ = &mut engine_ended => return Err(Error::EngineGone),
            ended = &mut serving => {
                return match ended {
                    Ok(served) => served.map_err(Error::Serve),
                    Err(lost) => Err(Error::Serve(std::io::Error::other(lost))),
                };
            }
        }
        app.admission.close();
        tracing::info!(running = app.admission.taken(), "stopping");
        tokio::select! {
            () = idle(&app.admission) => {}
            () = sleep(drain_timeout) => app.driver.abort(),
            _ = stop.recv() => app.driver.abort(),
            _ = &mut engine_ended => return Err(Error::EngineGone),
        }
        let _ = close.send(());
        // Who does not read their answer does not keep the server.
        let _ = timeout(LAST_BYTES, serving).await;
        Ok(())
    }
}

/// Waits until no sequence is left.
async fn idle(admission: &Admission) {
    while admission.taken() > 0 {
        sleep(LOOK_EVERY).await;
    }
}
