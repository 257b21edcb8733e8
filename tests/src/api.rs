use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::MethodRouter;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// A server of `/v1/chat/completions` on a free port, which stops when dropped.
#[derive(Debug)]
pub struct ChatApi {
    port: u16,
    task: JoinHandle<()>,
}

impl ChatApi {
    /// Starts a server whose handler `reply` accepts requests of any size.
    ///
    /// # Panics
    /// No port is free.
    pub async fn start<S: Clone + Send + Sync + 'static>(reply: MethodRouter<S>, state: S) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let port = listener.local_addr().expect("the listener is bound").port();
        let router = Router::new()
            .route("/v1/chat/completions", reply)
            .layer(DefaultBodyLimit::disable())
            .with_state(state);
        let serving = async move { axum::serve(listener, router).await.expect("the server runs") };
        Self { port, task: tokio::spawn(serving) }
    }

    /// The base URL for clients.
    pub fn base_url(&self) -> String {
        format!("http://127.0.0.1:{}/v1", self.port)
    }
}

impl Drop for ChatApi {
    fn drop(&mut self) {
        self.task.abort();
    }
}
