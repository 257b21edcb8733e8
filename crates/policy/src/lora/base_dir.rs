//! The folder of an adapter's base model, on disk or from the hub.

use std::path::{Path, PathBuf};

use super::base::base_model_with;
use crate::error::Result;
use crate::hub;

/// The folder of the base model, if `dir` is an adapter without a merged model.
///
/// `base_model_name_or_path` is a path, relative to the working directory or to the adapter's folder, or a name on
/// the hub.
///
/// # Errors
/// [`Error::AdapterBase`](crate::Error::AdapterBase) if the base model is missing or an adapter itself, and
/// [`Error::Adapter`](crate::Error::Adapter) if it is not set.
pub fn base_model_dir(dir: &Path) -> Result<Option<PathBuf>> {
    base_model_with(dir, |named| hub::resolve(named, None))
}
