//! Loads the images of requests: from `data:` URLs, an allowed folder, or allowed hosts.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use embodied_r_vision::{EmbeddingCache, image_file};
use reqwest::redirect::Policy;
use reqwest::{Client, Url};
use tokio::io::AsyncReadExt as _;
use tokio::sync::Semaphore;

use crate::budget::{Budget, Reserved};
use crate::error::{Error, Result};
use crate::refusal::Refusal;

/// The size limit of an image file.
const MAX_BYTES: u64 = 32 << 20;

/// The number of images that are fetched at a time.
const MAX_FETCHES: usize = 32;

/// The image URLs that requests may use besides `data:` URLs.
#[derive(Debug, Clone)]
pub struct MediaOptions {
    /// The folder for `file:` URLs.
    pub folder: Option<PathBuf>,
    /// The hosts for `http:` and `https:` URLs.
    pub domains: Vec<String>,
    /// How long a host may take to send an image.
    pub fetch_timeout: Duration,
}

impl MediaOptions {
    /// Checks the hosts.
    ///
    /// # Errors
    /// [`Error::MediaHost`] for a host that no URL could have.
    pub fn check(&self) -> Result<()> {
        let is_host = |host: &String| {
            let url = Url::parse(&format!("http://{host}/"));
            url.is_ok_and(|url| url.host_str().is_some_and(|own| own.eq_ignore_ascii_case(host)))
        };
        match self.domains.iter().find(|host| !is_host(host)) {
            Some(host) => Err(Error::MediaHost(host.clone())),
            None => Ok(()),
        }
    }
}

/// Loads images, and encodes them through the embedding cache.
#[derive(Debug)]
pub(crate) struct Media {
    pub(crate) embedding_cache: Arc<EmbeddingCache>,
    folder: Option<PathBuf>,
    domains: Vec<String>,
    pub(crate) fetch_timeout: Duration,
    client: Client,
    /// Images that are fetched at a time, each over a connection of its own.
    fetches: Semaphore,
    /// Pixels that are decoded at a time.
    pub(crate) pixels: Budget,
    /// Images that are decoded and encoded at a time.
    pub(crate) workers: Arc<Semaphore>,
}

/// The memory of a request's body and image files.
pub(crate) struct RequestMemory<'a> {
    pub(crate) budget: &'a Budget,
    pub(crate) reserved: &'a mut Reserved,
    /// Bytes reserved so far.
    pub(crate) bytes: u64,
}

impl RequestMemory<'_> {
    fn add(&mut self, bytes: u64) -> Result<(), Refusal> {
        self.bytes += bytes;
        self.budget.grow(self.reserved, self.bytes)
    }
}

impl Media {
    /// # Errors
    /// The folder does not exist, or the HTTP client cannot be set up.
    pub(crate) fn new(embedding_cache: Arc<EmbeddingCache>, options: MediaOptions) -> Result<Self> {
        let real = |folder: PathBuf| {
            std::fs::canonicalize(&folder).map_err(|source| Error::Io { path: folder, source })
        };
        // Redirects could lead to hosts that are not allowed. Connections are not reused: the host may close an idle
        // one just as the next request is sent.
        let client = Client::builder().redirect(Policy::none()).timeout(options.fetch_timeout);
        let client = client.pool_max_idle_per_host(0).build();
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Ok(Self {
            embedding_cache,
            folder: options.folder.map(real).transpose()?,
            domains: options.domains,
            fetch_timeout: options.fetch_timeout,
            client: client.map_err(|source| Error::Client { source })?,
            fetches: Semaphore::new(MAX_FETCHES),
            pixels: Budget::new(image_file::MAX_PIXELS),
            workers: Arc::new(Semaphore::new(threads)),
        })
    }

    /// The bytes of the image at `url`, from the field `param` of a request.
    pub(crate) async fn bytes(
        &self,
        param: &str,
        url: String,
        memory: &mut RequestMemory<'_>,
    ) -> Result<Vec<u8>, Refusal> {
        let refuse = |message: String| Refusal::about(param, format!("`{param}` {message}"));
        if let Some(data) = url.strip_prefix("data:") {
            // The body, of which it is a part, is in memory already.
            return inline(data).map_err(refuse);
        }
        let hint = "send a `data:` URL with the image in base64";
        let url =
            Url::parse(&url).map_err(|error| refuse(format!("is not a URL: {error}; {hint}")))?;
        match url.scheme() {
            "file" => {
                let path = self.path(&url).map_err(refuse)?;
                memory.add(path.metadata().map_or(0, |it| it.len().min(MAX_BYTES)))?;
                read(&path).await.map_err(refuse)
            }
            "http" | "https" => self.fetched(url, refuse, memory).await,
            other => Err(refuse(format!("is a `{other}:` URL; {hint}"))),
        }
    }

    /// The path of a file in the allowed folder.
    fn path(&self, url: &Url) -> Result<PathBuf, String> {
        let Some(folder) = &self.folder else {
            let message = "is a local file, which this server does not read";
            return Err(format!("{message} (`--allowed-local-media-path` allows a directory)"));
        };
        let path = url.to_file_path().map_err(|()| outside())?;
        let path = std::fs::canonicalize(path).map_err(|_| outside())?;
        match path.starts_with(folder) && path.is_file() {
            true => Ok(path),
            false => Err(outside()),
        }
    }

    async fn fetched(
        &self,
        url: Url,
        refuse: impl Fn(String) -> Refusal,
        memory: &mut RequestMemory<'_>,
    ) -> Result<Vec<u8>, Refusal> {
        let host = url.host_str().unwrap_or_default().to_owned();
        if !self.domains.iter().any(|domain| domain.eq_ignore_ascii_case(&host)) {
            let message = format!("is at `{host}`, which is not an allowed host");
            return Err(refuse(format!("{message} (`--allowed-media-domains` allows hosts)")));
        }
        let failed = |error: reqwest::Error| match error.is_timeout() {
            true => {
                let seconds = self.fetch_timeout.as_secs();
                refuse(format!("took longer than {seconds} s at `{host}` (`--timeout-media`)"))
            }
            false => refuse(format!("cannot be fetched from `{host}`: {}", error.without_url())),
        };
        // The semaphore is never closed.
        let _slot = self.fetches.acquire().await.map_err(Refusal::failed)?;
        let mut response = self.client.get(url).send().await.map_err(failed)?;
        if !response.status().is_success() {
            let status = response.status();
            return Err(refuse(format!("cannot be fetched: `{host}` returned {status}")));
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if (bytes.len() + chunk.len()) as u64 > MAX_BYTES {
                return Err(refuse(too_large()));
            }
            memory.add(chunk.len() as u64)?;
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }
}

/// Missing files and files outside the folder give the same error, so that clients cannot probe the disk.
fn outside() -> String {
    "is not a file in the directory that this server may read".to_owned()
}

fn too_large() -> String {
    format!("is too large: it has more than {MAX_BYTES} bytes")
}

/// The bytes of a `data:` URL, given without its scheme.
fn inline(data: &str) -> Result<Vec<u8>, String> {
    let Some((head, text)) = data.split_once(',') else {
        return Err("is a `data:` URL without data".to_owned());
    };
    if !head.to_ascii_lowercase().ends_with(";base64") {
        return Err("is a `data:` URL that is not in base64".to_owned());
    }
    BASE64_STANDARD.decode(text.trim()).map_err(|error| format!("is not valid base64: {error}"))
}

/// Reads a file; it stops soon after the client has disconnected.
async fn read(path: &Path) -> Result<Vec<u8>, String> {
    let file = tokio::fs::File::open(path).await.map_err(|_| outside())?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).await.map_err(|_| outside())?;
    match bytes.len() as u64 > MAX_BYTES {
        true => Err(too_large()),
        false => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_url_is_decoded_from_base64() {
        assert_eq!(inline("image/png;base64,AQID"), Ok(vec![1, 2, 3]));
        assert!(inline("image/png,abc").unwrap_err().contains("not in base64"));
        assert!(inline("image/png;base64").unwrap_err().contains("without data"));
        assert!(inline("image/png;base64,#").unwrap_err().contains("not valid base64"));
    }

    #[test]
    fn an_allowed_host_that_no_url_can_have_is_refused() {
        let check = |host: &str| {
            let domains = vec![host.to_owned()];
            MediaOptions { folder: None, domains, fetch_timeout: Duration::from_secs(1) }.check()
        };
        for host in ["example.org", "EXAMPLE.org", "127.0.0.1", "[::1]", "localhost"] {
            assert!(check(host).is_ok(), "{host}");
        }
        for host in ["", "http://example.org", "example.org:80", "a/b", "a b", "user@host"] {
            let message = check(host).unwrap_err().to_string();
            assert!(message.starts_with(&format!("`{host}` is not a host")), "{message}");
        }
    }
}
