//! The download of one file: it resumes, and gets its name when size and hash are those that the hub announced.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use reqwest::header::CONTENT_RANGE;
use reqwest::{Response, StatusCode};

use super::checksum::Checksum;
use super::client::{Client, Metadata, RemoteFile};
use super::fault::HubFault;
use super::progress::DownloadProgress;

/// So many new bytes are progress, after which failures are counted anew.
const PROGRESS_BYTES: u64 = 1 << 20;

/// A file to download.
pub(super) struct Download<'a> {
    pub(super) client: &'a Client,
    pub(super) progress: &'a dyn DownloadProgress,
    pub(super) file: &'a RemoteFile<'a>,
    pub(super) metadata: &'a Metadata,
}

impl Download<'_> {
    /// Continues the partial file at `partial` and renames it to `blob` when it is complete and intact.
    pub(super) async fn run(&self, partial: &Path, blob: &Path) -> Result<(), HubFault> {
        let size = self.metadata.size;
        let mut received = Received::open(partial, self.metadata)?;
        self.progress.start(self.file.name, size, received.length);
        let done = self.receive_all(&mut received).await;
        self.progress.finish();
        done?;
        received.file.sync_all().map_err(HubFault::cache("write", partial))?;
        std::fs::rename(partial, blob).map_err(HubFault::cache("rename to", blob))
    }

    async fn receive_all(&self, received: &mut Received<'_>) -> Result<(), HubFault> {
        let mut patience = self.client.patience();
        // Only bytes that were never there before count as progress, or a server that ignores ranges could go on forever.
        let mut furthest = received.length;
        loop {
            let done = match received.length == self.metadata.size {
                true => received.verify(self.file.name),
                false => self.receive(received).await,
            };
            if received.length >= furthest + PROGRESS_BYTES {
                furthest = received.length;
                patience.renew();
            }
            match done {
                Ok(Outcome::Verified) => return Ok(()),
                Ok(Outcome::Received) => {}
                Err(fault) => patience.after(fault, self.progress).await?,
            }
        }
    }

    /// Appends what is missing.
    async fn receive(&self, received: &mut Received<'_>) -> Result<Outcome, HubFault> {
        let size = self.metadata.size;
        let mut response = match self.client.body(self.file, received.length).await {
            Err(fault @ HubFault::Status { status: StatusCode::RANGE_NOT_SATISFIABLE, .. }) => {
                received.restart()?;
                return Err(fault);
            }
            answer => answer?,
        };
        if received.length > 0 && !continues_at(&response, received.length) {
            received.restart()?;
            if response.status() == StatusCode::PARTIAL_CONTENT {
                let what = "the server sent another range than asked for".to_owned();
                return Err(HubFault::Damaged { file: self.file.name.to_owned(), what });
            }
        }
        let host = response.url().host_str().unwrap_or("?").to_owned();
        loop {
            let piece = response.chunk().await.map_err(|error| HubFault::network(&host, error))?;
            let Some(piece) = piece else { break };
            if received.length + piece.len() as u64 > size {
                received.restart()?;
                let what = format!("it is longer than {size} bytes");
                return Err(HubFault::Damaged { file: self.file.name.to_owned(), what });
            }
            received.append(&piece)?;
            self.progress.position(received.length);
        }
        match received.length {
            length if length == size => Ok(Outcome::Received),
            received => Err(HubFault::Short { file: self.file.name.to_owned(), received, size }),
        }
    }
}

enum Outcome {
    /// All bytes are there.
    Received,
    /// They are the right ones.
    Verified,
}

/// Whether a response is the rest of a file from `offset` on.
fn continues_at(response: &Response, offset: u64) -> bool {
    let range = response.headers().get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
    response.status() == StatusCode::PARTIAL_CONTENT
        && range.is_some_and(|range| range.starts_with(&format!("bytes {offset}-")))
}

/// The bytes that are there.
struct Received<'a> {
    path: &'a Path,
    metadata: &'a Metadata,
    file: File,
    length: u64,
    checksum: Checksum,
}

impl<'a> Received<'a> {
    /// Opens the file at `path`, which an interrupted download may have left.
    fn open(path: &'a Path, metadata: &'a Metadata) -> Result<Self, HubFault> {
        let failed = |error| HubFault::cache("open", path)(error);
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path);
        let file = file.map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        let checksum = Checksum::of(&metadata.etag, metadata.size);
        let mut received = Self { path, metadata, file, length, checksum };
        match length > metadata.size {
            true => received.restart()?,
            false => {
                let read = received.checksum.update_from(&received.file);
                read.map_err(HubFault::cache("read", path))?;
                // What is not hashed is not read, either.
                let end = received.file.seek(SeekFrom::End(0));
                end.map_err(HubFault::cache("read", path))?;
            }
        }
        Ok(received)
    }

    fn restart(&mut self) -> Result<(), HubFault> {
        let failed = |error| HubFault::cache("write", self.path)(error);
        self.file.set_len(0).map_err(failed)?;
        self.file.rewind().map_err(failed)?;
        self.length = 0;
        self.checksum = Checksum::of(&self.metadata.etag, self.metadata.size);
        Ok(())
    }

    fn append(&mut self, piece: &[u8]) -> Result<(), HubFault> {
        self.file.write_all(piece).map_err(HubFault::cache("write", self.path))?;
        self.checksum.update(piece);
        self.length += piece.len() as u64;
        Ok(())
    }

    /// Compares the hash; starts over if it differs.
    fn verify(&mut self, file: &str) -> Result<Outcome, HubFault> {
        let checksum = std::mem::replace(&mut self.checksum, Checksum::Unknown);
        let expected = &self.metadata.etag;
        match checksum.finish() {
            Some(found) if !found.eq_ignore_ascii_case(expected) => {
                self.restart()?;
                let what = format!("its hash is {found}, not {expected}");
                Err(HubFault::Damaged { file: file.to_owned(), what })
            }
            _ => Ok(Outcome::Verified),
        }
    }
}
