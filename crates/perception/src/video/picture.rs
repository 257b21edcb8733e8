//! One picture file.

use std::path::Path;

use image::{DynamicImage, ImageDecoder, ImageReader, Limits};

use super::limits::{MOST_BYTES_AT_ONCE, MOST_PIXELS};
use crate::error::{Error, Result};

/// Reads the picture at `path`, a PNG or a JPEG whatever its name. One that is too large is refused by
/// its header, before any of it is decoded.
///
/// # Errors
/// [`Error::Io`] and [`Error::Picture`] where it cannot be read, [`Error::TooLarge`] where it has more
/// than [`MOST_PIXELS`](super::MOST_PIXELS).
pub fn picture(path: &Path) -> Result<DynamicImage> {
    let io = || Error::io("read", path);
    let broken = |source| Error::Picture { action: "read", path: path.to_owned(), source };
    if !std::fs::metadata(path).map_err(io())?.is_file() {
        return Err(io()(std::io::Error::other("it is not a regular file")));
    }
    let mut reader = ImageReader::open(path).map_err(io())?;
    let mut limits = Limits::default();
    limits.max_alloc = Some(MOST_BYTES_AT_ONCE);
    reader.limits(limits);
    let decoder = reader.with_guessed_format().map_err(io())?.into_decoder().map_err(broken)?;
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > MOST_PIXELS {
        return Err(Error::TooLarge { path: path.to_owned(), width, height });
    }
    DynamicImage::from_decoder(decoder).map_err(broken)
}
