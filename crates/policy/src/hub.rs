//! Resolves a model: a local path, or a name on the Hugging Face hub.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hf_hub::api::tokio::{ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};
use serde_json::Value;

use crate::config::CONFIG_FILE;
use crate::error::{Error, Result};
use crate::gguf;
use crate::weights::{INDEX_FILE, SINGLE_FILE};

/// The local path of a model: `model` itself if it is a folder or a GGUF file, else the cached snapshot of `org/name`
/// from the hub at `revision` (a branch, tag or commit; default `main`).
///
/// A complete snapshot in the cache is used without checking the hub for updates. Only the configuration, the
/// tokenizer and the safetensors are downloaded. `HF_HOME`, `HF_ENDPOINT`, `HF_TOKEN` and `HF_HUB_OFFLINE` work as in
/// `transformers`.
///
/// # Errors
/// [`Error::NoSuchModel`] if `model` is neither, [`Error::HubOffline`] if it is not cached and downloads are
/// forbidden, [`Error::Hub`] if the download fails.
pub fn resolve(model: &str, revision: Option<&str>) -> Result<PathBuf> {
    Hub::from_env().resolve(model, revision)
}

const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The hub and its local cache.
struct Hub {
    endpoint: Option<String>,
    cache: Cache,
    token: Option<String>,
    offline: bool,
}

impl Hub {
    fn from_env() -> Self {
        let variable = |name| std::env::var(name).ok().filter(|value: &String| !value.is_empty());
        let cache = Cache::from_env();
        let offline = variable("HF_HUB_OFFLINE").map(|value| value.to_ascii_lowercase());
        Self {
            endpoint: variable("HF_ENDPOINT").map(|url| url.trim_end_matches('/').to_owned()),
            token: variable("HF_TOKEN").or_else(|| cache.token()),
            cache,
            offline: matches!(offline.as_deref(), Some("1" | "true" | "yes" | "on")),
        }
    }

    fn resolve(&self, model: &str, revision: Option<&str>) -> Result<PathBuf> {
        let path = Path::new(model);
        if path.is_dir() || gguf::is_gguf(path) {
            return Ok(path.to_owned());
        }
        if !is_hub_name(model) {
            return Err(Error::NoSuchModel { model: model.to_owned() });
        }
        let revision = revision.unwrap_or("main");
        if let Some(dir) = self.cached(model, revision)? {
            return Ok(dir);
        }
        if self.offline {
            return Err(Error::HubOffline {
                model: model.to_owned(),
                revision: revision.to_owned(),
            });
        }
        self.fetch(model, revision)
    }

    /// The folder of a complete snapshot in the cache.
    fn cached(&self, model: &str, revision: &str) -> Result<Option<PathBuf>> {
        let cache = self.cache.repo(repo(model, revision));
        // A snapshot folder is named after its commit; branches and tags are files that contain the commit.
        let by_commit = cache.pointer_path(revision);
        let dir = match cache.get(CONFIG_FILE) {
            Some(config) => config.parent().map(Path::to_owned),
            None => Some(by_commit).filter(|dir| dir.join(CONFIG_FILE).exists()),
        };
        let Some(dir) = dir else { return Ok(None) };
        // Weights are downloaded last, so a snapshot with all weights is complete.
        Ok(has_weights(&dir)?.then_some(dir))
    }

    fn fetch(&self, model: &str, revision: &str) -> Result<PathBuf> {
        let failed = |source| Error::Hub {
            model: model.to_owned(),
            revision: revision.to_owned(),
            source: Box::new(source),
        };
        let mut builder = ApiBuilder::from_cache(self.cache.clone())
            .with_progress(std::io::stderr().is_terminal())
            .with_token(self.token.clone());
        if let Some(endpoint) = &self.endpoint {
            builder = builder.with_endpoint(endpoint.clone());
        }
        let api = builder.build().map_err(failed)?.repo(repo(model, revision));
        // The caller may be inside an async runtime, in which another one must not block: use a thread.
        let fetched = std::thread::scope(|scope| scope.spawn(|| fetch_files(&api, model)).join());
        match fetched {
            Ok(dir) => dir.map_err(failed),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

fn repo(model: &str, revision: &str) -> Repo {
    Repo::with_revision(model.to_owned(), RepoType::Model, revision.to_owned())
}

/// Whether `model` has the form `org/name` of the hub.
fn is_hub_name(model: &str) -> bool {
    let part = |part: &str| {
        let letters = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        !part.is_empty() && part.bytes().all(letters) && !part.starts_with(['.', '-'])
    };
    model.split_once('/').is_some_and(|(org, name)| part(org) && part(name))
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

fn fetch_files(api: &ApiRepo, model: &str) -> Result<PathBuf, ApiError> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let info = api.info().await?;
        let files = needed(info.siblings.into_iter().map(|file| file.rfilename).collect());
        let mut dir = PathBuf::new();
        // If the branch has moved since an earlier, interrupted download, the first round mixes two commits and
        // updates the reference to the newer one; the second round then completes its snapshot.
        for _ in 0..2 {
            let mut dirs = BTreeSet::new();
            for file in &files {
                tracing::info!(model, file, "downloading from the Hugging Face Hub");
                dirs.extend(get(api, file).await?.parent().map(Path::to_owned));
            }
            let one = dirs.len() <= 1;
            dir = dirs.pop_last().unwrap_or(dir);
            if one {
                break;
            }
        }
        Ok(dir)
    })
}

/// Downloads one file, with retries after network errors that resume the partial download.
async fn get(api: &ApiRepo, file: &str) -> Result<PathBuf, ApiError> {
    let mut tries = 3;
    loop {
        tries -= 1;
        match api.get(file).await {
            Err(ApiError::RequestError(fault))
                if tries > 0 && !fault.status().is_some_and(|status| status.is_client_error()) =>
            {
                tracing::warn!(file, %fault, "download failed, retrying");
                tokio::time::sleep(RETRY_AFTER).await;
            }
            done => return done,
        }
    }
}

/// The files to download. Weights are last, so that a snapshot with all weights is complete.
fn needed(all: Vec<String>) -> Vec<String> {
    let single = all.iter().any(|file| file == SINGLE_FILE);
    let weights = |file: &str| match single {
        true => file == SINGLE_FILE,
        false => file.starts_with("model-") && file.ends_with(".safetensors"),
    };
    let small = |file: &str| {
        let text = file.ends_with(".json") || file.ends_with(".jinja") || file == "merges.txt";
        let unused_index = file.starts_with("pytorch_model") || (single && file == INDEX_FILE);
        text && !file.contains('/') && !unused_index
    };
    let (mut files, rest): (Vec<_>, Vec<_>) = all.into_iter().partition(|file| small(file));
    files.extend(rest.into_iter().filter(|file| weights(file)));
    files
}
