//! Whether an adapter was trained on a base model.

use std::path::Path;

use super::{BASE_FINGERPRINT, WEIGHTS_FILE};
use crate::error::{Error, Result};
use crate::fingerprint::weights_fingerprint;
use crate::weights::WeightFile;

/// Checks that the model in `base` is the one that the adapter in `dir` was trained on, if the adapter's weight file records
/// its fingerprint, as this project writes it. Reads all weights of the base model.
///
/// # Errors
/// [`Error::AdapterBase`] for another model; a file cannot be read.
pub fn check_base(dir: &Path, base: &Path) -> Result<()> {
    let file = WeightFile::open(&dir.join(WEIGHTS_FILE))?;
    match file.metadata(BASE_FINGERPRINT) {
        Some(recorded) if recorded != weights_fingerprint(base)? => Err(Error::AdapterBase {
            dir: dir.to_owned(),
            base: base.display().to_string(),
            fault: "its weights are not those that the adapter was trained on".to_owned(),
        }),
        _ => Ok(()),
    }
}
