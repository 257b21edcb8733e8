//! The base model of an adapter.

use std::path::{Path, PathBuf};

use super::config::AdapterConfig;
use super::{CONFIG_FILE, WEIGHTS_FILE};
use crate::config::ConfigFault;
use crate::error::{Error, Result};
use crate::{gguf, weights};

/// [`base_model_dir`](super::base_model_dir), with `resolve` for what is not beside the adapter.
pub(crate) fn base_model_with(
    dir: &Path,
    resolve: impl FnOnce(&str) -> Result<PathBuf>,
) -> Result<Option<PathBuf>> {
    if !holds_adapter(dir) {
        return Ok(None);
    }
    let named = AdapterConfig::from_dir(dir)?.base_model.filter(|named| !named.is_empty());
    let Some(named) = named else {
        let missing = ConfigFault::missing("base_model_name_or_path");
        let (path, faults) = (dir.join(CONFIG_FILE), vec![missing.into()]);
        return Err(Error::Adapter { path, faults });
    };
    let failed =
        |fault: String| Error::AdapterBase { dir: dir.to_owned(), base: named.clone(), fault };
    let beside = dir.join(&named);
    let base = match !Path::new(&named).exists() && beside.is_dir() {
        true => beside,
        false => resolve(&named).map_err(|error| failed(error.to_string()))?,
    };
    if holds_adapter(&base) {
        return Err(failed("it is an adapter itself".to_owned()));
    }
    Ok(Some(base))
}

/// Whether `dir` has an adapter and no complete model.
pub(crate) fn holds_adapter(dir: &Path) -> bool {
    dir.join(CONFIG_FILE).is_file() && dir.join(WEIGHTS_FILE).is_file() && !holds_model(dir)
}

/// Whether `dir` has a complete model, or is a model file.
pub(crate) fn holds_model(dir: &Path) -> bool {
    weights::files(dir).is_ok() || gguf::find(dir).is_ok_and(|file| file.is_some())
}
