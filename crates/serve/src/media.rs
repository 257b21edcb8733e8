//! The pictures that requests name: in the request itself, in a folder, or elsewhere, as far as that is allowed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use embodied_r_vision::{Gallery, picture};
use image::RgbImage;
use reqwest::redirect::Policy;
use reqwest::{Client, Url};

use crate::error::{Error, Result};
use crate::refusal::Refusal;

/// Most bytes of a picture's file.
const MOST_BYTES: u64 = 32 << 20;

/// Longest time to fetch a picture.
const FETCH_TIMEOUT: Duration = Duration::from_secs(20);

/// Which pictures a request may name beside those that it brings along as `data:` URLs. By default none.
#[derive(Debug, Clone, Default)]
pub struct MediaOptions {
    /// The folder of files that a `file:` URL may name.
    pub folder: Option<PathBuf>,
    /// Hosts that `http:` and `https:` URLs may name.
    pub domains: Vec<String>,
}

/// Looks at pictures for requests.
#[derive(Debug)]
pub(crate) struct Media {
    pub(crate) gallery: Arc<Gallery>,
    folder: Option<PathBuf>,
    domains: Vec<String>,
    client: Client,
}

impl Media {
    /// # Errors
    /// The folder is not there, or no client can be made.
    pub(crate) fn new(gallery: Arc<Gallery>, options: MediaOptions) -> Result<Self> {
        let real = |folder: PathBuf| {
            std::fs::canonicalize(&folder).map_err(|source| Error::Io { path: folder, source })
        };
        // A redirection would lead to hosts that nobody has allowed. A connection serves one picture: a
        // kept one may be closed by its host just as the next request is on its way.
        let client = Client::builder().redirect(Policy::none()).timeout(FETCH_TIMEOUT);
        let client = client.pool_max_idle_per_host(0).build();
        Ok(Self {
            gallery,
            folder: options.folder.map(real).transpose()?,
            domains: options.domains,
            client: client.map_err(|source| Error::Client { source })?,
        })
    }

    /// The bytes of the picture at `url`, which the field `param` of a request names.
    pub(crate) async fn bytes(&self, param: &str, url: &str) -> Result<Vec<u8>, Refusal> {
        let refuse = |told: String| Refusal::about(param, format!("`{param}` {told}"));
        if let Some(data) = url.strip_prefix("data:") {
            return inline(data).map_err(refuse);
        }
        let want = "want a `data:` URL with the picture in base64";
        let url = Url::parse(url).map_err(|error| refuse(format!("is no URL: {error}, {want}")))?;
        match url.scheme() {
            "file" => self.file(&url).map_err(refuse),
            "http" | "https" => self.fetched(url).await.map_err(refuse),
            other => Err(refuse(format!("is a `{other}:` URL, {want}"))),
        }
    }

    fn file(&self, url: &Url) -> Result<Vec<u8>, String> {
        let Some(folder) = &self.folder else {
            let told = "is a file, and this server reads none";
            return Err(format!("{told} (`--allowed-local-media-path` names a folder)"));
        };
        // What is not there and what is elsewhere look alike, so that nobody can feel their way about.
        let outside = || "is no file in the folder that this server reads from".to_owned();
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
            let told = format!("is at `{host}`, and this server fetches nothing from there");
            return Err(format!("{told} (`--allowed-media-domains` names hosts)"));
        }
        let failed = |error: reqwest::Error| {
            format!("cannot be fetched from `{host}`: {}", error.without_url())
        };
        let mut response = self.client.get(url).send().await.map_err(failed)?;
        if !response.status().is_success() {
            return Err(format!("cannot be fetched: `{host}` says {}", response.status()));
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() as u64 > MOST_BYTES {
                return Err(format!("has more than {MOST_BYTES} bytes"));
            }
        }
        Ok(bytes)
    }
}

/// The picture in a `data:` URL, behind its scheme.
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
    std::fs::File::open(path)?.take(MOST_BYTES + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > MOST_BYTES {
        true => Err(std::io::ErrorKind::FileTooLarge.into()),
        false => Ok(bytes),
    }
}

/// The picture in a file's bytes.
pub(crate) fn decoded(param: &str, bytes: &[u8]) -> Result<RgbImage, Refusal> {
    picture::from_bytes(bytes).map_err(|error| Refusal::about(param, format!("`{param}`: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_comes_along_in_base64() {
        assert_eq!(inline("image/png;base64,AQID"), Ok(vec![1, 2, 3]));
        assert!(inline("image/png,abc").unwrap_err().contains("not in base64"));
        assert!(inline("image/png;base64").unwrap_err().contains("without data"));
        assert!(inline("image/png;base64,#").unwrap_err().contains("not valid base64"));
    }
}
