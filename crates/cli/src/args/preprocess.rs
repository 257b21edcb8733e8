//! Arguments of `embodied-r preprocess`.

/// Unify VSI-Bench and UrbanVideo-Bench into one question set, split by scene.
#[derive(Debug, clap::Args)]
pub(crate) struct PreprocessArgs {}
