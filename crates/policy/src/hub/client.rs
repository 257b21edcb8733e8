//! Requests to the hub.

use std::time::Duration;

use reqwest::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, ETAG, HeaderMap, HeaderValue, LOCATION, RANGE,
};
use reqwest::{Method, Response, StatusCode, Url, redirect};
use serde::Deserialize;

use super::cache::is_file_name;
use super::environment::Environment;
use super::fault::HubFault;
use super::progress::DownloadProgress;
use super::repository::Repository;

/// Attempts after the first, if a request fails and no new bytes arrive.
const RETRIES: u32 = 4;
/// The longest wait between two attempts.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection on which nothing arrives for so long is lost.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// Largest list of a repository's files, in bytes; thousands of files take less than one megabyte.
const MAX_LISTING_BYTES: usize = 16 << 20;
/// As many as browsers follow.
const MAX_REDIRECTS: usize = 20;

/// A connection to the hub.
pub(super) struct Client {
    http: reqwest::Client,
    endpoint: Url,
    /// The header's value.
    token: Option<HeaderValue>,
    first_wait: Duration,
}

/// The files of a repository at a commit.
#[derive(Debug, Deserialize)]
pub(super) struct Listing {
    #[serde(rename = "sha")]
    pub(super) commit: String,
    siblings: Vec<Sibling>,
}

#[derive(Debug, Deserialize)]
struct Sibling {
    rfilename: String,
}

impl Listing {
    pub(super) fn files(&self) -> Vec<&str> {
        self.siblings.iter().map(|file| file.rfilename.as_str()).collect()
    }
}

/// A file of a commit, and its address.
pub(super) struct RemoteFile<'a> {
    pub(super) repo: Repository<'a>,
    pub(super) commit: &'a str,
    pub(super) name: &'a str,
    url: Url,
}

/// Hash and size of a file.
#[derive(Debug, Clone)]
pub(super) struct Metadata {
    /// SHA-256 of a large file, Git's SHA-1 of a small one.
    pub(super) etag: String,
    pub(super) size: u64,
}

/// Which redirects to follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Redirects {
    /// To the hub itself: renamed repositories.
    Hub,
    /// Also to storage servers.
    All,
}

/// How often a request is tried.
pub(super) struct Patience {
    left: u32,
    wait: Duration,
    first_wait: Duration,
}

impl Patience {
    /// Waits before the next attempt.
    ///
    /// # Errors
    /// `fault`, if another attempt does not help or there were enough.
    pub(super) async fn after(
        &mut self,
        fault: HubFault,
        progress: &dyn DownloadProgress,
    ) -> Result<(), HubFault> {
        if self.left == 0 || !fault.is_transient() {
            return Err(fault);
        }
        self.left -= 1;
        progress.warn(&format!("{fault}; trying again in {:.0?}", self.wait));
        tokio::time::sleep(self.wait).await;
        self.wait = (self.wait * 2).min(LONGEST_WAIT);
        Ok(())
    }

    /// Starts over, since there was progress.
    pub(super) fn renew(&mut self) {
        (self.left, self.wait) = (RETRIES, self.first_wait);
    }
}

impl Client {
    /// `first_wait` is the wait before the first retry, which doubles each time.
    pub(super) fn new(environment: &Environment, first_wait: Duration) -> Result<Self, HubFault> {
        let invalid =
            |why: String| HubFault::Endpoint { endpoint: environment.endpoint.clone(), why };
        let endpoint =
            Url::parse(&environment.endpoint).map_err(|error| invalid(error.to_string()))?;
        if !matches!(endpoint.scheme(), "http" | "https") {
            return Err(invalid("it starts with neither `https://` nor `http://`".to_owned()));
        }
        let bearer = |token: &String| {
            let mut value =
                HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| HubFault::Token)?;
            value.set_sensitive(true);
            Ok::<_, HubFault>(value)
        };
        let http = reqwest::Client::builder()
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .user_agent(concat!("embodied-r/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| HubFault::network("TLS", error))?;
        let token = environment.token.as_ref().map(bearer).transpose()?;
        Ok(Self { http, endpoint, token, first_wait })
    }

    pub(super) fn patience(&self) -> Patience {
        let wait = self.first_wait;
        Patience { left: RETRIES, wait, first_wait: wait }
    }

    /// The files of a repository at `revision`.
    pub(super) async fn list(
        &self,
        repo: Repository<'_>,
        revision: &str,
        progress: &dyn DownloadProgress,
    ) -> Result<Listing, HubFault> {
        let url = self.url(repo.api_segments().chain(["revision", revision]));
        let mut patience = self.patience();
        loop {
            match self.try_list(url.clone(), repo).await {
                Ok(listing) => return Ok(listing),
                Err(fault) => patience.after(fault, progress).await?,
            }
        }
    }

    async fn try_list(&self, url: Url, repo: Repository<'_>) -> Result<Listing, HubFault> {
        let response = self.send(Method::GET, url, None, Redirects::All).await?;
        if response.status() == StatusCode::NOT_FOUND && error_code(&response).is_none() {
            return Err(HubFault::NoRepository);
        }
        let mut response = self.accepted(response, repo, None)?;
        let host = host(response.url());
        let unusable = |why: String| HubFault::Listing { why };
        let mut text = Vec::new();
        while let Some(piece) =
            response.chunk().await.map_err(|error| HubFault::network(&host, error))?
        {
            if text.len() + piece.len() > MAX_LISTING_BYTES {
                return Err(unusable(format!("it is longer than {} MiB", MAX_LISTING_BYTES >> 20)));
            }
            text.extend_from_slice(&piece);
        }
        let listing: Listing =
            serde_json::from_slice(&text).map_err(|error| unusable(error.to_string()))?;
        if !is_file_name(&listing.commit) {
            return Err(unusable(format!("`{}` is no commit", listing.commit)));
        }
        Ok(listing)
    }

    /// The file `name` of a commit.
    pub(super) fn file<'a>(
        &self,
        repo: Repository<'a>,
        commit: &'a str,
        name: &'a str,
    ) -> RemoteFile<'a> {
        let url = self.url(repo.segments().chain(["resolve", commit]).chain(name.split('/')));
        RemoteFile { repo, commit, name, url }
    }

    fn url<'a>(&self, segments: impl Iterator<Item = &'a str>) -> Url {
        let mut url = self.endpoint.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        url
    }

    /// Hash and size of a file.
    pub(super) async fn metadata(
        &self,
        file: &RemoteFile<'_>,
        progress: &dyn DownloadProgress,
    ) -> Result<Metadata, HubFault> {
        let mut patience = self.patience();
        loop {
            match self.try_metadata(file).await {
                Ok(metadata) => return Ok(metadata),
                Err(fault) => patience.after(fault, progress).await?,
            }
        }
    }

    async fn try_metadata(&self, file: &RemoteFile<'_>) -> Result<Metadata, HubFault> {
        let response = self.send(Method::HEAD, file.url.clone(), None, Redirects::Hub).await?;
        let is_elsewhere = response.status().is_redirection();
        let response = match is_elsewhere {
            true => response,
            false => self.accepted(response, file.repo, Some(file.name))?,
        };
        let headers = response.headers();
        let missing = |header| HubFault::Header { file: file.name.to_owned(), header };
        let size = match text(headers, "x-linked-size") {
            Some(size) => Some(size),
            // That of the redirect's own text.
            None if is_elsewhere => None,
            None => text(headers, CONTENT_LENGTH.as_str()),
        };
        let etag = text(headers, "x-linked-etag").or_else(|| text(headers, ETAG.as_str()));
        let etag = etag.map(|etag| etag.trim_start_matches("W/").trim_matches('"'));
        Ok(Metadata {
            etag: etag.filter(|etag| is_file_name(etag)).ok_or(missing("etag"))?.to_owned(),
            size: size.and_then(|size| size.parse().ok()).ok_or(missing("content-length"))?,
        })
    }

    /// The bytes of a file from the offset `from` on, or all if the server ignores ranges.
    pub(super) async fn body(
        &self,
        file: &RemoteFile<'_>,
        from: u64,
    ) -> Result<Response, HubFault> {
        let range = (from > 0).then(|| format!("bytes={from}-"));
        let response = self.send(Method::GET, file.url.clone(), range, Redirects::All).await?;
        self.accepted(response, file.repo, Some(file.name))
    }

    /// Sends a request and follows redirects. No other server gets the token.
    async fn send(
        &self,
        method: Method,
        mut url: Url,
        range: Option<String>,
        redirects: Redirects,
    ) -> Result<Response, HubFault> {
        for _ in 0..MAX_REDIRECTS {
            let mut request = self.http.request(method.clone(), url.clone());
            // Compression would change length and hash.
            request = request.header(ACCEPT_ENCODING, "identity");
            if let Some(range) = &range {
                request = request.header(RANGE, range);
            }
            if let Some(token) = self.token.as_ref().filter(|_| self.is_hub(&url)) {
                request = request.header(AUTHORIZATION, token);
            }
            let response =
                request.send().await.map_err(|error| HubFault::network(&host(&url), error))?;
            let next = match text(response.headers(), LOCATION.as_str()) {
                Some(next) if response.status().is_redirection() => url.join(next).ok(),
                _ => None,
            };
            match next {
                Some(next) if redirects == Redirects::All || self.is_hub(&next) => url = next,
                _ => return Ok(response),
            }
        }
        Err(HubFault::Network { why: format!("`{}` redirects without end", host(&url)) })
    }

    fn is_hub(&self, url: &Url) -> bool {
        url.origin() == self.endpoint.origin()
    }

    /// `response` if it is a success; `file` is what was asked for, if not the list of files.
    fn accepted(
        &self,
        response: Response,
        repo: Repository<'_>,
        file: Option<&str>,
    ) -> Result<Response, HubFault> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let failed = HubFault::Status { host: host(response.url()), status };
        if !self.is_hub(response.url()) {
            return Err(failed);
        }
        let no_file =
            |file: &str| HubFault::NoFile { file: file.to_owned(), available: Vec::new() };
        Err(match (error_code(&response), status, file) {
            (Some("GatedRepo"), ..) => {
                HubFault::Gated { page: self.url(repo.segments()).to_string() }
            }
            (Some("RepoNotFound"), ..) => HubFault::NoRepository,
            (Some("RevisionNotFound"), ..) => HubFault::NoRevision,
            (_, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _) => {
                HubFault::Refused { status, has_token: self.token.is_some() }
            }
            (_, StatusCode::NOT_FOUND, Some(file)) => no_file(file),
            _ => failed,
        })
    }
}

/// What the hub says about a failure.
fn error_code(response: &Response) -> Option<&str> {
    text(response.headers(), "x-error-code")
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// The server of a URL, for messages.
fn host(url: &Url) -> String {
    let port = url.port().map_or(String::new(), |port| format!(":{port}"));
    format!("{}{port}", url.host_str().unwrap_or("?"))
}
