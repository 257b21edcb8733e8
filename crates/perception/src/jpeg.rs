//! Images as JPEG files, for models on servers.

use image::codecs::jpeg::JpegEncoder;
use image::{ImageResult, RgbImage};

/// Quality of the files, of 100.
pub const QUALITY: u8 = 90;

/// `image` as a JPEG file.
///
/// # Errors
/// A side is 0 or larger than the format allows, 65,535 pixels.
pub fn encode(image: &RgbImage) -> ImageResult<Vec<u8>> {
    let mut bytes = Vec::new();
    image.write_with_encoder(JpegEncoder::new_with_quality(&mut bytes, QUALITY))?;
    Ok(bytes)
}
