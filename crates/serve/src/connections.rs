//! Connections: accepts them up to a limit, and closes those whose clients are too slow.
//!
//! `axum::serve` has no limits on connections, so they are served with hyper's connections here.

mod monitored;
mod pace;
mod refused;
mod registry;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::Request;
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use rustix::io::Errno;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::budget::Budget;
use crate::client::Client;
use crate::limits::HttpLimits;
use crate::metrics::Metrics;
use crate::refusal::Refusal;
use monitored::{Monitored, Receiving, WhileBusy};
use refused::Refusals;
use registry::{Connections, Entered, Member, Queued, Reason};

/// The size limit of a request's header.
const MAX_HEADER_BYTES: usize = 32 << 10;

/// The size limit of a connection's buffers.
const MAX_BUFFER_BYTES: usize = 64 << 10;

/// The pause after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves connections until `closing` is true and all responses in progress are sent.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    limits: HttpLimits,
    metrics: Arc<Metrics>,
    mut closing: watch::Receiver<bool>,
) {
    let connections = Arc::new(Connections::new(limits.limit_concurrency));
    let (limits, refusals) = (Arc::new(limits), Arc::new(Refusals::new(metrics)));
    let service = Service { router, limits, refusals, closing: closing.clone() };
    let mut tasks = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = closing.wait_for(|closing| *closing) => break,
        };
        // Ended tasks are only freed when they are joined.
        while tasks.try_join_next().is_some() {}
        let (stream, client) = match accepted {
            Ok((stream, address)) => (stream, Client::from(address.ip())),
            Err(error) => {
                tracing::debug!(%error, "cannot accept a connection");
                if is_out_of_resources(&error) {
                    connections.evict();
                }
                if !is_of_client(&error) {
                    sleep(ACCEPT_PAUSE).await;
                }
                continue;
            }
        };
        // Stream events are small and must not be delayed by Nagle's algorithm.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
        match connections.enter(client) {
            Entered::Member(member) => {
                tasks.spawn(service.clone().drive(stream, member));
            }
            Entered::Queued(queued) => {
                tasks.spawn(service.clone().drive_queued(stream, queued));
            }
            Entered::Full => service.refuse(stream),
        }
    }
    drop(listener);
    while tasks.join_next().await.is_some() {}
}

/// Whether closing a connection would help.
fn is_out_of_resources(error: &std::io::Error) -> bool {
    let code = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(code, Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM))
}

/// Whether a client has disconnected before it was accepted, which is no reason to wait.
fn is_of_client(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// The connection of a request.
#[derive(Debug, Clone)]
pub(crate) struct Peer(Arc<Member>);

impl Peer {
    pub(crate) fn client(&self) -> Client {
        self.0.client()
    }

    /// Evicts bodies that have `bytes` of the memory for requests: slow ones, and of clients that are over their share if
    /// this client is not. Whether there are enough.
    pub(crate) fn make_room(&self, memory: &Budget, bytes: u64) -> bool {
        self.0.make_room(memory, bytes)
    }
}

/// What all connections share.
#[derive(Clone)]
struct Service {
    router: Router,
    limits: Arc<HttpLimits>,
    refusals: Arc<Refusals>,
    closing: watch::Receiver<bool>,
}

impl Service {
    fn refuse(&self, stream: TcpStream) {
        let refusal = Refusal::too_many_connections(self.limits.limit_concurrency);
        self.refusals.refuse(stream, refusal);
    }

    /// Serves one connection as soon as another makes room for it.
    async fn drive_queued(mut self, stream: TcpStream, queued: Queued) {
        let member = tokio::select! {
            member = queued.member() => member,
            _ = self.closing.wait_for(|closing| *closing) => {
                return self.refusals.refuse(stream, Refusal::stopping());
            }
        };
        match member {
            Some(member) => self.drive(stream, member).await,
            None => self.refuse(stream),
        }
    }

    /// Serves one connection.
    async fn drive(self, stream: TcpStream, member: Member) {
        let Self { router, limits, refusals, mut closing } = self;
        let member = Arc::new(member);
        let io = TokioIo::new(Monitored::new(stream, member.clone(), limits.timeout_send));
        let router = TowerToHyperService::new(router);
        let requests = member.clone();
        let service = service_fn(move |mut request: Request<Incoming>| {
            let busy = requests.begin();
            if !request.body().is_end_stream() {
                requests.expect_body();
            }
            request.extensions_mut().insert(Peer(requests.clone()));
            let response = router.call(request.map(|body| Receiving::new(body, requests.clone())));
            async move {
                let response = response.await?;
                Ok::<_, Infallible>(response.map(|body: Body| WhileBusy::new(body, busy)))
            }
        });
        let mut http = http1::Builder::new();
        // The timeouts are those of the member.
        http.header_read_timeout(None);
        http.max_header_size(MAX_HEADER_BYTES).max_buf_size(MAX_BUFFER_BYTES);
        let mut connection = http.serve_connection(io, service);
        let mut is_closing = false;
        let unfinished = loop {
            let snapshot = member.snapshot();
            if let Some(reason) = snapshot.ended(&limits, is_closing) {
                break Some((snapshot, reason));
            }
            let deadline = snapshot.deadline(&limits);
            tokio::select! {
                ended = &mut connection => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "a connection failed");
                        return;
                    }
                    break None;
                }
                () = member.changed() => {}
                _ = closing.wait_for(|closing| *closing), if !is_closing => {
                    is_closing = true;
                    Pin::new(&mut connection).graceful_shutdown();
                }
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {}
            }
        };
        // What was received of the request is dropped.
        let stream = connection.into_parts().io.into_inner().into_stream();
        let Some((snapshot, reason)) = unfinished else {
            if member.has_unread() {
                drop(member);
                refusals.linger(stream).await;
            }
            return;
        };
        let Some(refusal) = snapshot.refusal(reason, &limits) else { return };
        match reason {
            // Its place is already another's.
            Reason::Evicted => refusals.refuse(stream, refusal),
            Reason::TimedOut | Reason::Closing => refusals.send(stream, &refusal).await,
        }
    }
}

#[cfg(test)]
mod tests;
