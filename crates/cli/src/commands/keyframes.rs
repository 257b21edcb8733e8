//! `embodied-r keyframes`.

use crate::args::keyframes::KeyframesArgs;
use crate::exit::Status;

/// Show which frames of a video are key frames, and why.
pub(crate) fn run(_args: KeyframesArgs) -> anyhow::Result<Status> {
    anyhow::bail!("`embodied-r keyframes` is not there yet")
}
