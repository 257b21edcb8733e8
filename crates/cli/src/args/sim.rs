//! Arguments of `embodied-r sim`.

/// Make rooms, videos, questions and text to train on.
#[derive(Debug, clap::Args)]
pub(crate) struct SimArgs {}
