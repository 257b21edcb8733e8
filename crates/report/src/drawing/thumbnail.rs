//! Images in a page.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use image::codecs::jpeg::JpegEncoder;
use image::{ImageReader, Limits};

/// The longer side of an image in a page, in pixels: a JPEG of about 15 KB.
const MAX_SIDE: u32 = 400;
const QUALITY: u8 = 80;

/// An image as JPEG, shrunk.
#[derive(Debug)]
pub(super) struct Thumbnail {
    width: u32,
    height: u32,
    jpeg: Vec<u8>,
}

impl Thumbnail {
    /// The image in a file; `None` if it cannot be read.
    pub(super) fn read(path: &Path) -> Option<Self> {
        let mut reader = ImageReader::open(path).ok()?.with_guessed_format().ok()?;
        reader.limits(Limits::default());
        let image = reader.decode().ok()?;
        let (width, height) = (image.width(), image.height());
        let shrunk = match width.max(height) > MAX_SIDE {
            true => image.thumbnail(MAX_SIDE, MAX_SIDE),
            false => image,
        };
        let mut jpeg = Vec::new();
        let encoder = JpegEncoder::new_with_quality(&mut jpeg, QUALITY);
        shrunk.to_rgb8().write_with_encoder(encoder).ok()?;
        Some(Self { width, height, jpeg })
    }

    /// Width and height of the file's image, in pixels.
    pub(super) fn size(&self) -> (f64, f64) {
        (f64::from(self.width), f64::from(self.height))
    }

    pub(super) fn data_uri(&self) -> String {
        format!("data:image/jpeg;base64,{}", BASE64.encode(&self.jpeg))
    }
}
