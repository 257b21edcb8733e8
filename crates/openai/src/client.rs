//! The client: sends requests, with retries and failover.

use std::time::{Duration, Instant, SystemTime};

use reqwest::Response;

use crate::chat::{self, ChatCompletion, ChatCompletionRequest, ErrorKind, Parsed};
use crate::endpoint::Endpoint;
use crate::error::{Error, Result, TimeoutKind, with_causes};
use crate::key::ApiKey;
use crate::pool::{AttemptHistory, Permit, Pool, ResponseClass, RetryPolicy};
use crate::retry;

/// Longest server message that an error quotes, in characters.
const MESSAGE_CHARS: usize = 500;

/// Bytes that are read of an unsuccessful response; its message is shortened to [`MESSAGE_CHARS`].
const MAX_ERROR_BYTES: usize = 64 << 10;

/// The default of [`ClientOptions::max_response_bytes`].
const MAX_RESPONSE_BYTES: usize = 16 << 20;

/// Parses a response body; the error is a line of text.
type Parse<T> = fn(&[u8]) -> Result<T, String>;

/// How a [`Client`] reaches its servers.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// Base URLs of servers of the same model, such as `http://localhost:8000/v1`. A suffix
    /// `#weight=2` doubles a server's share of the requests; the default weight is 1.
    pub base_urls: Vec<String>,
    /// Sent as a bearer token to every base URL.
    pub api_key: Option<ApiKey>,
    /// Maximum concurrent requests, split over the servers by weight; an overloaded server gets
    /// fewer. `usize::MAX` is unlimited.
    pub concurrency: usize,
    /// Timeout of one attempt, from connecting to the response's last byte.
    pub timeout: Duration,
    /// Timeout of connecting to a server.
    pub connect_timeout: Duration,
    /// Timeout from sending a request to the response's first byte, which most servers send once the
    /// response is complete.
    pub first_byte_timeout: Duration,
    /// Retries after the first attempt. Rate-limited attempts (429) do not count until
    /// [`ClientOptions::max_retry_after`] has passed since the first one.
    pub max_retries: u32,
    /// First wait of the exponential back-off.
    pub initial_backoff: Duration,
    /// Longest wait of the exponential back-off.
    pub max_backoff: Duration,
    /// Longest `Retry-After` to wait for; a request fails if every server sends a longer one.
    pub max_retry_after: Duration,
    /// Largest response body, in bytes. A longer one is an error as soon as it exceeds the limit; it is
    /// never held in memory.
    pub max_response_bytes: usize,
}

impl ClientOptions {
    /// Defaults for a large model: timeouts of 10 s to connect and 10 minutes per attempt, 5 retries
    /// with a back-off from 1 s to 30 s, unlimited concurrency, responses of up to 16 MiB.
    pub fn new(base_urls: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            base_urls: base_urls.into_iter().map(Into::into).collect(),
            api_key: None,
            concurrency: usize::MAX,
            timeout: Duration::from_secs(600),
            connect_timeout: Duration::from_secs(10),
            first_byte_timeout: Duration::from_secs(600),
            max_retries: 5,
            initial_backoff: Duration::from_secs(1),
            max_backoff: Duration::from_secs(30),
            max_retry_after: Duration::from_secs(600),
            max_response_bytes: MAX_RESPONSE_BYTES,
        }
    }
}

/// The attempts of one request.
#[derive(Debug, Default)]
struct Attempts {
    /// How often it was sent.
    sent: u32,
    /// Failures that count against the retries.
    counted: u32,
    /// When it was first rate-limited.
    rate_limited_since: Option<Instant>,
    /// The last attempt's error.
    last: Option<Error>,
}

impl Attempts {
    fn failed(&mut self, error: &Error, max_retry_after: Duration) {
        let waited = match error.is_rate_limited() {
            true => self.rate_limited_since.get_or_insert_with(Instant::now).elapsed(),
            false => max_retry_after,
        };
        self.counted += u32::from(waited >= max_retry_after);
    }

    /// The final error: the last attempt's, or `error` if there was no attempt.
    fn give_up(self, error: Error) -> Error {
        let last = match error {
            Error::Unavailable { .. } if self.last.is_none() => return error,
            Error::Unavailable { .. } => self.last.unwrap_or(error),
            other => other,
        };
        Error::RetriesExhausted { attempts: self.sent, last: Box::new(last) }
    }
}

/// A client of one or several servers of the same model. Share it by reference or `Arc`: all its
/// requests share connections, load balancing and the state of the servers.
#[derive(Debug)]
pub struct Client {
    http: reqwest::Client,
    pool: Box<Pool>,
    options: Box<ClientOptions>,
}

impl Client {
    /// A client; nothing is sent yet.
    ///
    /// # Errors
    /// No base URL, one that is not an HTTP URL, or the HTTP client cannot be created.
    pub fn new(options: &ClientOptions) -> Result<Self> {
        Self::with(options, Endpoint::chat)
    }

    /// A client of services other than chat, for [`Client::post`]: the base URLs are used as given,
    /// without `/chat/completions`.
    ///
    /// # Errors
    /// As [`Client::new`].
    pub fn with_exact_urls(options: &ClientOptions) -> Result<Self> {
        Self::with(options, Endpoint::exact)
    }

    fn with(options: &ClientOptions, endpoint: fn(&str) -> Result<Endpoint>) -> Result<Self> {
        if options.base_urls.is_empty() {
            return Err(Error::NoBaseUrl);
        }
        let endpoints = options.base_urls.iter().map(|url| endpoint(url));
        let http = reqwest::Client::builder()
            .timeout(options.timeout)
            .connect_timeout(options.connect_timeout)
            .user_agent(concat!("embodied-r/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| Error::Setup { reason: with_causes(&error) })?;
        let policy = RetryPolicy {
            initial_backoff: options.initial_backoff,
            max_backoff: options.max_backoff,
            max_retry_after: options.max_retry_after,
            max_retries: options.max_retries,
        };
        let pool =
            Box::new(Pool::new(endpoints.collect::<Result<_>>()?, options.concurrency, policy));
        Ok(Self { http, pool, options: Box::new(options.clone()) })
    }

    /// Sends `request` until it is answered, fails permanently, or the retries are used up.
    ///
    /// Requests are balanced over the endpoints; a failed one is retried at the endpoint that is
    /// available soonest, and waits only if none is available now. A refusal or a truncated completion
    /// is a result, not an error ([`ChatCompletion::status`](crate::ChatCompletion::status)).
    ///
    /// # Errors
    /// [`Error::RetriesExhausted`] after the last retry, [`Error::Unavailable`] if other requests have
    /// found all servers dead meanwhile, any permanent error at once.
    pub async fn chat(&self, request: &ChatCompletionRequest) -> Result<ChatCompletion> {
        let body = serde_json::to_vec(request).map_err(Error::SerializeRequest)?;
        let started = Instant::now();
        let (parsed, attempts) = self.send(body, chat::parse).await?;
        let Parsed { text, finish_reason, refusal, usage } = parsed;
        let elapsed = started.elapsed();
        Ok(ChatCompletion { text, finish_reason, refusal, usage, attempts, elapsed })
    }

    /// Sends the JSON text `body` as [`Client::chat`] does, and returns the response body unparsed.
    ///
    /// # Errors
    /// As [`Client::chat`]; any successful status is accepted.
    pub async fn post(&self, body: Vec<u8>) -> Result<Vec<u8>> {
        Ok(self.send(body, |response| Ok(response.to_vec())).await?.0)
    }

    /// The URL of the first endpoint, without credentials and query.
    pub fn display_url(&self) -> &str {
        self.pool.endpoints().first().map_or("", |endpoint| endpoint.name.as_str())
    }

    /// Sends `body` until `parse` accepts the response; also returns the number of attempts.
    async fn send<T>(&self, body: Vec<u8>, parse: Parse<T>) -> Result<(T, u32)> {
        let mut history = self.pool.history();
        let mut attempts = Attempts::default();
        loop {
            let permit = match self.pool.acquire(&history).await {
                Ok(permit) => permit,
                Err(error) => return Err(attempts.give_up(error)),
            };
            attempts.sent += 1;
            let attempt = self.attempt(permit.endpoint(), body.clone(), parse).await;
            let error = match attempt {
                Ok(response) => {
                    permit.report(ResponseClass::Success);
                    return Ok((response, attempts.sent));
                }
                Err(error) => error,
            };
            if matches!(error, Error::Status { status: 401 | 404, .. }) && permit.disable() {
                tracing::warn!("{error}; endpoint disabled");
                permit.report(ResponseClass::Rejected);
                continue;
            }
            if !error.is_retryable() {
                permit.report(ResponseClass::Rejected);
                return Err(error);
            }
            self.back_off(&mut history, permit, &error);
            attempts.failed(&error, self.options.max_retry_after);
            let last = attempts.counted > self.options.max_retries;
            if last {
                return Err(attempts.give_up(error));
            }
            tracing::warn!(attempts = attempts.sent, "{error}, retrying");
            attempts.last = Some(error);
        }
    }

    /// Reports a failed attempt and starts the request's back-off at the endpoint.
    fn back_off(&self, history: &mut AttemptHistory, permit: Permit<'_>, error: &Error) {
        let ClientOptions { initial_backoff, max_backoff, .. } = *self.options;
        let (index, now) = (permit.index(), Instant::now());
        let retry_after = error.retry_after();
        if let Some(retry_after) = retry_after {
            permit.block_until(now + retry_after);
        }
        let class = match error {
            error if error.is_rate_limited() => ResponseClass::RateLimited,
            Error::Connection { reason, .. } => ResponseClass::Unreachable(reason.clone()),
            Error::Timeout { kind: kind @ TimeoutKind::Connect, .. } => {
                ResponseClass::Unreachable(kind.to_string())
            }
            other => ResponseClass::Failed(other.to_string()),
        };
        let still_dead = permit.report(class);
        let failures = history.failed(index, still_dead);
        let wait = match retry_after {
            // With jitter, so that not all clients come back at once.
            Some(retry_after) => retry_after + initial_backoff.mul_f64(fastrand::f64()),
            None => retry::backoff(initial_backoff, max_backoff, failures, fastrand::f64()),
        };
        history.wait(index, now + wait);
    }

    /// Sends a request once.
    async fn attempt<T>(&self, endpoint: &Endpoint, body: Vec<u8>, parse: Parse<T>) -> Result<T> {
        let url = || endpoint.name.clone();
        let mut request = self
            .http
            .post(endpoint.url.clone())
            .header(reqwest::header::CONTENT_TYPE, "application/json")
            .body(body);
        if let Some(key) = &self.options.api_key {
            request = request.bearer_auth(key.reveal());
        }
        let first_byte = self.options.first_byte_timeout;
        let response = match tokio::time::timeout(first_byte, request.send()).await {
            Ok(response) => response.map_err(|error| self.transport(endpoint, error))?,
            Err(_) => {
                let (url, kind) = (url(), TimeoutKind::FirstByte);
                return Err(Error::Timeout { url, kind, timeout: first_byte });
            }
        };
        if !response.status().is_success() {
            return Err(self.status_error(endpoint, response).await);
        }
        let limit_bytes = self.options.max_response_bytes;
        let body = match read(response, limit_bytes).await {
            Ok(Body::Whole(body)) => body,
            Ok(Body::Start(_)) => return Err(Error::ResponseTooLarge { url: url(), limit_bytes }),
            Err(error) => return Err(self.transport(endpoint, error)),
        };
        parse(&body).map_err(|reason| Error::InvalidResponse {
            url: url(),
            reason: self.presentable(&reason),
        })
    }

    /// The error of a request without a complete HTTP response.
    fn transport(&self, endpoint: &Endpoint, error: reqwest::Error) -> Error {
        let url = endpoint.name.clone();
        if error.is_timeout() {
            let (kind, timeout) = match error.is_connect() {
                true => (TimeoutKind::Connect, self.options.connect_timeout),
                false => (TimeoutKind::Total, self.options.timeout),
            };
            return Error::Timeout { url, kind, timeout };
        }
        let unsendable = error.is_builder();
        let reason = with_causes(&error.without_url());
        if unsendable {
            return Error::Setup { reason: self.presentable(&reason) };
        }
        Error::Connection { url, reason: self.presentable(&reason) }
    }

    /// The error of an unsuccessful status, with the server's message.
    async fn status_error(&self, endpoint: &Endpoint, response: Response) -> Error {
        let status = response.status();
        let retry_after = retry::retry_after(response.headers(), SystemTime::now());
        let body = match read(response, MAX_ERROR_BYTES).await {
            Ok(Body::Whole(body) | Body::Start(body)) => body,
            Err(_) => Vec::new(),
        };
        let (message, kind) = match serde_json::from_slice(&body) {
            Ok(value) => (chat::error_message(&value), chat::error_kind(&value)),
            Err(_) => (String::from_utf8_lossy(&body).into_owned(), ErrorKind::Status),
        };
        let message = match message.trim() {
            "" => status.canonical_reason().unwrap_or("no reason given").to_owned(),
            message => self.presentable(message),
        };
        let url = endpoint.name.clone();
        match kind {
            ErrorKind::ContentFilter if status.is_client_error() => {
                Error::ContentFiltered { url, reason: message }
            }
            ErrorKind::InsufficientQuota => Error::InsufficientQuota { url, reason: message },
            _ => Error::Status { url, status: status.as_u16(), message, retry_after },
        }
    }

    /// A server's message on one line, shortened, with the key redacted.
    fn presentable(&self, text: &str) -> String {
        let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let line = match &self.options.api_key {
            Some(key) => key.redact(&line),
            None => line,
        };
        match line.char_indices().nth(MESSAGE_CHARS) {
            Some((end, _)) => format!("{}…", &line[..end]),
            None => line,
        }
    }
}

/// The body of a response.
enum Body {
    Whole(Vec<u8>),
    /// Its first bytes: it is longer than the limit. The connection is closed.
    Start(Vec<u8>),
}

/// Reads at most `limit` bytes of the body of `response`.
async fn read(mut response: Response, limit: usize) -> Result<Body, reqwest::Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        let left = limit - body.len();
        if chunk.len() > left {
            body.extend_from_slice(&chunk[..left]);
            return Ok(Body::Start(body));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Body::Whole(body))
}
