//! The model that an adapter's folder stands on.

use std::path::{Path, PathBuf};

use super::config::AdapterConfig;
use super::{AdapterFault, CONFIG_FILE, WEIGHTS_FILE};
use crate::error::{Error, Result};
use crate::{hub, weights};

/// The folder of the base model, if `dir` holds an adapter and no model of its own.
///
/// The base is what `base_model_name_or_path` names: a folder, seen from here or from the adapter's folder, or a name
/// on the hub.
///
/// # Errors
/// [`Error::AdapterBase`] if it is not there or an adapter itself, and [`Error::Adapter`] if it is not named.
pub(crate) fn base_of(dir: &Path) -> Result<Option<PathBuf>> {
    if !holds_adapter(dir) {
        return Ok(None);
    }
    let named = AdapterConfig::from_dir(dir)?.base_model.filter(|named| !named.is_empty());
    let Some(named) = named else {
        let field = "base_model_name_or_path".to_owned();
        let (path, faults) = (dir.join(CONFIG_FILE), vec![AdapterFault::MissingField { field }]);
        return Err(Error::Adapter { path, faults });
    };
    let failed =
        |fault: String| Error::AdapterBase { dir: dir.to_owned(), base: named.clone(), fault };
    let beside = dir.join(&named);
    let base = match !Path::new(&named).exists() && beside.is_dir() {
        true => beside,
        false => hub::resolve(&named, None).map_err(|error| failed(error.to_string()))?,
    };
    if holds_adapter(&base) {
        return Err(failed("it is an adapter itself".to_owned()));
    }
    Ok(Some(base))
}

/// Whether `dir` holds an adapter and no whole model beside it.
pub(crate) fn holds_adapter(dir: &Path) -> bool {
    dir.join(CONFIG_FILE).is_file()
        && dir.join(WEIGHTS_FILE).is_file()
        && weights::files(dir).is_err()
}
