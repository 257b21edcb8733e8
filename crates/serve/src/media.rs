//! Loads the images of requests: from `data:` URLs, an allowed folder, or allowed hosts.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use embodied_r_vision::{EmbeddingCache, image_file};
use image::RgbImage;
use reqwest::redirect::Policy;
use reqwest::{Client, Url};

use crate::error::{Error, Result};
use crate::refusal::Refusal;

/// The size limit of an image file.
const MAX_BYTES: u64 = 32 << 20;

/// The timeout for fetching an image.
const FETCH_TIMEOUT: Duration = Duration::from_secs(20);

/// The image URLs that requests may use besides `data:` URLs. By default none.
#[derive(Debug, Clone, Default)]
pub struct MediaOptions {
    /// The folder for `file:` URLs.
    pub folder: Option<PathBuf>,
    /// The hosts for `http:` and `https:` URLs.
    pub domains: Vec<String>,
}

/// Loads images, and encodes them through the embedding cache.
#[derive(Debug)]
pub(crate) struct Media {
    pub(crate) embedding_cache: Arc<EmbeddingCache>,
    folder: Option<PathBuf>,
    domains: Vec<String>,
    client: Client,
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
        let client = Client::builder().redirect(Policy::none()).timeout(FETCH_TIMEOUT);
        let client = client.pool_max_idle_per_host(0).build();
        Ok(Self {
            embedding_cache,
            folder: options.folder.map(real).transpose()?,
            domains: options.domains,
            client: client.map_err(|source| Error::Client { source })?,
        })
    }

    /// The bytes of the image at `url`, from the field `param` of a request.
    pub(crate) async fn bytes(&self, param: &str, url: &str) -> Result<Vec<u8>, Refusal> {
        let refuse = |message: String| Refusal::about(param, format!("`{param}` {message}"));
        if let Some(data) = url.strip_prefix("data:") {
            return inline(data).map_err(refuse);
        }
        let hint = "send a `data:` URL with the image in base64";
        let url =
            Url::parse(url).map_err(|error| refuse(format!("is not a URL: {error}; {hint}")))?;
        match url.scheme() {
            "file" => self.file(&url).map_err(refuse),
            "http" | "https" => self.fetched(url).await.map_err(refuse),
            other => Err(refuse(format!("is a `{other}:` URL; {hint}"))),
        }
    }

    fn file(&self, url: &Url) -> Result<Vec<u8>, String> {
        let Some(folder) = &self.folder else {
            let message = "is a local file, which this server does not read";
            return Err(format!("{message} (`--allowed-local-media-path` allows a directory)"));
        };
        // Missing files and files outside the folder give the same error, so that clients cannot probe the disk.
        let outside = || "is not a file in the directory that this server may read".to_owned();
        let path = url.to_file_path().map_err(|()| outside())?;
        let path = std::fs::canonicalize(path).map_err(|_| outside())?;
        if !path.starts_with(folder) || !path.is_file() {
            return Err(outside());
        }
        read(&path).map_err(|_| outside())
    }

    async fn fetched(&self, url: Url) -> Result<Vec<u8>, String> {
        let host = url.host_str().unwrap_or_default().to_owned();
        if !self.domains.iter().any(|domain| domain.eq_ignore_ascii_case(&host)) {
            let message = format!("is at `{host}`, which is not an allowed host");
            return Err(format!("{message} (`--allowed-media-domains` allows hosts)"));
        }
        let failed = |error: reqwest::Error| {
            format!("cannot be fetched from `{host}`: {}", error.without_url())
        };
        let mut response = self.client.get(url).send().await.map_err(failed)?;
        if !response.status().is_success() {
            return Err(format!("cannot be fetched: `{host}` returned {}", response.status()));
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() as u64 > MAX_BYTES {
                return Err(format!("has more than {MAX_BYTES} bytes"));
            }
        }
        Ok(bytes)
    }
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

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > MAX_BYTES {
        true => Err(std::io::ErrorKind::FileTooLarge.into()),
        false => Ok(bytes),
    }
}

/// Decodes an image file's bytes.
pub(crate) fn decode(param: &str, bytes: &[u8]) -> Result<RgbImage, Refusal> {
    image_file::from_bytes(bytes)
        .map_err(|error| Refusal::about(param, format!("`{param}`: {error}")))
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
}
