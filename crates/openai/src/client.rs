//! Sending a request until it is answered or cannot be.

use std::time::{Duration, Instant, SystemTime};

use reqwest::Response;

use crate::chat::{self, ChatReply, ChatRequest, Meaning, Parsed};
use crate::endpoint::Endpoint;
use crate::error::{Deadline, Error, Result, with_causes};
use crate::key::ApiKey;
use crate::pool::{Patience, Place, Pool, Route, Verdict};
use crate::retry;

/// A longer message of a server is cut to this many characters.
const MESSAGE_CHARS: usize = 500;

/// Reads a reply's body, or says in a line what is wrong with it.
type Parse<T> = fn(&[u8]) -> Result<T, String>;

/// How a [`Client`] reaches its servers.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// Base URLs of servers that hold the same model, such as `http://localhost:8000/v1`. With
    /// `#weight=2` behind it one gets twice the requests of one without, whose weight is 1.
    pub base_urls: Vec<String>,
    /// Sent as a bearer token to every base URL.
    pub api_key: Option<ApiKey>,
    /// The most requests on their way at a time, split over the servers by weight; a server that is
    /// overrun gets fewer. `usize::MAX` sets no bound but the servers' own.
    pub concurrency: usize,
    /// The longest time for one attempt, from connecting to the reply's last byte.
    pub timeout: Duration,
    /// The longest time to reach a server.
    pub connect_timeout: Duration,
    /// The longest time from sending a request to the reply's first byte, which most servers send
    /// when the whole reply is there.
    pub first_byte_timeout: Duration,
    /// How often a request is sent again after its first attempt. Attempts that met a server with too
    /// much to do (429) are not counted until they have taken [`ClientOptions::longest_retry_after`].
    pub max_retries: u32,
    /// The first wait of the exponential back-off.
    pub first_wait: Duration,
    /// The longest wait of the exponential back-off.
    pub longest_wait: Duration,
    /// The longest `Retry-After` that is waited for; a request fails where every server asks for more.
    pub longest_retry_after: Duration,
}

impl ClientOptions {
    /// Defaults for a large model: 10 s to connect, 10 minutes an attempt, 5 retries, waits from 1 s to
    /// 30 s, and no bound on requests at a time.
    pub fn new(base_urls: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            base_urls: base_urls.into_iter().map(Into::into).collect(),
            api_key: None,
            concurrency: usize::MAX,
            timeout: Duration::from_secs(600),
            connect_timeout: Duration::from_secs(10),
            first_byte_timeout: Duration::from_secs(600),
            max_retries: 5,
            first_wait: Duration::from_secs(1),
            longest_wait: Duration::from_secs(30),
            longest_retry_after: Duration::from_secs(600),
        }
    }
}

/// The attempts at one request.
#[derive(Debug, Default)]
struct Tries {
    /// How often it was sent.
    sent: u32,
    /// Failures that count against the retries.
    counted: u32,
    /// When it was first told that there is too much to do.
    overrun_since: Option<Instant>,
    /// Why the last attempt failed.
    last: Option<Error>,
}

impl Tries {
    fn failed(&mut self, error: &Error, patience: Duration) {
        let waited = match error.is_overrun() {
            true => self.overrun_since.get_or_insert_with(Instant::now).elapsed(),
            false => patience,
        };
        self.counted += u32::from(waited >= patience);
    }

    /// The end: why the last attempt failed, or else why there was none.
    fn give_up(self, error: Error) -> Error {
        let last = match error {
            Error::Unavailable { .. } if self.last.is_none() => return error,
            Error::Unavailable { .. } => self.last.unwrap_or(error),
            other => other,
        };
        Error::GaveUp { attempts: self.sent, last: Box::new(last) }
    }
}

/// A client of one or several servers with the same model. Share it by reference or `Arc`: its
/// connections, whose turn it is, and what is known of the servers are common to all its requests.
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
            .connect_timeout(options.connect_timeout)
            .user_agent(concat!("embodied-r/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| Error::Setup { why: with_causes(&error) })?;
        let patience = Patience {
            first_wait: options.first_wait,
            longest_wait: options.longest_wait,
            longest_hold: options.longest_retry_after,
            max_retries: options.max_retries,
        };
        let pool =
            Box::new(Pool::new(endpoints.collect::<Result<_>>()?, options.concurrency, patience));
        Ok(Self { http, pool, options: Box::new(options.clone()) })
    }

    /// Sends `request` until it is answered, fails for good, or the retries are used up.
    ///
    /// The endpoint changes with every request, and after a failure to one that may be used sooner;
    /// the request waits only where none may be used now. A reply in which the model refuses, or
    /// that was cut off, is a reply ([`ChatReply::ending`](crate::ChatReply::ending)).
    ///
    /// # Errors
    /// [`Error::GaveUp`] after the last retry, [`Error::Unavailable`] where other requests have found
    /// all servers dead meanwhile, any other as soon as it happens.
    pub async fn chat(&self, request: &ChatRequest) -> Result<ChatReply> {
        let body = serde_json::to_vec(request).map_err(Error::Request)?;
        let started = Instant::now();
        let (parsed, attempts) = self.send(body, chat::parse).await?;
        let Parsed { text, finish_reason, refusal, usage } = parsed;
        let elapsed = started.elapsed();
        Ok(ChatReply { text, finish_reason, refusal, usage, attempts, elapsed })
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
        self.pool.endpoints().first().map_or("", |endpoint| endpoint.name.as_str())
    }

    /// Sends `body` until `parse` takes the reply, and gives the number of attempts beside it.
    async fn send<T>(&self, body: Vec<u8>, parse: Parse<T>) -> Result<(T, u32)> {
        let mut route = self.pool.route();
        let mut tries = Tries::default();
        loop {
            let place = match self.pool.place(&route).await {
                Ok(place) => place,
                Err(error) => return Err(tries.give_up(error)),
            };
            tries.sent += 1;
            let attempt = self.attempt(place.endpoint(), body.clone(), parse).await;
            let error = match attempt {
                Ok(reply) => {
                    place.tell(Verdict::Good);
                    return Ok((reply, tries.sent));
                }
                Err(error) => error,
            };
            if matches!(error, Error::Status { status: 401 | 404, .. }) && place.bench() {
                tracing::warn!("{error}; it is not used any more");
                place.tell(Verdict::Alive);
                continue;
            }
            if !error.is_retryable() {
                place.tell(Verdict::Alive);
                return Err(error);
            }
            self.put_off(&mut route, place, &error);
            tries.failed(&error, self.options.longest_retry_after);
            let last = tries.counted > self.options.max_retries;
            if last {
                return Err(tries.give_up(error));
            }
            tracing::warn!(attempts = tries.sent, "{error}, trying again");
            tries.last = Some(error);
        }
    }

    /// Plans the next attempt at an endpoint that failed.
    fn put_off(&self, route: &mut Route, place: Place<'_>, error: &Error) {
        let ClientOptions { first_wait, longest_wait, .. } = *self.options;
        let (index, now) = (place.index(), Instant::now());
        let asked = error.retry_after();
        if let Some(asked) = asked {
            place.hold(now + asked);
        }
        let verdict = match error {
            error if error.is_overrun() => Verdict::Overrun,
            Error::Connection { why, .. } => Verdict::Unreachable(why.clone()),
            Error::Timeout { deadline: deadline @ Deadline::Connect, .. } => {
                Verdict::Unreachable(deadline.to_string())
            }
            other => Verdict::Failed(other.to_string()),
        };
        let still_dead = place.tell(verdict);
        let failures = route.failed(index, still_dead);
        let wait = match asked {
            // Somewhat later than asked, so that not all of us come back at once.
            Some(asked) => asked + first_wait.mul_f64(fastrand::f64()),
            None => retry::backoff(first_wait, longest_wait, failures, fastrand::f64()),
        };
        route.wait(index, now + wait);
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
                let (url, deadline) = (url(), Deadline::FirstByte);
                return Err(Error::Timeout { url, deadline, timeout: first_byte });
            }
        };
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
            let (deadline, timeout) = match error.is_connect() {
                true => (Deadline::Connect, self.options.connect_timeout),
                false => (Deadline::Whole, self.options.timeout),
            };
            return Error::Timeout { url, deadline, timeout };
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
        let (message, meaning) = match serde_json::from_str(&body) {
            Ok(value) => (chat::error_message(&value), chat::error_meaning(&value)),
            Err(_) => (body, Meaning::Status),
        };
        let message = match message.trim() {
            "" => status.canonical_reason().unwrap_or("no reason given").to_owned(),
            message => self.presentable(message),
        };
        let url = endpoint.name.clone();
        match meaning {
            Meaning::Refused if status.is_client_error() => Error::Refused { url, why: message },
            Meaning::OutOfQuota => Error::OutOfQuota { url, why: message },
            _ => Error::Status { url, status: status.as_u16(), message, retry_after },
        }
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
