//! Data sets on the hub.

use std::path::{Path, PathBuf};

use super::cache::RepoCache;
use super::client::Client;
use super::fault::HubFault;
use super::name::{Name, Part};
use super::repository::{Repository, RepositoryKind};
use super::{Hub, in_runtime};
use crate::error::Error;

impl Hub {
    /// The local folder of a data set: `dataset` itself if it is a folder, else the cached files of `org/name` at
    /// `revision`. Downloads `first`, then the files that `needed` says after reading it at the given path: patterns, in
    /// which `*` stands for any text within a component of a path. The hub is asked for updates; offline, the folder has
    /// what was downloaded before.
    ///
    /// # Errors
    /// Those of `needed`; [`Error::NoSuchDataset`] if `dataset` is neither, [`Error::HubOffline`] if it is not cached and
    /// downloads are forbidden, [`Error::Hub`] if the download fails.
    pub fn resolve_dataset<E: From<Error>>(
        &self,
        dataset: &str,
        revision: Option<&str>,
        first: &str,
        needed: impl FnOnce(&Path) -> Result<Vec<String>, E>,
    ) -> Result<PathBuf, E> {
        if Path::new(dataset).is_dir() {
            return Ok(PathBuf::from(dataset));
        }
        let name = Name::parse(dataset).filter(|name| name.part == Part::Whole);
        let unknown = || Error::NoSuchDataset { dataset: dataset.to_owned() };
        let repo =
            Repository { kind: RepositoryKind::Dataset, name: name.ok_or_else(unknown)?.repo };
        let revision = revision.unwrap_or("main");
        if self.environment.offline {
            let cached = RepoCache::new(&self.environment.cache, repo).snapshot_of(revision);
            let missing =
                || Error::HubOffline { model: dataset.to_owned(), revision: revision.to_owned() };
            return Ok(cached.filter(|dir| dir.join(first).exists()).ok_or_else(missing)?);
        }
        let failed = |fault| Error::Hub {
            model: dataset.to_owned(),
            revision: revision.to_owned(),
            fault: Box::new(fault),
        };
        let fetch = |wanted: &(dyn Fn(&str) -> bool + Sync)| {
            in_runtime(|| self.fetch_files(repo, revision, wanted)).map_err(failed)
        };
        let dir = fetch(&|file| file == first)?;
        if !dir.join(first).exists() {
            let fault = HubFault::NoFile { file: first.to_owned(), available: Vec::new() };
            return Err(failed(fault).into());
        }
        let patterns = needed(&dir.join(first))?;
        Ok(fetch(&|file| patterns.iter().any(|pattern| matches(pattern, file)))?)
    }

    /// Downloads the files of a repository that are `wanted`.
    async fn fetch_files(
        &self,
        repo: Repository<'_>,
        revision: &str,
        wanted: &(dyn Fn(&str) -> bool + Sync),
    ) -> Result<PathBuf, HubFault> {
        let client = Client::new(&self.environment, self.first_wait)?;
        let listing = client.list(repo, revision, &*self.progress).await?;
        let cache = RepoCache::new(&self.environment.cache, repo);
        let dir = cache.snapshot(&listing.commit);
        for file in listing.files().into_iter().filter(|file| wanted(file)) {
            if !dir.join(file).exists() {
                let file = client.file(repo, &listing.commit, file);
                self.fetch_file(&client, &cache, &file).await?;
            }
        }
        cache.set_revision(revision, &listing.commit)?;
        Ok(dir)
    }
}

/// Whether a path matches a pattern, component by component.
fn matches(pattern: &str, path: &str) -> bool {
    let (pattern, path): (Vec<&str>, Vec<&str>) =
        (pattern.split('/').collect(), path.split('/').collect());
    pattern.len() == path.len()
        && pattern.iter().zip(path).all(|(pattern, part)| matches_part(pattern, part))
}

fn matches_part(pattern: &str, part: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == part };
    let Some(part) = part.strip_prefix(start) else { return false };
    let ends = (0..=part.len()).filter(|at| part.is_char_boundary(*at));
    ends.into_iter().any(|at| matches_part(rest, &part[at..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_text_within_a_component() {
        for (pattern, path, expected) in [
            ("meta/info.json", "meta/info.json", true),
            ("data/chunk-*/file-*.parquet", "data/chunk-000/file-012.parquet", true),
            ("data/chunk-*/file-*.parquet", "data/chunk-000/a/file-012.parquet", false),
            ("data/*", "data/a/b", false),
            ("data/*.parquet", "data/x.parquet.lock", false),
            ("videos/front/*", "videos/wrist/a", false),
            ("*", "", true),
        ] {
            assert_eq!(matches(pattern, path), expected, "{pattern} {path}");
        }
    }
}
