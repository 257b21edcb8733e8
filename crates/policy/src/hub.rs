//! Resolves a model or a data set: a local path, or a name on the Hugging Face hub.
//!
//! Downloads go to the cache of `huggingface_hub`, which finds them too. A file resumes where an earlier download ended, and
//! is complete and intact when it has its name. The environment variables are those of `huggingface_hub`: `HF_HOME`,
//! `HF_HUB_CACHE`, `HF_ENDPOINT`, `HF_TOKEN`, `HF_TOKEN_PATH` and `HF_HUB_OFFLINE`.

mod cache;
mod checksum;
mod client;
mod dataset;
mod download;
mod environment;
mod fault;
mod name;
mod progress;
mod repository;
mod selection;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use embodied_r_files::create_parents;
use serde_json::Value;

use crate::config::CONFIG_FILE;
use crate::error::{Error, Result};
use crate::gguf;
use crate::lora;
use crate::weights::{INDEX_FILE, SINGLE_FILE};
use cache::{RepoCache, is_relative};
use client::{Client, RemoteFile};
use download::Download;
use environment::Environment;
pub use fault::HubFault;
use name::{Name, Part, has_quantization};
pub use progress::DownloadProgress;
use repository::Repository;
pub use selection::Needs;
use selection::{Selection, is_decoder, select};

/// The wait before the first retry.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// [`Hub::resolve`] of a decoder, without showing progress.
///
/// # Errors
/// As [`Hub::resolve`].
pub fn resolve(model: &str, revision: Option<&str>) -> Result<PathBuf> {
    Hub::from_env().resolve(model, revision, Needs::Decoder)
}

/// The hub and its local cache.
pub struct Hub {
    environment: Environment,
    progress: Arc<dyn DownloadProgress>,
    first_wait: Duration,
}

impl Hub {
    /// As the environment variables say.
    pub fn from_env() -> Self {
        let environment = Environment::new(|name| std::env::var(name).ok());
        Self { environment, progress: Arc::new(()), first_wait: FIRST_WAIT }
    }

    /// Reports downloads to `progress`.
    pub fn with_progress(self, progress: Arc<dyn DownloadProgress>) -> Self {
        Self { progress, ..self }
    }

    /// The local path of a model: `model` itself if it is a folder or a GGUF file, else the cached files of a name on
    /// the hub at `revision` (a branch, tag or commit; default `main`).
    ///
    /// A name is `org/name`, `org/name/file.gguf`, or `org/name:Q4_K_M` for the GGUF file with that quantization.
    /// `org/name` is a folder with safetensors, a LoRA adapter, or the repository's only GGUF file. The base model of an
    /// adapter is downloaded too. A complete model in the cache is used without checking the hub for updates.
    ///
    /// # Errors
    /// [`Error::NoSuchModel`] if `model` is neither, [`Error::NotAModelFile`], [`Error::HubOffline`] if it is not cached and downloads are
    /// forbidden, [`Error::Hub`] if the download fails, [`Error::AdapterBase`] if an adapter's base is none of these.
    pub fn resolve(&self, model: &str, revision: Option<&str>, needs: Needs) -> Result<PathBuf> {
        let found = self.find(model, revision, needs)?;
        if needs != Needs::Adapter {
            // So that a base model that is missing is an error here, and its download is shown.
            lora::base_model_with(&found, |base| self.find(base, None, needs))?;
        }
        Ok(found)
    }

    /// [`Self::resolve`] without the base model of an adapter.
    fn find(&self, model: &str, revision: Option<&str>, needs: Needs) -> Result<PathBuf> {
        let path = Path::new(model);
        if path.is_dir() || gguf::is_gguf(path) {
            return Ok(path.to_owned());
        }
        if path.is_file() {
            return Err(Error::NotAModelFile { path: path.to_owned() });
        }
        let unknown = || Error::NoSuchModel { model: model.to_owned() };
        let name = Name::parse(model).ok_or_else(unknown)?;
        let revision = revision.unwrap_or("main");
        let cached = self.cached(name, revision, needs)?;
        if let Some(path) = cached.filter(|path| self.has_vision_encoder(path, needs)) {
            return Ok(path);
        }
        if self.environment.offline {
            let (model, revision) = (model.to_owned(), revision.to_owned());
            return Err(Error::HubOffline { model, revision });
        }
        in_runtime(|| self.fetch(name, revision, needs)).map_err(|fault| Error::Hub {
            model: model.to_owned(),
            revision: revision.to_owned(),
            fault: Box::new(fault),
        })
    }

    /// The path of a model in the cache.
    fn cached(&self, name: Name<'_>, revision: &str, needs: Needs) -> Result<Option<PathBuf>> {
        let repo = Repository::model(name.repo);
        let cache = RepoCache::new(&self.environment.cache, repo);
        let Some(dir) = cache.snapshot_of(revision) else { return Ok(None) };
        match name.part {
            Part::File(file) => Ok(Some(dir.join(file)).filter(|path| path.is_file())),
            Part::Quantization(wanted) => {
                let mut found = files_below(&dir)?;
                found.retain(|file| is_decoder(file) && has_quantization(file, wanted));
                Ok((found.len() == 1).then(|| dir.join(&found[0])))
            }
            Part::Whole if needs == Needs::Adapter => {
                let files = [lora::CONFIG_FILE, lora::WEIGHTS_FILE];
                Ok(files.iter().all(|file| dir.join(file).exists()).then_some(dir))
            }
            // Weights are downloaded last, so a snapshot with all weights is complete.
            Part::Whole if has_weights(&dir)? => Ok(dir.join(CONFIG_FILE).exists().then_some(dir)),
            Part::Whole if lora::holds_adapter(&dir) => Ok(Some(dir)),
            // The repository may have others, from which the user must choose.
            Part::Whole if self.environment.offline => gguf::find(&dir),
            Part::Whole => Ok(None),
        }
    }

    /// Whether a cached model is all that is needed. Only the hub knows if a GGUF file has a vision encoder.
    fn has_vision_encoder(&self, path: &Path, needs: Needs) -> bool {
        let known = needs != Needs::VisionEncoder || self.environment.offline;
        known || path.is_dir() || !matches!(gguf::find_mmproj(path), Ok(None))
    }

    async fn fetch(
        &self,
        name: Name<'_>,
        revision: &str,
        needs: Needs,
    ) -> Result<PathBuf, HubFault> {
        let client = Client::new(&self.environment, self.first_wait)?;
        let repo = Repository::model(name.repo);
        let listing = client.list(repo, revision, &*self.progress).await?;
        let Selection { files, gguf } = select(&listing.files(), name, needs)?;
        let cache = RepoCache::new(&self.environment.cache, repo);
        let dir = cache.snapshot(&listing.commit);
        for file in &files {
            if !dir.join(file).exists() {
                let file = client.file(repo, &listing.commit, file);
                self.fetch_file(&client, &cache, &file).await?;
            }
        }
        cache.set_revision(revision, &listing.commit)?;
        Ok(gguf.map_or_else(|| dir.clone(), |file| dir.join(file)))
    }

    /// Downloads a file of a commit, unless another commit has the same.
    async fn fetch_file(
        &self,
        client: &Client,
        cache: &RepoCache,
        file: &RemoteFile<'_>,
    ) -> Result<(), HubFault> {
        let RemoteFile { repo, commit, name, .. } = *file;
        if !is_relative(name) {
            let why = format!("`{name}` is no path in a repository");
            return Err(HubFault::Listing { why });
        }
        let progress = &*self.progress;
        let metadata = client.metadata(file, progress).await?;
        let (blob, partial) = (cache.blob(&metadata.etag), cache.partial(&metadata.etag));
        create_parents(&blob)?;
        let _lock = cache.lock(&metadata.etag, name, progress)?;
        if !blob.exists() {
            tracing::info!(
                repo = repo.name,
                file = name,
                size = metadata.size,
                "downloading from the hub"
            );
            let download = Download { client, progress, file, metadata: &metadata };
            download.run(&partial, &blob).await?;
        }
        cache.link(commit, name, &metadata.etag)
    }
}

/// The result of a download. The caller may be inside an async runtime, in which another one must not block: a thread has
/// it.
fn in_runtime<F: Future<Output = Result<PathBuf, HubFault>>>(
    download: impl FnOnce() -> F + Send,
) -> Result<PathBuf, HubFault> {
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| HubFault::Network { why: error.to_string() })?;
        runtime.block_on(download())
    };
    let done = std::thread::scope(|scope| scope.spawn(run).join());
    done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Whether a folder has all its weight files.
fn has_weights(dir: &Path) -> Result<bool> {
    if dir.join(SINGLE_FILE).exists() {
        return Ok(true);
    }
    let index = dir.join(INDEX_FILE);
    if !index.exists() {
        return Ok(false);
    }
    let text = std::fs::read(&index).map_err(Error::io("read", &index))?;
    let value: Value = serde_json::from_slice(&text).map_err(Error::json(&index))?;
    let shards: BTreeSet<&str> = value["weight_map"]
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(_, file)| file.as_str())
        .collect();
    Ok(!shards.is_empty() && shards.iter().all(|shard| dir.join(shard).exists()))
}

/// The files in a folder and its subfolders, relative to it.
fn files_below(dir: &Path) -> Result<Vec<String>> {
    let (mut files, mut folders) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).map_err(Error::io("read", &folder))? {
            let path = entry.map_err(Error::io("read", &folder))?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.is_file() {
                let file = path.strip_prefix(dir).unwrap_or(&path);
                files.push(file.to_string_lossy().into_owned());
            }
        }
    }
    Ok(files)
}
