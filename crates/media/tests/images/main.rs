//! The images and videos of a run: decoded by several ranks, and encoded once.

#![allow(clippy::unwrap_used)]

mod ranks;
mod shared_decoding;
mod store;
#[path = "../../../vision/tests/parity/test_image.rs"]
mod test_image;

use std::path::{Path, PathBuf};

/// A small vision-language model.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../vision/tests/fixtures/nested")
}
