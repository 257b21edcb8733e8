//! Loads the images and videos of requests: from `data:` URLs, an allowed folder, or allowed hosts.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use embodied_r_media::embedding_cache::EmbeddingCache;
use embodied_r_media::sampled_video::{FrameSelection, MAX_FRAMES};
use embodied_r_vision::image_file;
use reqwest::redirect::Policy;
use reqwest::{Client, Url};
use tokio::io::AsyncReadExt as _;
use tokio::sync::Semaphore;

use crate::budget::{Budget, Reserved};
use crate::error::{Error, Result};
use crate::refusal::Refusal;
use crate::request::message::{MediaKind, MediaUrl};

/// The size limit of an image file.
const MAX_BYTES: u64 = 32 << 20;

/// The size limit of a video file.
const MAX_VIDEO_BYTES: u64 = 96 << 20;

/// The number of files that are fetched at a time.
const MAX_FETCHES: usize = 32;

/// The URLs of images and videos that requests may use besides `data:` URLs, and what is seen of a video.
#[derive(Debug, Clone)]
pub struct MediaOptions {
    /// The folder for `file:` URLs.
    pub folder: Option<PathBuf>,
    /// The hosts for `http:` and `https:` URLs.
    pub domains: Vec<String>,
    /// How long a host may take to send an image or a video.
    pub fetch_timeout: Duration,
    /// The frames that the model sees of a video.
    pub frames: FrameSelection,
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

/// Loads images and videos, and encodes them through the embedding cache.
#[derive(Debug)]
pub(crate) struct Media {
    pub(crate) embedding_cache: Arc<EmbeddingCache>,
    folder: Option<PathBuf>,
    domains: Vec<String>,
    pub(crate) fetch_timeout: Duration,
    client: Client,
    /// Files that are fetched at a time, each over a connection of its own.
    fetches: Semaphore,
    /// Pixels that are decoded at a time.
    pub(crate) pixels: Budget,
    /// Images and videos that are decoded and encoded at a time.
    pub(crate) workers: Arc<Semaphore>,
    /// Videos that FFmpeg decodes at a time, on several cores each.
    pub(crate) decoders: Arc<Semaphore>,
    pub(crate) frames: FrameSelection,
}

/// A file of a request, which is not decoded yet.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum MediaFile {
    /// Its content.
    Bytes(Vec<u8>),
    /// Its path in the allowed folder.
    Path(PathBuf),
    /// The image files of a video's frames.
    Frames(Vec<Vec<u8>>),
}

/// The memory of a request's body and files.
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
            decoders: Arc::new(Semaphore::new((threads / 2).max(1))),
            frames: options.frames,
        })
    }

    /// The file at a URL of a request.
    pub(crate) async fn file(
        &self,
        MediaUrl { kind, param, url }: MediaUrl,
        memory: &mut RequestMemory<'_>,
    ) -> Result<MediaFile, Refusal> {
        let param = &param;
        let max_bytes = match kind {
            MediaKind::Image => MAX_BYTES,
            MediaKind::Video => MAX_VIDEO_BYTES,
        };
        let refuse = |message: String| Refusal::about(param, format!("`{param}` {message}"));
        if let Some(data) = url.strip_prefix("data:") {
            // The body, of which it is a part, is in memory already.
            return inline(data, kind).map_err(refuse);
        }
        let hint = format!("send a `data:` URL with the {} in base64", kind.name());
        let url =
            Url::parse(&url).map_err(|error| refuse(format!("is not a URL: {error}; {hint}")))?;
        match url.scheme() {
            "file" => {
                let path = self.path(&url).map_err(refuse)?;
                if kind == MediaKind::Video {
                    // FFmpeg reads it.
                    return Ok(MediaFile::Path(path));
                }
                memory.add(path.metadata().map_or(0, |it| it.len().min(max_bytes)))?;
                read(&path, max_bytes).await.map(MediaFile::Bytes).map_err(refuse)
            }
            "http" | "https" => {
                self.fetched(url, max_bytes, refuse, memory).await.map(MediaFile::Bytes)
            }
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
        max_bytes: u64,
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
            if (bytes.len() + chunk.len()) as u64 > max_bytes {
                return Err(refuse(too_large(max_bytes)));
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

fn too_large(max_bytes: u64) -> String {
    format!("is too large: it has more than {max_bytes} bytes")
}

/// The media type of a video that is a list of images, as in vLLM.
const FRAMES_TYPE: &str = "video/jpeg";

/// The file of a `data:` URL, given without its scheme.
fn inline(data: &str, kind: MediaKind) -> Result<MediaFile, String> {
    let Some((head, text)) = data.split_once(',') else {
        return Err("is a `data:` URL without data".to_owned());
    };
    if !head.to_ascii_lowercase().ends_with(";base64") {
        return Err("is a `data:` URL that is not in base64".to_owned());
    }
    let decode = |text: &str| {
        let bytes = BASE64_STANDARD.decode(text.trim());
        bytes.map_err(|error| format!("is not valid base64: {error}"))
    };
    let is_frames = head.split(';').next().is_some_and(|it| it.eq_ignore_ascii_case(FRAMES_TYPE));
    if kind == MediaKind::Image || !is_frames {
        return decode(text).map(MediaFile::Bytes);
    }
    let frames = text.split(',').count();
    if frames > MAX_FRAMES {
        return Err(format!("has {frames} frames, above the limit of {MAX_FRAMES}"));
    }
    text.split(',').map(decode).collect::<Result<_, _>>().map(MediaFile::Frames)
}

/// Reads a file; it stops soon after the client has disconnected.
async fn read(path: &Path, max_bytes: u64) -> Result<Vec<u8>, String> {
    let file = tokio::fs::File::open(path).await.map_err(|_| outside())?;
    let mut bytes = Vec::new();
    file.take(max_bytes + 1).read_to_end(&mut bytes).await.map_err(|_| outside())?;
    match bytes.len() as u64 > max_bytes {
        true => Err(too_large(max_bytes)),
        false => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_url_is_decoded_from_base64() {
        let inline = |data| inline(data, MediaKind::Image);
        assert_eq!(inline("image/png;base64,AQID"), Ok(MediaFile::Bytes(vec![1, 2, 3])));
        assert!(inline("image/png,abc").unwrap_err().contains("not in base64"));
        assert!(inline("image/png;base64").unwrap_err().contains("without data"));
        assert!(inline("image/png;base64,#").unwrap_err().contains("not valid base64"));
    }

    #[test]
    fn the_frames_of_a_data_url_are_separated_by_commas() {
        let frames = MediaFile::Frames(vec![vec![1, 2, 3], vec![4]]);
        assert_eq!(inline("Video/JPEG;base64,AQID,BA==", MediaKind::Video), Ok(frames));
        let whole = inline("video/mp4;base64,AQID", MediaKind::Video);
        assert_eq!(whole, Ok(MediaFile::Bytes(vec![1, 2, 3])));
        let many = format!("video/jpeg;base64,{}", "AQID,".repeat(MAX_FRAMES));
        let message = inline(&many, MediaKind::Video).unwrap_err();
        assert!(message.contains("has 769 frames, above the limit of 768"), "{message}");
        // Another list for an image.
        assert!(inline("video/jpeg;base64,AQID,BA==", MediaKind::Image).is_err());
    }

    #[test]
    fn an_allowed_host_that_no_url_can_have_is_refused() {
        let check = |host: &str| {
            let domains = vec![host.to_owned()];
            let fetch_timeout = Duration::from_secs(1);
            MediaOptions { folder: None, domains, fetch_timeout, frames: FrameSelection::Key }
                .check()
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
