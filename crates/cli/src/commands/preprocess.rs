//! `embodied-r preprocess`.

use crate::args::preprocess::PreprocessArgs;
use crate::exit::Status;

/// Unify VSI-Bench and UrbanVideo-Bench into one question set, split by scene.
pub(crate) fn run(_args: PreprocessArgs) -> anyhow::Result<Status> {
    anyhow::bail!("`embodied-r preprocess` is not there yet")
}
