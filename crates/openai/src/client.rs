//! Sending a request until it is answered or cannot be.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use reqwest::Response;

use crate::chat::{self, ChatReply, ChatRequest, Parsed};
use crate::endpoint::{Endpoint, Route};
use crate::error::{Error, Result, with_causes};
use crate::key::ApiKey;
use crate::retry;

/// A longer message of a server is cut to this many characters.
const MESSAGE_CHARS: usize = 500;

/// Reads a reply's body, or says in a line what is wrong with it.
type Parse<T> = fn(&[u8]) -> Result<T, String>;

/// How a [`Client`] reaches its servers.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// Base URLs of servers that hold the same model, such as `http://localhost:8000/v1`.
    pub base_urls: Vec<String>,
    /// Sent as a bearer token to every base URL.
    pub api_key: Option<ApiKey>,
    /// The longest time for one attempt, from connecting to the reply's last byte.
    pub timeout: Duration,
    /// How often a request is sent again after its first attempt.
    pub max_retries: u32,
    /// The first wait of the exponential back-off.
    pub first_wait: Duration,
    /// The longest wait of the exponential back-off.
    pub longest_wait: Duration,
    /// The longest `Retry-After` that is waited for; a server that asks for more fails the request.
    pub longest_retry_after: Duration,
}

impl ClientOptions {
    /// Defaults for a large model: 10 minutes an attempt, 5 retries, waits from 1 s to 30 s.
    pub fn new(base_urls: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            base_urls: base_urls.into_iter().map(Into::into).collect(),
            api_key: None,
            timeout: Duration::from_secs(600),
            max_retries: 5,
            first_wait: Duration::from_secs(1),
            longest_wait: Duration::from_secs(30),
            longest_retry_after: Duration::from_secs(600),
        }
    }
}

/// A client of one or several servers with the same model. Share it by reference or `Arc`: its
/// connections, its round robin and what servers asked for are common to all its requests.
#[derive(Debug)]
pub struct Client {
    http: reqwest::Client,
    endpoints: Vec<Endpoint>,
    next: AtomicUsize,
    options: ClientOptions,
}

impl Client {
    /// A client; nothing is sent yet.
    ///
    /// # Errors
    /// No base URL, one that is not an HTTP address, or no HTTP client to be had.
    pub fn new(options: &ClientOptions) -> Result<Self> {
        Self::with(options, Endpoint::chat)
    }

    /// A client of services that are asked by [`Client::post`]: the base URLs are their whole
    /// addresses, to which nothing is appended.
    ///
    /// # Errors
    /// As [`Client::new`].
    pub fn of_addresses(options: &ClientOptions) -> Result<Self> {
        Self::with(options, Endpoint::at)
    }

    fn with(options: &ClientOptions, endpoint: fn(&str) -> Result<Endpoint>) -> Result<Self> {
        if options.base_urls.is_empty() {
            return Err(Error::NoBaseUrl);
        }
        let endpoints = options.base_urls.iter().map(|url| endpoint(url));
        let http = reqwest::Client::builder()
            .timeout(options.timeout)
            .user_agent(concat!("embodied-r/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| Error::Setup { why: with_causes(&error) })?;
        Ok(Self {
            http,
            endpoints: endpoints.collect::<Result<_>>()?,
            next: AtomicUsize::new(0),
            options: options.clone(),
        })
    }

    /// Sends `request` until it is answered, fails for good, or the retries are used up.
    ///
    /// The endpoint changes with every request, and after a failure to one that may be used sooner;
    /// the request waits only where none may be used now.
    ///
    /// # Errors
    /// [`Error::GaveUp`] after the last retry, any other as soon as it happens.
    pub async fn chat(&self, request: &ChatRequest) -> Result<ChatReply> {
        let body = serde_json::to_vec(request).map_err(Error::Request)?;
        let started = Instant::now();
        let (parsed, attempts) = self.send(body, chat::parse).await?;
        let Parsed { text, finish_reason, usage } = parsed;
        Ok(ChatReply { text, finish_reason, usage, attempts, elapsed: started.elapsed() })
    }

    /// Sends the JSON text `body` as [`Client::chat`] does, and gives the reply's body as it is.
    ///
    /// # Errors
    /// As [`Client::chat`]; any reply with a status of success is a good one.
    pub async fn post(&self, body: Vec<u8>) -> Result<Vec<u8>> {
        Ok(self.send(body, |reply| Ok(reply.to_vec())).await?.0)
    }

    /// The address of the first endpoint, without credentials and query.
    pub fn address(&self) -> &str {
        self.endpoints.first().map_or("", |endpoint| endpoint.name.as_str())
    }

    /// Sends `body` until `parse` takes the reply, and gives the number of attempts beside it.
    async fn send<T>(&self, body: Vec<u8>, parse: Parse<T>) -> Result<(T, u32)> {
        let started = Instant::now();
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let mut route = Route::new(&self.endpoints, first, started);
        let mut attempts = 0;
        loop {
            let (index, ready) = route.next(Instant::now());
            tokio::time::sleep_until(ready.into()).await;
            attempts += 1;
            let error = match self.attempt(&self.endpoints[index], body.clone(), parse).await {
                Ok(reply) => return Ok((reply, attempts)),
                Err(error) => error,
            };
            if !error.is_retryable() {
                return Err(error);
            }
            let asked = error.retry_after();
            let too_long = asked.is_some_and(|asked| asked > self.options.longest_retry_after);
            if attempts > self.options.max_retries || too_long {
                return Err(Error::GaveUp { attempts, last: Box::new(error) });
            }
            let wait = self.wait(&mut route, index, asked);
            tracing::warn!(attempts, wait_s = wait.as_secs_f64(), "{error}, trying again");
        }
    }

    /// Plans the next attempt at an endpoint that failed.
    fn wait(&self, route: &mut Route<'_>, index: usize, asked: Option<Duration>) -> Duration {
        let ClientOptions { first_wait, longest_wait, .. } = self.options;
        let failures = route.failed(index);
        let backoff = retry::backoff(first_wait, longest_wait, failures, fastrand::f64());
        let now = Instant::now();
        let wait = asked.map_or(backoff, |asked| {
            self.endpoints[index].hold(now + asked);
            // Somewhat later than asked, so that not all of us come back at once.
            asked + first_wait.mul_f64(fastrand::f64())
        });
        route.wait(index, now, wait);
        wait
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
        let response = request.send().await.map_err(|error| self.transport(endpoint, error))?;
        if !response.status().is_success() {
            return Err(self.refused(endpoint, response).await);
        }
        let body = response.bytes().await.map_err(|error| self.transport(endpoint, error))?;
        parse(&body).map_err(|why| Error::BadReply { url: url(), why: self.presentable(&why) })
    }

    /// What went wrong below HTTP's own statuses.
    fn transport(&self, endpoint: &Endpoint, error: reqwest::Error) -> Error {
        let url = endpoint.name.clone();
        if error.is_timeout() {
            return Error::Timeout { url, timeout: self.options.timeout };
        }
        let unsendable = error.is_builder();
        let why = with_causes(&error.without_url());
        if unsendable {
            return Error::Setup { why: self.presentable(&why) };
        }
        Error::Connection { url, why: self.presentable(&why) }
    }

    /// A status other than success, with the server's words.
    async fn refused(&self, endpoint: &Endpoint, response: Response) -> Error {
        let status = response.status();
        let retry_after = retry::retry_after(response.headers(), SystemTime::now());
        let body = response.text().await.unwrap_or_default();
        let message = match serde_json::from_str(&body) {
            Ok(value) => chat::error_message(&value),
            Err(_) => body,
        };
        let message = match message.trim() {
            "" => status.canonical_reason().unwrap_or("no reason given").to_owned(),
            message => self.presentable(message),
        };
        Error::Status { url: endpoint.name.clone(), status: status.as_u16(), message, retry_after }
    }

    /// A server's words on one line, without the key, and not too many of them.
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
