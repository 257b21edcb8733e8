//! Arguments of `embodied-r keyframes`.

/// Show which frames of a video are key frames, and why.
#[derive(Debug, clap::Args)]
pub(crate) struct KeyframesArgs {}
