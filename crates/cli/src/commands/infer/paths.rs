//! Files beside an output.

use std::path::{Path, PathBuf};

/// The path `output` with `ending` appended to its file name.
pub(crate) fn beside(output: &Path, ending: &str) -> PathBuf {
    let mut name = output.file_name().unwrap_or_default().to_owned();
    name.push(ending);
    output.with_file_name(name)
}
